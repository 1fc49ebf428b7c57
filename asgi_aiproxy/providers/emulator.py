"""What a target needs to emulate features that its model lacks (see `asgi_aiproxy.emulation`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.messages import EventFilter, Request, Response

# Sends one more request to the same target with the same key. Raises APIError.
Ask = Callable[[Request], Awaitable[Response]]


class EmulatingFilter(EventFilter, Protocol):
    """Filters the events of a response; `remarks` say what it had to do, for records."""

    remarks: tuple[str, ...]


class EmulatedRequest(msgspec.Struct, frozen=True):
    """A request whose features are emulated.

    - `request`: what is sent; None if the request of the client is sent unchanged.
    - `features`: what is emulated.
    - `make_filter`: makes the filter of the response, for each attempt.
    """

    request: Request | None
    features: tuple[str, ...]
    make_filter: Callable[[Ask], EmulatingFilter]


class Emulator(Protocol):
    """Emulates features for the models of a target."""

    def apply(self, request: Request, principal: str) -> EmulatedRequest | None:
        """The request as it is sent; None if it needs nothing that is emulated. Raises APIError.

        `principal` is the id of the caller.
        """


class EmulationFailedError(APIError):
    """The model's replies could not be used, so the next target may be tried."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            ErrorKind.UPSTREAM,
            f"The model did not reply in the form that was requested, also not when corrected: "
            f"{problem}",
            code="emulation_failed",
            upstream_status=200,
        )
        self.about = RefusalScope.REQUEST  # neither the key nor the provider failed
