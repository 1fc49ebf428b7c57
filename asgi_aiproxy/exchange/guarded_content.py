"""Check content that is not decoded into events with the filters of hooks: bodies and errors.

Theory of operation. A body is taken apart into JSON documents, one for each line or event if its
media type says so, and anything that is not JSON is one text. `check_documents` passes all texts
through the filters; a body without changes is returned as it was received. Of an error of a
provider, the message and the codes are texts, and the body that a client of the same API would be
sent is a document: what a filter masks is masked, and what it refuses is withheld, so that the
client learns the status and that there was a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from asgi_aiproxy._asgi import off_loop
from asgi_aiproxy.dialects import binary_events
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.exchange.document_check import check_documents, parse_document
from asgi_aiproxy.exchange.guarded import ResponseRefusedError, unchecked_response_error
from asgi_aiproxy.framing import SSEFramer, encode_frame
from asgi_aiproxy.messages import EventFilter

_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"})
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE)
_TEXT = re.compile(
    r"text/.*|application/(?:.*\+)?xml|application/(?:x-)?(?:javascript|yaml|www-form-urlencoded)"
)
_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/stream+json"})
_EVENTS = "text/event-stream"
_MEDIA = re.compile(r"(?:audio|image|video)/.*|application/(?:octet-stream|zip)")
_WITHHELD = "The provider's error message is withheld: it holds text that is not allowed."


def media_type(content_type: str) -> str:
    """The media type of a `content-type` header, in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_media(content_type: str) -> bool:
    """Whether a content type is that of audio, images or other bytes that hold no text."""
    return _MEDIA.fullmatch(media_type(content_type)) is not None


def is_checkable(content_type: str) -> bool:
    """Whether a body of this content type holds texts that can be checked."""
    found, kind = _CHARSET.search(content_type), media_type(content_type)
    if found is not None and found[1].lower() not in _CHARSETS:
        return False
    return (
        "json" in kind
        or kind in _LINES
        or kind == binary_events.MEDIA_TYPE
        or bool(_TEXT.fullmatch(kind))
    )


async def checked_error(filters: Sequence[EventFilter], error: APIError) -> APIError:
    """Pass the texts of a provider's error through filters; it is changed in place."""
    texts: list[Any] = [{"message": error.message, "code": error.code, "param": error.param}]
    try:
        body = [_document(error.body)] if error.body is not None else []
        if await check_documents(filters, [*texts, *body]):
            error.message, error.code, error.param = texts[0].values()
            error.body = _encoded(body[0]) if body else None
    except ResponseRefusedError as refusal:
        refused = refusal.code == "hook_failed"
        error.message = refusal.message if refused else _WITHHELD
        error.code = error.param = error.body = None
    return error


async def checked_body(filters: Sequence[EventFilter], content_type: str, body: bytes) -> bytes:
    """The body with its texts as the filters release them.

    Raises ResponseRefusedError if they refuse it, or if it holds no texts that can be checked.
    """
    kind = media_type(content_type)
    if not is_checkable(content_type):
        raise unchecked_response_error(f"A response of type {kind[:60] or 'unknown'!r}")
    if kind == _EVENTS:
        return await _checked_events(filters, body)
    if kind == binary_events.MEDIA_TYPE:
        if await check_documents(filters, _documents(binary_events.json_texts(body))):
            raise unchecked_response_error("A response whose texts must be masked")
        return body
    if kind in _LINES:
        lines = body.splitlines(keepends=True)
    else:
        lines = await off_loop(len(body), _json_lines, body)
    documents = await off_loop(len(body), _documents, lines)
    whole = documents[0] if len(documents) == 1 and isinstance(documents[0], list) else documents
    if not await check_documents(filters, whole):
        return body
    ending = b"\n" if kind in _LINES or len(lines) > 1 else b""
    return b"".join(
        line if _is_unchanged(line, document) else _encoded(document) + ending
        for line, document in zip(lines, documents, strict=True)
    )


async def _checked_events(filters: Sequence[EventFilter], body: bytes) -> bytes:
    framer = SSEFramer()
    frames = framer.frames(body)
    rest = framer.close()
    documents = await off_loop(len(body), _documents, [frame.data for frame in frames])
    others = b"\n".join(  # comments and ids
        line for line in body.splitlines() if not line.startswith((b"data", b"event"))
    )
    unframed = [{"comments": others.decode("utf-8", "replace")}, _document(rest or b"")]
    if not await check_documents(filters, [*documents, *unframed]):
        return body
    return b"".join(
        frame.raw
        if frame.raw and _is_unchanged(frame.data, document)
        else encode_frame(_encoded(document), frame.event)
        for frame, document in zip(frames, documents, strict=True)
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


def _json_lines(body: bytes) -> list[bytes]:
    """The lines of a body if each is JSON, else the body: vendors have many types for lines."""
    lines = body.splitlines(keepends=True)
    if len(lines) < 2 or not isinstance(_document(body), _PlainText):
        return [body]
    return [body] if any(isinstance(_document(line), _PlainText) for line in lines) else lines


def _documents(texts: Sequence[bytes]) -> list[Any]:
    return [_document(text) for text in texts]


def _is_unchanged(data: bytes, document: Any) -> bool:
    """Whether a document is still the one that `data` holds."""
    return _encoded(_document(data)) == _encoded(document)


def _encoded(document: Any) -> bytes:
    if isinstance(document, _PlainText):
        return str(document["text"]).encode("utf-8", "surrogateescape")
    if isinstance(document, _JSONText):
        document = document["text"]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
