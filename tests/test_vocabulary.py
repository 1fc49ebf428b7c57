"""Names, docstrings, comments, messages and pages use the standard words of the field."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import (
    FILES,
    REPOSITORY,
    defined_names,
    name_of,
    nodes,
)

OTHERS = [
    path
    for folder in ("tests", "examples", "benchmarks", "scripts")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
    if path.name != "test_vocabulary.py"
]
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]

# Words that this project once used in senses of its own. What to write instead is in parentheses.
RETIRED_WORDS = re.compile(
    r"""
      \b(?i: told | tells? | telling      # (headers, values: has, reports; clients: is sent, gets)
           | heed(?:s|ed|ing)?            # (observe, follow, take effect)
           | can[ ]not                    # (cannot)
           | who(?:so)?ever               # (the caller, anyone who)
           | books                        # (usage record, ledger)
           | rests | rested | resting | to[ ]rest   # (cools down, cooldown)
           | doors? | desks? | voices?    # (verifier, service, simulator)
           | nobody                       # (no caller, no provider)
           | anew | for[ ]ever            # (again; indefinitely)
           | mend(?:s|ed|ing)?            # (correct, normalize)
           | to[ ]the[ ](?:letter|byte)   # (byte for byte, exactly)
           | lest                         # (so that ... not)
           | so[ ]many[ ]seconds          # (`seconds` seconds)
           | what[ ]came | proper[ ]end   # (the received bytes; the end)
           | the[ ]most[ ]that            # (the maximum)
           | goes[ ]on                    # (continues)
           | everybody                    # (anyone, every caller)
           | once[ ]more                  # (again)
           | as[ ](?:it|they)[ ]came      # (unchanged)
           | in[ ]vain                    # (without success)
      )\b
    | (?<![Tt]here[ ])\b(?:is|are)[ ]none\b(?![ ]of)   # (is invalid, is missing)
    | (?i:(?<!there[ ])\bis[ ]no[ ](?!longer|more|less|later)\w)   # (is not a)
    | (?:^|[.;:]\s+)[Ww]ho\b                  # as a subject (callers that, clients that)
    """,
    re.VERBOSE,
)
RETIRED_NAMES = {
    *("told", "tell", "tells", "heed", "heeds", "desk", "desks", "door", "voice", "voices"),
    *("books", "rests", "resting", "mend", "mended", "anew", "nobody", "whoever", "asked", "asks"),
}
COMMENT = re.compile(r"#+ *(.*)")  # or what looks like one, in a string
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def prose(path: Path) -> Iterator[str]:
    """Docstrings, messages (any string with a space) and comments of a module."""
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value
    yield from COMMENT.findall(path.read_text("utf-8"))


def retired_in(text: str) -> list[str]:
    return [
        " ".join(text[max(0, found.start() - 30) : found.end() + 30].split())
        for found in RETIRED_WORDS.finditer(text)
    ]


def retired_names(path: Path) -> list[str]:
    return [
        name
        for name in defined_names(path)
        if not RETIRED_NAMES.isdisjoint(word.lower() for word in WORD.findall(name))
    ]


def retired(path: Path) -> list[str]:
    return retired_in(".\n".join(prose(path))) + retired_names(path)


def test_the_package_uses_standard_words() -> None:
    found = {name_of(path): retired(path) for path in FILES}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_tests_examples_and_benchmarks_use_standard_words() -> None:
    found = {str(path.relative_to(REPOSITORY)): retired(path) for path in OTHERS}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_pages_use_standard_words() -> None:
    found = {path.name: retired_in(path.read_text("utf-8")) for path in DOCUMENTS}
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The headers are told to the client.", 1),
        ("Whoever asks can not use it. Who leaves is heeded.", 4),
        ("None if there is none, and if there is no key.", 0),
        ("The URL is none.", 1),
        ("The model is no string.", 1),
        ("The callers who use it; this is no longer needed.", 0),
    ],
)
def test_the_vocabulary_check_finds_what_it_is_for(text: str, count: int) -> None:
    assert len(retired_in(text)) == count
