"""Translate the messages of the gateway: errors of the admin API, and sentences in its results.

Theory of operation. The API is English. Its messages reach pages as text: raised for a form, but
also stored earlier, in usage records and results of tests. A catalogue (`strings/messages/`, one
JSON table per language) maps each English message, with placeholders such as `{name}` for what
varies, to its translation. A message is compared with the literal parts of each entry, the one with
the longest parts first; what is between them fills the placeholders of the translation. A value may
be a message itself (`networks: Invalid IP address range: '10.x'.`), so it is translated in the same
way. Comparing is linear in the length of the message: parts are searched from left to right.

A full stop at the end is not compared, because messages within others have none; the entry `.` has
that of the language. What is in no catalogue, such as an error in the words of a vendor, is shown
as it is. A test reads the messages in the source code and fails if a catalogue lacks one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_STOP = "."
_MAX_DEPTH = 24  # of messages within messages; the rest of a list is one
_QUOTES = ("'", '"')  # at the beginning of what a person has written
_HEAD, _TAIL = 600, 300  # characters that are shown of a long message


class Messages:
    """The messages of one language; `table` maps English ones to translations."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._stop = stop = table.get(_STOP, _STOP)
        entries = {k.removesuffix(_STOP): v.removesuffix(stop) for k, v in table.items()}
        self._plain = {text: found for text, found in entries.items() if "{" not in text}
        templates = [_Template(text, found) for text, found in entries.items() if "{" in text]
        self._templates = sorted(templates, key=lambda template: -template.literal_length)

    def __call__(self, message: str) -> str:
        """Return a message in this language, unchanged if the catalogue does not have it.

        The middle of a long one is left out.
        """
        if len(message) > _HEAD + _TAIL:
            message = f"{message[:_HEAD]} … {message[-_TAIL:]}"
        return self._translated(message, 0)

    def _translated(self, message: str, depth: int) -> str:
        if depth > _MAX_DEPTH or message.startswith(_QUOTES):
            return message
        text = message.removesuffix(_STOP)
        stop = self._stop if len(text) < len(message) else ""
        found = self._plain.get(text)
        if found is not None:
            return found + stop
        for template in self._templates:
            values = template.match(text)
            if values is not None:
                inner = {k: self._translated(each, depth + 1) for k, each in values.items()}
                return template.translation.format(**inner) + stop
        return message


class _Template:
    """A message with placeholders, and its translation with the same ones."""

    def __init__(self, text: str, translation: str) -> None:
        parts = _PLACEHOLDER.split(text)
        self.literals, self.names = parts[::2], parts[1::2]
        self.literal_length = sum(map(len, self.literals))
        self.translation = translation

    def match(self, message: str) -> dict[str, str] | None:
        """Return the values of the placeholders in a message, or None if it is another one."""
        first, *middle, last = self.literals
        position, end = len(first), len(message) - len(last)
        if end < position or not (message.startswith(first) and message.endswith(last)):
            return None
        values = []
        for literal in middle:
            found = message.find(literal, position, end)
            if found < 0:
                return None
            values.append(message[position:found])
            position = found + len(literal)
        values.append(message[position:end])
        return dict(zip(self.names, values, strict=True))
