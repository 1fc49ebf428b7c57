"""Undoing the content codings of answers that are encoded although nobody asked for it."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from asgi_aiproxy.errors import APIError, Kind
from asgi_aiproxy.upstream.base import Headers

# What is decoded at once, and what may come of all that arrived at once: a few bytes can stand for
# gigabytes.
_SLICE, _MOST = 4096, 64 * 1024 * 1024


class Undo(Protocol):
    """Takes encoded bytes and gives what they mean. Raises APIError."""

    def feed(self, data: bytes) -> bytes:
        """What can be told so far."""

    def close(self) -> None:
        """All has come; raises APIError if something is missing."""


def plain(headers: list[tuple[str, str]], *, raw: bool = False) -> tuple[Headers, Undo | None]:
    """The headers of the decoded answer, and what decodes it. Raises APIError on the unknown.

    A `raw` answer is left as it is.
    """
    if raw:
        return headers, None
    codings = [
        coding
        for name, value in headers
        if name == "content-encoding"
        for coding in value.lower().replace(" ", "").split(",")
        if coding not in ("", "identity")
    ]
    if not codings:
        return headers, None
    undo: Undo | None = None
    for coding in reversed(codings):  # the last was put on last
        one = _Undo(coding)
        undo = one if undo is None else _Both(undo, one)
    left = [header for header in headers if header[0] not in ("content-encoding", "content-length")]
    return left, undo


class _Undo:
    """Undoes one coding."""

    def __init__(self, coding: str) -> None:
        make = _MAKERS.get(coding)
        self._coding = coding
        self._make: Callable[[], Any] = make if make is not None else _unknown
        try:
            self._tool = self._make()
        except ImportError:
            raise APIError(
                Kind.UPSTREAM,
                f"The provider encoded its answer as {coding!r}, though it was asked not to.",
            ) from None
        self._began = False

    def feed(self, data: bytes) -> bytes:
        """Decode."""
        self._began = self._began or bool(data)
        out, size = [], 0
        for at in range(0, len(data), _SLICE):
            for piece in self._decoded(data[at : at + _SLICE]):
                out.append(piece)
                size += len(piece)
            if size > _MOST:
                raise APIError(
                    Kind.UPSTREAM,
                    f"The provider's answer could not be read: so few bytes of {self._coding} are "
                    f"more than {_MOST} when they are decoded.",
                )
        return b"".join(out)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                yield self._tool.decompress(data)
                data = b""
                if getattr(self._tool, "eof", False):  # another member may follow
                    data = self._tool.unused_data
                    if data:
                        self._tool = self._make()
        except Exception as error:  # each library has errors of its own
            raise self._broken() from error

    def close(self) -> None:
        """Check that it is all."""
        if self._began and not getattr(self._tool, "eof", True):
            raise self._broken()

    def _broken(self) -> APIError:
        return APIError(
            Kind.UPSTREAM,
            f"The provider's answer could not be read: its encoding ({self._coding}) is broken.",
        )


class _Both:
    """Undoes one coding, and then another."""

    def __init__(self, outer: Undo, inner: Undo) -> None:
        self._outer = outer
        self._inner = inner

    def feed(self, data: bytes) -> bytes:
        """Decode."""
        return self._inner.feed(self._outer.feed(data))

    def close(self) -> None:
        """Check that it is all."""
        self._outer.close()
        self._inner.close()


class _Deflate:
    """With zlib's header, as the standard says, or without, as some servers do."""

    unused_data = b""

    def __init__(self) -> None:
        self._tool = zlib.decompressobj()
        self._first = True

    @property
    def eof(self) -> bool:
        """Whether the end was seen."""
        return self._tool.eof

    def decompress(self, data: bytes) -> bytes:
        """Decode."""
        first, self._first = self._first, False
        try:
            return self._tool.decompress(data)
        except zlib.error:
            if not first:
                raise
            self._tool = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._tool.decompress(data)


def _gzip() -> Any:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


class _Brotli:
    """Brotli's two libraries name things differently."""

    def __init__(self) -> None:
        tool = _first_of("brotli", "brotlicffi").Decompressor()
        self.decompress = tool.decompress if hasattr(tool, "decompress") else tool.process
        self._finished = tool.is_finished if hasattr(tool, "is_finished") else lambda: True

    unused_data = b""

    @property
    def eof(self) -> bool:
        """Whether the end was seen."""
        return bool(self._finished())


def _zstd() -> Any:
    library = _first_of("compression.zstd", "backports.zstd", "zstandard")
    made = library.ZstdDecompressor()
    return made.decompressobj() if hasattr(made, "decompressobj") else made


def _unknown() -> Any:
    raise ImportError


def _first_of(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError


_MAKERS: dict[str, Callable[[], Any]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _zstd,
}
