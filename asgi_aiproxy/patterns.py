"""Glob patterns for the names of models, providers and keys. Pure.

`*` stands for any characters, also for none and for slashes, and `?` for exactly one. Brackets
are ordinary characters, because models have names such as `claude-sonnet-4-5[1m]`. Case matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def as_patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return patterns as a tuple; a single string is one pattern."""
    return (given,) if isinstance(given, str) else tuple(given)


def matches_pattern(pattern: str, name: str) -> bool:
    """Return whether the whole of `name` matches `pattern`."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def is_pattern(name: str) -> bool:
    """Return whether a name is a pattern for several."""
    return "*" in name or "?" in name


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Return whether `name` matches at least one of `patterns`."""
    return any(matches_pattern(pattern, name) for pattern in patterns)
