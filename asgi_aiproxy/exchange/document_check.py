"""Checks JSON documents of an unknown format with the filters of hooks. Pure but for the filters.

Theory of operation. Filters check texts that belong together, as the blocks of a response. In a
format that is not known, strings belong together if they are in the same place: a stream repeats
an object, and its reader joins the strings of one member. A place is the names on the way to a
string and, since several texts may be sent in turns, the members of the objects around it that
identify one of them (`index`, `id`, `type` ...). All strings of a place, joined, are one text for
the filters; one that is JSON itself is a tool call, whose strings are checked.

A changed text replaces the first string of its place, and the others become empty. Since a member
that seems to identify a text may be a number of the event, strings are also joined by their names
alone; the filters must do to them what they did to the parts, else the response is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from asgi_aiproxy.errors import ErrorKind
from asgi_aiproxy.exchange.guarded import ResponseRefusedError, filter_events
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    EventFilter,
    MessageEnd,
    MessageStart,
    StopReason,
    Text,
    ToolCall,
)

Place = tuple[object, ...]
_Leaf = tuple[Any, Any]  # the object or list that holds a string, and where in it

# Members that identify a text, beside those that end with `_id` or `_index`.
_IDENTIFYING = frozenset({"id", "index", "type"})
_NOT_IDENTIFYING = frozenset({"event_id"})
_PLAIN_NAME = re.compile(r"[a-z][A-Za-z_]{0,31}")
# Bytes in base64, where vendors send audio and images.
_BYTES = frozenset({"data", "b64_json", "audio", "delta", "bytes"})
_BASE64 = re.compile(r"[A-Za-z0-9+/]{256,}={0,2}")


def parse_document(data: bytes | str) -> Any:
    """Parse JSON; of a member that occurs twice, both values are kept. Raises ValueError."""
    try:
        return json.loads(data, object_pairs_hook=_members)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        members = {}
        for name, value in pairs:
            members[name if name not in members else f"{name} ({len(members)})"] = value
    return members


async def check_documents(filters: Sequence[EventFilter], documents: list[Any]) -> bool:
    """Pass the texts of `documents` through filters, and change them as the filters do.

    Returns whether a text was changed. Raises ResponseRefusedError if a filter refuses the
    documents, or if a change would cut a text.
    """
    places: dict[Place, list[_Leaf]] = {}
    by_name: dict[Place, list[_Leaf]] = {}
    names: set[str] = set()
    for place, names_only, leaf in _leaves(documents, names):
        places.setdefault(place, []).append(leaf)
        by_name.setdefault(names_only, []).append(leaf)
    before = {names_only: _joined(leaves) for names_only, leaves in by_name.items()}
    texts = [_joined(leaves) for leaves in places.values()]
    known = set(texts)
    changed = False
    released = await _filtered(filters, texts)
    for leaves, text, new in zip(places.values(), texts, released, strict=True):
        if text != new:
            changed = True
            for (container, key), value in zip(leaves, [new, *[""] * len(leaves)], strict=False):
                container[key] = value
    joined = {n: text for n, text in before.items() if text not in known}
    expected = [_joined(by_name[names_only]) for names_only in joined]
    odd_names = "\n".join(name for name in sorted(names) if not _PLAIN_NAME.fullmatch(name))
    if odd_names:
        joined[()], expected = odd_names, [*expected, odd_names]
    if joined and await _filtered(filters, list(joined.values())) != expected:
        raise ResponseRefusedError(
            ErrorKind.FORBIDDEN,
            "The response is blocked: it holds text that is not allowed, and cannot be masked "
            "in this format.",
            code="content_blocked",
        )
    return changed


def _joined(leaves: Sequence[_Leaf]) -> str:
    return "".join([container[key] for container, key in leaves])


def _leaves(documents: list[Any], names: set[str]) -> Iterator[tuple[Place, Place, _Leaf]]:
    """The strings of documents, in order, with their places; adds the names of members."""
    stack: list[tuple[Place, Place, Any, Any]] = [
        ((), (), documents, index) for index in reversed(range(len(documents)))
    ]
    while stack:
        place, names_only, container, key = stack.pop()
        value = container[key]
        if isinstance(value, str):
            if value and not (key in _BYTES and _BASE64.fullmatch(value)):
                yield place, names_only, (container, key)
        elif isinstance(value, list):
            stack += [
                ((*place, index), names_only, value, index)
                for index in reversed(range(len(value)))
                if isinstance(value[index], str | list | dict)
            ]
        elif isinstance(value, dict):
            names.update(value)
            identity = tuple(
                (name, each)
                for name, each in value.items()
                if _identifies(name) and isinstance(each, str | int)
            )
            stack += [
                ((*place, *identity, name), (*names_only, name), value, name)
                for name in reversed(value)
            ]


def _identifies(name: str) -> bool:
    if name in _NOT_IDENTIFYING:
        return False
    return name in _IDENTIFYING or name.endswith(("_id", "_index"))


async def _filtered(filters: Sequence[EventFilter], texts: Sequence[str]) -> list[str]:
    """What the filters release of texts that are the blocks of one response."""
    events: list[Event] = [MessageStart("", "")]
    for index, text in enumerate(texts):
        events += [BlockStart(index, _block(text)), BlockDelta(index, text), BlockEnd(index)]
    events.append(MessageEnd(StopReason.END))
    released = [""] * len(texts)
    for event in await filter_events(filters, events, closing=True):
        if isinstance(event, BlockDelta):
            released[event.index] += event.text
    return released


def _block(text: str) -> Block:
    if text[:1] in ("{", "["):
        try:
            parse_document(text)
        except ValueError:
            return Text()
        return ToolCall("", "")
    return Text()
