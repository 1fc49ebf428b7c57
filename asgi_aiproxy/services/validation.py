"""What is wrong with a request, in words that name the field."""

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
    """A line that can not be read; they are counted from 1."""

    line: int
    error: str


class KeyImportError(APIError):
    """Some lines of an import are wrong, and so nothing of it was done."""

    def __init__(self, lines: Sequence[ImportLineError]) -> None:
        shown = "; ".join(f"line {bad.line}: {bad.error}" for bad in lines[:20])
        more = f" (and {len(lines) - 20} more)" if len(lines) > 20 else ""
        message = f"Nothing was imported: {shown}{more}."
        super().__init__(ErrorKind.INVALID, message, param="lines", code="bad_lines")
        self.lines = lines
        error = {"message": message, "type": "invalid_request_error", "param": "lines"}
        self.body = _json.dumps({"error": {**error, "code": "bad_lines", "lines": lines}})


def parse_body(data: bytes, wanted: Any) -> Any:
    """A request's JSON body as a type. Raises APIError, which names the field that is wrong."""
    try:
        # Not by `_json`: lone surrogates and NaN, which models send, could not be stored.
        return msgspec.json.decode(data or b"{}", type=wanted)
    except msgspec.ValidationError as error:
        raise field_error(error, wanted) from error
    except RecursionError as error:
        raise invalid("The body is nested too deeply.") from error
    except ValueError as error:
        raise invalid(f"The body is not valid JSON: {error}.") from error


def convert(value: Any, wanted: Any, *, texts: bool = False) -> Any:
    """A value as a type; with `texts` numbers may come as texts. Raises APIError (400)."""
    try:
        return msgspec.convert(value, wanted, strict=not texts)
    except msgspec.ValidationError as error:
        raise field_error(error, wanted) from error


def field_error(error: msgspec.ValidationError, wanted: Any) -> APIError:
    """A validation error of the type `wanted` with the name of its field, and what it takes."""
    text, place = str(error), ""
    if found := _AT.fullmatch(text):
        text, place = found[1], found[2]
    if found := _UNKNOWN.fullmatch(text):
        text, place = "there is no such field", _joined(place, found[1])
    elif found := _MISSING.fullmatch(text):
        text, place = "it is missing", _joined(place, found[1])
    elif text.startswith("Invalid enum value") and (allowed := _allowed(wanted, place)):
        text = f"{text[0].lower()}{text[1:]}; it must be one of {', '.join(allowed)}"
    return invalid(f"{place}: {text}." if place else f"{text}.", place or None)


def _allowed(wanted: Any, place: str) -> list[str]:
    """The values that a field of a type takes, if they can be listed."""
    kinds = [msgspec.inspect.type_info(wanted)]
    for step in re.findall(r"\[|[^.\[\]]+(?=[.\[]|$)", place):
        kinds = [inner for kind in kinds for inner in _inside(kind, step)]
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


def _inside(kind: msgspec.inspect.Type, step: str) -> Iterator[msgspec.inspect.Type]:
    """The types of what lies within a type: of its items (`[`), or its member of this name."""
    inspect = msgspec.inspect
    for one in _alternatives(kind):
        if step == "[" and isinstance(one, inspect.ListType | inspect.VarTupleType):
            yield one.item_type
        elif isinstance(one, inspect.StructType):
            yield from (field.type for field in one.fields if field.encode_name == step)


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def to_api_error(error: Exception) -> APIError:
    """The answer to an error that an operation raised on purpose."""
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
            message = "The store is not available at the moment."
            return APIError(ErrorKind.OVERLOADED, message, retry_after=1.0)
        case ConfigurationError():
            return invalid(str(error))
    raise error


def conflict_error(message: str, param: str = "id") -> APIError:
    """Something of this name is there already."""
    return APIError(ErrorKind.INVALID, message, status=409, param=param, code="exists")


def set_fields(fields: msgspec.Struct, **empty: Any) -> dict[str, Any]:
    """The fields of a change that were sent. Null is None, or what `empty` says of a field."""
    known: Mapping[str, Any] = msgspec.structs.asdict(fields)
    return {
        name: empty.get(name) if value is None else value
        for name, value in known.items()
        if value is not msgspec.UNSET
    }
