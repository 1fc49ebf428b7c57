"""What stands between a call and its providers: limits, asked before it goes out and told after.

A middleware such as `Quota` puts a gate into the scope, under GATE_KEY. Who relays calls asks it
once, when it knows who may serve, and tells it once how the exchange ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from asgi_aiproxy.prices.token_estimate import SentRequest
from asgi_aiproxy.usage.record import UsageRecord

if TYPE_CHECKING:
    from asgi_aiproxy.principal import Principal

logger = logging.getLogger("asgi_aiproxy")

# Where an ASGI scope carries its gate.
GATE_KEY = "asgi_aiproxy.exchange.admission"


class ResponseSample(msgspec.Struct, frozen=True, gc=False):
    """What of an answer went by before it ended: `size` bytes, and a `sample` of them."""

    size: int = 0
    sample: bytes = b""


EMPTY_SAMPLE = ResponseSample()


class AdmissionControl(Protocol):
    """For one exchange.

    One that has an attribute `estimates` which is False admits calls without regard to what they
    ask for: then their bodies need not be inspected for it. One that has a coroutine method
    `extend(record)` is called with the record so far each time a vendor reports usage within an
    open WebSocket session; it raises APIError to end the session.
    """

    async def admit(
        self,
        operation: str,
        targets: Sequence[tuple[str, str]],
        sent: Callable[[], Sequence[SentRequest]] = lambda: (),
    ) -> None:
        """Let a call go out to one of `targets` (provider, model). Raises APIError if it may not.

        Without targets it counts, and costs nothing. `sent` tells what would leave for each of
        them that can serve the call; it is called if that matters.
        """

    def settle(self, record: UsageRecord, passed: ResponseSample = EMPTY_SAMPLE) -> UsageRecord:
        """Book how the exchange ended, admitted or not; returns the record with what it cost.

        `passed` is what to estimate it by, should nobody have counted.
        """


def settle(
    gate: AdmissionControl | None, record: UsageRecord, passed: ResponseSample = EMPTY_SAMPLE
) -> UsageRecord:
    """Book how an exchange ended with its gate, if it has one; returns the record.

    A gate that fails is logged: the exchange has its record, whatever happens.
    """
    if gate is None:
        return record
    try:
        return gate.settle(record, passed)
    except Exception:
        logger.exception("an exchange could not be settled, what it had reserved stays charged")
        return record


def must_inspect(principal: Principal, gate: AdmissionControl | None) -> bool:
    """Whether what a caller may do depends on what its requests ask for: models, or a price."""
    return bool(principal.models) or (gate is not None and getattr(gate, "estimates", True))
