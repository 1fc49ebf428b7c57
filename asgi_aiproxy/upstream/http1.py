"""HTTP/1.1 as bytes: encode the head of a request, parse a response. Pure, without I/O.

https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import httptools

from asgi_aiproxy.upstream.base import TOKEN, Headers

# Maximum bytes of the headers, including interim responses; also of the trailers
MAX_HEAD = 128 * 1024
MAX_HEADERS = 256
_MAX_LINE = 4096  # maximum bytes of a chunk size and its extensions

_START = b"HTTP/1."
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "content-encoding"})
_HEAD, _COUNTED, _CHUNKED, _UNTIL_CLOSED, _DONE = range(5)


class HTTPProtocolError(Exception):
    """The received bytes are not a valid or complete HTTP/1.1 response.

    `body` is the part of the body that was received before the error.
    """

    body = b""


def request_head(method: str, target: str, headers: Headers) -> bytes:
    """Return the request line and headers as bytes. Raises ValueError if a part is invalid."""
    header_names(headers)
    text = "\r\n".join([f"{method} {target} HTTP/1.1", *map(": ".join, headers), "", ""])
    ends = len(headers) + 2
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise ValueError("a header contains a line end")
    try:
        # Values that were received as bytes are sent as the same bytes.
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def header_names(headers: Headers) -> frozenset[str]:
    """Return the names of headers in lower case. Raises ValueError if one is invalid."""
    return _checked_names(next(zip(*headers, strict=True), ()))


@lru_cache(maxsize=1024)
def _checked_names(names: tuple[str, ...]) -> frozenset[str]:
    if not all(map(TOKEN.fullmatch, names)):
        raise ValueError("a header name is invalid")
    return frozenset(map(str.lower, names))


class ResponseParser:
    """Parses one response: `feed` received bytes to it, and `close` it when the connection ends.

    `begun`: `status` and `headers` are available. `done`: the response is complete. `reusable`:
    another response may follow on the same connection. `surplus`: more bytes than the response were
    received. `encoded`: the body has content codings.

    The syntax is checked by llhttp (httptools) without any of its leniencies. This class decides
    the rest: which responses have no body, where a response ends, which framing is ambiguous, and
    the size limits. After the head, a body with a known length, or one that lasts until the
    connection ends, is passed on without the parser.
    """

    __slots__ = (
        "_events",
        "_head_began",
        "_head_tail",
        "_method",
        "_parser",
        "_remaining",
        "_size",
        "_state",
        "begun",
        "done",
        "encoded",
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
        self._head_tail = b""  # the last bytes of the head received so far
        self._size = 0  # bytes of heads, or of chunked coding since the last piece of the body
        self._head_began = 0  # the size when the present head began
        self._remaining = 0  # bytes of the body that have not arrived yet
        self.status = 0
        self.headers: list[tuple[str, str]] = events.headers
        self.begun = False
        self.done = False
        self.encoded = False
        self.reusable = True
        self.surplus = False

    @classmethod
    def raw(cls) -> ResponseParser:
        """Return a reader for a protocol other than HTTP: all bytes are body."""
        reader = cls("")
        reader._state = _UNTIL_CLOSED
        reader.begun = True
        return reader

    @property
    def untouched(self) -> bool:
        """Whether no byte was received."""
        return self._state == _HEAD and self._size == 0

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the body in `data`. Raises HTTPProtocolError."""
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
        """End the connection. Raises HTTPProtocolError if the response is incomplete."""
        self.reusable = False
        if self._state == _UNTIL_CLOSED:
            self._finish()
        elif not self.begun:
            partly = "in the middle of the headers" if self._size else "before a response"
            raise HTTPProtocolError(f"it was closed {partly}")
        elif not self.done:
            raise HTTPProtocolError("it was closed in the middle of the response")

    def _head(self, data: bytes) -> bytes:
        while data:
            # The parser does not report where a head ends. (Lines end with CR LF, otherwise it
            # fails.)
            tail = self._head_tail
            head_end = (tail + data if tail else data).find(b"\r\n\r\n")
            end = head_end + 4 - len(tail) if head_end >= 0 else len(data)
            piece = data[:end] if end < len(data) else data
            self._size += end
            if self._size - end - self._head_began < len(_START):
                # (The parser also accepts RTSP, ICE and HTTP/2.0, and skips empty lines.)
                start = (tail + piece)[: len(_START)]
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
            if head_end < 0:
                self._head_tail = (tail + piece)[-len(_START) :]
                return b""
            self._head_tail = b""
            data = data[end:]
            if self._complete():
                return self.feed(data) if data else b""
        return b""

    def _complete(self) -> bool:
        """Process a complete head; returns whether it is that of the final response. Raises
        HTTPProtocolError.
        """
        self.status = status = self._parser.get_status_code()
        if status == 101:
            raise HTTPProtocolError("it changed to another protocol")
        if status < 100:
            raise HTTPProtocolError(f"invalid HTTP response: the status is {status}")
        if status < 200:  # an interim response; the final one follows
            self.headers.clear()
            self._events.framing.clear()
            self._head_began = self._size
            self._parser = httptools.HttpResponseParser(self._events)
            self._events.complete = False
            return False
        self._frame()
        self.begun = True
        return True

    def _frame(self) -> None:
        """Determine the length of the body (RFC 9112, section 6.3)."""
        old = self._parser.get_http_version() == "1.0"
        codings: list[str] = []
        length: int | None = None
        options: list[str] = []
        for name, value in self._events.framing:
            if name == "content-length":
                # (the parser has checked that it is one number, and not repeated)
                length = int(value)
            elif name == "transfer-encoding":
                codings.append(value.lower())
            elif name == "content-encoding":
                self.encoded = True
            else:  # connection
                options += [option.strip(" \t") for option in value.lower().split(",")]
        if codings and codings != ["chunked"]:
            raise HTTPProtocolError("the transfer coding is not supported")
        # Section 6.1: HTTP/1.0 has no transfer codings, so its framing cannot be trusted.
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
            self._remaining = length
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
        self._remaining -= len(data)
        if self._remaining > 0:
            return data
        if self._remaining < 0:
            self._exceeded()
            data = data[: self._remaining]
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
            self._exceeded()  # the bytes after the response are invalid
        if len(pieces) == 1 and not events.complete and len(data) <= _MAX_LINE:
            self._size = 0  # the usual case: a chunk, or a piece of one
            return pieces.pop()
        if events.complete:
            del pieces[events.count :]
            # (The parser skips line ends between messages.)
            if events.surplus or (len(data) > 4 and not data[-5:].strip(b"\r\n")):
                self._exceeded()
            self._finish()
        body = b"".join(pieces)
        overhead = len(data) - len(body)
        # Bytes that are not body: chunk sizes, their extensions, and trailers.
        self._size = overhead if pieces else self._size + overhead
        max_size = MAX_HEAD if events.trailers else _MAX_LINE * (1 + len(pieces))
        if self._size > max_size and not self.surplus:
            raise HTTPProtocolError(
                "invalid HTTP response: a chunk size or the trailers are too long"
            )
        pieces.clear()
        return body


def _invalid(error: Exception) -> HTTPProtocolError:
    """Return the error of the parser, or the one that a callback has raised."""
    cause = error.__context__
    if isinstance(cause, HTTPProtocolError):
        return cause
    return HTTPProtocolError(f"invalid HTTP response: {error}")


class _Events:
    """Collects what the parser finds. It does not refer to the parser, so there is no reference
    cycle.
    """

    __slots__ = (
        "body_begun",
        "complete",
        "count",
        "framing",
        "headers",
        "on_body",
        "pieces",
        "surplus",
        "trailers",
    )

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.framing: list[tuple[str, str]] = []  # those that say how the body is sent
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # called for each chunk without a Python frame
        self.body_begun = False
        self.trailers = 0
        self.complete = False
        self.count = 0  # number of body pieces when the body was complete
        self.surplus = False

    def begin_body(self) -> None:
        """End the head: headers that follow are trailers, which are dropped."""
        self.body_begun = True

    def on_message_begin(self) -> None:
        """Begin a message: the response, or surplus bytes after it."""
        self.surplus = self.complete

    def on_status(self, reason: bytes) -> None:
        """Check the reason phrase, in which the parser accepts all bytes."""
        if len(reason.translate(None, _CONTROLS)) != len(reason):
            raise HTTPProtocolError("invalid HTTP response: invalid character in the status line")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, or count a trailer."""
        if self.body_begun:
            self.trailers += 1
            return
        if len(self.headers) >= MAX_HEADERS:
            raise HTTPProtocolError(f"it has more than {MAX_HEADERS} headers")
        # Only spaces and tabs are white space (RFC 9110, 5.6.3).
        header = (name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1"))
        self.headers.append(header)
        if header[0] in _FRAMING:
            self.framing.append(header)

    def on_message_complete(self) -> None:
        """End a message."""
        if not self.complete:
            self.complete = True
            self.count = len(self.pieces)
