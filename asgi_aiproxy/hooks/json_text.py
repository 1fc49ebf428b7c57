"""The texts within a JSON document, for checks and replacements. Pure.

Vendors have texts in many places, and new ones every month. So a request is not searched where
texts are known to be, but everywhere: each string of the document, also within JSON that is encoded
in a string (arguments of tools).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from asgi_aiproxy.errors import invalid

# Members whose strings are not texts: they name something, or are bytes in base64.
_NOT_TEXT = frozenset(
    {"model", "role", "type", "id", "data", "signature", "thoughtSignature", "thought_signature"}
    | {"encrypted_content", "media_type", "mime_type", "mimeType", "format", "cursor", "object"}
)
_JSON_WITHIN = frozenset({"arguments", "partial_json"})


def parse_unambiguous(data: bytes) -> Any:
    """Parse JSON. Raises ValueError if it is not JSON, and APIError for a member that occurs twice:
    its reader might take the value that a check did not see.
    """
    return json.loads(data, object_pairs_hook=_unique_members)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid(f"The member {twice[:100]!r} occurs twice in an object of the body.", twice)
    return members


def map_texts(value: Any, change: Callable[[str], str], *, name: str = "") -> Any:
    """Return a JSON value with `change` applied to its texts; the same object if none changes.

    `name` is the member that holds the value. Names of members are not changed.
    """
    if isinstance(value, str):
        return value if _is_name(name) else _changed_text(value, change, name)
    if isinstance(value, list):
        items = [map_texts(each, change, name=name) for each in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if isinstance(value, dict):
        members = {key: map_texts(each, change, name=key) for key, each in value.items()}
        return members if any(members[key] is not value[key] for key in value) else value
    return value


def _is_name(name: str) -> bool:
    return name in _NOT_TEXT or name.endswith(("_id", "_ids", "Id"))


def _changed_text(text: str, change: Callable[[str], str], name: str) -> str:
    if name in _JSON_WITHIN:
        changed = map_json(text, change)
        if changed is not None:
            return changed
    changed_text = change(text)
    return text if changed_text == text else changed_text


def map_json(text: str, change: Callable[[str], str]) -> str | None:
    """Change the texts of a JSON document that is given as text; None if it is not JSON."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    changed = map_texts(value, change)
    return text if changed is value else msgspec.json.encode(changed).decode()


def texts_of(value: Any) -> list[str]:
    """All strings of a JSON value, names of members too, also within strings that are JSON."""
    found: list[str] = []
    open_values = [value]
    while open_values:
        each = open_values.pop()
        if isinstance(each, str):
            found.append(each)
            if each[:1] in ("{", "["):
                try:
                    open_values.append(msgspec.json.decode(each))
                except (msgspec.DecodeError, UnicodeError, RecursionError):
                    continue
        elif isinstance(each, list):
            open_values += each
        elif isinstance(each, dict):
            open_values += each
            open_values += each.values()
    return found
