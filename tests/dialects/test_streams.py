"""Every stream in `tests/streams` has the meaning of its events file, however it is cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stream_fixtures import STREAMS, Stream, cut, decode, events_as_json, expected

SSE = [stream for stream in STREAMS if stream.path.suffix == ".sse"]


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_stream_has_the_meaning_of_its_events_file(stream: Stream) -> None:
    events, error = decode(stream.language, cut(stream.framer, [stream.data]))
    found = events_as_json(events, error)
    assert found == expected(stream.path.with_suffix(".events.json"), found)


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_stream_has_the_same_meaning_wherever_it_is_cut(stream: Stream) -> None:
    same_everywhere(stream, stream.data)


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
@pytest.mark.parametrize("stream", SSE, ids=str)
def test_a_stream_has_the_same_meaning_with_other_line_ends(stream: Stream, end: bytes) -> None:
    same_everywhere(stream, stream.data.replace(b"\n", end))


def same_everywhere(stream: Stream, data: bytes) -> None:
    """Decoders get whole pieces only: they are called again where the pieces differ."""
    whole = cut(stream.framer, [stream.data])
    meant = events_as_json(*decode(stream.language, whole))
    for parts in cuts(data):
        pieces = cut(stream.framer, parts)
        if pieces != whole:
            assert events_as_json(*decode(stream.language, pieces)) == meant


def cuts(data: bytes) -> Iterator[list[bytes]]:
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]
