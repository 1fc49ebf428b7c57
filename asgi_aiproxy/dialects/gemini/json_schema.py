"""What Google takes of JSON Schema, in `responseJsonSchema` and `parametersJsonSchema`.

What it does not know it ignores: the model is told nothing of it. So that moves into `description`,
where the model reads it, and is reported.

Source, read 2026-11-30: ai.google.dev/api/generate-content (GenerationConfig.responseJsonSchema
lists the keywords; `oneOf` is read as `anyOf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.dialects import _json_schema

_LACKING = frozenset(
    {"pattern", "minLength", "maxLength", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    | {"uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties"}
    | {"patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "not", "if"}
    | {"then", "else", "allOf", "unevaluatedProperties", "unevaluatedItems", "const", "enum"}
)
_FORMATS = frozenset(
    {"date-time", "date", "time", "duration", "float", "double", "int32", "int64", "enum"}
)


def fit(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """One schema, without those within: what Google takes of it, and what it lacks."""
    kept: dict[str, Any] = {}
    lacking: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "const" and _plain(value) and "enum" not in schema:
            kept["enum"] = [value]
        elif name == "enum" and isinstance(value, list) and all(map(_plain, value)):
            kept[name] = value
        elif name == "format":
            (kept if value in _FORMATS else lacking)[name] = value
        elif name == "items" and isinstance(value, list):
            kept["prefixItems"] = value  # as it was spelled before 2020
        else:
            (lacking if name in _LACKING else kept)[name] = value
    return kept, lacking


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def adapted(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema as Google takes it, and the keywords that it lost."""
    out, lost = _json_schema.adapt(schema, fit)
    return out, lost
