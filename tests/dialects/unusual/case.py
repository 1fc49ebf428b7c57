"""One odd answer, and helpers to write answers down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from asgi_aiproxy.errors import ErrorKind

Call = tuple[str, str, Any]  # id, name, arguments


@dataclass(frozen=True, kw_only=True)
class Case:
    """An answer of a vendor, and what it means.

    `usage` is input, output, cache reads and reasoning. An answer with `error` is one that fails:
    `text` and `thought` are then what preceded it. An id of a call that starts with `?` is one of
    ours, and is not compared.
    """

    dialect: str
    name: str
    data: bytes
    stream: bool
    media_type: str = "text/event-stream"
    text: str = ""
    thought: str = ""
    refusal: str = ""
    calls: tuple[Call, ...] = ()
    sources: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    finish: str = "end"
    usage: tuple[int, int, int, int] | None = None
    error: ErrorKind | None = None
    message: str = ""  # part of the error's message
    native: bool = True  # whether a client of the same API can get it as it is
    known: bool = True  # whether the types of the vendor's SDK have all of it

    def __str__(self) -> str:
        return f"{self.dialect}-{self.name}"


def data(value: Any) -> bytes:
    """JSON as vendors write it; bytes and text stay as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def sse(*events: Any) -> bytes:
    """Events without a type. Bytes that are no JSON are taken as whole lines of the stream."""
    return b"".join(e if isinstance(e, bytes) else b"data: %b\n\n" % data(e) for e in events)


def typed(*events: Any) -> bytes:
    """Events whose type stands before their data too."""
    return b"".join(
        e if isinstance(e, bytes) else b"event: %b\ndata: %b\n\n" % (e["type"].encode(), data(e))
        for e in events
    )
