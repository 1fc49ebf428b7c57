"""Decode content codings (gzip, deflate, br, zstd) within a bound on the decoded size.

A few compressed bytes can expand to gigabytes. So a decoder gets 4 KiB of input at a time and
returns at most 256 KiB, which are forwarded before it decodes more. The total is limited as well
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

_INPUT_SIZE = 4096  # maximum number of bytes passed to a decoder at a time
_OUTPUT_SIZE = 256 * 1024  # maximum number of bytes that it returns at a time
_MAX_CODINGS = 3  # each has its own memory
_MAX_MEMBERS = 4096
# A window of 8 MiB as a power of two, the largest that may be used in HTTP (RFC 9659)
_ZSTD_WINDOW = 23


class Decoder(Protocol):
    """Decodes one coding, step by step. It may raise any exception of its library."""

    @property
    def eof(self) -> bool:
        """Whether the end of the coding, or of one of its members, was read."""

    @property
    def unused(self) -> bytes:
        """The bytes of the last input that follow that end."""

    def decode(self, data: bytes) -> bytes:
        """Decode some input; returns at most `_OUTPUT_SIZE` bytes (or slightly more)."""

    @property
    def pending(self) -> bool:
        """Whether more output is available without more input, from `decode(b"")`."""


class ContentDecoder:
    """Decodes bytes given to `feed`, and returns them from `next`, in pieces.

    `codings` are in the order in which they are decoded. Raises APIError for unknown codings, for
    invalid data, and above `max_decoded` bytes.
    """

    __slots__ = ("_first", "_last")

    def __init__(self, codings: list[str], max_decoded: int) -> None:
        self._last = self._first = _Stage(codings[0], max_decoded, None)
        for coding in codings[1:]:
            self._last = _Stage(coding, max_decoded, self._last)

    def feed(self, data: bytes) -> None:
        """Add encoded bytes."""
        self._first.feed(data)

    def next(self) -> bytes:
        """Return the next piece; empty if more input is needed. Raises APIError."""
        return self._last.next()

    def close(self) -> None:
        """End the input, after all output was read. Raises APIError if the data is incomplete."""
        self._last.close()

    async def read(self, more: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the next decoded piece of the bytes that `more` returns; empty at their end.
        Raises APIError.
        """
        await asyncio.sleep(0)  # lets other tasks run between two pieces
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
    """Return the headers of the decoded response, and its decoder. Raises APIError for unknown
    codings.

    A `raw` response is not decoded. `max_decoded` is the maximum decoded size in bytes.
    """
    coded = None if raw else header(headers, "content-encoding")
    codings = content_codings(coded) if coded else []
    if not codings:
        return headers, None
    if len(codings) > _MAX_CODINGS:
        raise APIError(
            ErrorKind.UPSTREAM,
            f"The provider's response has more than {_MAX_CODINGS} content codings.",
        )
    # Codings are listed in the order in which they were applied
    decoder = ContentDecoder(codings[::-1], max_decoded)
    return _without_coding(headers), decoder


def decode_body(headers: Headers, body: bytes, *, max_decoded: int) -> tuple[Headers, bytes]:
    """Decode a whole body; returns its headers without the content codings, and the body.

    The body is empty if it cannot be decoded, or its decoded size is above `max_decoded` bytes.
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
    """Decodes one coding of the output of `before`, or of the fed bytes."""

    def __init__(self, coding: str, max_decoded: int, before: _Stage | None) -> None:
        self._coding = coding
        self._max_decoded = max_decoded
        self._before = before
        self._make_decoder = _MAKERS.get(coding, _unknown)
        try:
            self._decoder = self._make_decoder()
        except ImportError:
            raise APIError(
                ErrorKind.UPSTREAM,
                f"The provider encoded its answer as {coding!r}, though the request does not "
                "accept that.",
            ) from None
        self._input = b""
        self._position = 0  # index of the next byte to decode
        self._output_size = 0
        self._members = 0

    def feed(self, data: bytes) -> None:
        self._input = self._input[self._position :] + data
        self._position = 0

    def next(self) -> bytes:
        while True:
            if self._position >= len(self._input) and not self._decoder.pending:
                if self._before is None or not (data := self._before.next()):
                    return b""
                self.feed(data)
            if piece := self._step():
                self._output_size += len(piece)
                if self._output_size > self._max_decoded:
                    raise APIError(
                        ErrorKind.UPSTREAM,
                        "The decoded response of the provider is larger than "
                        f"{self._max_decoded} bytes ({self._coding}).",
                    )
                return piece

    def _step(self) -> bytes:
        try:
            data = b""
            if not self._decoder.pending:
                data = self._input[self._position : self._position + _INPUT_SIZE]
                self._position += len(data)
                if self._decoder.eof or not self._members:
                    self._begin_member()
            piece = self._decoder.decode(data)
            self._position -= len(self._decoder.unused)
        except Exception as error:  # each library has its own exceptions
            raise self._invalid_encoding_error() from error
        return piece

    def _begin_member(self) -> None:
        """Begin a member: gzip and Zstandard may have several (RFC 1952, 2.2; RFC 8878, 3.1)."""
        self._members += 1
        if self._members > 1:
            if self._coding not in _MULTIPLE or self._members > _MAX_MEMBERS:
                raise ValueError("data after the end")
            self._decoder = self._make_decoder()

    def close(self) -> None:
        if self._before is not None:
            self._before.close()
        if self._members and not self._decoder.eof:
            raise self._invalid_encoding_error()

    def _invalid_encoding_error(self) -> APIError:
        return APIError(
            ErrorKind.UPSTREAM,
            f"The provider's response could not be decoded: its encoding ({self._coding}) is "
            "invalid.",
        )


class _Zlib:
    """The formats of zlib: gzip by default."""

    def __init__(self, bits: int = 16 + zlib.MAX_WBITS) -> None:
        self._decoder = zlib.decompressobj(bits)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused(self) -> bytes:
        return self._decoder.unused_data

    @property
    def pending(self) -> bool:
        return not self._decoder.eof and (self._full or bool(self._decoder.unconsumed_tail))

    def decode(self, data: bytes) -> bytes:
        piece = self._decoder.decompress(data or self._decoder.unconsumed_tail, _OUTPUT_SIZE)
        self._full = len(piece) >= _OUTPUT_SIZE
        return piece


class _Deflate(_Zlib):
    """Deflate with zlib's header, as in the standard, or without it, as from some servers.

    The first two bytes show which (RFC 1950, 2.2).
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
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
        return super().decode(data)


class _Brotli:
    """Brotli, with either of two libraries, in versions that can limit their output."""

    unused = b""  # (data after the end is an error for it)

    def __init__(self) -> None:
        tool = _first_of("brotli", "brotlicffi").Decompressor()
        if not hasattr(tool, "can_accept_more_data"):
            raise ImportError("brotli 1.2")
        self._decode = tool.process if hasattr(tool, "process") else tool.decompress
        self._decoder = tool

    @property
    def eof(self) -> bool:
        return bool(self._decoder.is_finished())

    @property
    def pending(self) -> bool:
        return not self._decoder.can_accept_more_data()

    def decode(self, data: bytes) -> bytes:
        piece: bytes = self._decode(data, output_buffer_limit=_OUTPUT_SIZE)
        return piece


class _Zstd:
    """Zstandard, with the standard library (from Python 3.14 on) or its backport."""

    def __init__(self, library: Any) -> None:
        max_decoded = {library.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        self._decoder = library.ZstdDecompressor(options=max_decoded)

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def unused(self) -> bytes:
        return bytes(self._decoder.unused_data)

    @property
    def pending(self) -> bool:
        return not self._decoder.eof and not self._decoder.needs_input

    def decode(self, data: bytes) -> bytes:
        piece: bytes = self._decoder.decompress(data, _OUTPUT_SIZE)
        return piece


class _Zstandard:
    """Zstandard, with the package zstandard, which cannot limit its output.

    So its input is limited instead: a block has at least four bytes and decodes to at most 128 KiB
    (RFC 8878, 3.1.1.2).
    """

    _INPUT_SIZE_BYTES = 32

    def __init__(self, library: Any) -> None:
        self._decoder = library.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW).decompressobj()
        self._input = b""

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def unused(self) -> bytes:
        return bytes(self._decoder.unused_data) + self._input if self._decoder.eof else b""

    @property
    def pending(self) -> bool:
        return bool(self._input) and not self._decoder.eof

    def decode(self, data: bytes) -> bytes:
        data = self._input + data
        data, self._input = data[: self._INPUT_SIZE_BYTES], data[self._INPUT_SIZE_BYTES :]
        piece: bytes = self._decoder.decompress(data)
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
    """Return the codings that can be decoded, as named in the header `accept-encoding`."""
    found: list[str] = []
    for coding, make in _MAKERS.items():
        try:
            make()
        except ImportError:
            continue
        found.append(coding)
    return tuple(found)
