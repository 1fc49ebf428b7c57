"""Responses that pass through the filters of hooks before the client is sent any of them.

A chat response of an API that the gateway knows is decoded while it arrives, and what the filters
release is encoded again (`GuardedResponse`). Any other response is held until it is complete; its
texts are checked where they are (`checked_response`), and it is passed on as it was received
unless a text was masked. What holds no text that could be checked is refused: other media, parts
of a document, a coding or character set that is not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from asgi_aiproxy._cancellation import RequestMonitor
from asgi_aiproxy.dialects import binary_events
from asgi_aiproxy.dialects.base import STREAM_TYPES, Dialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.guarded import GuardedTranslator, ResponseRefusedError
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.framing import MAX_FRAME, SSEFramer, encode_frame
from asgi_aiproxy.hooks.base import unchecked_response_error
from asgi_aiproxy.hooks.document_check import check_documents, parse_document
from asgi_aiproxy.messages import EventFilter
from asgi_aiproxy.passthrough.buffered_response import BufferedResponse
from asgi_aiproxy.upstream.base import Headers, UpstreamResponse, header
from asgi_aiproxy.upstream.content_encoding import content_decoder

MAX_HELD = MAX_FRAME  # bytes of a response that is held until it is complete
_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"})
_TEXT = re.compile(
    r"text/.*|application/(?:.*\+)?xml|application/(?:x-)?(?:javascript|yaml|www-form-urlencoded)"
)
_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/stream+json"})
_EVENTS = "text/event-stream"
_FRAMING = frozenset({"content-length", "transfer-encoding", "content-md5", "digest", "etag"})
_PARTIAL = 206


class GuardedResponse:
    """A chat response that is decoded, filtered and encoded again while it arrives.

    `request` is the client's, `dialect` its API and the provider's. `observe` sees the bytes that
    the provider sends, and `on_refusal` the error if the response is refused once it has begun.
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
        on_refusal: Callable[[APIError], None],
    ) -> None:
        kind = media_type(answer.headers)
        streams = kind in STREAM_TYPES
        self.status = answer.status
        headers, self._coding = content_decoder(list(answer.headers), max_decoded=2 * MAX_HELD)
        self.headers: Headers = [pair for pair in headers if pair[0] not in _FRAMING]
        self._answer = answer
        self._translator = GuardedTranslator(
            filters,
            stream=(dialect.framer(kind), dialect.decoder()) if streams else None,
            decode=dialect.decode_response,
            encoder=dialect.encoder(request.request) if streams else None,
            encode=lambda response: dialect.encode_response(response, request.request),
        )
        self._monitor = monitor
        self._observe = observe
        self._on_refusal = on_refusal
        self._first: bytes | None = None
        self._done = False

    async def start(self) -> UpstreamResponse:
        """Wait for the first content that the filters release; return the response to forward.

        Raises APIError if it is refused before that.
        """
        first = b""
        while not (self._translator.started or self._done):
            first += await self._next()
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
            try:
                out = await self._next()
            except ResponseRefusedError as error:
                self._done = True
                self._on_refusal(error)
                return self._translator.fail(error)
            if out:
                return out
        return b""

    async def _next(self) -> bytes:
        """Read some bytes, and return what the filters release."""
        data = await self._answer.read()
        self._monitor.upstream_progressed()
        out, translator = b"", self._translator
        if data:
            self._observe(data)
            for piece in self._decoded(data):
                translator.feed(piece)
            out = await translator.flush()
        if not data or translator.ended:
            self._done = True
            translator.close()
            out += await translator.flush()
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
    kind = media_type(answer.headers)
    if answer.status == _PARTIAL or not _checkable(answer.headers, kind):
        raise unchecked_response_error(f"A response of type {kind[:60] or 'unknown'!r}")
    body, headers = await _read_whole(answer, monitor, observe)
    body = await _checked_body(kind, body, filters)
    headers = [pair for pair in headers if pair[0] not in _FRAMING]
    return BufferedResponse(answer.status, [*headers, ("content-length", str(len(body)))], body)


def media_type(headers: Headers) -> str:
    """The media type of a response, without parameters."""
    return (header(headers, "content-type") or "").partition(";")[0].strip().lower()


def _checkable(headers: Headers, kind: str) -> bool:
    found = re.search(r"charset\s*=\s*\"?([^\s\";]+)", header(headers, "content-type") or "", re.I)
    if found is not None and found[1].lower() not in _CHARSETS:
        return False
    return (
        "json" in kind
        or kind in _LINES
        or kind == binary_events.MEDIA_TYPE
        or bool(_TEXT.fullmatch(kind))
    )


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


async def _checked_body(kind: str, body: bytes, filters: Sequence[EventFilter]) -> bytes:
    """The body with its texts as the filters release them. Raises APIError."""
    if kind == _EVENTS:
        return await _checked_events(body, filters)
    if kind == binary_events.MEDIA_TYPE:
        documents = [_document(text) for text in binary_events.json_texts(body)]
        if await check_documents(filters, documents):
            raise unchecked_response_error("A response whose texts must be masked")
        return body
    lines = body.splitlines(keepends=True) if kind in _LINES else [body]
    documents = [_document(line) for line in lines]
    whole = documents[0] if len(documents) == 1 and isinstance(documents[0], list) else documents
    before = [_encoded(each) for each in documents]
    if not await check_documents(filters, whole):
        return body
    after = [_encoded(each) for each in documents]
    ending = b"\n" if kind in _LINES else b""
    return b"".join(
        line if old == new else new + ending
        for line, old, new in zip(lines, before, after, strict=True)
    )


async def _checked_events(body: bytes, filters: Sequence[EventFilter]) -> bytes:
    framer = SSEFramer()
    frames = framer.frames(body)
    rest = framer.close()
    documents = [_document(frame.data) for frame in frames]
    before = [_encoded(each) for each in documents]
    others = b"\n".join(  # comments and ids
        line for line in body.splitlines() if not line.startswith((b"data", b"event"))
    )
    unframed = [{"comments": others.decode("utf-8", "replace")}, _document(rest or b"")]
    if not await check_documents(filters, [*documents, *unframed]):
        return body
    return b"".join(
        frame.raw if old == new and frame.raw else encode_frame(new, frame.event)
        for frame, old, new in zip(
            frames, before, [_encoded(each) for each in documents], strict=True
        )
    )


class _PlainText(dict[str, Any]):
    """What is not JSON."""


class _JSONText(dict[str, Any]):
    """A document that is one string."""


def _document(data: bytes) -> Any:
    """The JSON value of `data`, or its text, as an object."""
    try:
        value = parse_document(data)
    except (ValueError, UnicodeError):
        return _PlainText(text=data.decode("utf-8", "surrogateescape"))
    return _JSONText(text=value) if isinstance(value, str) else value


def _encoded(document: Any) -> bytes:
    if isinstance(document, _PlainText):
        return str(document["text"]).encode("utf-8", "surrogateescape")
    if isinstance(document, _JSONText):
        document = document["text"]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
