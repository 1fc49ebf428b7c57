"""Every stream in `tests/streams` means what the events beside it say, however it arrives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stream_fixtures import STREAMS, Stream, cut, decode, expected, told

SSE = [stream for stream in STREAMS if stream.path.suffix == ".sse"]


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_stream_means_the_events_beside_it(stream: Stream) -> None:
    events, error = decode(stream.language, cut(stream.framer, [stream.data]))
    found = told(events, error)
    assert found == expected(stream.path.with_suffix(".events.json"), found)


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_stream_means_the_same_wherever_it_is_cut(stream: Stream) -> None:
    same_everywhere(stream, stream.data)


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
@pytest.mark.parametrize("stream", SSE, ids=str)
def test_a_stream_means_the_same_with_other_line_ends(stream: Stream, end: bytes) -> None:
    same_everywhere(stream, stream.data.replace(b"\n", end))


def same_everywhere(stream: Stream, data: bytes) -> None:
    """Decoders see whole pieces only: they are asked again where the pieces differ."""
    whole = cut(stream.framer, [stream.data])
    meant = told(*decode(stream.language, whole))
    for parts in cuts(data):
        pieces = cut(stream.framer, parts)
        if pieces != whole:
            assert told(*decode(stream.language, pieces)) == meant


def cuts(data: bytes) -> Iterator[list[bytes]]:
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]
