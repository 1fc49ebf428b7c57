"""Glob patterns for the names of models, providers and keys."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.patterns import as_patterns, matches_any, matches_pattern

NAMES = st.text(st.characters(exclude_characters="*?"), max_size=20)


@pytest.mark.parametrize(
    ("given", "patterns"),
    [("gpt-*", ("gpt-*",)), ([], ()), (["a", "b*"], ("a", "b*")), (("a",), ("a",)), ("", ("",))],
)
def test_a_single_string_is_one_pattern(given: str | list[str], patterns: tuple[str, ...]) -> None:
    assert as_patterns(given) == patterns


@given(NAMES, NAMES)
def test_a_pattern_without_wildcards_matches_only_that_name(pattern: str, name: str) -> None:
    assert matches_pattern(pattern, pattern)
    assert matches_pattern(pattern, name) is (pattern == name)


@given(NAMES, NAMES, NAMES)
def test_a_star_matches_any_characters_slashes_included(start: str, middle: str, end: str) -> None:
    assert matches_pattern(f"{start}*{end}", f"{start}{middle}{end}")
    assert matches_pattern(f"{start}?{end}", f"{start}{middle}{end}") is (len(middle) == 1)


def test_a_name_matches_several_patterns_if_it_matches_one_of_them() -> None:
    assert matches_any(("gpt-*", "claude-*"), "claude-opus-4-1")
    assert not matches_any(("gpt-*", "claude-*"), "gemini-2.5-pro")
    assert not matches_any((), "gpt-4o")
