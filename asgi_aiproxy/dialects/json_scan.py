"""Members of JSON texts of which only the beginning or only the end is at hand.

What stands in strings, or deeper than asked for, is never taken for a member: models and callers
write what they like there. https://www.rfc-editor.org/rfc/rfc8259
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

# A string, perhaps the name of a member, perhaps cut; or something that opens or closes; or the
# end, lest it be looked for from each place before it.
_TOKEN = re.compile(
    rb'[^"\[\]{}]*(?:"((?:[^"\\]+|\\.)*)"?(\s*:)?|([\[{])|([\]}])|\Z)',
    re.DOTALL,
)
_MAX_DEPTH = 2  # of the members that are reported
_QUOTE = re.compile(rb'\\.|"', re.DOTALL)


class JSONMember(msgspec.Struct, frozen=True, gc=False):
    """A member of an object: its value begins `at`, `depth` objects and arrays are around it.

    `within` is the name of the member it is a part of; None if that was cut off.
    """

    depth: int
    within: bytes | None
    name: bytes
    at: int


def members_from_start(data: bytes) -> Iterator[JSONMember]:
    """The members in the beginning of a text."""
    return _scan_members(data, 0, 0)


def members_from_end(data: bytes) -> Iterator[JSONMember]:
    """The members in the end of a whole text, whose beginning is missing."""
    # No backslash stands outside of strings: so it is known which quotes are delimiters, and,
    # as none is open at the end, which of them open a string.
    start = len(data) - len(data.lstrip(b'\\"'))
    quotes = [found.start() for found in _QUOTE.finditer(data, start) if found[0] == b'"']
    if len(quotes) % 2:
        start = quotes[0] + 1
    depth = 0
    for found in _TOKEN.finditer(data, start):
        depth += (found[3] is not None) - (found[4] is not None)
    return _scan_members(data, start, -depth)


def _scan_members(data: bytes, start: int, depth: int) -> Iterator[JSONMember]:
    low = depth  # above this, what is around a member is at hand
    names: dict[int, bytes] = {}  # the last one of each depth
    for found in _TOKEN.finditer(data, start):
        name, named, opens, closes = found.groups()
        if name is not None:
            if named is not None and depth <= _MAX_DEPTH:
                within = names.get(depth - 1, b"") if depth > low or low == 0 else None
                names[depth] = name
                yield JSONMember(depth, within, name, found.end())
        elif opens is not None:
            depth += 1
            if depth <= _MAX_DEPTH:
                names[depth] = b""
        elif closes is not None:
            depth -= 1
            low = min(low, depth)
