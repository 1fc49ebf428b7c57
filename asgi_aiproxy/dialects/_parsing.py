"""Parses bodies of clients and providers.

Errors of client bodies name the invalid field. Provider bodies may be anything (HTML, text, empty):
readers for them return a default instead of raising, and errors quote an excerpt.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status, invalid
from asgi_aiproxy.inspection import check_names
from asgi_aiproxy.messages import Media

T = TypeVar("T")

_VALIDATION_MESSAGE = re.compile(r"^(?P<what>.*?) - at `\$?\.?(?P<where>[^`]*)`$", re.DOTALL)
_TAG = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def body(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode a client's request body; raises APIError naming the invalid field."""
    try:
        return _json.typed(decoder, data)
    except _json.NotJSONError as error:
        raise invalid(f"The request body could not be read as JSON: {error}.") from error
    except msgspec.ValidationError as error:
        raise type_error(error) from error


def type_error(error: msgspec.ValidationError) -> APIError:
    """The error for a body of the wrong shape; `param` is the path of the field."""
    found = _VALIDATION_MESSAGE.match(str(error))
    what = found["what"] if found else str(error)
    where = found["where"] if found else None
    missing = re.match(r"Object missing required field `(.+)`", what)
    if missing:
        where = f"{where}.{missing[1]}" if where else missing[1]
        return invalid(
            f"Missing required parameter: '{where}'.", where, "missing_required_parameter"
        )
    place = f" for '{where}'" if where else ""
    return invalid(f"Invalid type{place}: {_lower(what)}.", where, "invalid_type")


text = msgspec.json.Decoder(str)
flag = msgspec.json.Decoder(bool)
raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_fields = raw_object
_ARRAY_START = ord("[")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def fields(data: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members of a client's body. Values stay encoded, but are known to be JSON.

    Of a duplicate name the last value counts. Raises APIError, also for names that other parsers
    could read as a different name (see `asgi_aiproxy.inspection`).
    """
    if not data:
        raise invalid("The request body could not be read as JSON: it is empty.")
    try:
        data.decode()  # the decoder skips over strings without looking at their bytes
        found = _fields.decode(data)
    except UnicodeDecodeError as error:
        raise invalid(
            "The request body could not be read as JSON: it is not valid UTF-8."
        ) from error
    except msgspec.ValidationError as error:
        raise invalid("The request body must be a JSON object.") from error
    except RecursionError as error:
        raise invalid(
            "The request body could not be read as JSON: it is nested too deeply."
        ) from error
    except msgspec.DecodeError as error:
        why = str(error).removeprefix("JSON is malformed: ")
        if _SURROGATE.search(data) and parse_object(data) is not None:
            why = "a \\u escape is half of a surrogate pair"
        raise invalid(f"The request body could not be read as JSON: {why}.") from error
    check_names(found)
    return found


def member(
    found: Mapping[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[T]
) -> T | None:
    """One member, decoded; None if it is absent or null. Raises APIError naming it."""
    raw = found.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        if bytes(raw) == b"null":
            return None
        matched = _VALIDATION_MESSAGE.match(str(error))
        what = matched["what"] if matched else str(error)
        raise invalid(
            f"Invalid type for '{name}': {_lower(what)}.", name, "invalid_type"
        ) from error


def missing_field_error(name: str) -> APIError:
    """The error for a required member that is missing."""
    return invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def empty_messages_error() -> APIError:
    """The error for a request without messages, or with empty ones only."""
    return invalid("'messages' must contain at least one message that is not empty.", "messages")


def read_model(found: Mapping[str, msgspec.Raw], default: str = "") -> str:
    """The member `model`, or `default` if it is absent or null. Raises APIError."""
    model = member(found, "model", text)
    if model is None:
        model = default
    if not model:
        raise missing_field_error("model")
    return model


def limit(value: int | None, name: str) -> int | None:
    """A token limit; raises APIError if it is below 1."""
    if value is not None and value < 1:
        raise invalid(f"'{name}' must be at least 1, not {value}.", name, "invalid_value")
    return value


def require_list(found: Mapping[str, msgspec.Raw], name: str) -> None:
    """Raise APIError if the member `name` is missing or not a list."""
    if name not in found:
        raise missing_field_error(name)
    if memoryview(found[name])[0] != _ARRAY_START:  # the space before a value is not part of it
        raise invalid(f"Invalid type for '{name}': expected an array.", name, "invalid_type")


def members(data: bytes, known: Collection[str]) -> dict[str, Any]:
    """The top-level members of a body that are not among `known` and not null."""
    try:
        found = _fields.decode(data)
    except (ValueError, RecursionError):  # legal all the same
        return {k: v for k, v in _json.loads(data).items() if k not in known and v is not None}
    unknown = [(name, raw) for name, raw in found.items() if name not in known]
    return {k: v for k, raw in unknown if (v := _json.loads(bytes(raw))) is not None}


def parse_object(data: bytes | str) -> dict[str, Any] | None:
    """The JSON object in `data`, or None if that is not what it holds."""
    try:
        value = _json.loads(data)
    except _json.NotJSONError:
        return None
    return value if isinstance(value, dict) else None


def names(data: bytes, members: str, name: str) -> tuple[str, ...]:
    """Return the member `name` of each object in the list `members`. Raises ValueError."""
    found = (parse_object(data) or {}).get(members)
    if not isinstance(found, list):
        raise ValueError("it is not a list of models")
    values = (item.get(name) for item in found if isinstance(item, dict))
    return tuple(value for value in values if isinstance(value, str))


def titles(data: bytes, members: str, name: str, title: str) -> dict[str, str]:
    """The member `title` of each object in the list `members`, by its member `name`."""
    found = objects((parse_object(data) or {}).get(members))
    pairs = ((get_text(item, name), get_text(item, title)) for item in found)
    return {key: value for key, value in pairs if key and value}


def arguments(text: str, ignored: list[str]) -> dict[str, Any]:
    """The arguments of a tool call as an object.

    Text that is not a JSON object is wrapped as `{"arguments": text}` and reported in `ignored`.
    Some clients send `null` or an empty string for a call without arguments.
    """
    value = {} if text.strip() in ("", "null") else parse_object(text)
    if value is not None:
        return value
    ignored.append("tool_calls[].function.arguments")
    return {"arguments": text}


def document_text(media: Media) -> str:
    """The text of a plain-text document; empty for any other document.

    Raises APIError if its data is not valid base64.
    """
    if media.text or not media.media_type.startswith("text/"):
        return media.text
    try:
        return base64.b64decode(media.data).decode("utf-8", "replace")
    except binascii.Error as error:
        raise invalid("A document's data is not valid base64.", "messages") from error


def read_count(where: Any, name: str) -> int:
    """A token count; 0 if it is missing or invalid. Some vendors send 12.0 or "12"."""
    value = where.get(name) if isinstance(where, dict) else None
    if type(value) is int or value is None:
        return value or 0
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else 0


def token_count(data: bytes, name: str) -> int:
    """The member `name` of a provider's count of tokens. Raises APIError if it is not a count."""
    found = parse_object(data)
    count = found.get(name) if found is not None else None
    if type(count) is not int or count < 0:
        raise unparsable_response_error(200, data)
    return count


def get_text(where: Any, name: str) -> str:
    """A string member; empty if it is missing or not a string."""
    value = where.get(name) if isinstance(where, dict) else None
    return value if isinstance(value, str) else ""


def objects(value: Any) -> Sequence[dict[str, Any]]:
    """The objects in a list. Items of other types are skipped; none if `value` is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else ()


def excerpt(data: bytes, limit: int = 300) -> str:
    """The first readable text of an unexpected body, such as the HTML error page of a proxy."""
    text = data[:20_000].decode("utf-8", "replace")
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "…"


def unparsable_response_error(status: int, data: bytes) -> APIError:
    """The error for a provider response that is not a JSON object.

    Vendors reject keys with a JSON body, so a 403 of this kind comes from a firewall and does not
    count against the key.
    """
    found = excerpt(data)
    message = f"The provider answered HTTP {status}" + (
        f": {found}" if found else " without a body"
    )
    kind = ErrorKind.UPSTREAM if status == 403 else error_kind_for_status(status)
    return APIError(kind, message, status=client_status(status, kind), upstream_status=status)


def error_message(error: APIError) -> str:
    """The message of an error for APIs that have no member for the path of the wrong member.

    (What providers say is passed on as it is.)
    """
    if error.param is None or error.upstream_status is not None or error.param in error.message:
        return error.message
    return f"{error.param}: {error.message}"


def words(*found: Any) -> tuple[str, ...]:
    """The machine-readable error words among `found`: its non-empty strings."""
    return tuple(word for word in found if isinstance(word, str) and word)


def client_status(status: int, kind: ErrorKind) -> int | None:
    """The upstream status if the client should see it (a 4xx caused by the request), else None."""
    return status if status >= 400 and kind in (ErrorKind.INVALID, ErrorKind.NOT_FOUND) else None


def failed(word: str, message: str = "") -> APIError:
    """The error for a response without content whose finish reason `word` is a failure."""
    details = f" ({message})" if message else ""
    return APIError(
        ErrorKind.UPSTREAM,
        f"The provider's model gave no answer: it failed with {word}{details}.",
    )


def truncated_response_error(why: str) -> APIError:
    """The error for a provider response that is incomplete or malformed."""
    return APIError(ErrorKind.UPSTREAM, f"The provider's answer is broken: {why}.")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
