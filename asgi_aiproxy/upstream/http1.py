"""HTTP/1.1 as bytes: the head of a request written, an answer read. Pure: no sockets here.

https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import re
from functools import lru_cache

from asgi_aiproxy.upstream.base import TOKEN, Headers

MAX_HEAD = 128 * 1024
_MAX_LINE = 4096  # the size of a chunk, and what is said beside it

_STATUS = re.compile(r"HTTP/1\.([01]) (\d{3})(?: |$)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")

_HEAD, _COUNTED, _CHUNKED, _TRAILER, _UNTIL_CLOSED, _DONE = range(6)


class NotHTTPError(Exception):
    """What came is no HTTP/1.1 answer, or no whole one."""


def request_head(method: str, target: str, headers: Headers) -> bytes:
    """The request line and headers as they are sent. Raises ValueError on what may not be sent."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers:
        _check_name(name)
        lines.append(f"{name}: {value}")
    text = "\r\n".join(lines) + "\r\n\r\n"
    ends = len(lines) + 1
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise ValueError("a header holds a line end")
    try:
        # What came in as bytes goes out as the same bytes.
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


@lru_cache(maxsize=1024)
def _check_name(name: str) -> None:
    if not TOKEN.fullmatch(name):
        raise ValueError("a header has a name that is none")


@lru_cache(maxsize=1024)
def _size(line: bytes) -> int:
    told = _SIZE.fullmatch(line)
    if told is None:
        raise NotHTTPError("what came is not chunked as it says")
    return int(told[1], 16)


class AnswerReader:
    """Reads one answer. `feed` what arrives, and `close` when the connection ends.

    `begun` tells that `status` and `headers` are there, `done` that the answer is complete, and
    `reusable` that another may follow on the same connection.
    """

    __slots__ = (
        "_crlf",
        "_held",
        "_left",
        "_method",
        "_state",
        "_trailer",
        "begun",
        "done",
        "headers",
        "reusable",
        "status",
    )

    def __init__(self, method: str) -> None:
        self._method = method
        self._state = _HEAD
        self._held = b""  # what is not understood yet
        self._left = 0  # bytes of the body, or of its present chunk
        self._crlf = False  # the line end after a chunk is due
        self._trailer = 0
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.begun = False
        self.done = False
        self.reusable = True

    @classmethod
    def raw(cls) -> AnswerReader:
        """A reader of what is no HTTP: all of it is body."""
        reader = cls("")
        reader._state = _UNTIL_CLOSED
        reader.begun = True
        return reader

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body that `data` holds. Raises NotHTTPError."""
        state = self._state
        if state == _CHUNKED:
            return self._chunks(data)
        if state == _COUNTED:
            return self._count(data)
        if state == _UNTIL_CLOSED:
            return data
        if state == _HEAD:
            return self._head(data)
        if state == _TRAILER:
            return self._end(data)
        self.reusable = False  # more than was asked for
        return b""

    def close(self) -> None:
        """The connection has ended. Raises NotHTTPError if the answer had not."""
        self.reusable = False
        if self._state == _UNTIL_CLOSED:
            self._finish()
        elif not self.begun:
            partly = "in the middle of the headers" if self._held else "without an answer"
            raise NotHTTPError(f"it was closed {partly}")
        elif not self.done:
            raise NotHTTPError("it was closed in the middle of the answer")

    def _head(self, data: bytes) -> bytes:
        while True:
            before = len(self._held)
            held = self._held + data if before else data
            at = held.find(b"\r\n\r\n", max(before - 3, 0))
            # Some servers end their lines with a mere LF.
            bare = held.find(b"\n\n", max(before - 1, 0), at if at >= 0 else len(held))
            end, rest = (bare, bare + 2) if bare >= 0 else (at, at + 4)
            if (len(held) if end < 0 else end) > MAX_HEAD:
                raise NotHTTPError(f"the headers are longer than {MAX_HEAD} bytes")
            if end < 0:
                if not b"HTTP/1.".startswith(held[:7]):
                    raise NotHTTPError("what came is no HTTP")
                self._held = held
                return b""
            self._held = b""
            self._read(held[:end].decode("latin-1"))
            data = held[rest:]
            if self.status >= 200:
                break
            self.headers = []  # an interim answer; the real one follows
        self._frame()  # which may find that it can not be read
        self.begun = True
        return self.feed(data) if data else b""

    def _read(self, head: str) -> None:
        first, *lines = head.split("\n")
        status = _STATUS.match(first.rstrip("\r"))
        if status is None:
            raise NotHTTPError("what came is no HTTP")
        self.status = int(status[2])
        self.reusable = status[1] == "1"
        if self.status == 101:
            raise NotHTTPError("it changed to another protocol")
        if "\0" in head or head.count("\r") > head.count("\r\n") + head.endswith("\r"):
            # A lone CR may be a line end to whom a header is passed on.
            raise NotHTTPError("what came has a header that is none")
        headers = self.headers
        for line in lines:
            name, colon, value = line.partition(":")
            if line[:1] in (" ", "\t") and headers:  # a value that was folded
                headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}".strip())
            elif colon and name and not name[-1].isspace():
                headers.append((name.lower(), value.strip()))
            else:
                raise NotHTTPError("what came has a header that is none")

    def _frame(self) -> None:
        """Find out how long the body is, by section 6.3."""
        encoded = False
        chunked = False
        lengths: set[str] = set()
        for name, value in self.headers:
            if name == "content-length":
                lengths.update(part.strip() for part in value.split(","))
            elif name == "transfer-encoding":
                codings = [coding.strip() for coding in value.lower().split(",")]
                if any(coding not in ("chunked", "identity", "") for coding in codings):
                    raise NotHTTPError("what came is in a transfer coding nobody asked for")
                encoded, chunked = True, codings[-1] == "chunked"
            elif name == "connection":
                options = [option.strip() for option in value.lower().split(",")]
                self.reusable = "close" not in options and (
                    self.reusable or "keep-alive" in options
                )
        if (
            (self._method == "CONNECT" and 200 <= self.status < 300)
            or self._method == "HEAD"
            or self.status in (204, 304)
        ):
            self._finish()
        elif encoded:
            self.reusable = self.reusable and not lengths
            self._state = _CHUNKED if chunked else _UNTIL_CLOSED
        elif lengths:
            length = lengths.pop()
            if lengths or not (length.isascii() and length.isdigit()) or len(length) > 18:
                raise NotHTTPError("what came has no sound content-length")
            self._left = int(length)
            self._state = _COUNTED
            if self._left == 0:
                self._finish()
        else:
            self._state = _UNTIL_CLOSED

    def _finish(self) -> None:
        if self._state == _UNTIL_CLOSED:
            self.reusable = False
        self._state = _DONE
        self.done = True

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left > 0:
            return data
        if self._left < 0:
            self.reusable = False
            data = data[: self._left]
        self._finish()
        return data

    def _chunks(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        out = []
        at, size = 0, len(data)
        while at < size:
            if self._left:
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._crlf = True
                continue
            end = data.find(b"\r\n", at, at + _MAX_LINE)
            if end < 0:
                if size - at >= _MAX_LINE or (self._crlf and data[at:] != b"\r"):
                    raise NotHTTPError("what came is not chunked as it says")
                self._held = data[at:]
                break
            if self._crlf:
                if end != at:
                    raise NotHTTPError("what came is not chunked as it says")
                self._crlf = False
                at += 2
                continue
            left = _size(data[at:end])
            at = end + 2
            stop = at + left
            if left and data[stop : stop + 2] == b"\r\n":  # all of it is here, as usual
                out.append(data[at:stop])
                at = stop + 2
                continue
            self._left = left
            if not left:
                self._state = _TRAILER
                self._end(data[at:])
                break
        return out[0] if len(out) == 1 else b"".join(out)

    def _end(self, data: bytes) -> bytes:
        """What follows the last chunk: lines that are of no interest, and an empty one."""
        data = self._held + data
        while not self.done:
            end = data.find(b"\r\n")
            self._trailer += end + 2 if end >= 0 else 0
            if self._trailer + len(data) > MAX_HEAD:
                raise NotHTTPError(f"the trailers are longer than {MAX_HEAD} bytes")
            if end < 0:
                self._held = data
                return b""
            data = data[end + 2 :]
            if end == 0:
                self._held = b""
                self._finish()
        self.reusable = self.reusable and not data
        return b""
