"""The subset of JSON Schema that Google supports (`responseJsonSchema`, `parametersJsonSchema`).

Google ignores other keywords: the model does not see them. They move into `description`, where the
model reads them, and are reported.

Source, read 2026-11-30: ai.google.dev/api/generate-content (GenerationConfig.responseJsonSchema
lists the keywords; `oneOf` is read as `anyOf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.dialects import _json_schema

_UNSUPPORTED = frozenset(
    {"pattern", "minLength", "maxLength", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    | {"uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties"}
    | {"patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "not", "if"}
    | {"then", "else", "allOf", "unevaluatedProperties", "unevaluatedItems", "const", "enum"}
)
_FORMATS = frozenset(
    {"date-time", "date", "time", "duration", "float", "double", "int32", "int64", "enum"}
)


def fit(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split one schema, without its subschemas, into supported and unsupported keywords."""
    kept: dict[str, Any] = {}
    unsupported: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "const" and _plain(value) and "enum" not in schema:
            kept["enum"] = [value]
        elif name == "enum" and isinstance(value, list) and all(map(_plain, value)):
            kept[name] = value
        elif name == "format":
            (kept if value in _FORMATS else unsupported)[name] = value
        elif name == "items" and isinstance(value, list):
            kept["prefixItems"] = value  # its name before draft 2020-12
        else:
            (unsupported if name in _UNSUPPORTED else kept)[name] = value
    return kept, unsupported


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def adapted(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema with supported keywords only, and the keywords that it lost."""
    out, lost = _json_schema.adapt(schema, fit)
    return out, lost
