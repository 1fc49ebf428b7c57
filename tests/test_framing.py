from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import (
    Frame,
    Framer,
    JSONArrayFramer,
    NDJSONFramer,
    SSEFramer,
    encode_frame,
    end_of_last_event,
    events_containing,
    last_event_containing,
    split_before,
    split_run,
)
from tests.support.recordings import RECORDINGS, needs_recordings
from tests.support.stream_fixtures import STREAMS, Stream

Seen = tuple[bytes, bytes, bytes]  # data, type, last event id


def seen(data: bytes, *, at: int | None = None, step: int | None = None) -> list[Seen]:
    """The events of a stream that arrives whole, in two parts, or in small steps."""
    return [(f.data, f.event, f.id) for f in frames(data, at=at, step=step)]


def frames(data: bytes, *, at: int | None = None, step: int | None = None) -> list[Frame]:
    framer = SSEFramer()
    return [frame for part in parts(data, at, step) for frame in framer.frames(part)]


def parts(data: bytes, at: int | None = None, step: int | None = None) -> list[bytes]:
    if step is not None:
        return [data[i : i + step] for i in range(0, len(data), step)]
    return [data] if at is None else [data[:at], data[at:]]


def every_cut(data: bytes) -> Iterator[dict[str, int]]:
    yield from ({"at": at} for at in range(len(data) + 1))
    yield {"step": 1}


# ── SSE, rule by rule ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # what an event is
        (b"data: a\n\n", [(b"a", b"", b"")]),
        (b"data: a\n\ndata: b\n\n", [(b"a", b"", b""), (b"b", b"", b"")]),
        (b"data: a\ndata: b\n\n", [(b"a\nb", b"", b"")]),
        (b"data: a\ndata:\ndata: b\n\n", [(b"a\n\nb", b"", b"")]),
        (b"event: x\ndata: a\n\n", [(b"a", b"x", b"")]),
        (b"data: a\nevent: x\n\n", [(b"a", b"x", b"")]),
        (b"event: x\nevent: y\ndata: a\n\n", [(b"a", b"y", b"")]),
        (b"event: x\n\ndata: a\n\n", [(b"a", b"", b"")]),
        (b"\n\n\ndata: a\n\n\n\n\n", [(b"a", b"", b"")]),
        # the one space after the colon
        (b"data:a\n\n", [(b"a", b"", b"")]),
        (b"data:  a\n\n", [(b" a", b"", b"")]),
        (b"data: a \n\n", [(b"a ", b"", b"")]),
        (b"data:\ta\n\n", [(b"\ta", b"", b"")]),
        # nothing is something
        (b"data\n\n", [(b"", b"", b"")]),
        (b"data:\n\n", [(b"", b"", b"")]),
        (b"data: \n\n", [(b"", b"", b"")]),
        (b"data\ndata\n\n", [(b"\n", b"", b"")]),
        # unknown fields
        (b"data : a\n\n", []),
        (b" data: a\n\n", []),
        (b"Data: a\n\n", []),
        (b"dat: a\n\n", []),
        (b"datas: a\n\n", []),
        (b"events: x\ndata: a\n\n", [(b"a", b"", b"")]),
        (b'{"error":1}\n\n', []),
        # comments keep connections alive
        (b": hello\n\ndata: a\n\n", [(b"a", b"", b"")]),
        (b":\n\n:\n\n", []),
        (b"data: a\n: hello\ndata: b\n\n", [(b"a\nb", b"", b"")]),
        (b"data: : keepalive\n\n", [(b": keepalive", b"", b"")]),
        # ids stay until another comes
        (b"id: 1\ndata: a\n\ndata: b\n\n", [(b"a", b"", b"1"), (b"b", b"", b"1")]),
        (b"id: 1\n\ndata: b\n\n", [(b"b", b"", b"1")]),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [(b"a", b"", b"1"), (b"b", b"", b"")]),
        (b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [(b"a", b"", b"1"), (b"b", b"", b"1")]),
        # an incomplete event at the end is dropped
        (b"data: a\n\ndata: b", [(b"a", b"", b"")]),
        (b"data: a\n\ndata: b\n", [(b"a", b"", b"")]),
        # only CR, LF and CRLF end lines
        (b"data: a\r\ndata: b\r\n\r\n", [(b"a\nb", b"", b"")]),
        (b"data: a\rdata: b\r\r", [(b"a\nb", b"", b"")]),
        (
            b"data: a\n\rdata: b\r\n\ndata: c\r\r\n",
            [(b"a", b"", b""), (b"b", b"", b""), (b"c", b"", b"")],
        ),
        (b"data: a\r\n\rdata: b\r\n\r\n", [(b"a", b"", b""), (b"b", b"", b"")]),
        (
            b"data: a\x0bb\x0cc\x85d\xe2\x80\xa8e\n\n",
            [(b"a\x0bb\x0cc\x85d\xe2\x80\xa8e", b"", b"")],
        ),
        # one byte order mark, at the very beginning
        (b"\xef\xbb\xbfdata: a\n\n", [(b"a", b"", b"")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [(b"b", b"", b"")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"a", b"", b"")]),
        (b"\xef\xbb\n\ndata: a\n\n", [(b"a", b"", b"")]),
        (b"\xef\xbb\xbf", []),
        (b"", []),
    ],
)
def test_events_are_cut_by_the_rules_of_the_standard(stream: bytes, events: list[Seen]) -> None:
    assert seen(stream) == events
    for way in every_cut(stream):
        assert seen(stream, **way) == events, way
    if not stream.startswith(b"\xef\xbb\xbf"):
        assert under_way().feed(stream) == [event[0] for event in events]


def under_way() -> SSEFramer:
    """A framer that has received the beginning of its stream: from here on the fast path is
    possible.
    """
    framer = SSEFramer()
    assert framer.feed(b": hello\n\n") == []
    return framer


@pytest.mark.parametrize(
    ("stream", "retry"),
    [
        (b"retry: 3000\n\n", 3000),
        (b"retry: 3000\nretry: 5\n\n", 5),
        (b"retry: 3000\n\nretry: soon\n\n", 3000),
        (b"retry: -1\n\n", None),
        (b"retry: 1.5\n\n", None),
        (b"retry:\n\n", None),
        ("retry: ٣\n\n".encode(), None),
        (b"retry: " + b"9" * 5000 + b"\n\n", None),
    ],
)
def test_the_reconnection_time_is_remembered_if_it_is_a_number(
    stream: bytes, retry: int | None
) -> None:
    for framer in (SSEFramer(), under_way()):
        assert framer.feed(stream) == []
        assert framer.retry == retry


def test_a_frame_keeps_its_received_bytes() -> None:
    stream = b"event: x\r\nid: 1\r\ndata: a\r\n\r\ndata: b\n\n: c\n\ndata: d\r\r"
    raws = [frame.raw for frame in frames(stream)]
    assert raws == [b"event: x\r\nid: 1\r\ndata: a\r\n\r\n", b"data: b\n\n", b"data: d\r\r"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_returned_as_soon_as_its_blank_line_arrives(end: bytes) -> None:
    framer = SSEFramer()
    for number in range(3):
        assert framer.feed(b"data: %d" % number + end + end) == [b"%d" % number]


def test_a_line_feed_after_the_last_carriage_return_is_not_a_line() -> None:
    framer = SSEFramer()
    assert framer.feed(b"data: a\r\n\r") == [b"a"]
    assert framer.feed(b"\n") == []
    assert framer.feed(b"data: b\r\n\r\n") == [b"b"]


# ── every stream there is, cut everywhere ────────────────────────────────────


def conformance() -> list[Any]:
    path = RECORDINGS / "sse-conformance.json"
    return json.loads(path.read_bytes())["cases"] if path.is_file() else [None]


@needs_recordings
@pytest.mark.parametrize("case", conformance(), ids=lambda case: case and case["name"])
def test_the_conformance_cases_of_web_platform_tests_pass(case: Any) -> None:
    stream = base64.b64decode(case["raw_base64"])
    events = [(e["data"], e["event"], e["last_event_id"]) for e in case["events"]]
    for way in [{}, *every_cut(stream)]:
        framer = SSEFramer()
        found = [f for part in parts(stream, **way) for f in framer.frames(part)]
        assert [(text(f.data), text(f.event) or "message", text(f.id)) for f in found] == events
        assert framer.retry == case["retry_ms"]


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# Every other stream is cut everywhere in `dialects/test_streams.py`.
ODD = ("keepalive", "unicode", "error-bare-json", "error-named-event", "truncated-in-frame")
SSE = [s for s in STREAMS if s.path.suffix == ".sse" and s.name in ODD]


def mixed(data: bytes) -> bytes:
    ends = [b"\r\n", b"\n", b"\r"]
    lines = data.split(b"\n")
    # A CR must not meet the LF of the next, empty line: the two would be one end.
    out = lines[0]
    for at, line in enumerate(lines[1:]):
        end = ends[at % 3]
        out += (b"\r\n" if out.endswith(b"\r") and end == b"\n" else end) + line
    return out


LINE_ENDS: dict[str, Callable[[bytes], bytes]] = {
    "LF": lambda data: data,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR": lambda data: data.replace(b"\n", b"\r"),
    "mixed": mixed,
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
}


@pytest.mark.parametrize("ends", LINE_ENDS)
@pytest.mark.parametrize("stream", SSE, ids=str)
def test_the_fast_path_and_the_full_parser_agree_at_every_cut(stream: Stream, ends: str) -> None:
    data = LINE_ENDS[ends](stream.data)
    events = seen(stream.data)
    for way in every_cut(data):
        quick, full = SSEFramer(), SSEFramer()
        pieces, found = [], []
        for part in parts(data, **way):
            pieces.append(quick.feed(part))
            found.append([(f.data, f.event, f.id) for f in full.frames(part)])
        assert [event for some in found for event in some] == events, way
        assert pieces == [[event[0] for event in some] for some in found], way
        assert quick.close() == full.close()


# ── the end, and limits ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stream", "left"),
    [
        (b"data: a\n\n", None),
        (b"data: a", b"a"),
        (b"data: a\n", b"a"),
        (b"data: a\r", b"a"),
        (b"data: a\n\nevent: x\ndata: b\ndata: c", b"b\nc"),
        (b"data: a\n\n: waiting", None),
        (b"\xef\xbb", None),
        (b"", None),
        # an error that is not an event
        (b'{"error": 1}', b'{"error": 1}'),
        (b'data: a\n\n{"error":\n 1}\n', b'{"error":\n 1}'),
        (b'data: a\n\n{"error": 1}\n\n', b'{"error": 1}'),
        (b'\r\n{"error": 1}\r\n\r\n', b'{"error": 1}'),
        (b'{"error": 1}\n\ndata: a', b"a"),
        (b"<html>", None),
    ],
)
def test_an_unfinished_event_is_returned_at_the_end(stream: bytes, left: bytes | None) -> None:
    for way in [{}, *every_cut(stream)]:
        framer = SSEFramer()
        for part in parts(stream, **way):
            framer.feed(part)
        assert framer.close() == left
        assert framer.close() is None


def test_the_last_frame_can_be_sent_on_as_it_is() -> None:
    framer = SSEFramer()
    framer.frames(b"data: a\n\nevent: x\ndata: b")
    last = framer.last_frame()
    assert last == Frame(b"b", b"x", b"", b"event: x\ndata: b\n\n")

    framer.frames(b'{"error":\n1}\n')
    last = framer.last_frame()
    assert last == Frame(b'{"error":\n1}', raw=b'data: {"error":\ndata: 1}\n\n')


@pytest.mark.parametrize(
    ("framed", "start"),
    [(SSEFramer, b"data: "), (NDJSONFramer, b'{"a":'), (JSONArrayFramer, b'[{"a":"')],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_endless_event_is_refused_before_it_fills_the_memory(
    framed: Callable[[int], Framer], start: bytes, step: int
) -> None:
    framer = framed(100)
    assert framer.feed(start) == []
    for _ in range(80 // step):
        assert framer.feed(b"x" * step) == []
    with pytest.raises(APIError, match="larger than 100 bytes") as caught:
        framer.feed(b"x" * max(step, 40))
    assert caught.value.kind is ErrorKind.UPSTREAM


def test_many_finished_events_may_be_long_in_total() -> None:
    sse, ndjson, array = SSEFramer(100), NDJSONFramer(100), JSONArrayFramer(100)
    array.feed(b"[")
    for _ in range(100):
        assert sse.feed(b"data: " + b"x" * 80) == []
        assert sse.feed(b"\n\n") == [b"x" * 80]
        assert ndjson.feed(b"x" * 80) == []
        assert ndjson.feed(b"\n") == [b"x" * 80]
        assert array.feed(b'{"a":"' + b"x" * 80) == []
        assert array.feed(b'"},') == [b'{"a":"' + b"x" * 80 + b'"}']


class Counting:
    """A compiled pattern that counts the bytes it searches."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.bytes = 0

    def search(self, data: bytes) -> re.Match[bytes] | None:
        self.bytes += len(data)
        return self.pattern.search(data)

    def finditer(self, data: bytes, start: int = 0) -> Iterator[re.Match[bytes]]:
        self.bytes += len(data) - start
        return self.pattern.finditer(data, start)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("step", [1, 1024])
def test_the_work_for_a_large_event_is_linear(
    end: bytes, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asgi_aiproxy import framing

    counting = Counting(framing._BLANK_LINE)
    monkeypatch.setattr(framing, "_BLANK_LINE", counting)
    large = b"x" * (300_000 if step == 1 else 3_000_000)
    stream = b"data: " + large + end + b"data: y" + end + end
    framer = SSEFramer()
    pieces = [piece for part in parts(stream, step=step) for piece in framer.feed(part)]
    assert pieces == [large + b"\ny"]
    assert counting.bytes < 5 * len(stream)


@pytest.mark.parametrize("step", [1, 1024])
def test_the_work_for_a_large_value_in_an_array_is_linear(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(JSONArrayFramer._STRUCTURE)
    monkeypatch.setattr(JSONArrayFramer, "_STRUCTURE", counting)
    value = b'{"a":"' + b"x{" * (150_000 if step == 1 else 1_500_000) + b'"}'
    framer = JSONArrayFramer()
    stream = b"[" + value + b"]"
    pieces = [piece for part in parts(stream, step=step) for piece in framer.feed(part)]
    assert pieces == [value]
    assert counting.bytes < 2 * len(stream)


def test_a_large_line_may_arrive_in_small_pieces() -> None:
    framer = NDJSONFramer()
    line = b"x" * 2_000_000
    pieces = [piece for part in parts(line + b"\n", step=10) for piece in framer.feed(part)]
    assert pieces == [line]


# ── lines of JSON, and arrays ────────────────────────────────────────────────


def cut_by(framer: type[NDJSONFramer | JSONArrayFramer], data: bytes, **way: int) -> list[bytes]:
    it = framer()
    found = [piece for part in parts(data, **way) for piece in it.feed(part)]
    rest = it.close()
    assert it.close() is None
    return found if rest is None else [*found, rest]


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'\n\n{"a":1}\n \n\n', [b'{"a":1}']),
        ('{"a":"\u2028\\n"}\n'.encode(), ['{"a":"\u2028\\n"}'.encode()]),
        (b"\n", []),
        (b" ", []),
        (b"", []),
    ],
)
def test_lines_are_cut_at_line_feeds(stream: bytes, lines: list[bytes]) -> None:
    for way in [{}, *every_cut(stream)]:
        assert cut_by(NDJSONFramer, stream, **way) == lines, way


@pytest.mark.parametrize(
    ("stream", "values"),
    [
        (b'[{"a":1},{"b":2}]', [b'{"a":1}', b'{"b":2}']),
        (b'[{"a":1}\n,\r\n{"b":2}\n]\n', [b'{"a":1}', b'{"b":2}']),
        (b"[]", []),
        (b"", []),
        (b'[{"a":{"b":[{"c":1},[{}]]}}]', [b'{"a":{"b":[{"c":1},[{}]]}}']),
        (b'[{"a":"}]{["},{"b":"\\"}"}]', [b'{"a":"}]{["}', b'{"b":"\\"}"}']),
        (b'[{"a":"\\\\"},{"b":"\\\\\\"}"}]', [b'{"a":"\\\\"}', b'{"b":"\\\\\\"}"}']),
        (b'[{"a":"\\u007d"}]', [b'{"a":"\\u007d"}']),
        (b'["}", {"a":1}]', [b'{"a":1}']),
        (b'[\\,{"a":1}]', [b'{"a":1}']),
        # an error comes alone as often as in a list
        (b'{"error":{"code":500}}', [b'{"error":{"code":500}}']),
        (b'{"a":1}{"b":2}', [b'{"a":1}', b'{"b":2}']),
        # a cut element is returned, too
        (b'[{"a":1},{"b":', [b'{"a":1}', b'{"b":']),
        (b'[{"a":1},', [b'{"a":1}']),
    ],
)
def test_an_array_is_cut_into_its_objects(stream: bytes, values: list[bytes]) -> None:
    for way in [{}, *every_cut(stream)]:
        assert cut_by(JSONArrayFramer, stream, **way) == values, way


# ── properties ───────────────────────────────────────────────────────────────


def by_the_letter(stream: str) -> list[tuple[str, str, str]]:
    """The algorithm of the standard, step by step, over a whole stream."""
    events = []
    data, event, last_id = "", "", ""
    lines = re.split(r"\r\n|\n|\r", stream.removeprefix("\ufeff"))
    for line in lines[:-1]:
        if not line:
            if data:
                events.append((data.removesuffix("\n"), event, last_id))
            data, event = "", ""
            continue
        field, colon, value = line.partition(":")
        value = value.removeprefix(" ") if colon else ""
        if field == "data":
            data += value + "\n"
        elif field == "event":
            event = value
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


VALUES = st.text(st.sampled_from("ab: \0{é\u2028\ufeff🚀"), max_size=6)
FIELDS = st.sampled_from(["data", "data", "data", "event", "id", "retry", "", "other", "dat"])
COLONS = st.sampled_from([": ", ":", ""])
LINES = st.builds("".join, st.tuples(FIELDS, COLONS, VALUES)) | st.just("") | VALUES
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
SOME_STREAM = st.builds(
    lambda bom, lines: bom + "".join(line + end for line, end in lines),
    st.sampled_from(["", "\ufeff"]),
    st.lists(st.tuples(LINES, ENDS), max_size=12),
)
CUTS = st.lists(st.integers(0, 120), max_size=6).map(sorted)


def in_parts(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# What nearly all providers send: one line of data, its type before it, and nothing else.
USUAL_EVENTS = st.builds(
    lambda before, colon, value, after: before + "data" + colon + value + "\n" + after + "\n",
    st.sampled_from(["", "", "event: x\n", "e\n", "id: 1\n", "event: x\nevent: y\n", ": x\n\n"]),
    st.sampled_from([": ", ": ", ":", ""]),
    VALUES,
    st.sampled_from(["", "", "", "data: b\n", "event: z\n", "\n"]),
)
USUAL_STREAM = st.lists(USUAL_EVENTS, max_size=6).map("".join)


@given(USUAL_STREAM | USUAL_STREAM.map(lambda s: s.replace("\n", "\r\n")), CUTS)
@settings(max_examples=300, deadline=None)
def test_usual_events_in_all_packets_are_read_as_the_standard_says(
    stream: str, cuts: list[int]
) -> None:
    framer, quick = SSEFramer(), under_way()
    parts = in_parts(stream.encode(), cuts)
    found = [f for part in parts for f in framer.frames(part)]
    events = [(f.data.decode(), f.event.decode(), f.id.decode()) for f in found]
    assert events == by_the_letter(stream)
    assert [d.decode() for part in parts for d in quick.feed(part)] == [e[0] for e in events]


# Many events of one type in a packet, some of them with another form.
RUN_STREAM = st.builds(
    lambda head, before, values, odd, tail: (
        head + "".join(f"{before}{value}\n\n" for value in [*values, *values]) + odd + tail
    ),
    USUAL_STREAM,
    st.sampled_from(["data: ", "data:", "event: x\ndata: ", "event:x\ndata:", "id: 1\ndata: "]),
    st.lists(VALUES.map(lambda value: value + "{" * 100), min_size=6, max_size=12),
    USUAL_EVENTS,
    st.sampled_from(["data: ", "event: x\ndata: "]).map(lambda start: f"{start}c\n\n" * 6),
)


@given(RUN_STREAM)
@settings(max_examples=200, deadline=None)
def test_many_events_in_one_packet_are_read_as_the_standard_says(stream: str) -> None:
    expected = by_the_letter(stream)
    assert [text.decode() for text in SSEFramer().feed(stream.encode())] == [
        data for data, _, _ in expected
    ]
    run = split_run(SSEFramer().has_complete_events(stream.encode()))
    if run is not None:
        before, after = (by_the_letter(part.decode()) for part in (run.before, run.after))
        types = [event for _, event, _ in expected[len(before) : len(expected) - len(after)]]
        assert types == [run.event.decode()] * len(run.texts)


def test_a_packet_of_equal_events_is_cut_as_a_run() -> None:
    event = b"event: a\ndata: " + b"x" * 200 + b"\n\n"
    run = split_run(b"data: 1\n\n" + event * 10 + b": end\n\n")
    assert run == (b"data: 1\n\n", b"a", [b"x" * 200] * 10, b": end\n\n")


@given(USUAL_STREAM, CUTS)
@settings(max_examples=300, deadline=None)
def test_the_bytes_of_whole_events_are_complete_and_can_be_split(
    stream: str, cuts: list[int]
) -> None:
    framer, other = SSEFramer(), SSEFramer()
    data = stream.encode()
    passed = b""
    for part in in_parts(data, cuts):
        whole = framer.has_complete_events(part)
        assert framer.split(whole) == other.frames(part)
        one, two = split_before(whole, (b"b", b"{"))
        assert one + two == whole
        assert b"b" not in one
        assert two == b"" or re.search(rb"[b{]", two)
        parted = [f.data for f in (*framer.split(one), *framer.split(two))]
        assert parted == [f.data for f in framer.split(whole)]
        passed += whole
    assert data.startswith(passed)
    assert data.count(b"\n\n") == passed.count(b"\n\n")


@given(USUAL_STREAM | SOME_STREAM)
@settings(max_examples=300, deadline=None)
def test_events_with_a_mark_are_found_with_their_first_and_last_byte(stream: str) -> None:
    whole = SSEFramer().has_complete_events(stream.encode())
    found = [whole[start:end] for start, end in events_containing(whole, b"b")]
    assert b"".join(found).count(b"b") == whole.count(b"b")
    for piece in found:
        assert b"b" in piece
        assert whole.count(piece) >= 1
        assert end_of_last_event(piece) == len(piece)
        assert len([*SSEFramer().walk(piece)]) <= 1
    last = [whole[start:end] for start, end in last_event_containing(whole, b"b")]
    assert [piece.lstrip() for piece in last] == [piece.lstrip() for piece in found[-1:]]


@given(SOME_STREAM, CUTS)
@settings(max_examples=300, deadline=None)
def test_any_stream_cut_anywhere_is_read_as_the_standard_says(stream: str, cuts: list[int]) -> None:
    framer = SSEFramer()
    data = stream.encode()
    found = [f for part in in_parts(data, cuts) for f in framer.frames(part)]
    events = [(f.data.decode(), f.event.decode(), f.id.decode()) for f in found]
    assert events == by_the_letter(stream)


@given(SOME_STREAM, CUTS)
@settings(max_examples=300, deadline=None)
def test_the_fast_path_and_the_full_parser_agree(stream: str, cuts: list[int]) -> None:
    quick, full = under_way(), under_way()
    for part in in_parts(stream.encode(), cuts):
        assert quick.feed(part) == [frame.data for frame in full.frames(part)]
    assert quick.close() == full.close()


@given(st.binary(max_size=40), st.sampled_from([b"", b"message_stop", b"error"]))
def test_a_frame_that_was_written_is_read_again(data: bytes, event: bytes) -> None:
    written = encode_frame(data, event)
    (frame,) = frames(written)
    assert frame.data == re.sub(rb"\r\n|\r", b"\n", data)
    assert frame.event == event
    assert frame.raw == written


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],\n🚀', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('a"{', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text('a"\\}', max_size=3), JSON, max_size=3), max_size=4)


@given(OBJECTS, CUTS, st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None)
def test_objects_in_an_array_are_found_wherever_it_is_cut(
    objects: list[Any], cuts: list[int], indent: int | None
) -> None:
    framer = JSONArrayFramer()
    data = json.dumps(objects, indent=indent).encode()
    found = [json.loads(piece) for part in in_parts(data, cuts) for piece in framer.feed(part)]
    assert found == objects
    assert framer.close() is None


@given(OBJECTS, CUTS)
@settings(deadline=None)
def test_objects_on_lines_are_found_wherever_they_are_cut(
    objects: list[Any], cuts: list[int]
) -> None:
    data = b"".join(json.dumps(value).encode() + b"\n" for value in objects)
    framer = NDJSONFramer()
    found = [json.loads(piece) for part in in_parts(data, cuts) for piece in framer.feed(part)]
    assert found == objects
