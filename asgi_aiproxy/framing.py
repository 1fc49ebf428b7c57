"""Framing of streamed responses: bytes to events, and events to bytes. Pure.

`SSEFramer` follows the event stream rules of the WHATWG HTML standard, section 9.2.6, over bytes
cut anywhere. `NDJSONFramer` and `JSONArrayFramer` read two other ways in which providers stream
JSON. Every framer is fed with `feed` and ended with `close`; total work is linear however bytes are
cut, and what has not been delivered is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind

# One event may hold an image in base64; 16 MiB is more than any vendor lets a model return.
MAX_FRAME = 16 * 1024 * 1024

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
# The usual event, on the hot path: one line of data, and before it at most one line that begins
# with `e`, which is the event's type or is ignored. Possessive quantifiers (`*+`): no backtracking.
_usual = re.compile(rb"(?:e.*+\n)?data: ?(.*+)\n\n").fullmatch
_frame_usual = re.compile(rb"(?:event: ?(.*+)\n)?data: ?(.*+)\n\n").fullmatch
_frames_usual = re.compile(rb"^((?:event: ?(.*+)\n)?data: ?(.*+)\n\n)", re.MULTILINE).split
_all_usual = re.compile(rb"^(?:e.*+\n)?data: ?(.*+)\n\n", re.MULTILINE).split
_start_of_data = re.compile(rb"(?:event: ?(.*+)\n)?data: ?").match
_MIN_RUN_EVENTS, _MIN_RUN_BYTES = 8, 1024
_CR = ord("\r")
_BOM = b"\xef\xbb\xbf"


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One event: its data, its type, the last event id received, and the bytes it was received
    in.
    """

    data: bytes
    event: bytes = b""
    id: bytes = b""
    raw: bytes = b""


class Framer(Protocol):
    """Cuts a stream of bytes into pieces, mostly JSON texts."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces that `data` completes."""

    def close(self) -> bytes | None:
        """Return the unfinished piece at the end of the stream, if there is one."""


class SSEFramer:
    """Cuts an event stream. `retry` is the last reconnection time the server named, in ms.

    `feed` returns the data of each event, `frames` all of its fields. `has_complete_events` returns
    the bytes of several events at once, which `split` cuts if needed.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # an unfinished event
        self._held = 0
        self._first = True
        self._id = b""
        self._bare = b""  # JSON outside of an event
        self._pending = True  # whether the next bytes may belong to an unfinished event
        self.retry: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that `data` completes."""
        if not self._pending and _CR not in data:
            one = _usual(data)
            if one is not None:
                return [one[1]]
        data = self.has_complete_events(data)
        usual = data.replace(b"\r\n", b"\n") if _CR in data else data
        if _CR in usual:
            return [frame.data for frame in self.split(data)]
        run = split_run(usual)
        if run is None:
            return self._texts(usual)
        return [*self._texts(run.before), *run.texts, *self._texts(run.after)]

    def _texts(self, data: bytes) -> list[bytes]:
        """Return the data of whole events without CR."""
        parts = _all_usual(data)
        if any(parts[::2]):  # there are bytes between the events
            return [frame.data for frame in self.split(data)]
        return parts[1::2]

    def frames(self, data: bytes) -> list[Frame]:
        """Return the events that `data` completes."""
        return self.split(self.has_complete_events(data))

    def has_complete_events(self, data: bytes) -> bytes:
        """Return the bytes of the events that `data` completes; the beginning of another is
        held.
        """
        if not self._pending and data.endswith((b"\n\n", b"\r\n\r\n")):
            return data
        data = self._begin(data)
        if self._held:
            # Search only where old and new bytes meet and in the new ones: no byte is searched
            # twice.
            if not end_of_last_event(self._pieces[-1][-3:] + data):
                self._hold(data)
                return b""
            data = self._release() + data
        end = end_of_last_event(data)
        # A CR at the very end already ends its line. An LF that follows it is then an empty line
        # before the next event, which is ignored.
        self._pending = self._first
        self._hold(data[end:])
        return data[:end]

    def split(self, data: bytes) -> list[Frame]:
        """Return the events in `data`, which `has_complete_events` returned."""
        if _CR not in data:
            parts = _frames_usual(data)
            if not any(parts[::4]):
                rows = zip(parts[1::4], parts[2::4], parts[3::4], strict=True)
                return [Frame(text, event or b"", self._id, raw) for raw, event, text in rows]
        return [frame for frame, _ in self.walk(data)]

    def walk(self, data: bytes) -> Iterator[tuple[Frame, int]]:
        """Yield the events one by one, each with the index in `data` where it ends."""
        position = 0
        if _CR not in data:
            while (end := data.find(b"\n\n", position) + 2) > 1:
                raw, position = data[position:end], end
                usual = _frame_usual(raw)
                if usual is not None:
                    yield Frame(usual[2], usual[1] or b"", self._id, raw), end
                elif (frame := self._fields(raw[:-2], b"\n\n")) is not None:
                    yield frame, end
            return
        for blank in _BLANK_LINE.finditer(data):
            frame = self._fields(data[position : blank.start()], blank.group())
            position = blank.end()
            if frame is not None:
                yield frame, position

    def close(self) -> bytes | None:
        """Return the data of the unfinished event, if the stream ended inside one."""
        frame = self.last_frame()
        return None if frame is None else frame.data

    def last_frame(self) -> Frame | None:
        """Return the unfinished event, if the stream ended inside one.

        Some servers end a stream with an error that is plain JSON: it is returned as an event.
        """
        frame = self._fields(self._release().rstrip(b"\r\n"), b"\n\n")
        bare, self._bare = self._bare.strip(), b""
        return Frame(bare, raw=encode_frame(bare)) if frame is None and bare else frame

    def _begin(self, data: bytes) -> bytes:
        if self._first:
            start = b"".join(self._pieces) + data
            if len(start) < 3 and _BOM.startswith(start):
                return data
            self._first = False
            if start.startswith(_BOM):
                self._release()
                return start[3:]
        return data

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._pending = True
        self._pieces.append(data)
        self._held += len(data)
        if self._held > self._limit:
            raise APIError(
                ErrorKind.UPSTREAM, f"The provider sent an event larger than {self._limit} bytes."
            )

    def _release(self) -> bytes:
        held = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return held

    def _fields(self, block: bytes, end: bytes) -> Frame | None:
        """Parse the event in a block of lines, as the standard says."""
        event = b""
        data: list[bytes] = []
        for line in _LINE_END.split(block):
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name == b"event":
                event = value
            elif name == b"id" and b"\0" not in value:
                self._id = value
            elif name == b"retry" and value.isdigit() and len(value) < 20:
                self.retry = int(value)
        if not data:
            if block.lstrip().startswith(b"{"):
                self._bare = block
            return None
        return Frame(b"\n".join(data), event, self._id, block + end)


class EventRun(NamedTuple):
    """Events of one type: their data, and the bytes of the events before and after them."""

    before: bytes
    event: bytes
    texts: list[bytes]
    after: bytes


def split_run(data: bytes) -> EventRun | None:
    """Split whole events around those that begin like the one in their middle.

    In a busy process most bytes of a packet are such a run, which is cut by one search for the
    beginning. Returns None if there is no long run, or an event in it has other lines.
    """
    if len(data) < _MIN_RUN_BYTES or data.find(b"\r") >= 0:
        return None
    start = _start_of_data(data, data.rfind(b"\n\n", 0, len(data) // 2) + 2)
    if start is None:
        return None
    beginning = b"\n\n" + start[0]
    before, *texts = data.split(beginning)
    if len(texts) < _MIN_RUN_EVENTS:
        return None
    last, _, after = texts.pop().partition(b"\n\n")
    texts.append(last)
    if b"".join(texts).find(b"\n") >= 0:
        return None
    if beginning.endswith(b":") and min(texts) < b"!":  # one begins with a space, which is not data
        return None
    return EventRun(before + b"\n\n", start[1] or b"", texts, after)


def end_of_last_event(data: bytes) -> int:
    """Return the index after the last blank line in `data`, which ends an event; 0 if there is
    none.
    """
    lf = data.rfind(b"\n\n")
    end = lf + 2 if lf >= 0 else 0
    if _CR in data:
        crlf = data.rfind(b"\r\n\r\n")
        end = max(end, crlf + 4 if crlf >= 0 else 0)
        for blank in _BLANK_LINE.finditer(data, end):
            end = blank.end()
    return end


def split_before(data: bytes, marks: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Split whole events in two: up to the first that contains one of `marks`, and the rest."""
    find = data.find  # `in` takes 50 % longer on bytes
    first = -1
    for mark in marks:
        position = find(mark) if first < 0 else find(mark, 0, first + len(mark) - 1)
        first = position if position >= 0 else first
    if first < 0:
        return data, b""
    end = end_of_last_event(data[:first])
    return data[:end], data[end:]


def events_containing(data: bytes, mark: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each event in `data`, whole events, that contains `mark`."""
    end = 0
    while (found := data.find(mark, end)) >= 0:
        start, end = _event_around(data, found, end)
        yield start, end


def last_event_containing(data: bytes, mark: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of the last such event, for which little is searched."""
    found = data.rfind(mark)
    if found >= 0:
        yield _event_around(data, found, 0)


def _event_around(data: bytes, position: int, after: int) -> tuple[int, int]:
    """Return the start and the end of the event at `position`, which begins at `after` or later."""
    if _CR in data:
        start = after + end_of_last_event(data[after:position])
        blank = _BLANK_LINE.search(data, position)
        return start, blank.end() if blank is not None else len(data)
    start = data.rfind(b"\n\n", after, position)
    end = data.find(b"\n\n", position)
    return start + 2 if start >= 0 else after, end + 2 if end >= 0 else len(data)


class NDJSONFramer:
    """Cuts a stream of JSON values, one per line."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._held = 0
        self._first = True

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._pieces, lines[0]])
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(_BOM)
            self._pieces.clear()
            self._held = 0
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
            if self._held > self._limit:
                raise APIError(
                    ErrorKind.UPSTREAM, f"The provider sent a line larger than {self._limit} bytes."
                )
        return [line for line in map(bytes.strip, lines) if line]

    def close(self) -> bytes | None:
        """Return the last line, if it lacks its line end."""
        rest = b"".join(self._pieces).removeprefix(_BOM if self._first else b"").strip()
        self._pieces.clear()
        self._held = 0
        return rest or None


class JSONArrayFramer:
    """Cuts a JSON array into its objects as they arrive (Gemini streams so without `alt=sse`)."""

    _STRUCTURE = re.compile(rb'["\\{}\[\]]')

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._start = -1
        self._level = 0  # nesting depth outside the object that began at `_start`
        self._depth = 0
        self._quoted = False
        self._escaped = -1  # position of the character that a backslash escapes

    def feed(self, data: bytes) -> list[bytes]:
        """Return the objects that `data` completes."""
        self._buffer += data
        found = []
        for mark in self._STRUCTURE.finditer(self._buffer, self._scanned):
            at, sign = mark.start(), mark.group()
            if at == self._escaped:
                continue
            if self._quoted:
                if sign == b"\\":
                    self._escaped = at + 1
                elif sign == b'"':
                    self._quoted = False
            elif sign == b'"':
                self._quoted = True
            elif sign in b"{[":
                if sign == b"{" and self._depth <= 1 and self._start < 0:
                    self._start, self._level = at, self._depth
                self._depth += 1
            elif sign in b"}]":
                self._depth -= 1
                if sign == b"}" and self._start >= 0 and self._depth == self._level:
                    found.append(bytes(self._buffer[self._start : at + 1]))
                    self._start = -1
        self._trim()
        return found

    def close(self) -> bytes | None:
        """Return the object that was cut off."""
        rest = bytes(self._buffer[self._start :]) if self._start >= 0 else b""
        self._buffer.clear()
        return rest or None

    def _trim(self) -> None:
        cut = self._start if self._start >= 0 else len(self._buffer)
        del self._buffer[:cut]
        self._scanned = len(self._buffer)
        self._escaped -= cut
        self._start = 0 if self._start >= 0 else -1
        if len(self._buffer) > self._limit:
            raise APIError(
                ErrorKind.UPSTREAM, f"The provider sent a value larger than {self._limit} bytes."
            )


def encode_frame(data: bytes, event: bytes = b"") -> bytes:
    """Return one event as bytes. `data` may contain line breaks; `event` may not."""
    if data.find(b"\n") < 0 and _CR not in data:  # as JSON is; splitting costs far more
        lines = b"data: " + data
    else:
        lines = b"\n".join(b"data: " + line for line in _LINE_END.split(data))
    if event:
        return b"event: " + event + b"\n" + lines + b"\n\n"
    return lines + b"\n\n"
