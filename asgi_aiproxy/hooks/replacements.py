"""`TextReplacements`: rewrites stretches of a response's text while it streams.

Theory of operation. A rule waits for its text `find`. Characters that may become the beginning of
one are held. Once one is complete, the stretch from it to the rule's `end`, or with `length` more
characters, is held; then the rule's expression is applied to the stretch, and the result is
released. Rules apply to what follows again. At the end of a block what is held is released
unchanged. Where several rules could begin at one place, the first in order applies.

(The rules are those of chatgpt-adapter's `matcher`.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.hooks.base import Call, Hook
from asgi_aiproxy.hooks.bounded_regex import RegexBudget, RegexError, Replacement
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    EventFilter,
    Text,
)

logger = logging.getLogger("asgi_aiproxy")

DEFAULT_LENGTH = 5
MAX_STRETCH = 64 * 1024  # characters
REGEX_SECONDS = 0.02  # for all expressions of one response


class TextRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule.

    - `find`: the text that a stretch begins with; `end`: the text that it ends with. Without `end`
      it has `length` more characters.
    - `replace`: `PATTERN:REPLACEMENT`, applied to the stretch, with `find` and `end`.
    - `description`: text that is written once, before the first stretch.

    Raises ConfigurationError if it is invalid.
    """

    find: str
    replace: str
    end: str = ""
    length: int = DEFAULT_LENGTH
    description: str = ""

    def __post_init__(self) -> None:
        if not self.find:
            raise ConfigurationError("TextRule: find must not be empty.")
        if not 0 <= self.length <= MAX_STRETCH:
            raise ConfigurationError(f"TextRule: length must be between 0 and {MAX_STRETCH}.")
        try:
            Replacement(self.replace)
        except RegexError as error:
            raise ConfigurationError(f"TextRule: replace: {error}.") from None


class TextReplacements(Hook):
    """A hook that rewrites the text of responses by rules, in every client API.

    Arguments: `rules`, in order.
    """

    def __init__(self, *rules: TextRule) -> None:
        self._rules = [(rule, Replacement(rule.replace)) for rule in rules]

    def __repr__(self) -> str:
        return f"TextReplacements({len(self._rules)} rules)"

    def filters(self, call: Call) -> Sequence[EventFilter]:
        """Make the filter of one response."""
        return (ReplacementFilter(self._rules),) if self._rules else ()


class ReplacementFilter:
    """Applies rules to the text blocks of one response."""

    limited = True  # it waits for nothing

    def __init__(self, rules: Sequence[tuple[TextRule, Replacement]]) -> None:
        self._rules = rules
        self._budget = RegexBudget(REGEX_SECONDS)
        self._held: dict[int, str] = {}
        self._described: set[int] = set()

    async def feed(self, event: Event) -> Sequence[Event]:
        """Return the events to release now."""
        match event:
            case BlockStart(index=index, block=Text(text=text)):
                self._held[index] = ""
                return (event,) if not text else self._start(event, index, text)
            case BlockDelta(index=index, text=text) if index in self._held:
                return self._delta(index, self._take(index, text))
            case BlockEnd(index=index) if index in self._held:
                return [*self._delta(index, self._held.pop(index)), event]
        return (event,)

    async def close(self) -> Sequence[Event]:
        """Nothing is held after the end of the last block."""
        return ()

    def _start(self, event: BlockStart, index: int, text: str) -> Sequence[Event]:
        block: Any = msgspec.structs.replace(event.block, text="")
        return [BlockStart(index, block), *self._delta(index, self._take(index, text))]

    @staticmethod
    def _delta(index: int, text: str) -> Sequence[Event]:
        return (BlockDelta(index, text),) if text else ()

    def _take(self, index: int, new: str) -> str:
        """The text that more text of a block releases."""
        text, out = self._held[index] + new, ""
        while text:
            place, number = self._find(text)
            if number < 0:
                place = len(text) - self._partial(text)
                out, text = out + text[:place], text[place:]
                break
            rule, replacement = self._rules[number]
            out, text = out + text[:place], text[place:]
            end = self._stretch_end(rule, text)
            if end < 0:
                break
            out += self._replace(number, replacement, rule, text[:end])
            text = text[end:]
        self._held[index] = text
        return out

    def _find(self, text: str) -> tuple[int, int]:
        """Where the first stretch begins, and the number of its rule; -1 if there is none."""
        found = [
            (place, number)
            for number, (rule, _) in enumerate(self._rules)
            if (place := text.find(rule.find)) >= 0
        ]
        return min(found, default=(-1, -1))

    def _partial(self, text: str) -> int:
        """How many characters at the end of a text may begin a stretch."""
        longest = max(len(rule.find) for rule, _ in self._rules) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(rule.find.startswith(text[-size:]) for rule, _ in self._rules):
                return size
        return 0

    @staticmethod
    def _stretch_end(rule: TextRule, text: str) -> int:
        """The length of the stretch that a text begins with; -1 if it is not complete."""
        start = len(rule.find)
        if rule.end:
            place = text.find(rule.end, start)
            end = place + len(rule.end) if place >= 0 else -1
        else:
            end = start + rule.length if len(text) >= start + rule.length else -1
        return len(text) if end < 0 and len(text) > MAX_STRETCH else end

    def _replace(self, number: int, replacement: Replacement, rule: TextRule, text: str) -> str:
        lead = ""
        if rule.description and number not in self._described:
            self._described.add(number)
            lead = rule.description
        try:
            return lead + self._budget.run(replacement, text)
        except RegexError as error:
            logger.warning("a text of a response is not rewritten: %s", error)
            return lead + text
