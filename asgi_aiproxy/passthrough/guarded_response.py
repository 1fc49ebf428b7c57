"""Responses that pass through the filters of hooks before the client is sent any of them.

A chat response of an API that the gateway knows is decoded while it arrives, and what the filters
release is encoded again (`GuardedResponse`). Any other response is held until it is complete; its
texts are checked where they are (`checked_response`), and it is passed on as it was received
unless a text was masked. What holds no text that could be checked is refused: other media, parts
of a document, a coding or character set that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asgi_aiproxy._cancellation import RequestMonitor
from asgi_aiproxy.dialects.base import STREAM_TYPES, Dialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.guarded import (
    GuardedTranslator,
    ResponseRefusedError,
    unchecked_response_error,
)
from asgi_aiproxy.exchange.guarded_content import (
    checked_body,
    checked_error,
    is_checkable,
    media_type,
)
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.framing import MAX_FRAME
from asgi_aiproxy.messages import EventFilter
from asgi_aiproxy.passthrough.buffered_response import BufferedResponse
from asgi_aiproxy.upstream.base import Headers, UpstreamResponse, header
from asgi_aiproxy.upstream.content_encoding import content_decoder

MAX_HELD = MAX_FRAME  # bytes of a response that is held until it is complete
_FRAMING = frozenset({"content-length", "transfer-encoding", "content-md5", "digest", "etag"})
_PARTIAL = 206


class GuardedResponse:
    """A chat response that is decoded, filtered and encoded again while it arrives.

    `request` is the client's, `dialect` its API and the provider's. `observe` sees the bytes that
    the provider sends, and `on_failure` the error that ends a response once it has begun: the
    filters refuse it, or it is an error of the provider, whose texts are checked as well.
    """

    def __init__(
        self,
        answer: UpstreamResponse,
        request: GatewayRequest,
        dialect: Dialect,
        filters: Sequence[EventFilter],
        *,
        monitor: RequestMonitor,
        observe: Callable[[bytes], None],
        on_failure: Callable[[APIError], None],
    ) -> None:
        kind = media_type(header(answer.headers, "content-type") or "")
        streams = kind in STREAM_TYPES
        self.status = answer.status
        headers, self._coding = content_decoder(list(answer.headers), max_decoded=2 * MAX_HELD)
        self.headers: Headers = [pair for pair in headers if pair[0] not in _FRAMING]
        self._answer = answer
        self._filters = filters
        self._translator = GuardedTranslator(
            filters,
            stream=(dialect.framer(kind), dialect.decoder()) if streams else None,
            decode=dialect.decode_response,
            encoder=dialect.encoder(request.request) if streams else None,
            encode=lambda response: dialect.encode_response(response, request.request),
        )
        self._monitor = monitor
        self._observe = observe
        self._on_failure = on_failure
        self._first: bytes | None = None
        self._done = False

    async def start(self) -> UpstreamResponse:
        """Wait for the first content that the filters release; return the response to forward.

        Raises APIError if it is refused before that.
        """
        first = b""
        while not (self._translator.started or self._done):
            first += await self._translate(await self._next())
        self._first = first
        if self._done:
            length = ("content-length", str(len(first)))
            return BufferedResponse(self.status, [*self.headers, length], first)
        return self

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end."""
        first, self._first = self._first, b""
        if first:
            return first
        while not self._done:
            data = await self._next()
            try:
                out = await self._translate(data)
            except APIError as error:
                self._done = True
                self._on_failure(error)
                return self._translator.fail(error)
            if out:
                return out
        return b""

    async def _next(self) -> bytes:
        data = await self._answer.read()
        self._monitor.upstream_progressed()
        return data

    async def _translate(self, data: bytes) -> bytes:
        """Return what the filters release. Raises the APIError that ends the response."""
        out, translator = b"", self._translator
        try:
            if data:
                self._observe(data)
                for piece in self._decoded(data):
                    translator.feed(piece)
                out = await translator.flush()
            if not data or translator.ended:
                self._done = True
                translator.close()
                out += await translator.flush()
        except ResponseRefusedError:
            raise
        except APIError as error:
            raise await checked_error(self._filters, error) from None
        return out

    def _decoded(self, data: bytes) -> list[bytes]:
        if self._coding is None:
            return [data]
        self._coding.feed(data)
        pieces = []
        while piece := self._coding.next():
            pieces.append(piece)
        return pieces

    async def aclose(self) -> None:
        """Close the response."""
        await self._answer.aclose()


async def checked_response(
    answer: UpstreamResponse,
    filters: Sequence[EventFilter],
    *,
    monitor: RequestMonitor,
    observe: Callable[[bytes], None],
) -> BufferedResponse:
    """Read a response to its end and check its texts, in whatever format it is.

    Raises APIError if it is refused, too long, or of a kind that cannot be checked.
    """
    kind = header(answer.headers, "content-type") or ""
    if answer.status == _PARTIAL or not is_checkable(kind):
        what = media_type(kind)[:60] or "unknown"
        raise unchecked_response_error(f"A response of type {what!r}")
    body, headers = await _read_whole(answer, monitor, observe)
    body = await checked_body(filters, kind, body)
    headers = [pair for pair in headers if pair[0] not in _FRAMING]
    return BufferedResponse(answer.status, [*headers, ("content-length", str(len(body)))], body)


async def _read_whole(
    answer: UpstreamResponse, monitor: RequestMonitor, observe: Callable[[bytes], None]
) -> tuple[bytes, Headers]:
    """Read a response to its end, decode it and close it. Raises APIError."""
    headers, coding = content_decoder(list(answer.headers), max_decoded=MAX_HELD)
    body = bytearray()
    try:
        while data := await answer.read():
            monitor.upstream_progressed()
            observe(data)
            if coding is None:
                body += data
            else:
                coding.feed(data)
                while piece := coding.next():
                    body += piece
            if len(body) > MAX_HELD:
                raise APIError(
                    ErrorKind.UPSTREAM,
                    f"The response is longer than {MAX_HELD} bytes, so it cannot be checked.",
                )
        if coding is not None:
            coding.close()
    finally:
        await answer.aclose()
    return bytes(body), headers
