"""JSON schemas as the vendors want them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NESTED = ("properties", "$defs", "definitions", "patternProperties")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")


def of_object(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a function's arguments; they are an object even if nobody says so."""
    if not schema:
        return {"type": "object", "properties": {}}
    return dict(schema) if "type" in schema else {"type": "object", **schema}


def closed(schema: Any) -> Any:
    """The same schema with every object closed, as Anthropic's structured outputs demand."""
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _NESTED and isinstance(value, Mapping):
            out[name] = {key: closed(member) for key, member in value.items()}
        elif name in _LISTS and isinstance(value, list):
            out[name] = [closed(member) for member in value]
        elif name == "items":
            out[name] = closed(value)
        else:
            out[name] = value
    # A schema for further members is left: Anthropic says itself that it takes none.
    further = isinstance(out.get("additionalProperties"), Mapping)
    if not further and (out.get("type") == "object" or "properties" in out):
        out["additionalProperties"] = False
    return out


def from_google(schema: Any) -> Any:
    """Google's own schema (types in capitals, `nullable`) as JSON schema."""
    if isinstance(schema, list):
        return [from_google(member) for member in schema]
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "type" and isinstance(value, str):
            out[name] = value.lower()
        elif name == "properties" and isinstance(value, Mapping):
            out[name] = {key: from_google(member) for key, member in value.items()}
        elif name in ("items", *_LISTS):
            out[name] = from_google(value)
        elif name not in ("nullable", "propertyOrdering", "property_ordering"):
            out[name] = value
    if schema.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out
