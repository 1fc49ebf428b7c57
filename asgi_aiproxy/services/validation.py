"""Validate requests; errors name the field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.accounts import NoSuchRowError, RowExistsError
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, invalid
from asgi_aiproxy.keys.key import KeyExistsError
from asgi_aiproxy.stores.base import StoreUnavailableError

_AT = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


class ImportLineError(msgspec.Struct, frozen=True):
    """An invalid line of an import; lines are counted from 1."""

    line: int
    error: str


class KeyImportError(APIError):
    """Some lines of an import are invalid, so nothing was imported."""

    def __init__(self, lines: Sequence[ImportLineError]) -> None:
        shown = "; ".join(f"line {item.line}: {item.error}" for item in lines[:20])
        more = f" (and {len(lines) - 20} more)" if len(lines) > 20 else ""
        message = f"Nothing was imported: {shown}{more}."
        super().__init__(ErrorKind.INVALID, message, param="lines", code="bad_lines")
        self.lines = lines
        error = {"message": message, "type": "invalid_request_error", "param": "lines"}
        self.body = _json.dumps({"error": {**error, "code": "bad_lines", "lines": lines}})


def parse_body(data: bytes, type_: Any) -> Any:
    """Decode a JSON request body as a type. Raises APIError, which names the invalid field."""
    try:
        # Not with `_json`, which accepts lone surrogates and NaN (models send them): they could not
        # be stored.
        return msgspec.json.decode(data or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise field_error(error, type_) from error
    except RecursionError as error:
        raise invalid("The body is nested too deeply.") from error
    except ValueError as error:
        raise invalid(f"The body is not valid JSON: {error}.") from error


def convert(value: Any, type_: Any, *, texts: bool = False) -> Any:
    """Convert a value to a type; with `texts`, numbers may be strings. Raises APIError (400)."""
    try:
        return msgspec.convert(value, type_, strict=not texts)
    except msgspec.ValidationError as error:
        raise field_error(error, type_) from error


def field_error(error: msgspec.ValidationError, type_: Any) -> APIError:
    """Return the error for a validation error of `wanted`, with the field's name and its allowed
    values.
    """
    text, place = str(error), ""
    if found := _AT.fullmatch(text):
        text, place = found[1], found[2]
    if found := _UNKNOWN.fullmatch(text):
        text, place = "unknown field", _joined(place, found[1])
    elif found := _MISSING.fullmatch(text):
        text, place = "it is missing", _joined(place, found[1])
    elif text.startswith("Invalid enum value") and (allowed := _allowed(type_, place)):
        text = f"{text[0].lower()}{text[1:]}; it must be one of {', '.join(allowed)}"
    return invalid(f"{place}: {text}." if place else f"{text}.", place or None)


def _allowed(type_: Any, place: str) -> list[str]:
    """Return the values that a field of a type allows, if there is a list of them."""
    kinds = [msgspec.inspect.type_info(type_)]
    for step in re.findall(r"\[|[^.\[\]]+(?=[.\[]|$)", place):
        kinds = [inner for kind in kinds for inner in _inner_types(kind, step)]
    flat = [inner for kind in kinds for inner in _alternatives(kind)]
    return [
        str(value)
        for kind in flat
        if isinstance(kind, msgspec.inspect.LiteralType)
        for value in kind.values
        if value != ""
    ]


def _alternatives(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    if isinstance(kind, msgspec.inspect.UnionType):
        for one in kind.types:
            yield from _alternatives(one)
    elif isinstance(kind, msgspec.inspect.Metadata):
        yield from _alternatives(kind.type)
    else:
        yield kind


def _inner_types(kind: msgspec.inspect.Type, step: str) -> Iterator[msgspec.inspect.Type]:
    """Return the types inside a type: of its items (`[`), or of its member with this name."""
    inspect = msgspec.inspect
    for one in _alternatives(kind):
        if step == "[" and isinstance(one, inspect.ListType | inspect.VarTupleType):
            yield one.item_type
        elif isinstance(one, inspect.StructType):
            yield from (field.type for field in one.fields if field.encode_name == step)


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def to_api_error(error: Exception) -> APIError:
    """Return the response for an error that an operation raised on purpose."""
    match error:
        case APIError():
            return error
        case NoSuchRowError():
            return APIError(ErrorKind.NOT_FOUND, str(error), code="not_found")
        case RowExistsError():
            return conflict_error(str(error))
        case KeyExistsError():
            return conflict_error(str(error))
        case StoreUnavailableError():
            message = "The store is temporarily unavailable."
            return APIError(ErrorKind.OVERLOADED, message, retry_after=1.0)
        case ConfigurationError():
            return invalid(str(error))
    raise error


def conflict_error(message: str, param: str = "id") -> APIError:
    """Return the error (409) for a name that exists already."""
    return APIError(ErrorKind.INVALID, message, status=409, param=param, code="exists")


def set_fields(fields: msgspec.Struct, **empty: Any) -> dict[str, Any]:
    """Return the fields of a change that were sent. Null becomes None, or the field's value in
    `empty`.
    """
    known: Mapping[str, Any] = msgspec.structs.asdict(fields)
    return {
        name: empty.get(name) if value is None else value
        for name, value in known.items()
        if value is not msgspec.UNSET
    }
