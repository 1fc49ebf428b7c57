"""Hypothesis strategies for neutral answers, and for streams of them in any legal order."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    Citation,
    Event,
    Media,
    MessageEnd,
    MessageStart,
    Opaque,
    Reasoning,
    Refusal,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
    unfold,
)

# Half surrogates come from models whose words were cut in the middle of a pair.
WORDS = st.text(st.sampled_from('ab "\\{}\n\r\t\0\u2028é世🚀\ud83d'), max_size=8)
SOME_WORDS = WORDS.filter(bool)
NAMES = st.text(st.sampled_from("abc_-"), min_size=1, max_size=4)
COUNTS = st.integers(0, 10_000)
EXTRAS = st.dictionaries(
    st.sampled_from(["anthropic", "gemini", "other"]),
    st.dictionaries(st.sampled_from(["signature", "more"]), NAMES, min_size=1),
    max_size=2,
)
CITATIONS = st.lists(
    st.builds(
        Citation,
        url=st.sampled_from(["", "https://a.example"]),
        title=WORDS,
        quote=WORDS,
        start=st.none() | COUNTS,
        end=st.none() | COUNTS,
    ),
    max_size=2,
).map(tuple)
ARGUMENTS = st.one_of(
    st.dictionaries(NAMES, st.integers() | WORDS, max_size=2).map(json.dumps),
    WORDS,  # a model may be cut off in the middle, or write nonsense
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Token counts whose parts are consistent."""
    read, write, write_1h, fresh = (draw(COUNTS) for _ in range(4))
    reasoning, said = draw(COUNTS), draw(COUNTS)
    return Usage(
        input=fresh + read + write + write_1h,
        output=said + reasoning,
        cache_read=read,
        cache_write=write + write_1h,
        cache_write_1h=write_1h,
        reasoning=reasoning,
    )


@st.composite
def signed(draw: st.DrawFn) -> dict[str, Any]:
    """Extras as vendors attach to reasoning."""
    made: dict[str, Any] = draw(
        st.sampled_from(
            [{}, {"anthropic": {"signature": "c2ln"}}, {"gemini": {"signature": "c2ln"}}]
        )
    )
    return made


BLOCKS: st.SearchStrategy[Block] = st.one_of(
    st.builds(Text, SOME_WORDS),
    st.builds(Refusal, SOME_WORDS),
    st.builds(Reasoning, SOME_WORDS, signed()),
    st.just(Reasoning("", {"anthropic": {"redacted": "cmVk"}})),
    st.builds(ToolCall, st.uuids().map(str), NAMES, ARGUMENTS.filter(bool)),
)

# All that the record can hold, whether or not a vendor would say it.
ODD_BLOCKS: st.SearchStrategy[Block] = st.one_of(
    st.builds(Text, WORDS, CITATIONS, EXTRAS),
    st.builds(Refusal, WORDS),
    st.builds(Reasoning, WORDS, EXTRAS),
    st.builds(ToolCall, NAMES, NAMES, WORDS, EXTRAS),
    st.builds(Media, kind=st.just("image"), media_type=st.just("image/png"), data=NAMES),
    st.builds(Opaque, st.sampled_from(["anthropic", "gemini"]), st.just({"type": "new", "x": 1})),
)


def responses(blocks: st.SearchStrategy[Block] = ODD_BLOCKS) -> st.SearchStrategy[Response]:
    return st.builds(
        Response,
        id=NAMES,
        model=NAMES,
        blocks=st.lists(blocks, max_size=4).map(tuple),
        stop=st.sampled_from(StopReason),
        usage=st.none() | usages(),
        word=st.just(""),
    )


def odd_responses() -> st.SearchStrategy[Response]:
    return st.builds(
        Response,
        id=WORDS,
        model=WORDS,
        blocks=st.lists(ODD_BLOCKS, max_size=4).map(tuple),
        stop=st.sampled_from(StopReason),
        usage=st.none() | usages(),
        word=NAMES,
        refusal=WORDS,
        extra=EXTRAS,
    )


@st.composite
def streams(draw: st.DrawFn, blocks: st.SearchStrategy[Block] = BLOCKS) -> list[Event]:
    """The events of an answer, with its deltas cut and its tool calls interleaved at random."""
    answer = draw(responses(blocks))
    start, *middle, end = unfold(answer)
    assert isinstance(start, MessageStart)
    assert isinstance(end, MessageEnd)
    waiting: dict[int, list[Event]] = {}
    for event in middle:
        assert not isinstance(event, MessageStart | MessageEnd)
        waiting.setdefault(event.index, []).extend(_cut(draw, event))
    events: list[Event] = [start]
    opened: list[int] = []
    unopened = sorted(waiting)
    while unopened or opened:
        may = unopened and _may_open(answer, opened, unopened[0])
        if may and (not opened or draw(st.booleans())):
            at = unopened.pop(0)
            opened.append(at)
        else:
            at = draw(st.sampled_from(opened))
        events.append(waiting[at].pop(0))
        if isinstance(events[-1], BlockEnd):
            opened.remove(at)
    return [*events, end]


def _may_open(answer: Response, opened: list[int], at: int) -> bool:
    """Calls interleave with anything; texts come one block after the other."""
    words = [index for index in opened if not isinstance(answer.blocks[index], ToolCall)]
    return isinstance(answer.blocks[at], ToolCall) or not words


def _cut(draw: st.DrawFn, event: Event) -> list[Event]:
    if not isinstance(event, BlockDelta):
        return [event]
    at = draw(st.integers(0, len(event.text)))
    pieces = [event.text[:at], event.text[at:]]
    return [BlockDelta(event.index, piece) for piece in pieces if piece]
