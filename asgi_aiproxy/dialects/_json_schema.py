"""JSON schemas as the vendors want them.

No vendor takes all of JSON Schema. What a target takes is decided by one function of that target,
its `Fit`, for one schema at a time; `adapt` applies it to a schema and all schemas within. What the
target lacks moves into the `description` beside it, where the model still reads it, and is
reported.
https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asgi_aiproxy import _json

# Where schemas stand within a schema: by name, in a list, alone.
_NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTED = ("anyOf", "allOf", "oneOf", "prefixItems")
_SINGLE = (
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
)

# Say something about a value, but forbid none.
ANNOTATIONS = frozenset(
    {"$comment", "$id", "$schema", "default", "deprecated", "description", "discriminator"}
    | {"example", "examples", "readOnly", "title", "writeOnly"}
)

# One schema, without those within: what the target takes of it, and what it lacks.
Fit = Callable[[Mapping[str, Any]], tuple[dict[str, Any], dict[str, Any]]]


def adapt(schema: Any, fit: Fit) -> tuple[Any, tuple[str, ...]]:
    """The schema as a target takes it, and the keywords that it lost.

    What `fit` leaves out is appended to `description` as JSON. Annotations are no loss, and not
    among the keywords.
    """
    lost: dict[str, None] = {}
    return _adapted(schema, fit, lost), tuple(lost)


def _adapted(schema: Any, fit: Fit, lost: dict[str, None]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    kept, lacking = fit(schema)
    out = {name: _within(name, value, fit, lost) for name, value in kept.items()}
    if lacking:
        lost.update(dict.fromkeys(name for name in lacking if name not in ANNOTATIONS))
        words = [text] if isinstance(text := out.get("description"), str) and text else []
        out["description"] = "\n\n".join([*words, _json.dumps(lacking).decode()])
    return out


def _within(name: str, value: Any, fit: Fit, lost: dict[str, None]) -> Any:
    if name in _NAMED and isinstance(value, Mapping):
        return {key: _adapted(member, fit, lost) for key, member in value.items()}
    if isinstance(value, list) and name in (*_LISTED, "items"):
        return [_adapted(member, fit, lost) for member in value]
    return _adapted(value, fit, lost) if name in _SINGLE else value


def recursive(schema: Mapping[str, Any]) -> bool:
    """Whether following a `$ref` can lead to that `$ref` again, in any definition."""
    entered: set[str] = set()
    left: set[str] = set()
    waiting = [(ref, False) for ref in references(schema)]
    while waiting:
        ref, done = waiting.pop()
        if done:
            left.add(ref)
        elif ref in entered and ref not in left:
            return True
        elif ref not in left:
            if ref == "#":
                return True
            entered.add(ref)
            waiting.append((ref, True))
            waiting += [(further, False) for further in references(resolve(schema, ref))]
    return False


def resolve(root: Any, ref: str) -> Any:
    """What a reference within the document means; None if there is no such place."""
    if not ref.startswith("#/"):
        return None
    here = root
    for step in ref[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and name.isdecimal() and int(name) < len(here):
            here = here[int(name)]
        elif isinstance(here, Mapping):
            here = here.get(name)
        else:
            return None
    return here


def references(schema: Any) -> Iterator[str]:
    """Every `$ref` in a schema and those within."""
    if not isinstance(schema, Mapping):
        return
    for name, value in schema.items():
        if name == "$ref" and isinstance(value, str):
            yield value
        elif name in _NAMED and isinstance(value, Mapping):
            for member in value.values():
                yield from references(member)
        elif name in (*_LISTED, "items") and isinstance(value, list):
            for member in value:
                yield from references(member)
        elif name in _SINGLE:
            yield from references(value)


def object_schema(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a function's arguments; they are an object even if nobody says so."""
    if not schema:
        return {"type": "object", "properties": {}}
    return dict(schema) if "type" in schema else {"type": "object", **schema}


def from_gemini_schema(schema: Any) -> Any:
    """Google's own schema (types in capitals, `nullable`) as JSON schema."""
    if isinstance(schema, list):
        return [from_gemini_schema(member) for member in schema]
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "type" and isinstance(value, str):
            out[name] = value.lower()
        elif name == "properties" and isinstance(value, Mapping):
            out[name] = {key: from_gemini_schema(member) for key, member in value.items()}
        elif name in ("items", *_LISTED):
            out[name] = from_gemini_schema(value)
        elif name not in ("nullable", "propertyOrdering", "property_ordering"):
            out[name] = value
    if schema.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out
