"""Find members in the beginning or the end of a JSON text, without the rest of the text.

Content of strings, and of deeper objects, is never read as a member: models and callers can write
anything there. https://www.rfc-editor.org/rfc/rfc8259
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

# A string, which may be the name of a member and may be cut off; or an opening or closing bracket;
# or the end of the text, so that it is searched for only once.
_TOKEN = re.compile(
    rb'[^"\[\]{}]*(?:"((?:[^"\\]+|\\.)*)"?(\s*:)?|([\[{])|([\]}])|\Z)',
    re.DOTALL,
)
_MAX_DEPTH = 2  # the maximum depth of members that are returned
_QUOTE = re.compile(rb'\\.|"', re.DOTALL)


class JSONMember(msgspec.Struct, frozen=True, gc=False):
    """A member of an object: its value begins at index `at`, inside `depth` objects and arrays.

    `within` is the name of the member that contains it; None if that was cut off.
    """

    depth: int
    within: bytes | None
    name: bytes
    at: int


def members_from_start(data: bytes) -> Iterator[JSONMember]:
    """Yield the members in the beginning of a text."""
    return _scan_members(data, 0, 0)


def members_from_end(data: bytes) -> Iterator[JSONMember]:
    """Yield the members in the end of a whole text, whose beginning is missing."""
    # A JSON text has no backslash outside of strings. So it is known which quotes are delimiters
    # and, as the text does not end inside a string, which of them open one.
    start = len(data) - len(data.lstrip(b'\\"'))
    quotes = [match.start() for match in _QUOTE.finditer(data, start) if match[0] == b'"']
    if len(quotes) % 2:
        start = quotes[0] + 1
    depth = 0
    for match in _TOKEN.finditer(data, start):
        depth += (match[3] is not None) - (match[4] is not None)
    return _scan_members(data, start, -depth)


def _scan_members(data: bytes, start: int, depth: int) -> Iterator[JSONMember]:
    low = depth  # the containing objects of members deeper than this are part of the given text
    names: dict[int, bytes] = {}  # by depth, the last member name
    for match in _TOKEN.finditer(data, start):
        name, colon, opens, closes = match.groups()
        if name is not None:
            if colon is not None and depth <= _MAX_DEPTH:
                within = names.get(depth - 1, b"") if depth > low or low == 0 else None
                names[depth] = name
                yield JSONMember(depth, within, name, match.end())
        elif opens is not None:
            depth += 1
            if depth <= _MAX_DEPTH:
                names[depth] = b""
        elif closes is not None:
            depth -= 1
            low = min(low, depth)
