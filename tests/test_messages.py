from __future__ import annotations

import pytest
from hypothesis import given, settings

from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
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
    check,
    fold,
    merge,
    unfold,
)
from tests.support.strategies import odd_responses, streams
from tests.support.stream_fixtures import STREAMS, Stream, cut, decode

START = MessageStart("m", "model")
END = MessageEnd(StopReason.END)
OPEN = BlockStart(0, Text())
DELTA = BlockDelta(0, "a")
CLOSE = BlockEnd(0)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [START, END],
        [START, OPEN, CLOSE, END],
        [START, OPEN, DELTA, DELTA, CLOSE, END],
        [START, OPEN, CLOSE, BlockStart(7, Text()), BlockEnd(7), END],
        [
            START,
            OPEN,
            BlockStart(1, ToolCall("c", "f")),
            DELTA,
            BlockDelta(1, "{}"),
            CLOSE,
            BlockEnd(1),
            END,
        ],
    ],
)
def test_events_in_order_pass_through(events: list[Event]) -> None:
    assert list(check(events)) == events


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([OPEN], 0),
        ([DELTA], 0),
        ([CLOSE], 0),
        ([END], 0),
        ([START, START], 1),
        ([START, DELTA], 1),
        ([START, CLOSE], 1),
        ([START, OPEN, START], 2),
        ([START, OPEN, OPEN], 2),
        ([START, BlockStart(1, Text()), OPEN], 2),
        ([START, OPEN, BlockDelta(1, "a")], 2),
        ([START, OPEN, BlockEnd(1)], 2),
        ([START, OPEN, END], 2),
        ([START, OPEN, CLOSE, CLOSE], 3),
        ([START, OPEN, CLOSE, DELTA], 3),
        ([START, OPEN, CLOSE, OPEN], 3),
        ([START, END, END], 2),
        ([START, END, START], 2),
        ([START, END, OPEN], 2),
        ([START, END, DELTA], 2),
        ([START, END, CLOSE], 2),
    ],
)
def test_the_first_event_out_of_order_is_refused(events: list[Event], wrong: int) -> None:
    passed: list[Event] = []
    with pytest.raises(ValueError, match="out of order") as caught:
        passed.extend(check(events))
    assert passed == events[:wrong]
    assert repr(events[wrong]) in str(caught.value)


@pytest.mark.parametrize("events", [[START], [START, OPEN], [START, OPEN, DELTA, CLOSE]])
def test_a_started_stream_must_end(events: list[Event]) -> None:
    with pytest.raises(ValueError, match="ends without MessageEnd"):
        list(check(events))


@pytest.mark.parametrize("events", [[], [START], [START, OPEN, DELTA], [OPEN, CLOSE]])
def test_an_incomplete_response_cannot_be_folded(events: list[Event]) -> None:
    with pytest.raises(ValueError, match=r"incomplete|MessageEnd|out of order"):
        fold(events)


def test_a_stream_folds_into_the_whole_answer() -> None:
    cited = Citation(url="https://a.example")
    answer = fold(
        [
            MessageStart("m", "model", Usage(input=1)),
            BlockStart(0, Reasoning("H")),
            BlockDelta(0, "m"),
            BlockEnd(0, {"anthropic": {"signature": "s"}}),
            BlockStart(1, Text("T", (cited,), {"gemini": {"a": 1}})),
            BlockDelta(1, "ex"),
            BlockStart(3, ToolCall("c", "f", "{", {"x": {"y": 1}})),
            BlockDelta(3, "}"),
            BlockDelta(1, "t"),
            BlockEnd(1, {"gemini": {"b": 2}}, (cited,)),
            BlockEnd(3, {"x": {"z": 2}}),
            BlockStart(4, Refusal("N")),
            BlockDelta(4, "o"),
            BlockEnd(4),
            BlockStart(5, Media(kind="image", url="u")),
            BlockEnd(5),
            BlockStart(6, Opaque("anthropic", {"a": 1, "b": 1})),
            BlockEnd(6, {"anthropic": {"b": 2}, "gemini": {"c": 3}}),
            MessageEnd(StopReason.TOOLS, None, "tool_use", "no", {"anthropic": {"d": 4}}),
        ]
    )
    assert answer == Response(
        id="m",
        model="model",
        blocks=(
            Reasoning("Hm", {"anthropic": {"signature": "s"}}),
            Text("Text", (cited, cited), {"gemini": {"a": 1, "b": 2}}),
            ToolCall("c", "f", "{}", {"x": {"y": 1, "z": 2}}),
            Refusal("No"),
            Media(kind="image", url="u"),
            Opaque("anthropic", {"a": 1, "b": 2}),
        ),
        stop=StopReason.TOOLS,
        usage=Usage(input=1),
        word="tool_use",
        refusal="no",
        extra={"anthropic": {"d": 4}},
    )


def test_the_usage_at_the_end_is_the_one_that_counts() -> None:
    first, last = Usage(input=1), Usage(input=1, output=2)
    assert fold([MessageStart("m", "model", first), MessageEnd(StopReason.END, last)]).usage == last
    assert fold([MessageStart("m", "model", first), MessageEnd(StopReason.END)]).usage == first
    assert fold([START, END]).usage is None


def test_extras_are_merged_dialect_by_dialect() -> None:
    assert merge({"a": {"x": 1}}, {}) == {"a": {"x": 1}}
    assert merge({}, {"a": {"x": 1}}) == {"a": {"x": 1}}
    merged = merge({"a": {"x": 1, "y": 1}, "b": {"z": 1}}, {"a": {"y": 2}, "c": {"w": 3}})
    assert merged == {"a": {"x": 1, "y": 2}, "b": {"z": 1}, "c": {"w": 3}}


@given(odd_responses())
@settings(max_examples=300)
def test_an_answer_as_a_stream_folds_into_itself(response: Response) -> None:
    assert fold(unfold(response)) == response


@given(streams())
@settings(max_examples=100)
def test_generated_streams_are_legal(events: list[Event]) -> None:
    assert list(check(events)) == events
    fold(events)


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_folding_and_streaming_again_loses_nothing(stream: Stream) -> None:
    events, error = decode(stream.language, cut(stream.framer, [stream.data]))
    if error is None:
        answer = fold(events)
        assert fold(unfold(answer)) == answer
