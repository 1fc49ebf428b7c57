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

The bytes before a payload, the *lead*, recur: the headers of one kind of event are always the same,
and so are many sizes. What a lead says is remembered for all streams, with its part of the second
checksum. Where a lead ends is in its prelude; that it is as long as the one before it is tried
first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any
from zlib import crc32

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import MAX_FRAME

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = Struct("!III")
_PRELUDE_BYTES, _CHECKSUM_BYTES = 12, 4
_MAX_HEADERS_BYTES = 128 * 1024
_MAX_KNOWN_LEADS, _MAX_KNOWN_LEAD_BYTES = 1024, 512
# Sizes of header values by their type; strings and byte arrays begin with their length.
_VALUE_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7

# What a lead says: the size of the message; what reads its payload and its checksum; the checksum
# of the lead; what stands before and after the payload in the JSON text. Nothing after it: the
# payload is not used. Nothing at all: the message has no meaning. (A plain tuple, as it is unpacked
# for each event: other types take several times as long.)
_Lead = tuple[int, Callable[[bytes, int], tuple[bytes, int]], int, bytes, bytes]


class EventStreamFramer:
    """Cuts a binary event stream; `limit` is the largest message in bytes.

    The payloads of events of the type `bare` are returned without its name.
    """

    def __init__(self, limit: int = MAX_FRAME, *, bare: str = "") -> None:
        self._limit = limit
        self._bare = _before(bare)
        self._buffer = bytearray()  # the beginning of a message
        self._needed = _PRELUDE_BYTES  # bytes in the buffer before there is something to do
        self._lead_size = _PRELUDE_BYTES  # of the last message
        self._error: APIError | None = None

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
        at, size, limit = 0, len(data), self._limit
        bare, lead_size = self._bare, self._lead_size
        while size - at >= _PRELUDE_BYTES:
            lead = _known_lead(data[at : at + lead_size])
            if lead is None:
                lead = self._read_lead(data, at)
                if lead is None:
                    return at
                lead_size = self._lead_size
            total, read, checksum, before, after = lead
            if at + total > size or total > limit:
                self._wait(total)
                return at
            payload, expected = read(data, at)
            if crc32(payload, checksum) != expected:
                raise _broken("the checksum of an event is wrong")
            if before == bare:
                found.append(payload or b"{}")
            elif after:
                found.append(before + (payload or b"{}") + after)
            elif before:
                found.append(before)
            at += total
        self._needed = _PRELUDE_BYTES
        return at

    def _read_lead(self, data: bytes, at: int) -> _Lead | None:
        """Read the lead of the message at `at`; None if the message is not complete.

        Raises APIError if it is damaged, or its headers are invalid.
        """
        prelude = data[at : at + _PRELUDE_BYTES]
        total, headers_size, checksum = _PRELUDE.unpack(prelude)
        if crc32(prelude[:-_CHECKSUM_BYTES]) != checksum:
            raise _broken("the checksum of an event's length is wrong")
        if headers_size > _MAX_HEADERS_BYTES:
            raise _broken(f"the headers of an event are larger than {_MAX_HEADERS_BYTES} bytes")
        if total < _PRELUDE_BYTES + headers_size + _CHECKSUM_BYTES:
            raise _broken("the length of an event is too small")
        self._wait(total)
        end = at + total - _CHECKSUM_BYTES
        if end + _CHECKSUM_BYTES > len(data):
            return None
        if crc32(data[at:end]) != int.from_bytes(data[end : end + _CHECKSUM_BYTES]):
            raise _broken("the checksum of an event is wrong")
        lead = data[at : at + _PRELUDE_BYTES + headers_size]
        if len(lead) > _MAX_KNOWN_LEAD_BYTES:
            return _read_lead(lead)
        self._lead_size = len(lead)
        return _known_lead(lead) or _read_lead(lead)

    def _wait(self, total: int) -> None:
        """Wait for the rest of a message of `total` bytes. Raises APIError if that is too large."""
        if total > self._limit:
            raise _broken(f"an event is larger than {self._limit} bytes")
        self._needed = total


def _read_lead(lead: bytes) -> _Lead:
    """What a lead says whose prelude is valid. Raises APIError for invalid headers."""
    total = _PRELUDE.unpack_from(lead)[0]
    payload_size = total - len(lead) - _CHECKSUM_BYTES
    read: Any = Struct(f"!{len(lead)}x{payload_size}sI").unpack_from
    return total, read, crc32(lead), *_around(_read_headers(lead[_PRELUDE_BYTES:]))


@lru_cache(maxsize=_MAX_KNOWN_LEADS)
def _known_lead(data: bytes) -> _Lead | None:
    """What a lead says; None if `data` are not exactly the bytes of a valid one."""
    if len(data) <= _PRELUDE_BYTES:
        return None
    total, headers_size, checksum = _PRELUDE.unpack_from(data)
    sized = len(data) == _PRELUDE_BYTES + headers_size and total >= len(data) + _CHECKSUM_BYTES
    if not sized or crc32(data[: _PRELUDE_BYTES - _CHECKSUM_BYTES]) != checksum:
        return None
    try:
        return _read_lead(data)
    except APIError:
        return None


def _around(headers: dict[str, str]) -> tuple[bytes, bytes]:
    """What stands before and after the payload in the JSON text of a message; see `_Lead`."""
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
    return (_before(name), b"}") if name else (b"", b"")


def _before(name: str) -> bytes:
    return b"{" + _json.dumps(name) + b":"


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
