"""Amazon's binary event stream, written: the opposite of what the package reads."""

from __future__ import annotations

import json
import struct
from typing import Any
from zlib import crc32


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message with these headers, all strings."""
    block = b""
    for name, value in headers.items():
        text = value.encode()
        block += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(text)) + text
    return sealed(block, payload)


def sealed(headers: bytes, payload: bytes) -> bytes:
    """One message of encoded headers and a payload, with both checksums."""
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return body + struct.pack("!I", crc32(body))


def event(name: str, payload: Any, kind: str = "event") -> bytes:
    """One event or exception (`kind`) with a JSON payload."""
    headers = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return message(headers, data)


def encode_lines(text: str) -> bytes:
    """A stream written by hand: `name {...}` a line; `!name {...}` is an exception."""
    out = b""
    for line in text.splitlines():
        name, _, payload = line.partition(" ")
        kind = "exception" if name.startswith("!") else "event"
        out += event(name.removeprefix("!"), payload.encode(), kind)
    return out
