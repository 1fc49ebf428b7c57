"""What goes to a provider and what comes back, whatever library carries it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from asgi_aiproxy._headers import combine_values
from asgi_aiproxy.errors import ConfigurationError

Headers = Sequence[tuple[str, str]]  # names in lower case, repeated ones kept

# Bytes that an answer may be when its content coding is undone.
MAX_DECODED = 64 * 1024 * 1024

# Sent twice, a request of these methods means the same as sent once
# (https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# A header's name is a token (https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2).
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Six limits in seconds; None means no limit. All but `total` and `body` end one attempt, not
    the call.

    `pool` waits for a free connection slot, `connect` for the connection, `first` for the first
    content of the answer (for an answer that is not streamed: all of it), `idle` between bytes
    after that, `total` for the whole call with all its attempts. `body` waits for the client: if
    nothing of its request's body comes for so long, it is answered 408 and its connection closed.
    """

    pool: float = 10.0
    connect: float = 10.0
    first: float | None = 600.0
    idle: float | None = 180.0
    total: float | None = None
    body: float | None = 60.0


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request as it leaves. `body` is bytes, a stream that can be sent once, or None.

    `streamed` asks for the answer as it comes, down to the single byte; otherwise small answers may
    be gathered. `raw` asks for the bytes and headers as they were sent, `content-encoding` and all.
    `proxy` is the URL of an outbound proxy for this request.
    """

    method: str
    url: str
    headers: Headers
    body: bytes | AsyncIterable[bytes] | None = None
    streamed: bool = False
    raw: bool = False
    proxy: str | None = None

    def __repr__(self) -> str:
        return f"Outgoing({self.method} {self.url.partition('?')[0]})"  # no secrets

    def with_header(self, name: str, value: str) -> UpstreamRequest:
        """The same request with one more header."""
        return msgspec.structs.replace(self, headers=[*self.headers, (name, value)])


class UpstreamResponse(Protocol):
    """An answer whose body is still coming."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Headers:
        """The headers; unless `raw` was asked for, `content-encoding` is undone."""

    async def read(self) -> bytes:
        """The next bytes of the body as they come; nothing at its end. Raises APIError."""

    async def aclose(self) -> None:
        """Done with it. In mid-stream the connection is closed now."""


class Transport(Protocol):
    """Sends requests. Keeps no cookies, follows no redirects."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send one request; returns when the head of the answer is in. Raises APIError."""

    async def aclose(self) -> None:
        """Close all connections. A later `send` may open new ones."""


def check_transport(transport: object) -> None:
    """Raise ConfigurationError if that is no transport (or None, which stands for the usual)."""
    if transport is None:
        return
    name = type(transport).__name__
    if hasattr(transport, "handle_async_request") or hasattr(transport, "cookies"):
        raise ConfigurationError(
            f"transport= is an httpx {name}: give HttpxTransport(...) with the transport of httpx "
            f"that it is to use (not a client, which keeps cookies)."
        )
    if not (callable(getattr(transport, "send", None)) and hasattr(transport, "aclose")):
        raise ConfigurationError(f"transport= has send() and aclose(), {name} has not.")


def check_timeouts(timeouts: object) -> None:
    """Raise ConfigurationError unless these are time limits, or None for the usual ones."""
    if timeouts is not None and not isinstance(timeouts, Timeouts):
        raise ConfigurationError(
            f"timeouts= must be a Timeouts object, as in Timeouts(first=30), not {timeouts!r}."
        )


def end_check(answer: UpstreamResponse) -> Callable[[], bool]:
    """Tells whether all of an answer was read, where its class knows, by a method `ended`.

    (The class: one that wraps another's answer may not have given all of it.)
    """
    ended: Callable[[], bool] = _nobody_knows
    if hasattr(type(answer), "ended"):
        ended = answer.ended  # type: ignore[attr-defined]
    return ended


def _nobody_knows() -> bool:
    return False


def repeatable(request: UpstreamRequest) -> bool:
    """Whether a request may be sent once more: it means the same as once, and is still whole."""
    body = request.body
    return request.method in IDEMPOTENT and (body is None or isinstance(body, bytes))


def header(headers: Headers, name: str) -> str | None:
    """The value of a header, see `combined`; `name` in lower case."""
    found: str | None = None
    for key, value in headers:
        if key == name:
            found = value if found is None else combine_values(found, value)
    return found
