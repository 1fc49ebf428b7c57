"""Checks JSON values against a JSON schema of a request.

Schemas come from callers: references to other documents are refused instead of requested, and
patterns are matched by an engine whose time is linear in the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.errors import ConfigurationError

_MAX_PROBLEMS = 5
_MAX_PROBLEM_LENGTH = 300


class SchemaChecker:
    """Checks values against one schema. Without a schema, `object_only` demands an object.

    A schema that is invalid itself checks nothing: the vendor would have refused it.
    """

    def __init__(self, schema: Mapping[str, Any] | None, *, object_only: bool = False) -> None:
        self._object_only = object_only
        self._validator: Any = None
        if schema:
            library = load_validator()
            try:
                self._validator = library.validator_for(
                    dict(schema),
                    retriever=_refuse,
                    pattern_options=library.RegexOptions(),
                    mask="it",
                )
            except (ValueError, library.ReferencingError):
                self._validator = None

    def problem(self, value: Any) -> str:
        """What is wrong with a value, as a sentence; empty if it is valid."""
        if self._object_only and not isinstance(value, dict):
            return "The arguments must be a JSON object."
        if self._validator is None:
            return ""
        problems = []
        for error in self._validator.iter_errors(value):
            where = ".".join(map(str, error.instance_path))
            text = f"{where}: {error.message}" if where else str(error.message)
            problems.append(text[:_MAX_PROBLEM_LENGTH])
            if len(problems) == _MAX_PROBLEMS:
                break
        return f"{'; '.join(problems)}." if problems else ""


def _refuse(uri: str) -> Any:
    raise ValueError("references to other documents are not followed")


def load_validator() -> Any:
    """The library that validates JSON. Raises ConfigurationError if it is not installed."""
    try:
        import jsonschema_rs
    except ImportError:
        raise ConfigurationError(
            "Emulation needs a library that validates JSON: pip install 'asgi-aiproxy[emulation]'."
        ) from None
    return jsonschema_rs
