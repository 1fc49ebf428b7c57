"""Cuts Amazon's binary event stream (`application/vnd.amazon.eventstream`) into JSON texts.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html and
https://smithy.io/2.0/aws/amazon-eventstream.html

A message is::

    total length (4 bytes), length of the headers (4), CRC-32 of these 8 bytes (4),
    headers, payload, CRC-32 of everything before it (4)

All numbers are big-endian. A header is the length of its name (1), the name, its type (1) and its
value; the headers that matter here are strings (type 7: length (2), UTF-8).

The type of an event is in a header, not in its payload. So that decoders see one JSON text for each
event, as with other framers, the framer returns what Amazon's SDKs call the union: an object whose
only member is named after the event and holds the payload, `{"contentBlockDelta": {...}}`.
Exceptions (`:message-type` exception) have the same form; errors without a modelled exception
(`:message-type` error, whose text is in headers) become `{"error": {"code", "message"}}`.

Both checksums are verified before anything of a message is used: the first before its length is
believed, so that a broken length cannot make the framer wait for bytes that never come. What is
complete before a broken message is returned first; the error is raised by the next call.

The headers of one kind of event are always the same bytes, and sizes recur, so what these bytes
mean is remembered.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from zlib import crc32

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import MAX_FRAME

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = Struct("!III")
_CHECKSUM = Struct("!I")
_PRELUDE_BYTES, _CHECKSUM_BYTES = 12, 4
_MAX_HEADERS_BYTES = 128 * 1024
_MAX_KNOWN_HEADERS, _MAX_KEPT_HEADERS_BYTES, _MAX_KNOWN_PRELUDES = 64, 512, 256
# Sizes of header values by their type; strings and byte arrays begin with their length.
_VALUE_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7


class EventStreamFramer:
    """Cuts a binary event stream; `limit` is the largest message in bytes."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()  # the beginning of a message
        self._needed = _PRELUDE_BYTES  # bytes in the buffer before there is something to do
        self._error: APIError | None = None
        # What was verified and read before: sizes, and what surrounds the payload, by their bytes.
        self._preludes: dict[bytes, tuple[int, int]] = {}
        self._headers: dict[bytes, tuple[bytes, bytes]] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """The JSON texts of the messages that `data` completes. Raises APIError."""
        if self._error is not None:
            raise self._error
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        found: list[bytes] = []
        try:
            rest = self._messages(data, found)
        except APIError as error:
            self._error = error
            if not found:
                raise
        else:
            self._buffer += data[rest:]
        return found

    def close(self) -> bytes | None:
        """Nothing is left at the end of a whole stream. Raises APIError for a message cut short."""
        if self._error is not None:
            raise self._error
        if self._buffer:
            raise _broken("the stream ended within an event")
        return None

    def _messages(self, data: bytes, found: list[bytes]) -> int:
        """Add the JSON texts of whole messages to `found`; return where the rest begins."""
        at, size = 0, len(data)
        known_preludes, known_headers = self._preludes, self._headers
        while size - at >= _PRELUDE_BYTES:
            headers_at = at + _PRELUDE_BYTES
            prelude = data[at:headers_at]
            total, headers_size = known_preludes.get(prelude) or self._read_prelude(prelude)
            if at + total > size:
                self._needed = total
                return at
            end = at + total - _CHECKSUM_BYTES
            if _CHECKSUM.unpack_from(data, end)[0] != crc32(data[at:end]):
                raise _broken("the checksum of an event is wrong")
            payload_at = headers_at + headers_size
            headers = data[headers_at:payload_at]
            before, after = known_headers.get(headers) or self._around(headers)
            if after:
                found.append(before + (data[payload_at:end] or b"{}") + after)
            elif before:
                found.append(before)
            at += total
        self._needed = _PRELUDE_BYTES
        return at

    def _read_prelude(self, prelude: bytes) -> tuple[int, int]:
        """The size of a message and of its headers. Raises APIError if they are invalid."""
        total, headers_size, checksum = _PRELUDE.unpack(prelude)
        if crc32(prelude[:-_CHECKSUM_BYTES]) != checksum:
            raise _broken("the checksum of an event's length is wrong")
        if headers_size > _MAX_HEADERS_BYTES or total > self._limit:
            raise _broken(f"an event is larger than {self._limit} bytes")
        if total < _PRELUDE_BYTES + headers_size + _CHECKSUM_BYTES:
            raise _broken("the length of an event is too small")
        if len(self._preludes) < _MAX_KNOWN_PRELUDES:
            self._preludes[prelude] = total, headers_size
        return total, headers_size

    def _around(self, headers: bytes) -> tuple[bytes, bytes]:
        """What stands before and after the payload of a message with these headers."""
        if len(headers) > _MAX_KEPT_HEADERS_BYTES:
            return _around(headers)
        around = _kept_around(headers)
        if len(self._headers) < _MAX_KNOWN_HEADERS:
            self._headers[headers] = around
        return around


def _around(data: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the payload in the JSON text of a message with these headers.

    Nothing after it: the payload is not used. Nothing at all: the message has no meaning. Raises
    APIError for invalid headers.
    """
    headers = _read_headers(data)
    match headers.get(":message-type", "event"):
        case "event":
            name = headers.get(":event-type", "")
        case "exception":
            name = headers.get(":exception-type", "") or "exception"
        case _:
            error = {
                "code": headers.get(":error-code", ""),
                "message": headers.get(":error-message", ""),
            }
            return _json.dumps({"error": error}), b""
    return (b"{" + _json.dumps(name) + b":", b"}") if name else (b"", b"")


_kept_around = lru_cache(maxsize=_MAX_KNOWN_HEADERS)(_around)  # of all streams


def _read_headers(data: bytes) -> dict[str, str]:
    """The headers that are strings. Raises APIError for invalid ones."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode()
            kind, at = data[name_end], name_end + 1
            size = _VALUE_SIZES.get(kind)
            if size is None:
                if kind not in (_BYTES, _STRING):
                    raise _broken("an event has a header of an unknown type")
                size = int.from_bytes(data[at : at + 2])
                at += 2
            value = data[at : at + size]
            if len(value) < size:
                raise _broken("an event has a header that is cut short")
            if kind == _STRING:
                found[name] = value.decode()
            at += size
    except (IndexError, UnicodeDecodeError) as error:
        raise _broken("an event has invalid headers") from error
    return found


def _broken(why: str) -> APIError:
    return APIError(ErrorKind.UPSTREAM, f"The provider's answer is broken: {why}.")
