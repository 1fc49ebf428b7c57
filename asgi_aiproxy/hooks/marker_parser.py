"""Finds the markers of chatgpt-adapter in a prompt, such as `<regex>` and `<histories>`. Pure.

A marker is an element `<name a=1 b="text" flag/>` or `<name ...>body</name>` of a known name.
`<![CDATA[...]]>` in an attribute or a body hides its content from the parser; `<!-- ... -->` is a
comment. Unquoted values are numbers, `true` or `false`; a bare attribute is true; quoted values are
text. Everything else is text, also markers that are not complete. The time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

MARKERS = frozenset(
    {"tool", "echo", "debug", "regex", "matcher", "histories", "char_sequences", "notebook", "pad"}
)
MAX_MARKERS = 32  # in one request
_MAX_HEAD = 2_000  # characters of a marker's name and attributes

_START = re.compile(r"<!--|<!\[CDATA\[|<(@-?\d{1,6}|[a-z_]{1,20})(?=[\s/>])")
_NAME = re.compile(r"\s*([\w-]{1,40})\s*(=?)\s*")
_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,9})?")
_CDATA_START, _CDATA_END = "<![CDATA[", "]]>"


class Marker(msgspec.Struct, frozen=True):
    """A marker: `name` (`@` for an insertion at `depth`), its attributes and its body."""

    name: str
    attributes: Mapping[str, Any] = {}
    body: str = ""
    depth: int = 0

    @property
    def order(self) -> str:
        """What markers are sorted by: larger text first, none last."""
        return str(self.attributes.get("order", ""))


def parse_markers(text: str, known: frozenset[str]) -> tuple[str, list[Marker]]:
    """The text without the markers of `known` names and without comments, and the markers."""
    out: list[str] = []
    markers: list[Marker] = []
    end = 0
    unclosed: set[str] = set()  # names whose closing is known to be missing
    for found in _START.finditer(text):
        start = found.start()
        if start < end or len(markers) == MAX_MARKERS:
            continue
        parsed = _parse_at(text, found, known, unclosed)
        if parsed is None:
            continue
        marker, stop = parsed
        out.append(text[end:start])
        end = stop
        if isinstance(marker, Marker):
            markers.append(marker)
        else:
            out.append(marker)
    out.append(text[end:])
    return "".join(out), markers


def _parse_at(
    text: str, found: re.Match[str], known: frozenset[str], unclosed: set[str]
) -> tuple[Marker | str, int] | None:
    """The marker, comment or protected text that begins at a place, and its end."""
    name = found[1]
    if name is None:
        closing = "-->" if found[0] == "<!--" else _CDATA_END
        stop = -1 if closing in unclosed else text.find(closing, found.end())
        if stop < 0:
            unclosed.add(closing)
            return None
        content = text[found.end() : stop] if closing == _CDATA_END else ""
        return content, stop + len(closing)
    plain = "@" if name.startswith("@") else name
    if plain not in known:
        return None
    head = _parse_attributes(text, found.end())
    if head is None:
        return None
    attributes, stop, empty = head
    depth = int(name[1:]) if plain == "@" else 0
    if empty:
        return Marker(plain, attributes, "", depth), stop
    closing = f"</{name}>"
    close = -1 if closing in unclosed else _find_closing(text, stop, closing, len(text))
    if close < 0:
        unclosed.add(closing)
        return None
    body = _unwrap(text[stop:close].strip())
    return Marker(plain, attributes, body, depth), close + len(closing)


def _find_closing(text: str, start: int, closing: str, last: int) -> int:
    """Where a closing tag is, outside of protected text and before `last`."""
    while True:
        close = text.find(closing, start, last)
        cdata = text.find(_CDATA_START, start, close) if close >= 0 else -1
        if cdata < 0:
            return close
        start = text.find(_CDATA_END, cdata, last)
        if start < 0:
            return close


def _parse_attributes(text: str, start: int) -> tuple[dict[str, Any], int, bool] | None:
    """The attributes of a head, where it ends, and whether the marker has no body."""
    attributes: dict[str, Any] = {}
    place, last = start, min(len(text), start + _MAX_HEAD)
    while place < last:
        if text[place].isspace():
            place += 1
        elif text[place] == ">":
            return attributes, place + 1, False
        elif text.startswith("/>", place):
            return attributes, place + 2, True
        else:
            found = _NAME.match(text, place)
            if found is None:
                return None
            place = found.end()
            value: Any = True
            if found[2]:
                read = _parse_value(text, place, last)
                if read is None:
                    return None
                value, place = read
            attributes[found[1]] = value
    return None


def _parse_value(text: str, start: int, last: int) -> tuple[Any, int] | None:
    quote = text[start : start + 1]
    if quote in ('"', "'"):
        stop = _find_closing(text, start + 1, quote, last)
        if stop < 0:
            return None
        return _unwrap(text[start + 1 : stop]), stop + 1
    stop = start
    while stop < last and not text[stop].isspace() and text[stop] != ">":
        if text.startswith("/>", stop):
            break
        stop += 1
    word = text[start:stop]
    if word in ("true", "false"):
        return word == "true", stop
    if found := _NUMBER.fullmatch(word):
        return (float(word) if found[1] else int(word)), stop
    return word, stop


def _unwrap(text: str) -> str:
    return text.replace(_CDATA_START, "").replace(_CDATA_END, "")
