"""Decode content codings (gzip, deflate, br, zstd) within a bound on the decoded size.

A few compressed bytes can expand to gigabytes. So a decoder gets 4 KiB of input at a time and
returns at most 256 KiB, which are passed on before it decodes more. The sum is limited as well
(`max_decoded`), separately for each coding of a response that has several. Reading yields to the
event loop between two pieces.

https://www.rfc-editor.org/rfc/rfc9110#section-8.4
"""

from __future__ import annotations

import asyncio
import importlib
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from asgi_aiproxy._headers import content_codings
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.upstream.base import MAX_DECODED, Headers, header

_SLICE = 4096  # bytes that a decoder is given at once
_PIECE = 256 * 1024  # bytes that it gives at once
_MOST_CODINGS = 3  # each has its own memory
_MOST_MEMBERS = 4096
_ZSTD_WINDOW = 23  # 8 MiB as a power of two: the largest one that may be sent (RFC 9659)


class Decoder(Protocol):
    """Undoes one coding, step by step. It may raise whatever its library does."""

    @property
    def eof(self) -> bool:
        """Whether the end of the coding, or of one of its members, was seen."""

    @property
    def unused(self) -> bytes:
        """What of the last slice followed that end."""

    def decode(self, data: bytes) -> bytes:
        """Take a slice, and give at most a piece (or little more) of what it means."""

    @property
    def pending(self) -> bool:
        """Whether there is more to give without more to take: `decode(b"")` gives it."""


class ContentDecoder:
    """Takes encoded bytes by `feed`, and gives what they mean by `next`, in pieces.

    `codings` are in the order in which they are to be undone. Raises APIError on codings that are
    not known, on data that is not valid, and above `max_decoded` bytes.
    """

    __slots__ = ("_first", "_last")

    def __init__(self, codings: list[str], max_decoded: int) -> None:
        self._last = self._first = _Stage(codings[0], max_decoded, None)
        for coding in codings[1:]:
            self._last = _Stage(coding, max_decoded, self._last)

    def feed(self, data: bytes) -> None:
        """Some more of the encoded bytes."""
        self._first.feed(data)

    def next(self) -> bytes:
        """The next piece; nothing if more has to come first. Raises APIError."""
        return self._last.next()

    def close(self) -> None:
        """All has come, and was read. Raises APIError if something is missing."""
        self._last.close()

    async def read(self, more: Callable[[], Awaitable[bytes]]) -> bytes:
        """The next piece of what `more` gives; nothing at its end. Raises APIError."""
        await asyncio.sleep(0)  # between two pieces, others have their turn
        while not (piece := self.next()):
            data = await more()
            if not data:
                self.close()
                return b""
            self.feed(data)
        return piece


def content_decoder(
    headers: list[tuple[str, str]], *, raw: bool = False, max_decoded: int = MAX_DECODED
) -> tuple[Headers, ContentDecoder | None]:
    """The headers of the decoded answer, and what decodes it. Raises APIError on the unknown.

    A `raw` answer is left as it is. `max_decoded` is how many bytes it may be when it is decoded.
    """
    coded = None if raw else header(headers, "content-encoding")
    codings = content_codings(coded) if coded else []
    if not codings:
        return headers, None
    if len(codings) > _MOST_CODINGS:
        raise APIError(
            ErrorKind.UPSTREAM,
            f"The provider's answer has more than {_MOST_CODINGS} content codings.",
        )
    undo = ContentDecoder(codings[::-1], max_decoded)  # the last was put on last
    return _without_coding(headers), undo


def decode_body(headers: Headers, body: bytes, *, max_decoded: int) -> tuple[Headers, bytes]:
    """Decode a whole body; returns its headers without the content codings, and the body.

    The body is empty if it cannot be decoded, or is longer than `max_decoded` bytes then.
    """
    try:
        decoded_headers, decoder = content_decoder(list(headers), max_decoded=max_decoded)
        if decoder is None:
            return decoded_headers, body
        decoder.feed(body)
        pieces = []
        while piece := decoder.next():
            pieces.append(piece)
        decoder.close()
    except APIError:
        return _without_coding(headers), b""
    return decoded_headers, b"".join(pieces)


def _without_coding(headers: Headers) -> Headers:
    return [pair for pair in headers if pair[0] not in ("content-encoding", "content-length")]


class _Stage:
    """Undoes one coding of what `before` gives, or of what it is fed."""

    def __init__(self, coding: str, max_decoded: int, before: _Stage | None) -> None:
        self._coding = coding
        self._most = max_decoded
        self._before = before
        self._make = _MAKERS.get(coding, _unknown)
        try:
            self._tool = self._make()
        except ImportError:
            raise APIError(
                ErrorKind.UPSTREAM,
                f"The provider encoded its answer as {coding!r}, though it was asked not to.",
            ) from None
        self._held = b""
        self._at = 0  # what of it was decoded
        self._given = 0
        self._members = 0

    def feed(self, data: bytes) -> None:
        self._held = self._held[self._at :] + data
        self._at = 0

    def next(self) -> bytes:
        while True:
            if self._at >= len(self._held) and not self._tool.pending:
                if self._before is None or not (data := self._before.next()):
                    return b""
                self.feed(data)
            if piece := self._step():
                self._given += len(piece)
                if self._given > self._most:
                    raise APIError(
                        ErrorKind.UPSTREAM,
                        f"The provider's answer is larger than {self._most} bytes when it is "
                        f"decoded ({self._coding}).",
                    )
                return piece

    def _step(self) -> bytes:
        try:
            data = b""
            if not self._tool.pending:
                data = self._held[self._at : self._at + _SLICE]
                self._at += len(data)
                if self._tool.eof or not self._members:
                    self._begin()
            piece = self._tool.decode(data)
            self._at -= len(self._tool.unused)
        except Exception as error:  # each library has errors of its own
            raise self._broken() from error
        return piece

    def _begin(self) -> None:
        """Begin a member: gzip and Zstandard may have several (RFC 1952, 2.2; RFC 8878, 3.1)."""
        self._members += 1
        if self._members > 1:
            if self._coding not in _MULTIPLE or self._members > _MOST_MEMBERS:
                raise ValueError("something follows the end")
            self._tool = self._make()

    def close(self) -> None:
        if self._before is not None:
            self._before.close()
        if self._members and not self._tool.eof:
            raise self._broken()

    def _broken(self) -> APIError:
        return APIError(
            ErrorKind.UPSTREAM,
            f"The provider's answer could not be read: its encoding ({self._coding}) is broken.",
        )


class _Zlib:
    """Of zlib's family: gzip by default."""

    def __init__(self, bits: int = 16 + zlib.MAX_WBITS) -> None:
        self._tool = zlib.decompressobj(bits)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._tool.eof

    @property
    def unused(self) -> bytes:
        return self._tool.unused_data

    @property
    def pending(self) -> bool:
        return not self._tool.eof and (self._full or bool(self._tool.unconsumed_tail))

    def decode(self, data: bytes) -> bytes:
        piece = self._tool.decompress(data or self._tool.unconsumed_tail, _PIECE)
        self._full = len(piece) >= _PIECE
        return piece


class _Deflate(_Zlib):
    """With zlib's header, as the standard says, or without, as some servers do.

    The header's two bytes tell (RFC 1950, 2.2).
    """

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)
        self._start: bytes | None = b""

    def decode(self, data: bytes) -> bytes:
        if self._start is not None:
            data = self._start + data
            if len(data) < 2:
                self._start = data
                return b""
            self._start = None
            if data[0] & 0x8F != 0x08 or int.from_bytes(data[:2]) % 31:
                self._tool = zlib.decompressobj(-zlib.MAX_WBITS)
        return super().decode(data)


class _Brotli:
    """Brotli, by either of its libraries, from the versions on that can limit what they give."""

    unused = b""  # (more than there should be is an error to it)

    def __init__(self) -> None:
        tool = _first_of("brotli", "brotlicffi").Decompressor()
        if not hasattr(tool, "can_accept_more_data"):
            raise ImportError("brotli 1.2")
        self._decode = tool.process if hasattr(tool, "process") else tool.decompress
        self._tool = tool

    @property
    def eof(self) -> bool:
        return bool(self._tool.is_finished())

    @property
    def pending(self) -> bool:
        return not self._tool.can_accept_more_data()

    def decode(self, data: bytes) -> bytes:
        piece: bytes = self._decode(data, output_buffer_limit=_PIECE)
        return piece


class _Zstd:
    """Zstandard by the standard library (from Python 3.14 on), or its backport."""

    def __init__(self, library: Any) -> None:
        max_decoded = {library.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        self._tool = library.ZstdDecompressor(options=max_decoded)

    @property
    def eof(self) -> bool:
        return bool(self._tool.eof)

    @property
    def unused(self) -> bytes:
        return bytes(self._tool.unused_data)

    @property
    def pending(self) -> bool:
        return not self._tool.eof and not self._tool.needs_input

    def decode(self, data: bytes) -> bytes:
        piece: bytes = self._tool.decompress(data, _PIECE)
        return piece


class _Zstandard:
    """Zstandard by the package zstandard, which cannot limit what it gives.

    But what it is given: a block is at least four bytes and at most 128 KiB (RFC 8878, 3.1.1.2).
    """

    _FEW = 32

    def __init__(self, library: Any) -> None:
        self._tool = library.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW).decompressobj()
        self._held = b""

    @property
    def eof(self) -> bool:
        return bool(self._tool.eof)

    @property
    def unused(self) -> bytes:
        return bytes(self._tool.unused_data) + self._held if self._tool.eof else b""

    @property
    def pending(self) -> bool:
        return bool(self._held) and not self._tool.eof

    def decode(self, data: bytes) -> bytes:
        data = self._held + data
        data, self._held = data[: self._FEW], data[self._FEW :]
        piece: bytes = self._tool.decompress(data)
        return piece


def _zstd() -> Decoder:
    try:
        return _Zstd(_first_of("compression.zstd", "backports.zstd"))
    except ImportError:
        return _Zstandard(_first_of("zstandard"))


def _unknown() -> Decoder:
    raise ImportError


def _first_of(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError


_MULTIPLE = frozenset({"gzip", "x-gzip", "zstd"})
_MAKERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _Zlib,
    "x-gzip": _Zlib,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _zstd,
}


def supported_codings() -> tuple[str, ...]:
    """The codings that can be decoded here, by the names of the header `accept-encoding`."""
    found: list[str] = []
    for coding, make in _MAKERS.items():
        try:
            make()
        except ImportError:
            continue
        found.append(coding)
    return tuple(found)
