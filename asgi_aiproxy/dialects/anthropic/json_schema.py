"""What Anthropic takes of JSON Schema, in structured outputs and in tools.

Structured outputs (`output_config.format`) and strict tools share one subset and answer 400 to all
else: bounds of numbers, lengths, patterns, most formats, open objects, recursive and external
references. The vendor's own SDK moves what is missing into `description`; so do we, and report it.
Ordinary tools take any schema of an object without a choice at its top.

Sources, read 2026-11-30: platform.claude.com/docs/en/build-with-claude/structured-outputs ("JSON
Schema limitations"), .../agents-and-tools/tool-use/strict-tool-use; anthropic 2.14 for Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _json_schema

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_TAKEN = frozenset(
    {"type", "properties", "required", "anyOf", "$ref", "$defs", "definitions"}
    | {"title", "description", "default"}
)
_BESIDE_REF = frozenset({"$ref", "$defs", "definitions", "title", "description", "default"})
_SILENT = frozenset({"$schema", "$id", "$comment"})  # nothing that a model could use


class _UnfitError(ValueError):
    """There is no schema in Anthropic's subset that means nearly the same."""


def strict(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """The schema as structured outputs take it, and the keywords that it lost.

    None if there is none: a `$ref` leads out of the document or back to itself, several schemas
    hold at once (`allOf`), which closed objects cannot, or they are nested too deeply to be read.
    """
    try:
        if _json_schema.recursive(schema):
            return None
        if any(
            _json_schema.resolve(schema, ref) is None for ref in _json_schema.references(schema)
        ):
            return None
        return _json_schema.adapt(schema, _fit)
    except (_UnfitError, RecursionError):
        return None


def _fit(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    schema = _one_choice(schema)
    kept: dict[str, Any] = {}
    lacking: dict[str, Any] = {}
    for name, value in schema.items():
        if "$ref" in schema:
            taken = name in _BESIDE_REF
        elif name in ("enum", "const"):
            taken = _plain(value)
        elif name == "format":
            taken = value in _FORMATS
        elif name == "minItems":
            taken = value in (0, 1)
        elif name == "items":
            taken = not isinstance(value, list)
        else:
            taken = name in _TAKEN
        if taken:
            kept[name] = value
        elif name not in _SILENT and (name, value) != ("additionalProperties", False):
            lacking[name] = value
    if "$ref" in kept and (len(kept) > 1 or lacking):  # it stands alone
        kept["anyOf"] = [{"$ref": kept.pop("$ref")}]
    elif "properties" in kept or (kept.get("type") == "object" and "anyOf" not in kept):
        kept["additionalProperties"] = False
    elif "anyOf" in kept:
        kept.pop("type", None)  # each of them has its own
    return kept, lacking


def _one_choice(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with `anyOf` for `oneOf`, and for an `allOf` of one."""
    for name in ("oneOf", "allOf"):
        members = schema.get(name)
        if not isinstance(members, list):
            continue
        if "anyOf" in schema or (name == "allOf" and len(members) > 1):
            raise _UnfitError(name)
        schema = {"anyOf" if key == name else key: value for key, value in schema.items()}
    return schema


def _plain(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(v is None or isinstance(v, str | int | float | bool) for v in values)


def of_tool(schema: Mapping[str, Any] | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema of an ordinary tool's arguments, and the keywords that it lost."""
    out = _json_schema.object_schema(schema)
    lost = tuple(name for name in ("anyOf", "oneOf", "allOf") if name in out)
    if not lost:
        return out, ()
    lacking = {name: out.pop(name) for name in lost}
    merged = dict(out.get("properties") or {})
    for variants in lacking.values():
        for variant in variants if isinstance(variants, list) else ():
            if isinstance(variant, Mapping) and isinstance(variant.get("properties"), Mapping):
                merged = {**variant["properties"], **merged}
    words = [text] if isinstance(text := out.get("description"), str) and text else []
    out["description"] = "\n\n".join([*words, _json.dumps(lacking).decode()])
    return {**out, "properties": merged}, lost
