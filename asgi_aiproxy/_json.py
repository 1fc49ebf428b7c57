"""JSON: msgspec, with the standard library as fallback for input that is legal but unusual."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

Raw = msgspec.Raw


class NotJSONError(ValueError):
    """The bytes are not JSON; the message says why, for the sender."""


encode = msgspec.json.Encoder().encode  # without the fallback for lone surrogates
_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder().decode


def loads(data: bytes | str) -> Any:
    """Decode any JSON value. Raises NotJSONError.

    Lone surrogates and NaN, which msgspec rejects but models send, are accepted.
    """
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        return _lenient(data)


def typed(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode `data` as a type. Raises NotJSONError, or msgspec.ValidationError for another type."""
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as error:
        # (Numbers like 1e400 are JSON; msgspec calls them a wrong type.)
        if isinstance(error, msgspec.ValidationError) and "out of range" not in str(error):
            raise
        kind: Any = decoder.type
        parsed = _lenient(data)
        try:
            value: T = msgspec.convert(parsed, kind, str_keys=True)
        except (msgspec.ValidationError, UnicodeEncodeError):
            # A member that stays encoded (Raw), or a name that has no UTF-8.
            value = decoder.decode(json.dumps(_finite(_unicode(parsed))).encode())
        return value


def dumps(value: Any) -> bytes:
    """Encode a value compactly; lone surrogates become escapes."""
    try:
        return encode(value)
    except UnicodeEncodeError:
        plain = _finite(msgspec.to_builtins(value))
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()


def quote(text: str) -> bytes:
    """Encode `text` as a JSON string."""
    try:
        return encode(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode()


def encode_each(values: list[str] | list[int]) -> list[bytes]:
    """Encode each text or number as JSON."""
    try:
        lines = _encode_lines(values)
    except UnicodeEncodeError:
        return [quote(str(text)) for text in values]
    # Line breaks within a text are escapes at this point.
    return lines[:-1].split(b"\n") if values else []


def quote_each(texts: list[str], before: bytes, after: bytes) -> bytes:
    """Encode each text as a JSON string between `before` and `after`, and join them."""
    return before + (after + before).join(encode_each(texts)) + after if texts else b""


def _finite(value: Any) -> Any:
    """Return the value with None for NaN and infinity, as msgspec encodes them."""
    match value:
        case dict():
            return {key: _finite(member) for key, member in value.items()}
        case list() | tuple():
            return [_finite(member) for member in value]
        case float() if not math.isfinite(value):
            return None
    return value


def _unicode(value: Any) -> Any:
    """Return the value with a question mark for each lone surrogate."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_unicode(name): _unicode(member) for name, member in value.items()}
        case list():
            return [_unicode(member) for member in value]
    return value


def _lenient(data: bytes | str) -> Any:
    try:
        return json.loads(data.decode() if isinstance(data, bytes) else data)
    except UnicodeDecodeError as error:
        raise NotJSONError("it is not valid UTF-8") from error
    except RecursionError as error:
        raise NotJSONError("it is nested too deeply") from error
    except ValueError as error:
        raise NotJSONError(str(error)) from error
