"""Requests to providers and their responses, independent of the HTTP library; the transport
protocol.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from asgi_aiproxy._headers import combine_values
from asgi_aiproxy.errors import ConfigurationError

Headers = Sequence[tuple[str, str]]  # names in lower case; repeated headers are kept

# The maximum size in bytes of a decoded response (content codings removed).
MAX_DECODED = 64 * 1024 * 1024

# Idempotent methods: such a request may be sent again
# (https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# A header's name is a token (https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2).
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Six time limits in seconds; None means no limit.

    All but `total` and `body` end one attempt, not the call. `pool` limits the wait for a free
    connection slot, `connect` the opening of a connection, `first` the time to the first content of
    the response (if it is not streamed: to all of it), `idle` the time between bytes after that,
    `total` the whole call with all its attempts. `body` limits the wait for the client: if no part
    of its request body arrives for that time, it gets a 408 and its connection is closed.
    """

    pool: float = 10.0
    connect: float = 10.0
    first: float | None = 600.0
    idle: float | None = 180.0
    total: float | None = None
    body: float | None = 60.0


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request to a provider. `body` is bytes, a stream that can be sent once, or None.

    `headers` are a tuple if other requests have the same ones: what a transport makes of them may
    be kept for these. (Their number is small: they differ by provider and key.)
    `streamed`: return the response's bytes as soon as they arrive; otherwise small ones may be
    gathered. `raw`: return the bytes and headers as they were sent, including `content-encoding`.
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
        # Without the query, which may contain a secret
        return f"UpstreamRequest({self.method} {self.url.partition('?')[0]})"

    def with_header(self, name: str, value: str) -> UpstreamRequest:
        """Return the same request with one more header."""
        return msgspec.structs.replace(self, headers=[*self.headers, (name, value)])


class UpstreamResponse(Protocol):
    """A response whose body is still arriving."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Headers:
        """The headers; unless the request is `raw`, without `content-encoding`, and the body is
        decoded.
        """

    async def read(self) -> bytes:
        """Return the next bytes of the body; empty at its end. Raises APIError."""

    async def aclose(self) -> None:
        """Release the response. If it was not read to its end, the connection is closed."""


class Transport(Protocol):
    """Sends requests. It keeps no cookies and follows no redirects."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send one request; returns once the response headers have arrived. Raises APIError."""

    async def aclose(self) -> None:
        """Close all connections. A later `send` may open new ones."""


async def fetch(transport: Transport, request: UpstreamRequest, limit: int) -> tuple[int, bytes]:
    """Send a request; returns status and body, of which about `limit` bytes are read.

    Raises APIError.
    """
    response = await transport.send(request)
    try:
        body = bytearray()
        while len(body) < limit and (data := await response.read()):
            body += data
    finally:
        await response.aclose()
    return response.status, bytes(body)


def check_transport(transport: object) -> None:
    """Raise ConfigurationError unless this is a transport or None, which stands for the default."""
    if transport is None:
        return
    name = type(transport).__name__
    if hasattr(transport, "handle_async_request") or hasattr(transport, "cookies"):
        raise ConfigurationError(
            f"transport= is an httpx {name}: pass HttpxTransport(...) with the httpx transport "
            "to use (not a client, which keeps cookies)."
        )
    if not (callable(getattr(transport, "send", None)) and hasattr(transport, "aclose")):
        raise ConfigurationError(
            f"transport= must have the methods send() and aclose(); {name} has not."
        )


def check_timeouts(timeouts: object) -> None:
    """Raise ConfigurationError unless this is a `Timeouts` object or None, which stands for the
    default.
    """
    if timeouts is not None and not isinstance(timeouts, Timeouts):
        raise ConfigurationError(
            f"timeouts= must be a Timeouts object, as in Timeouts(first=30), not {timeouts!r}."
        )


def end_check(answer: UpstreamResponse) -> Callable[[], bool]:
    """Return a function that returns whether the whole response was read; None if that is unknown.

    (It is known if the response's own class has an attribute `ended`. A wrapper that delegates to
    another response may not have passed all of it on.)
    """
    ended: Callable[[], bool] = _unknown
    if hasattr(type(answer), "ended"):
        ended = answer.ended  # type: ignore[attr-defined]
    return ended


def _unknown() -> bool:
    return False


_MAX_AFTER_END = 64 * 1024


async def read_end(answer: UpstreamResponse) -> None:
    """Read what follows the last event of a stream, so that the connection can be used again.

    Some providers leave the connection open, and some keep sending: nothing of that is passed on.
    After 64 KB the rest is left, which closes the connection; the caller limits the time.
    """
    left = _MAX_AFTER_END
    while left > 0 and (data := await answer.read()):
        left -= len(data)


def repeatable(request: UpstreamRequest) -> bool:
    """Return whether a request may be sent again: it is idempotent, and its body is not a
    stream.
    """
    body = request.body
    return request.method in IDEMPOTENT and (body is None or isinstance(body, bytes))


def header(headers: Headers, name: str) -> str | None:
    """Return the value of a header, see `combine_values`; `name` must be in lower case."""
    found: str | None = None
    for key, value in headers:
        if key == name:
            found = value if found is None else combine_values(found, value)
    return found
