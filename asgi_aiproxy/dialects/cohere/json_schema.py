"""The subset of JSON Schema that Cohere's structured outputs support.

Cohere rejects a schema with other keywords. They move into `description`, where the model reads
them, and are reported. https://docs.cohere.com/docs/structured-outputs (unsupported features)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.dialects import _json_schema

_UNSUPPORTED = frozenset(
    {"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "minProperties"}
    | {"maxProperties", "patternProperties", "propertyNames", "allOf", "oneOf", "not", "if"}
    | {"then", "else", "contains", "dependentRequired", "dependentSchemas"}
)
_FORMATS = frozenset({"date-time", "uuid", "date", "time"})
_UNSUPPORTED_IN_PATTERNS = ("^", "$", "(?=", "(?!")


def _fit(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split one schema, without its subschemas, into supported and unsupported keywords."""
    kept: dict[str, Any] = {}
    unsupported: dict[str, Any] = {}
    for name, value in schema.items():
        supported = name not in _UNSUPPORTED
        if name == "format":
            supported = value in _FORMATS
        elif name == "pattern" and isinstance(value, str):
            supported = not any(sign in value for sign in _UNSUPPORTED_IN_PATTERNS)
        (kept if supported else unsupported)[name] = value
    return kept, unsupported


def adapted(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema with supported keywords only, and the keywords that it lost."""
    out, lost = _json_schema.adapt(schema, _fit)
    return out, lost


def can_be_strict(schema: Mapping[str, Any] | None) -> bool:
    """Whether `strict_tools` accepts a function: it needs at least one required parameter."""
    return bool(schema and schema.get("required"))
