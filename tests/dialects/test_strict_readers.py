"""Streams of every client API are read by readers that share no code with the package.

What is read: all hand-written streams, any legal stream of events, and the recordings, if they are
here, cut anywhere.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Event, Message, Refusal, Request, Text, fold
from asgi_aiproxy.translate import StreamTranslator
from tests.support.readers import READERS, Answer, sdk
from tests.support.recordings import needs_recordings
from tests.support.strategies import streams
from tests.support.stream_fixtures import STREAMS, Stream, as_in, cut, decode, faces, meaning
from tests.test_recordings import STREAMS as RECORDED, framer_of, language_of, stream_of

REQUEST = Request(model="m", messages=(Message("user", (Text("Hi"),)),), stream=True)
FACES = list(faces())


def encoded(face: str, events: list[Event], error: APIError | None = None) -> bytes:
    encoder = faces()[face].encoder(REQUEST)
    out = b"".join([encoder.feed(event) for event in events])
    return out if error is None else out + encoder.fail(error)


def whole(value: Any) -> str:
    """Halves of a pair that met in one text are one character to some readers."""
    return json.dumps(json.loads(json.dumps(value)))


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_stream_written_by_hand(stream: Stream) -> None:
    for face in FACES:
        check_stream(stream, face)


def check_stream(stream: Stream, face: str) -> None:
    events, error = decode(stream.language, cut(stream.framer, [stream.data]))
    answer = READERS[face].stream(encoded(face, events, error))
    if error is not None:
        assert answer.error is not None
        assert answer.error["message"] == error.message
        return
    meant = meaning(as_in(face, fold(events)))
    if face == "anthropic" and answer.finish != "filter":
        assert meant.said.startswith(answer.said)  # only refusals have an explanation there
    else:
        assert answer.said == meant.said
    assert answer.thought == meant.thought
    assert [(id, name) for id, name, _ in answer.calls] == [call[:2] for call in meant.calls]
    assert answer.usage == meant.usage or (meant.usage is None and face == "anthropic")


@pytest.mark.parametrize("face", FACES)
@given(events=streams())
@settings(max_examples=100, deadline=None)
def test_any_stream(face: str, events: list[Event]) -> None:
    answer = READERS[face].stream(encoded(face, events))
    response = fold(events)
    meant = meaning(response)
    if face in ("anthropic", "gemini"):  # where a refusal is text
        assert whole(answer.said) == whole(meant.said)
    else:
        texts = "".join(b.text for b in response.blocks if isinstance(b, Text))
        refusals = "".join(b.text for b in response.blocks if isinstance(b, Refusal))
        assert whole([answer.text, answer.refusal]) == whole([texts, refusals])
    assert whole(answer.thought) == whole(meant.thought)
    found = [call[:2] for call in answer.calls]
    expected = [call[:2] for call in meant.calls]
    # (Gemini's calls come whole: the first that is complete is the first.)
    assert sorted(found) == sorted(expected) if face == "gemini" else found == expected


@pytest.mark.parametrize("face", FACES)
@given(events=streams(), at=st.integers(0, 40))
@settings(max_examples=80, deadline=None)
def test_any_stream_that_breaks_off(face: str, events: list[Event], at: int) -> None:
    error = APIError(ErrorKind.UPSTREAM, "It broke.")
    begun = events[: 1 + at % len(events)][: len(events) - 1]
    answer = READERS[face].stream(encoded(face, begun, error))
    assert answer.error is not None
    assert answer.error["message"] == "It broke."


@needs_recordings
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("recording", RECORDED, ids=lambda recording: str(recording["id"]))
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_a_recorded_stream_however_it_is_cut(
    recording: Any, face: str, data: st.DataObject
) -> None:
    stream = stream_of(recording)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    parts = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    decoder = language_of(recording).decoder()
    translator = StreamTranslator(framer_of(recording), decoder, faces()[face].encoder(REQUEST))
    out, failed = b"", False
    try:
        out = b"".join([translator.feed(part) for part in parts])
        out += translator.close()
    except APIError as error:
        failed = True
        out += translator.fail(error)
    expect = recording["expect"]
    if failed:
        assert expect.get("error")
        return
    answer: Answer = READERS[face].stream(out)
    sdk.stream(face, out)
    assert answer.text.startswith(expect["text"])
    assert answer.thought == expect["reasoning"]
    assert len(answer.calls) == len(expect["tool_calls"])
