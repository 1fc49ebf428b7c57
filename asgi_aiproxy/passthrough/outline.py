"""Members of JSON texts of which only the beginning or only the end is at hand.

What stands in strings, or deeper than asked for, is never taken for a member: models and callers
write what they like there. https://www.rfc-editor.org/rfc/rfc8259
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

# A string, perhaps the name of a member, perhaps cut; or something that opens or closes.
_TOKEN = re.compile(rb'"((?:[^"\\]+|\\.)*)"?(\s*:)?|[\[{]|[\]}]', re.DOTALL)
_QUOTE = re.compile(rb'\\.|"', re.DOTALL)


class Member(msgspec.Struct, frozen=True, gc=False):
    """A member of an object: its value begins `at`, `depth` objects and arrays are around it.

    `within` is the name of the member it is a part of; None if that was cut off.
    """

    depth: int
    within: bytes | None
    name: bytes
    at: int


def beginning(data: bytes) -> Iterator[Member]:
    """The members in the beginning of a text."""
    return _members(data, 0, 0)


def ending(data: bytes) -> Iterator[Member]:
    """The members in the end of a whole text, whose beginning is missing."""
    # No backslash stands outside of strings: so it can be told which quotes are delimiters, and,
    # as none is open at the end, which of them open a string.
    start = len(data) - len(data.lstrip(b'\\"'))
    quotes = [found.start() for found in _QUOTE.finditer(data, start) if found[0] == b'"']
    if len(quotes) % 2:
        start = quotes[0] + 1
    opened = 0
    for found in _TOKEN.finditer(data, start):
        sign = found[0][:1]
        opened += (sign in b"[{") - (sign in b"]}")
    return _members(data, start, -opened)


def _members(data: bytes, start: int, depth: int) -> Iterator[Member]:
    low = depth  # above this, what is around a member is at hand
    names: dict[int, bytes] = {}  # the last one of each depth
    for found in _TOKEN.finditer(data, start):
        sign = found[0][:1]
        if sign == b'"':
            if found[2] is not None:
                within = names.get(depth - 1, b"") if depth > low or low == 0 else None
                names[depth] = found[1]
                yield Member(depth, within, found[1], found.end())
        elif sign in b"[{":
            depth += 1
            names[depth] = b""
        else:
            depth -= 1
            low = min(low, depth)
