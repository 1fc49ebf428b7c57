"""Adapts JSON schemas to the subset that a vendor supports.

No vendor supports all of JSON Schema. One function of each vendor (its `Fit`) splits one schema
into supported and unsupported keywords; `adapt` applies it to a schema and all subschemas.
Unsupported keywords are appended to the `description` of the same schema, where the model still
reads them, and are reported.
https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asgi_aiproxy import _json

# Keywords whose value holds subschemas: as a mapping, as a list, or as a single schema.
_MAPPINGS_OF_SCHEMAS = (
    "properties",
    "$defs",
    "definitions",
    "patternProperties",
    "dependentSchemas",
)
_LISTS_OF_SCHEMAS = ("anyOf", "allOf", "oneOf", "prefixItems")
_SINGLE_SCHEMAS = (
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

# Keywords that describe a value without restricting it.
ANNOTATIONS = frozenset(
    {"$comment", "$id", "$schema", "default", "deprecated", "description", "discriminator"}
    | {"example", "examples", "readOnly", "title", "writeOnly"}
)

# Splits one schema, without its subschemas, into supported and unsupported keywords.
Fit = Callable[[Mapping[str, Any]], tuple[dict[str, Any], dict[str, Any]]]


def adapt(schema: Any, fit: Fit) -> tuple[Any, tuple[str, ...]]:
    """The schema with supported keywords only, and the names of the keywords that it lost.

    Lost keywords are appended to `description` as JSON. Lost annotations are not reported.
    """
    lost: dict[str, None] = {}
    return _adapt(schema, fit, lost), tuple(lost)


def _adapt(schema: Any, fit: Fit, lost: dict[str, None]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    kept, unsupported = fit(schema)
    out = {name: _adapt_keyword(name, value, fit, lost) for name, value in kept.items()}
    if unsupported:
        lost.update(dict.fromkeys(name for name in unsupported if name not in ANNOTATIONS))
        paragraphs = [text] if isinstance(text := out.get("description"), str) and text else []
        out["description"] = "\n\n".join([*paragraphs, _json.dumps(unsupported).decode()])
    return out


def _adapt_keyword(name: str, value: Any, fit: Fit, lost: dict[str, None]) -> Any:
    if name in _MAPPINGS_OF_SCHEMAS and isinstance(value, Mapping):
        return {key: _adapt(member, fit, lost) for key, member in value.items()}
    if isinstance(value, list) and name in (*_LISTS_OF_SCHEMAS, "items"):
        return [_adapt(member, fit, lost) for member in value]
    return _adapt(value, fit, lost) if name in _SINGLE_SCHEMAS else value


def recursive(schema: Mapping[str, Any]) -> bool:
    """Whether following a `$ref` can lead to that `$ref` again, in any definition."""
    entered: set[str] = set()
    finished: set[str] = set()
    waiting = [(ref, False) for ref in references(schema)]
    while waiting:
        ref, done = waiting.pop()
        if done:
            finished.add(ref)
        elif ref in entered and ref not in finished:
            return True
        elif ref not in finished:
            if ref == "#":
                return True
            entered.add(ref)
            waiting.append((ref, True))
            waiting += [(further, False) for further in references(resolve(schema, ref))]
    return False


def resolve(root: Any, ref: str) -> Any:
    """The schema that a `$ref` within the document points to; None if there is no such schema."""
    if not ref.startswith("#/"):
        return None
    found = root
    for step in ref[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping):
            found = found.get(name)
        else:
            return None
    return found


def references(schema: Any) -> Iterator[str]:
    """Every `$ref` in a schema and its subschemas."""
    if not isinstance(schema, Mapping):
        return
    for name, value in schema.items():
        if name == "$ref" and isinstance(value, str):
            yield value
        elif name in _MAPPINGS_OF_SCHEMAS and isinstance(value, Mapping):
            for member in value.values():
                yield from references(member)
        elif name in (*_LISTS_OF_SCHEMAS, "items") and isinstance(value, list):
            for member in value:
                yield from references(member)
        elif name in _SINGLE_SCHEMAS:
            yield from references(value)


def object_schema(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a function's arguments, with `"type": "object"` added if it has no type."""
    if not schema:
        return {"type": "object", "properties": {}}
    return dict(schema) if "type" in schema else {"type": "object", **schema}


def from_gemini_schema(schema: Any) -> Any:
    """Google's own schema format (upper-case types, `nullable`) as JSON Schema."""
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
        elif name in ("items", *_LISTS_OF_SCHEMAS):
            out[name] = from_gemini_schema(value)
        elif name not in ("nullable", "propertyOrdering", "property_ordering"):
            out[name] = value
    if schema.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out
