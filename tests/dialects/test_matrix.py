"""Every stream through every client API has the same meaning for that API's own reader.

`tests/golden/<client API>/<dialect>.<scenario>.sse` is the stream that a client of that API gets,
`.json` the response without streaming. To accept new bytes, run the tests with
AIPROXY_UPDATE_GOLDEN=1 and read the diff.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message as AnthropicMessage, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from hypothesis import given, settings
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from asgi_aiproxy.dialects import Dialect
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.messages import (
    Event,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    Text,
    ToolCall,
    Usage,
    fold,
    unfold,
)
from tests.support import chat_stream_reader as strict
from tests.support.strategies import streams
from tests.support.stream_fixtures import (
    HERE,
    STREAMS,
    UPDATE,
    Meaning,
    Stream,
    as_in,
    cut,
    decode,
    faces,
    meaning,
)

REQUEST = Request(model="m", messages=(), stream=True)
FACES = list(faces())
ids = str

Broken = tuple[list[Event], APIError | None]


def face_of(name: str) -> Dialect:
    return faces()[name]


@cache
def heard(stream: Stream) -> Broken:
    return decode(stream.language, cut(stream.framer, [stream.data]))


def report(face: Dialect, events: list[Event], error: APIError | None = None) -> bytes:
    encoder = face.encoder(REQUEST)
    out = b"".join([encoder.feed(event) for event in events])
    return out if error is None else out + encoder.fail(error)


def without_unsupported(face: str, answer: Response) -> Meaning:
    """The meaning of an answer without what a client API cannot express."""
    meant = meaning(as_in(face, answer))
    stop, usage = meant.stop, meant.usage
    refused = any(isinstance(block, Refusal) for block in answer.blocks)
    if refused and face == "anthropic" and stop == "end" and not meant.calls:
        stop = "filter"  # its refusals are known by how they end
    if stop == "other" and face != "gemini":
        stop = "end"
    if usage is None and face == "anthropic":
        usage = (0, 0, 0, 0)  # there is no message without usage
    said = meant.said
    if meant.stop == "other" and face == "anthropic":
        said = said.removesuffix("Malformed function call: weather(")  # only refusals say why
    return replace(meant, said=said, stop=stop, usage=usage)


def golden(face: str, stream: Stream, suffix: str, data: bytes) -> bytes:
    path = Path(HERE / "golden" / face / f"{stream.dialect}.{stream.name}.{suffix}")
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path.read_bytes()


# One test per stream, with all client APIs: a test of its own for each would take longer to report
# than to run.


@pytest.mark.parametrize("stream", STREAMS, ids=ids)
def test_a_stream_in_a_client_api_equals_the_golden_file(stream: Stream) -> None:
    for face in FACES:
        data = report(face_of(face), *heard(stream))
        assert data == golden(face, stream, "sse", data), face


@pytest.mark.parametrize("stream", STREAMS, ids=ids)
def test_a_stream_in_a_client_api_has_the_same_meaning(stream: Stream) -> None:
    events, error = heard(stream)
    for face in FACES:
        reported, failure = reread(face, report(face_of(face), events, error))
        if error is not None:
            assert failure is not None, face
            assert failure.message == error.message
            continue
        assert failure is None, face
        meant = meaning(fold(events))
        if (stream.dialect, stream.name, face) != ("anthropic", "pause-turn", "anthropic"):
            meant = without_unsupported(face, fold(events))
        assert meaning(fold(reported)) == meant, face


def reread(face: str, data: bytes) -> Broken:
    return decode(face_of(face), cut(SSEFramer(), [data]))


WHOLE = [stream for stream in STREAMS if heard(stream)[1] is None]


@pytest.mark.parametrize("stream", WHOLE, ids=ids)
def test_a_whole_response_in_a_client_api_equals_the_golden_file_and_has_the_same_meaning(
    stream: Stream,
) -> None:
    answer = fold(heard(stream)[0])
    for face in FACES:
        data = face_of(face).encode_response(answer, REQUEST)
        assert data == golden(face, stream, "json", data), face

        again = face_of(face).decode_response(data)
        meant = without_unsupported(face, answer)
        if meant.usage is None and face == "gemini":
            meant = replace(meant, usage=(0, 0, 0, 0))
        if (stream.name, face) == ("pause-turn", "anthropic"):
            meant = replace(meant, stop="other")
        assert meaning(again) == meant, face


@pytest.mark.parametrize("stream", WHOLE, ids=ids)
def test_a_stream_and_a_whole_response_have_the_same_meaning(stream: Stream) -> None:
    """Also if the provider streams and the client did not request it, and vice versa."""
    events = heard(stream)[0]
    answer = fold(events)
    for face in FACES:
        streamed = fold(reread(face, report(face_of(face), events))[0])
        unfolded = fold(reread(face, report(face_of(face), list(unfold(answer))))[0])
        whole = face_of(face).decode_response(face_of(face).encode_response(answer, REQUEST))
        assert carried(unfolded) == carried(streamed), face
        if face != "openai_chat":  # whose whole answers put all thoughts first
            assert carried(whole) == carried(streamed), face


def carried(answer: Response) -> list[Any]:
    """Everything except the number of text blocks, and the position of calls among them."""
    out: list[Any] = []
    calls: list[Any] = []
    for block in answer.blocks:
        match block:
            case Text(text) | Refusal(text):
                if out and out[-1][0] == "text":
                    text = out.pop()[1] + text
                if text:
                    out.append(("text", text))
            case Reasoning(text, extra):
                out.append(("thought", text, extra))
            case ToolCall():
                calls.append((block.id, block.name, json.loads(arguments_of(block)), block.extra))
            case Media() | Opaque():
                out.append(("other", block))
    return [*out, *calls]


def arguments_of(call: ToolCall) -> str:
    if call.arguments.strip() in ("", "null"):
        return "{}"
    try:
        json.loads(call.arguments)
    except ValueError:
        return json.dumps({"arguments": call.arguments})
    return call.arguments


# An unknown stop reason is not forwarded: it could be another vendor's.
OWN = [s for s in WHOLE if s.dialect in FACES and s.name != "unknown-stop"]


@pytest.mark.parametrize("stream", OWN, ids=ids)
def test_a_stream_in_its_own_dialect_loses_nothing(stream: Stream) -> None:
    face = stream.dialect
    events, _ = heard(stream)
    before = fold(events)
    after = fold(reread(face, report(face_of(face), events))[0])
    assert own_words(face, after) == own_words(face, before)


def own_words(face: str, answer: Response) -> Any:
    """What a dialect itself can express. Only some have positions of citations."""
    blocks = list(answer.blocks)
    usage = answer.usage or Usage()
    if face == "gemini":
        blocks = [Text(b.text, (), b.extra) if isinstance(b, Text) else b for b in blocks]
        usage = Usage(input=usage.input, output=usage.output)
    if face != "anthropic":
        blocks = [b for b in blocks if b != Text("")]
        calls = [b for b in blocks if isinstance(b, ToolCall)]
        blocks = [b for b in blocks if not isinstance(b, ToolCall)] + calls
    return (blocks, answer.stop, usage, answer.refusal, answer.extra)


# ── read by the vendors' own clients ─────────────────────────────────────────

anthropic_event: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@pytest.mark.parametrize("stream", STREAMS, ids=ids)
def test_openais_client_collects_the_stream(stream: Stream) -> None:
    events, error = heard(stream)
    chunks, done = strict.chunks_in(report(face_of("openai_chat"), events, error))
    if error is not None:
        failure = chunks.pop()
        assert failure["error"]["message"] == error.message
        assert not done
    strict.read(chunks)
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    if error is None:
        assert done
        message = state.current_completion_snapshot.choices[0].message
        meant = meaning(fold(events))
        assert (message.content or "") + (message.refusal or "") == meant.said
        assert (message.model_extra or {}).get("reasoning_content", "") == meant.thought
        calls = [
            (
                call.id,
                call.function.name,
                json.loads(arguments_of(ToolCall("", "", call.function.arguments))),
            )
            for call in message.tool_calls or ()
        ]
        assert calls == list(meant.calls)


@pytest.mark.parametrize("stream", STREAMS, ids=ids)
def test_anthropics_and_googles_clients_know_every_frame(stream: Stream) -> None:
    events, _ = heard(stream)
    for piece in cut(SSEFramer(), [report(face_of("anthropic"), events)]):
        anthropic_event.validate_json(piece.replace(b"half \\ud83d", b"half"))
    for piece in cut(SSEFramer(), [report(face_of("gemini"), events)]):
        GenerateContentResponse.model_validate_json(piece.replace(b"half \\ud83d", b"half"))


@pytest.mark.parametrize("stream", WHOLE, ids=ids)
def test_the_vendors_clients_know_every_whole_answer(stream: Stream) -> None:
    answer = fold(heard(stream)[0])
    known: dict[str, Any] = {
        "openai_chat": ChatCompletion,
        "anthropic": AnthropicMessage,
        "gemini": GenerateContentResponse,
    }
    for face, model in known.items():
        data = face_of(face).encode_response(answer, REQUEST)
        model.model_validate_json(data.replace(b"half \\ud83d", b"half"))


def test_frames_towards_openais_clients_have_no_ids_and_are_never_empty() -> None:
    for stream in STREAMS:
        data = report(face_of("openai_chat"), *heard(stream))
        assert b"\nid:" not in data
        assert b"data: \n" not in data
        assert b"data:\n" not in data


# ── streams of any kind ──────────────────────────────────────────────────────


@pytest.mark.parametrize("face", FACES)
@given(events=streams())
@settings(max_examples=120, deadline=None)
def test_any_answer_in_a_client_api_has_the_same_meaning(face: str, events: list[Event]) -> None:
    reported, failure = reread(face, report(face_of(face), events))
    expected = without_unsupported(face, fold(events))
    if face == "gemini" and expected.stop == "other" and not content(fold(events)):
        assert failure is not None  # the dialect has no name for an end without content
        return
    assert failure is None
    found = meaning(fold(reported))
    if expected.calls and expected.stop == "end":
        expected = replace(expected, stop="tools")
    wordless = face in ("gemini", "openai_responses")
    if wordless and expected.stop == "tools" and not expected.calls:
        expected = replace(expected, stop="end")  # it has no word for calls
    if face == "gemini":  # whose calls come whole: the first that is complete is the first
        expected, found = by_id(expected), by_id(found)
    assert whole_pairs(found) == whole_pairs(expected)


def content(response: Response) -> bool:
    """Return whether there is anything that Gemini's API shows, apart from reasoning."""
    for block in response.blocks:
        match block:
            case Text(text) | Refusal(text) if text:
                return True
            case ToolCall():
                return True
            case Media(data=data, url=url) if data or url:
                return True
    return False


def by_id(meant: Meaning) -> Meaning:
    return replace(meant, calls=tuple(sorted(meant.calls, key=lambda call: call[0])))


def whole_pairs(meant: Meaning) -> str:
    """Two halves of a surrogate pair in one text are one character for some readers."""
    text = json.dumps([meant.said, meant.thought, meant.calls, meant.stop, meant.usage])
    return json.dumps(json.loads(text))


@given(events=streams())
@settings(max_examples=100, deadline=None)
def test_anthropics_blocks_come_one_after_the_other(events: list[Event]) -> None:
    opened: int | None = None
    count = 0
    for piece in cut(SSEFramer(), [report(face_of("anthropic"), events)]):
        frame = json.loads(piece)
        match frame["type"]:
            case "content_block_start":
                assert opened is None
                assert frame["index"] == count
                opened, count = count, count + 1
            case "content_block_delta":
                assert frame["index"] == opened
            case "content_block_stop":
                assert frame["index"] == opened
                opened = None
            case _:
                assert opened is None


def test_many_parallel_calls_are_encoded() -> None:
    blocks = tuple(ToolCall(f"call_{n}", "f", "{}") for n in range(2000))
    start, *middle, end = unfold(Response(id="m", model="m", blocks=blocks))
    middle.sort(key=lambda event: "BlockStart BlockDelta BlockEnd".index(type(event).__name__))
    for face in FACES:
        answer = fold(reread(face, report(face_of(face), [start, *middle, end]))[0])
        assert [b for b in answer.blocks if isinstance(b, ToolCall)] == list(blocks)
