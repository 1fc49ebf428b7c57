"""The subset of JSON Schema that Anthropic supports, in structured outputs and in tools.

Structured outputs (`output_config.format`) and strict tools support the same subset and answer 400
to everything else: number bounds, lengths, patterns, most formats, open objects, recursive and
external references. Like the vendor's own SDK, this module moves unsupported keywords into
`description`, and reports them. Ordinary tools support any object schema without `anyOf`, `oneOf`
or `allOf` at the top.

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
_SUPPORTED = frozenset(
    {"type", "properties", "required", "anyOf", "$ref", "$defs", "definitions"}
    | {"title", "description", "default"}
)
_BESIDE_REF = frozenset({"$ref", "$defs", "definitions", "title", "description", "default"})
_DROPPED = frozenset({"$schema", "$id", "$comment"})  # dropped without report: no use to a model


class _UnfitError(ValueError):
    """The schema has no near equivalent in Anthropic's subset."""


def strict(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """The schema for structured outputs, and the keywords that it lost.

    None if there is no equivalent: a `$ref` points outside the document or back to itself, `allOf`
    combines several schemas (impossible with closed objects), or it is nested too deeply.
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
    schema = _with_any_of(schema)
    kept: dict[str, Any] = {}
    unsupported: dict[str, Any] = {}
    for name, value in schema.items():
        if "$ref" in schema:
            supported = name in _BESIDE_REF
        elif name in ("enum", "const"):
            supported = _plain(value)
        elif name == "format":
            supported = value in _FORMATS
        elif name == "minItems":
            supported = value in (0, 1)
        elif name == "items":
            supported = not isinstance(value, list)
        else:
            supported = name in _SUPPORTED
        if supported:
            kept[name] = value
        elif name not in _DROPPED and (name, value) != ("additionalProperties", False):
            unsupported[name] = value
    if "$ref" in kept and (len(kept) > 1 or unsupported):  # it must be alone
        kept["anyOf"] = [{"$ref": kept.pop("$ref")}]
    elif "properties" in kept or (kept.get("type") == "object" and "anyOf" not in kept):
        kept["additionalProperties"] = False
    elif "anyOf" in kept:
        kept.pop("type", None)  # each member has its own
    return kept, unsupported


def _with_any_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with `anyOf` instead of `oneOf`, or of an `allOf` with one member."""
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


def for_tool(schema: Mapping[str, Any] | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema for an ordinary tool's arguments, and the keywords that it lost."""
    out = _json_schema.object_schema(schema)
    lost = tuple(name for name in ("anyOf", "oneOf", "allOf") if name in out)
    if not lost:
        return out, ()
    unsupported = {name: out.pop(name) for name in lost}
    merged = dict(out.get("properties") or {})
    for variants in unsupported.values():
        for variant in variants if isinstance(variants, list) else ():
            if isinstance(variant, Mapping) and isinstance(variant.get("properties"), Mapping):
                merged = {**variant["properties"], **merged}
    paragraphs = [text] if isinstance(text := out.get("description"), str) and text else []
    out["description"] = "\n\n".join([*paragraphs, _json.dumps(unsupported).decode()])
    return {**out, "properties": merged}, lost
