"""HTTP/1.1 as bytes: the head of a request written, an answer read. Pure: no sockets here.

https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import httptools

from asgi_aiproxy.upstream.base import TOKEN, Headers

MAX_HEAD = 128 * 1024  # bytes of the headers, with those of interim answers; also of the trailers
MAX_HEADERS = 256
_MAX_LINE = 4096  # the size of a chunk, and what is said beside it

_START = b"HTTP/1."
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
_HEAD, _COUNTED, _CHUNKED, _UNTIL_CLOSED, _DONE = range(5)


class HTTPProtocolError(Exception):
    """What came is no HTTP/1.1 answer, or no whole one. `body` is what of it came before that."""

    body = b""


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


class ResponseParser:
    """Reads one answer. `feed` what arrives, and `close` when the connection ends.

    `begun` tells that `status` and `headers` are there, `done` that the answer is complete,
    `reusable` that another may follow on the same connection, and `surplus` that more was received
    than the answer.

    The syntax is checked by llhttp (httptools) without any of its leniencies. Here is what it does
    not decide: which answers have no body, where the answer ends, which framing is ambiguous, and
    how much is read before it is refused. Once the head is complete, a body with a known length,
    or one that lasts until the connection ends, passes without the parser.
    """

    __slots__ = (
        "_events",
        "_left",
        "_method",
        "_parser",
        "_seen",
        "_size",
        "_state",
        "begun",
        "done",
        "headers",
        "reusable",
        "status",
        "surplus",
    )

    def __init__(self, method: str) -> None:
        self._method = method
        self._state = _HEAD
        self._events = events = _Events()
        self._parser: Any = httptools.HttpResponseParser(events)
        self._seen = b""  # the end of what was received of the head
        self._size = 0  # bytes of heads, or of chunked coding since the last piece of the body
        self._left = 0  # bytes of the body that are still to come
        self.status = 0
        self.headers: list[tuple[str, str]] = events.headers
        self.begun = False
        self.done = False
        self.reusable = True
        self.surplus = False

    @classmethod
    def raw(cls) -> ResponseParser:
        """A reader for a protocol that is not HTTP: all of it is body."""
        reader = cls("")
        reader._state = _UNTIL_CLOSED
        reader.begun = True
        return reader

    @property
    def untouched(self) -> bool:
        """Whether nothing was received."""
        return self._state == _HEAD and self._size == 0

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
        if data:
            self._exceeded()
        return b""

    def close(self) -> None:
        """The connection has ended. Raises NotHTTPError if the answer had not."""
        self.reusable = False
        if self._state == _UNTIL_CLOSED:
            self._finish()
        elif not self.begun:
            partly = "in the middle of the headers" if self._size else "without an answer"
            raise HTTPProtocolError(f"it was closed {partly}")
        elif not self.done:
            raise HTTPProtocolError("it was closed in the middle of the answer")

    def _head(self, data: bytes) -> bytes:
        while data:
            # The parser does not say where a head ends. (Its lines end with CR LF, or it fails.)
            seen = self._seen
            at = (seen + data if seen else data).find(b"\r\n\r\n")
            end = at + 4 - len(seen) if at >= 0 else len(data)
            piece = data[:end] if end < len(data) else data
            self._size += end
            if self._size - end < len(_START):
                # (The parser also knows RTSP, ICE, HTTP/2.0, and skips empty lines.)
                start = (seen + piece)[: len(_START)]
                if not _START.startswith(start):
                    raise HTTPProtocolError(
                        "invalid HTTP response: it does not begin with HTTP/1.1"
                    )
            if self._size > MAX_HEAD:
                raise HTTPProtocolError(f"the headers are longer than {MAX_HEAD} bytes")
            try:
                self._parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                if self._parser.get_status_code() != 101:
                    raise _invalid(error) from None
            if at < 0:
                self._seen = (seen + piece)[-len(_START) :]
                return b""
            self._seen = b""
            data = data[end:]
            if self._complete():
                return self.feed(data) if data else b""
        return b""

    def _complete(self) -> bool:
        """A head is in: tells whether it is that of the answer. Raises NotHTTPError."""
        self.status = status = self._parser.get_status_code()
        if status == 101:
            raise HTTPProtocolError("it changed to another protocol")
        if status < 100:
            raise HTTPProtocolError(f"invalid HTTP response: the status is {status}")
        if status < 200:  # an interim answer; the real one follows
            self.headers.clear()
            self._parser = httptools.HttpResponseParser(self._events)
            self._events.complete = False
            return False
        self._frame(old=self._parser.get_http_version() == "1.0")
        self.begun = True
        return True

    def _frame(self, *, old: bool) -> None:
        """Find out how long the body is, by section 6.3."""
        codings: list[str] = []
        length: int | None = None
        options: list[str] = []
        for name, value in self.headers:
            if name == "content-length":
                length = int(value)  # (the parser has seen that it is one number, and alone)
            elif name == "transfer-encoding":
                codings.append(value.lower())
            elif name == "connection":
                options += [option.strip(" \t") for option in value.lower().split(",")]
        if codings and codings != ["chunked"]:
            raise HTTPProtocolError("it has a transfer coding that is not supported")
        # Section 6.1: HTTP/1.0 knows no transfer codings, so its framing is not to be trusted.
        self.reusable = "close" not in options and (
            not old or ("keep-alive" in options and not codings)
        )
        tunnel = self._method == "CONNECT" and self.status < 300
        if tunnel or self._method == "HEAD" or self.status in (204, 304) or length == 0:
            self.reusable = self.reusable and not tunnel
            self._finish()
        elif codings:
            self._state = _CHUNKED
            self._events.begin_body()
            self._size = 0
            return
        elif length is not None:
            self._state = _COUNTED
            self._left = length
        else:
            self._state = _UNTIL_CLOSED
            self.reusable = False
        self._parser = None

    def _finish(self) -> None:
        self._state = _DONE
        self._parser = None
        self.done = True

    def _exceeded(self) -> None:
        self.surplus = True
        self.reusable = False

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left > 0:
            return data
        if self._left < 0:
            self._exceeded()
            data = data[: self._left]
        self._finish()
        return data

    def _chunks(self, data: bytes) -> bytes:
        events = self._events
        pieces = events.pieces
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not events.complete:
                broken = _invalid(error)
                broken.body = b"".join(pieces)
                raise broken from None
            self._exceeded()  # what follows the answer is not valid
        if len(pieces) == 1 and not events.complete and len(data) <= _MAX_LINE:
            self._size = 0  # a chunk, or a piece of one, as usual
            return pieces.pop()
        if events.complete:
            del pieces[events.count :]
            # (The parser skips line ends between messages.)
            if events.surplus or len(data) - len(data.rstrip(b"\r\n")) > 4:
                self._exceeded()
            self._finish()
        body = b"".join(pieces)
        beside = len(data) - len(body)
        # What is not body: the sizes of the chunks, what is said beside them, and trailers.
        self._size = beside if pieces else self._size + beside
        most = MAX_HEAD if events.trailers else _MAX_LINE * (1 + len(pieces))
        if self._size > most and not self.surplus:
            raise HTTPProtocolError(
                "invalid HTTP response: a chunk size or the trailers are too long"
            )
        pieces.clear()
        return body


def _invalid(error: Exception) -> HTTPProtocolError:
    """What the parser has found, or what a callback of ours has."""
    cause = error.__context__
    if isinstance(cause, HTTPProtocolError):
        return cause
    return HTTPProtocolError(f"invalid HTTP response: {error}")


class _Events:
    """Takes what the parser finds. It does not refer to the parser, and so makes no cycle."""

    __slots__ = (
        "body_begun",
        "complete",
        "count",
        "headers",
        "on_body",
        "pieces",
        "surplus",
        "trailers",
    )

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # a call for each chunk, without a frame of Python
        self.body_begun = False
        self.trailers = 0
        self.complete = False
        self.count = 0  # pieces of the body when it was complete
        self.surplus = False

    def begin_body(self) -> None:
        """The head is complete: headers that follow are trailers, which are left out."""
        self.body_begun = True

    def on_message_begin(self) -> None:
        """A message begins: the answer, or what should not follow it."""
        self.surplus = self.complete

    def on_status(self, reason: bytes) -> None:
        """What is said beside the status, of which the parser lets all bytes pass."""
        if len(reason.translate(None, _CONTROLS)) != len(reason):
            raise HTTPProtocolError("invalid HTTP response: invalid character in the status line")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if self.body_begun:
            self.trailers += 1
            return
        if len(self.headers) >= MAX_HEADERS:
            raise HTTPProtocolError(f"it has more than {MAX_HEADERS} headers")
        # As the bytes that they are: only spaces and tabs are white space (RFC 9110, 5.6.3).
        text = value.strip(b" \t").decode("latin-1")
        self.headers.append((name.decode("latin-1").lower(), text))

    def on_message_complete(self) -> None:
        """All of a message is in."""
        if not self.complete:
            self.complete = True
            self.count = len(self.pieces)
