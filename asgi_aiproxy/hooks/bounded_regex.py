"""Regular expressions from callers: compiled and applied within limits of time and size.

The library `regex` is used because it can stop a search after a time, and knows the look-around of
.NET, in which these expressions are written: `PATTERN:REPLACEMENT`, split at the first colon that
has no backslash before it; `$1` and `${name}` in a replacement stand for groups.
"""

from __future__ import annotations

import re
import time
from typing import Any

from asgi_aiproxy.errors import ConfigurationError

MAX_PATTERN = 2_000  # characters
MAX_GROWTH = 256 * 1024  # characters that replacements may add to a text

_SPLIT = re.compile(r"(?<!\\):")
_GROUP = re.compile(r"\$(?:(\d{1,2})|\{(\w{1,50})\})")


class RegexError(ValueError):
    """An expression that is invalid, too long, or takes too long."""


class RegexBudget:
    """The time that the expressions of one call may take together, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def run(self, replacement: Replacement, text: str) -> str:
        """Replace in a text. Raises RegexError when the time is used up."""
        started = time.perf_counter()
        try:
            if self._left <= 0:
                raise RegexError("the expressions of this call took too long")
            return replacement.apply(text, self._left)
        finally:
            self._left -= time.perf_counter() - started


class Replacement:
    """One expression and what replaces its matches.

    `text` is `PATTERN:REPLACEMENT`. Raises RegexError if it is invalid, and ConfigurationError if
    the library `regex` is not installed.
    """

    def __init__(self, text: str) -> None:
        pattern, colon, replacement = _partition(text)
        if not colon or not pattern:
            raise RegexError("an expression has the form PATTERN:REPLACEMENT")
        if len(pattern) > MAX_PATTERN:
            raise RegexError(f"an expression may have {MAX_PATTERN} characters")
        library = load_regex()
        try:
            self._pattern = library.compile(pattern)
            self._groups = set(range(self._pattern.groups + 1)) | {*self._pattern.groupindex}
        except (library.error, RecursionError, OverflowError) as error:
            raise RegexError(f"invalid expression: {error}") from None
        self._parts = self._parse(replacement)

    def _parse(self, replacement: str) -> list[str | int | tuple[str]]:
        """The parts of a replacement: text, the number of a group, or its name in a tuple."""
        parts: list[str | int | tuple[str]] = []
        end = 0
        for found in _GROUP.finditer(replacement):
            group: Any = int(found[1]) if found[1] else found[2]
            group = int(group) if isinstance(group, str) and group.isdecimal() else group
            if group in self._groups:
                parts += [replacement[end : found.start()], group if found[1] else (group,)]
                end = found.end()
        return [*parts, replacement[end:]]

    def apply(self, text: str, seconds: float) -> str:
        """Replace all matches in a text. Raises RegexError if that takes more than `seconds`."""
        added = 0

        def write(found: Any) -> str:
            nonlocal added
            out = "".join(
                part
                if isinstance(part, str)
                else found[part[0] if isinstance(part, tuple) else part] or ""
                for part in self._parts
            )
            added += len(out) - len(found[0])
            if added > MAX_GROWTH:
                raise RegexError("the replacements are too long")
            return out

        try:
            replaced: str = self._pattern.sub(write, text, timeout=seconds)
        except TimeoutError:
            raise RegexError("an expression takes too long") from None
        return replaced


def _partition(text: str) -> tuple[str, str, str]:
    found = _SPLIT.search(text)
    if found is None:
        return text, "", ""
    pattern, replacement = text[: found.start()].strip(), text[found.end() :].strip()
    return pattern.replace("\\:", ":"), ":", replacement.replace("\\:", ":")


def load_regex() -> Any:
    """The library `regex`. Raises ConfigurationError if it is not installed."""
    try:
        import regex
    except ImportError:
        raise ConfigurationError(
            "Markers and text filters need a library: pip install 'asgi-aiproxy[markers]'."
        ) from None
    return regex
