"""Find the models that a proxied request names, for callers that are restricted to models or have a
budget.

Read are all places in which vendors let a caller name a model: the path, the query, headers
(`azureml-model-deployment`), and the body: JSON (`asgi_aiproxy.inspection`), multipart forms
(`asgi_aiproxy.multipart`) and URL-encoded forms. A body that cannot be read (compressed, of another
type, or JSON declared as a form) could request anything: it is refused with 415.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal
from urllib.parse import unquote_plus

import msgspec

from asgi_aiproxy import _asgi, _json, inspection, multipart
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.inspection import NOTHING, Inspection, ambiguous, check_model, folded, names_model
from asgi_aiproxy.passthrough.headers import Pairs

BodyKind = Literal["json", "form", "multipart", "other"]

_CHARSET = re.compile(r'[ \t]*(?:charset="?utf-?8"?[ \t]*)?', re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_JSON_BEGINS = re.compile(rb"[\s\x00\xef\xbb\xbf]*[{\[]")
_FORM = "application/x-www-form-urlencoded"


_ABSENT = msgspec.Raw()


class _PeekedBody(msgspec.Struct):
    """The part of a body that is read for usage records and for the choice of a key; not
    validated.
    """

    model: str | None = None
    store: bool | None = None
    metadata: msgspec.Raw = _ABSENT
    user: msgspec.Raw = _ABSENT


_decode_peeked = msgspec.json.Decoder(_PeekedBody).decode


def peek_model(body: bytes) -> Inspection:
    """Return the model named in a JSON body, for a caller without restrictions.

    Of its other members only those are returned that label usage records. A name that is too long
    for one is left out: it would be kept in records.
    """
    try:
        found = _decode_peeked(body)
    except (ValueError, RecursionError):
        return NOTHING
    fields = {}
    if found.metadata is not _ABSENT:
        fields["metadata"] = found.metadata
    if found.user is not _ABSENT:
        fields["user"] = found.user
    named = found.model or ""
    known = len(named) <= inspection.MAX_MODEL_NAME
    model = inspection.strip_models_prefix(named) if known else ""
    return Inspection(fields, model, store=found.store)


def body_members(body: bytes) -> Collection[str]:
    """Return the names of the members of a JSON body; empty if it is not an object."""
    try:
        found = _json.loads(body)
    except _json.NotJSONError:
        return ()
    return found.keys() if isinstance(found, dict) else ()


def is_json(content_type: str) -> bool:
    """Return whether a content type is JSON."""
    return "json" in content_type.partition(";")[0].lower()


def body_kind(content_type: str) -> BodyKind:
    """Return how a body of this type is read. A body without a type is read as JSON, as
    servers do.
    """
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if multipart.is_multipart_form(content_type):
        return "multipart"
    if not _CHARSET.fullmatch(parameters):
        return "other"
    if not kind or kind == "application/json" or (kind.endswith("+json") and "," not in kind):
        return "json"
    return "form" if kind == _FORM else "other"


def check_readable(content_type: str, content_encoding: str) -> BodyKind:
    """Return how the body of a restricted caller is read. Raises APIError (415) if it cannot be."""
    if content_encoding.strip().lower() not in ("", "identity"):
        raise _unreadable(f"not be encoded as {content_encoding[:40]!r}: send it uncompressed")
    kind = body_kind(content_type)
    if kind == "other":
        raise _unreadable(f"be JSON or a form in UTF-8, not {content_type[:100]!r}")
    return kind


def check_uncompressed(content_encoding: str) -> None:
    """Raise APIError (415) if a body that hooks see is compressed."""
    if content_encoding.strip().lower() not in ("", "identity"):
        message = "The request body is checked by this gateway: send it uncompressed."
        raise APIError(ErrorKind.INVALID, message, status=415)


def _unreadable(must: str) -> APIError:
    message = (
        f"The request body of a caller that is restricted to models or has a budget must {must}."
    )
    return APIError(ErrorKind.INVALID, message, status=415)


async def inspect_body(kind: BodyKind, content_type: str, body: bytes) -> Inspection:
    """Inspect a whole body. Raises APIError."""
    if kind == "json":
        return await _asgi.off_loop(len(body), inspection.inspect, body)
    if kind == "form":
        return inspect_form(body)
    form = multipart.FormParser.from_content_type(content_type)
    form.feed(body)
    form.close()
    return models_in_fields(form.field, form.model)


def models_in_fields(name: str, value: str | None) -> Inspection:
    """Return the models that a form field names, if `name` is the name of a field for models."""
    model = inspection.strip_models_prefix(value or "")
    if name == "model" or not model:
        return Inspection({}, model)
    return Inspection({}, others=(model,))


def inspect_form(body: bytes) -> Inspection:
    """Inspect a URL-encoded form. Raises APIError if it is ambiguous."""
    if _JSON_BEGINS.match(body):
        raise _unreadable("be sent as application/json if it is JSON")
    if b";" in body or _BAD_ESCAPE.search(body) or not body.isascii():
        raise invalid("The form is malformed: it is not URL-encoded in the way of browsers.")
    field, model = "", ""
    for pair in body.split(b"&"):
        name, _, value = (_decoded(part) for part in pair.partition(b"="))
        if not names_model(name):
            if name == "_charset_":
                raise invalid("The form must be in UTF-8, without a field '_charset_'.")
            continue
        if folded(name) == "model" and name != "model":
            raise ambiguous(name, "model")
        if field:
            raise invalid("The form names more than one model.", "model")
        field, model = name, check_model(value)
    return models_in_fields(field, model)


def _decoded(text: bytes) -> str:
    try:
        return unquote_plus(text.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        raise invalid("The form is malformed: it is not valid UTF-8.") from None


def models_outside_body(query: str, headers: Pairs) -> tuple[str, ...]:
    """Return the models named in the query and the headers of a request. Raises APIError."""
    found = []
    if query:
        for pair in query.replace(";", "&").split("&"):
            name, _, value = (unquote_plus(part) for part in pair.partition("="))
            if names_model(name):
                found.append(inspection.strip_models_prefix(check_model(value)))
    found += [value for name, value in headers if "model" in name]
    return tuple(dict.fromkeys(found))
