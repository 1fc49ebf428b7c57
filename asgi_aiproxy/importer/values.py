"""Values in the configurations of earlier gateways, and reasons that several have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_PASSWORDS = "this gateway signs in to no other site"
RETIRED = "the service no longer exists"


def table_of(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a member that is a mapping; an empty one for another value."""
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def value_at(found: Mapping[str, Any], place: str) -> Any:
    """Return the value at a path of names that are separated by dots, or None."""
    value: Any = found
    for step in place.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value
