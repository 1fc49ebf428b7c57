from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy import translate
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, GEMINI_CONTENT, OLLAMA_CHAT, OPENAI_CHAT
from asgi_aiproxy.dialects.base import NativeStream
from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
    OpenAINativeStream,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import Frame, NDJSONFramer, SSEFramer
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    Media,
    MessageEnd,
    MessageStart,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from asgi_aiproxy.translate import (
    BufferedTranslator,
    NativeStreamTranslator,
    RawTranslator,
    StreamTranslator,
    Translator,
    collect_stream,
    is_content,
)
from tests.support import chat_stream_reader as strict
from tests.support.event_stream import event
from tests.support.stream_fixtures import HERE, STREAMS, Stream, faces, languages, meaning


def stream_of(dialect: str, name: str) -> bytes:
    (path,) = (HERE / "streams" / dialect).glob(f"{name}.[!e]*")
    return path.read_bytes()


def run(translator: Translator, parts: Iterable[bytes]) -> tuple[bytes, APIError | None]:
    """The output for a client, and the error with which the response ended."""
    out = b""
    try:
        for part in parts:
            out += translator.feed(part)
        out += translator.close()
    except APIError as error:
        return out + translator.fail(error), error
    return out, None


def outcome(translator: Translator, parts: Iterable[bytes]) -> tuple[bytes, str]:
    """The output for a client, and how the response ended."""
    out, error = run(translator, parts)
    return out, error.message if error else "whole"


def cuts(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]


def frame_by_frame(data: bytes) -> list[bytes]:
    """As sent by a provider: every event in its own packet."""
    return [block + b"\n\n" for block in data.split(b"\n\n") if block]


# ── verbatim ─────────────────────────────────────────────────────────────────


class Counting:
    """A native stream that counts the frames it parses."""

    def __init__(self, echo: NativeStream) -> None:
        self._echo = echo
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._echo, name)

    def feed(self, frame: Frame) -> bytes:
        self.read += 1
        return self._echo.feed(frame)


@pytest.mark.parametrize(("dialect", "read"), [("openai_chat", 6), ("anthropic", 5), ("gemini", 3)])
@pytest.mark.parametrize("packets", ["one", "each its own"])
def test_only_the_beginning_and_end_of_a_native_stream_are_parsed(
    dialect: str, read: int, packets: str
) -> None:
    middle = {
        "openai_chat": b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"},'
        b'"finish_reason":null}],"usage":null}\n\n',
        "anthropic": b'data: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"x"}}\n\n',
        "gemini": b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}],'
        b'"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":9}}\n\n',
    }[dialect]
    start = {
        "openai_chat": b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n',
        "anthropic": b'data: {"type":"message_start","message":{"id":"m"}}\n\n'
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text"}}\n\n',
        "gemini": b'data: {"responseId":"r"}\n\n',
    }[dialect]
    end = {
        "openai_chat": b'data: {"id":"c","choices":[{"index":0,"finish_reason":"stop"}]}\n\n'
        b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9}}\n\n'
        b"data: [DONE]\n\n",
        "anthropic": b'data: {"type":"message_delta","usage":{"input_tokens":9,'
        b'"output_tokens":9}}\n\ndata: {"type":"message_stop"}\n\n',
        "gemini": b'data: {"candidates":[{"finishReason":"STOP"}]}\n\n',
    }[dialect]
    data = start + middle * 50 + end
    faces_of_it = {"openai_chat": OpenAINativeStream(usage_wanted=True)}
    echo = Counting(
        faces_of_it.get(dialect)
        or faces()[dialect].native_stream(usage_wanted=True, strict_format=True)
    )
    translator = NativeStreamTranslator(echo)
    parts = [data] if packets == "one" else frame_by_frame(data)
    out, ended = outcome(translator, parts)
    assert ended == "whole"
    assert out == data
    assert echo.read <= read
    assert translator.usage == Usage(input=9, output=9)


def exact(usage_wanted: bool = True) -> NativeStreamTranslator:
    return NativeStreamTranslator(OpenAINativeStream(usage_wanted=usage_wanted))


def anthropic() -> NativeStreamTranslator:
    return NativeStreamTranslator(
        ANTHROPIC_MESSAGES.native_stream(usage_wanted=True, strict_format=True)
    )


def openai_responses() -> NativeStreamTranslator:
    return NativeStreamTranslator(
        faces()["openai_responses"].native_stream(usage_wanted=True, strict_format=True)
    )


def gemini() -> NativeStreamTranslator:
    return NativeStreamTranslator(
        GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True)
    )


PASSING = {
    "openai_chat": exact,
    "openai_responses": openai_responses,
    "anthropic": anthropic,
    "gemini": gemini,
}
BROKEN = ("error", "truncated", "failed")
NO_DONE = (
    "no-done",
    "quirk-whole-message",
    "quirk-bare-chunks",
)  # closed by us
COMMENTS = ("keepalive",)
WHOLE_STREAMS = [
    s
    for s in STREAMS
    if s.dialect in PASSING
    and s.path.suffix == ".sse"
    and not s.name.startswith(BROKEN)
    and s.name not in COMMENTS
]
SOME = ("text", "tool", "unicode", "parallel-tools", "usage-every-chunk", "no-done", "hosted-tool")


@pytest.mark.parametrize("stream", WHOLE_STREAMS, ids=str)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_response_in_the_clients_own_dialect_passes_byte_for_byte(
    stream: Stream, end: bytes
) -> None:
    data = stream.data.replace(b"\n", end)
    expected = data
    if stream.dialect == "openai_chat" and stream.name in NO_DONE:
        expected += b"data: [DONE]\n\n"
    packets = [packet.replace(b"\n", end) for packet in frame_by_frame(stream.data)]
    for parts in ([data], packets, [data[:99], data[99:]]):
        assert outcome(PASSING[stream.dialect](), parts) == (expected, "whole")


@pytest.mark.parametrize("stream", [s for s in WHOLE_STREAMS if s.name in SOME], ids=str)
def test_a_native_stream_is_the_same_wherever_it_is_cut(stream: Stream) -> None:
    for wanted in (True, False) if stream.dialect == "openai_chat" else (None,):
        first = None
        for parts in cuts(stream.data):
            translator = PASSING[stream.dialect](*([] if wanted is None else [wanted]))
            found = (outcome(translator, parts), translator.usage, translator.model)
            first = first or found
            assert found == first


@pytest.mark.parametrize("dialect", PASSING)
def test_no_byte_is_lost_where_a_line_end_is_cut_in_two(dialect: str) -> None:
    data = stream_of(dialect, "text").replace(b"\n", b"\r\n")
    for parts in cuts(data):
        out, end = outcome(PASSING[dialect](), parts)
        assert end == "whole"
        # The very last LF ends nothing that its CR has not ended.
        assert out in (data, data[:-1])


def test_every_frame_of_a_native_stream_is_returned_at_once() -> None:
    for dialect, name in (("openai_chat", "text"), ("anthropic", "tool"), ("gemini", "text")):
        translator = PASSING[dialect]()
        for frame in frame_by_frame(stream_of(dialect, name)):
            assert translator.feed(frame) == frame
        assert translator.close() == b""


def test_keep_alives_do_not_hide_frames_of_a_native_stream() -> None:
    data = stream_of("anthropic", "keepalive")
    for parts in cuts(data):
        out, end = outcome(anthropic(), parts)
        assert end == "whole"
        # Comments may be left out.
        assert out.replace(b": hello\n\n", b"") == data.replace(b": hello\n\n", b"")


@pytest.mark.parametrize("frames", [True, False])
def test_usage_that_was_not_requested_is_removed_but_counted(frames: bool) -> None:
    data = stream_of("openai_chat", "text").replace(
        b'"finish_reason":null}]}', b'"finish_reason":null}],"usage":null}'
    )
    parts = frame_by_frame(data) if frames else [data]
    translator = exact(usage_wanted=False)
    out, end = outcome(translator, parts)
    assert end == "whole"
    assert b"usage" not in out
    chunks, done = strict.chunks_in(out)
    assert done
    strict.read(chunks)
    assert len(chunks) == 5
    assert translator.usage == Usage(input=11, output=7, cache_read=4)
    assert translator.model == "gpt-test"

    requested = exact(usage_wanted=True)
    assert outcome(requested, parts) == (data, "whole")
    assert requested.usage == translator.usage


def test_text_that_looks_like_usage_is_kept() -> None:
    words = json.dumps({"content": 'say ,"usage":null and [DONE] and "error":'})
    chunk = b'data: {"choices":[{"index":0,"delta":%s,"finish_reason":null}],"usage":null}\n\n'
    frame = chunk % words.encode()
    translator = exact(usage_wanted=False)
    for _ in range(2):
        assert translator.feed(frame) == frame.replace(b',"usage":null}\n', b"}\n")


def test_a_native_stream_with_spaces_in_its_json_passes_too() -> None:
    data = b"".join(
        b"data: " + json.dumps(json.loads(frame[6:])).encode() + b"\n\n"
        for frame in frame_by_frame(stream_of("openai_chat", "no-done"))
    )
    for parts in ([data], frame_by_frame(data)):
        assert outcome(exact(), parts) == (data + b"data: [DONE]\n\n", "whole")


def test_a_missing_done_is_added() -> None:
    data = stream_of("openai_chat", "no-done")
    assert outcome(exact(), [data]) == (data + b"data: [DONE]\n\n", "whole")
    # The last line of a stream may lack its end.
    done = stream_of("openai_chat", "text")
    assert outcome(exact(), [done[:-2]]) == (done, "whole")
    assert outcome(exact(), [done[:-1]]) == (done, "whole")


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("openai_chat", "without a finish reason"),
        ("anthropic", "without message_stop"),
        ("gemini", "without a finish reason"),
    ],
)
def test_a_truncated_native_stream_is_an_error(dialect: str, message: str) -> None:
    data = stream_of(dialect, "truncated")
    for parts in ([data], frame_by_frame(data), [data[:-1]], []):
        out, end = outcome(PASSING[dialect](), parts)
        assert message in end
        assert b"[DONE]" not in out
        assert message.encode() in out.split(b"\n\n")[-2]


def test_half_a_frame_never_reaches_the_client() -> None:
    data = stream_of("openai_chat", "truncated-in-frame")
    out, _ = outcome(exact(), [data])
    chunks, done = strict.chunks_in(out)
    assert not done
    assert "could not be read" in chunks[-1]["error"]["message"]
    strict.read(chunks[:-1])


@pytest.mark.parametrize(
    ("dialect", "name", "kind"),
    [
        ("openai_chat", "error-midway", ErrorKind.UPSTREAM),
        ("openai_chat", "error-named-event", ErrorKind.INVALID),
        ("openai_chat", "error-in-choice", ErrorKind.LIMITED),
        ("openai_chat", "error-bare-json", ErrorKind.OVERLOADED),
        ("openai_chat, mended", "error-midway", ErrorKind.UPSTREAM),
        ("openai_chat, mended", "error-named-event", ErrorKind.INVALID),
        ("openai_chat, mended", "error-in-choice", ErrorKind.LIMITED),
        ("openai_chat, mended", "error-bare-json", ErrorKind.OVERLOADED),
        ("anthropic", "error-midway", ErrorKind.OVERLOADED),
        ("gemini", "error-midway", ErrorKind.OVERLOADED),
    ],
)
def test_an_error_in_a_native_stream_follows_all_received_text(
    dialect: str, name: str, kind: ErrorKind
) -> None:
    data = stream_of(dialect.removesuffix(", mended"), name)
    for parts in ([data], frame_by_frame(data)):
        translator = mender() if dialect.endswith("mended") else PASSING[dialect]()
        out, failure = run(translator, parts)
        assert failure is not None
        assert failure.kind is kind
        *said, error = out.split(b"\n\n")[:-1]
        assert b"Half" in b"".join(said) or b"Hm" in b"".join(said)
        assert b'finish_reason":"' not in b"".join(said)
        assert b'"error"' in error
        assert failure.message.encode() in error
        assert b"[DONE]" not in out


@pytest.mark.parametrize("packets", ["one", "each its own"])
@pytest.mark.parametrize(
    "odd",
    [
        b'{"error":{"message":"Overloaded","code":503},"id":"c","choices":[{"index":0,'
        b'"delta":{"content":""},"finish_reason":null}]}',
        b'{"id":"c","error":{"message":"Overloaded","code":503},"choices":[{"index":0,'
        b'"delta":{},"finish_reason":null}]}',
    ],
)
def test_an_error_is_found_in_a_chunk_that_ends_like_all_others(odd: bytes, packets: str) -> None:
    chunk = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}'
    frames = [chunk + b"\n\n"] * 9 + [b"data: " + odd + b"\n\n"] + [chunk + b"\n\n"] * 9
    for wanted in (True, False):
        translator = NativeStreamTranslator(OpenAINativeStream(usage_wanted=wanted))
        parts = frames if packets == "each its own" else [frames[0], b"".join(frames[1:])]
        out, error = run(translator, parts)
        assert error is not None
        assert error.message == "Overloaded"
        assert out.count(b'"content":"x"') == 9


@pytest.mark.parametrize("dialect", PASSING)
def test_an_error_in_the_first_frame_does_not_start_the_answer(dialect: str) -> None:
    translator = PASSING[dialect]()
    with pytest.raises(APIError) as caught:
        translator.feed(stream_of(dialect, "error-first"))
    assert caught.value.kind is ErrorKind.LIMITED
    assert not translator.started


@pytest.mark.parametrize(
    ("dialect", "name", "frames_before"),
    [
        ("openai_chat", "text", 1),
        ("openai_chat", "tool", 0),
        ("openai_chat", "refusal", 1),
        ("openai_chat", "empty", 1),
        ("openai_chat", "reasoning", 0),
        ("openai_chat", "quirk-azure-filter-first", 2),
        ("anthropic", "text", 3),
        ("anthropic", "tool", 1),
        ("anthropic", "empty", 2),
        ("gemini", "text", 0),
        ("gemini", "empty", 0),
        ("gemini", "blocked", 0),
    ],
)
def test_a_native_stream_starts_with_its_first_content(
    dialect: str, name: str, frames_before: int
) -> None:
    translator = PASSING[dialect]()
    for frame in frame_by_frame(stream_of(dialect, name))[:frames_before]:
        assert translator.feed(frame) == frame
        assert not translator.started
    translator.feed(frame_by_frame(stream_of(dialect, name))[frames_before])
    assert translator.started


@pytest.mark.parametrize("dialect", PASSING)
@pytest.mark.parametrize(
    "junk",
    [
        b'data: {"choices":[7]}\n\n',
        b'data: {"choices":[],"candidates":[7]}\n\n',
        b'data: {"type":"content_block_start","content_block":7}\n\n',
        b"data: [1]\n\n",
    ],
)
def test_invalid_data_in_a_native_stream_fails_only_that_response(
    dialect: str, junk: bytes
) -> None:
    _, end = outcome(PASSING[dialect](), [junk])
    assert end.startswith(("The provider sent an answer that could not", "The provider's answer"))


def test_usage_and_model_of_a_native_stream_are_known_when_it_breaks() -> None:
    translator = anthropic()
    outcome(translator, [stream_of("anthropic", "error-midway")])
    assert translator.usage == Usage(input=11, output=1)
    assert translator.model == "claude-test"


# ── verbatim, and mended ─────────────────────────────────────────────────────


def mender(usage_wanted: bool = True) -> NativeStreamTranslator:
    return NativeStreamTranslator(
        NormalizingNativeStream(usage_wanted=usage_wanted, new_id="chatcmpl-new")
    )


CHAT = [s for s in STREAMS if s.dialect == "openai_chat"]


@pytest.mark.parametrize("stream", CHAT, ids=str)
def test_a_normalized_stream_equals_what_openai_would_send(stream: Stream) -> None:
    translator = mender()
    out, end = outcome(translator, [stream.data])
    chunks, done = strict.chunks_in(out)
    assert done is (end == "whole")
    if end != "whole":
        assert chunks.pop()["error"]["message"] == end
        assert stream.name.startswith(BROKEN)
    strict.read(chunks)
    if end == "whole":
        says = [bool(c["finish_reason"]) for chunk in chunks for c in chunk["choices"]]
        assert says[-1], "a choice must end"


@pytest.mark.parametrize("stream", [s for s in CHAT if not s.name.startswith(BROKEN)], ids=str)
def test_a_normalized_stream_has_the_same_meaning(stream: Stream) -> None:
    language = languages()["openai_chat"]
    before = collect_stream(language, SSEFramer(), stream.data)
    out, _ = outcome(mender(), [stream.data])
    assert meaning(collect_stream(language, SSEFramer(), out)) == meaning(before)


@pytest.mark.parametrize("name", ["text", "quirk-late-name", "usage-beside-choice", "no-done"])
def test_a_normalized_stream_is_the_same_wherever_it_is_cut(name: str) -> None:
    data = stream_of("openai_chat", name)
    expected = outcome(mender(), [data])
    for parts in cuts(data):
        assert outcome(mender(), parts) == expected


def test_unknown_members_survive_normalizing() -> None:
    out, _ = outcome(mender(), [stream_of("openai_chat", "quirk-whole-message")])
    chunks, _ = strict.chunks_in(out)
    assert chunks[0]["citations"] == ["https://a.example"]

    out, _ = outcome(mender(), [stream_of("openai_chat", "quirk-azure-filter-first")])
    chunks, _ = strict.chunks_in(out)
    assert chunks[0]["prompt_filter_results"][0]["prompt_index"] == 0
    assert (chunks[0]["id"], chunks[0]["model"]) == ("chatcmpl-1", "gpt-test")


def test_normalizing_adds_only_what_is_missing() -> None:
    out, _ = outcome(mender(), [stream_of("openai_chat", "quirk-bare-chunks")])
    chunks, _ = strict.chunks_in(out)
    assert chunks[0]["id"] == "chatcmpl-new"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Hi."}


@pytest.mark.parametrize(
    "name", ["usage-beside-choice", "usage-every-chunk", "usage-first", "text"]
)
def test_normalized_usage_is_sent_once_and_only_if_requested(name: str) -> None:
    data = stream_of("openai_chat", name)
    requested, unasked = mender(), mender(usage_wanted=False)
    chunks, _ = strict.chunks_in(outcome(requested, [data])[0])
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert b'"usage":{' not in outcome(unasked, [data])[0]
    assert requested.usage == unasked.usage
    assert requested.usage is not None
    assert requested.usage.input == 11
    assert requested.model == "gpt-test"


def test_a_normalized_stream_ends_with_done_even_if_the_connection_stays_open() -> None:
    translator = mender()
    out = translator.feed(stream_of("openai_chat", "text"))
    assert out.endswith(b"data: [DONE]\n\n")
    assert translator.started
    assert translator.feed(b'data: {"choices":[{"delta":{"content":"more"}}]}\n\n') == b""
    assert translator.close() == b""


# ── streamed ─────────────────────────────────────────────────────────────────

REQUEST = Request(model="m", messages=(), stream=True)


def translated(stream: Stream, face: str) -> StreamTranslator:
    return StreamTranslator(
        stream.framer, stream.language.decoder(), faces()[face].encoder(REQUEST)
    )


@pytest.mark.parametrize("stream", [s for s in STREAMS if s.name in SOME], ids=str)
@pytest.mark.parametrize("face", ["openai_chat", "anthropic"])
def test_a_translated_stream_is_the_same_wherever_it_is_cut(stream: Stream, face: str) -> None:
    expected = outcome(translated(stream, face), [stream.data])
    for parts in cuts(stream.data):
        assert outcome(translated(stream, face), parts) == expected


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_translated_stream_ends_complete_or_with_an_error_after_all_received_text(
    stream: Stream,
) -> None:
    for face in faces():
        one_packet = translated(stream, face)
        out, end = outcome(one_packet, [stream.data])
        again = translated(stream, face)
        steps = [stream.data[at : at + 7] for at in range(0, len(stream.data), 7)]
        assert outcome(again, steps) == (out, end)
        assert (end == "whole") is not any(word in stream.name for word in BROKEN)
        if end != "whole":
            assert json.dumps(end)[1:-1].encode() in out
            assert b"[DONE]" not in out
            assert b'"message_stop"' not in out
        assert one_packet.usage == again.usage
        assert one_packet.model == again.model


WORDS = st.text(st.sampled_from('a "\\\n\u2028\ud800é'), max_size=3)
DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}
PIECES = st.lists(
    st.tuples(st.sampled_from(["text", "thinking", "tool_use"]), st.lists(WORDS, max_size=12)),
    max_size=4,
)


def anthropic_stream(blocks: list[tuple[str, list[str]]], *, interleaved: bool) -> list[bytes]:
    """Blocks of deltas, one after the other or interleaved."""
    starts, deltas, ends = [], [], []
    for index, (kind, words) in enumerate(blocks):
        block = {"type": kind, **({"id": "t", "name": "f", "input": {}} if "tool" in kind else {})}
        starts.append({"type": "content_block_start", "index": index, "content_block": block})
        ends.append({"type": "content_block_stop", "index": index})
        name, member = DELTAS.get(kind, ("input_json_delta", "partial_json"))
        found = [{"type": name, member: word} for word in words]
        deltas.append([{"type": "content_block_delta", "index": index, "delta": d} for d in found])
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    middle: list[Any] = []
    if interleaved:
        middle = [*starts, *(d for turn in zip_longest(*deltas) for d in turn if d), *ends]
    else:
        for start, some, stop in zip(starts, deltas, ends, strict=True):
            middle += [start, *some, stop]
    whole = [{"type": "message_start", "message": {"id": "m"}}, *middle, end]
    whole.append({"type": "message_stop"})
    return [b"data: %b\n\n" % json.dumps(event).encode() for event in whole]


@given(PIECES, st.booleans(), st.sampled_from(sorted(faces())))
def test_a_run_of_deltas_in_one_packet_gives_the_same_bytes_as_single_deltas(
    blocks: list[tuple[str, list[str]]], interleaved: bool, face: str
) -> None:
    frames = anthropic_stream(blocks, interleaved=interleaved)

    def made() -> StreamTranslator:
        decoder, encoder = ANTHROPIC_MESSAGES.decoder(), faces()[face].encoder(REQUEST)
        return StreamTranslator(SSEFramer(), decoder, encoder)

    assert outcome(made(), [b"".join(frames)]) == outcome(made(), frames)


def test_each_packet_is_translated_at_once() -> None:
    translator = StreamTranslator(
        SSEFramer(), ANTHROPIC_MESSAGES.decoder(), OPENAI_CHAT.encoder(REQUEST)
    )
    packets = frame_by_frame(stream_of("anthropic", "text"))
    words = []
    for packet in packets:
        chunks, _ = strict.chunks_in(translator.feed(packet))
        words.append(
            "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
        )
    assert words == ["", "", "", "Hel", "lo, wor", "ld.", "", "", ""]
    assert translator.close() == b""


@pytest.mark.parametrize(
    ("dialect", "name", "pieces_before"),
    [
        ("anthropic", "text", 3),
        ("anthropic", "empty", 2),
        ("anthropic", "tool", 1),
        ("anthropic", "hosted-tool", 1),
        ("anthropic", "reasoning", 2),
        ("openai_chat", "text", 1),
        ("openai_chat", "empty", 2),
        ("gemini", "text", 0),
        ("ollama", "text", 0),
    ],
)
def test_a_translated_stream_starts_with_its_first_content(
    dialect: str, name: str, pieces_before: int
) -> None:
    (stream,) = (s for s in STREAMS if (s.dialect, s.name) == (dialect, name))
    packets = frame_by_frame(stream.data) if dialect != "ollama" else stream.data.splitlines(True)
    translator = translated(stream, "openai_chat")
    for packet in packets[:pieces_before]:
        translator.feed(packet)
        assert not translator.started
    translator.feed(packets[pieces_before])
    assert translator.started


def test_an_error_in_the_same_packet_keeps_the_text_before_it() -> None:
    translator = StreamTranslator(
        SSEFramer(), ANTHROPIC_MESSAGES.decoder(), OPENAI_CHAT.encoder(REQUEST)
    )
    with pytest.raises(APIError) as caught:
        translator.feed(stream_of("anthropic", "error-midway"))
    *said, error = strict.chunks_in(translator.fail(caught.value))[0]
    assert [c["choices"][0]["delta"].get("content") for c in said] == ["", "Half an ans"]
    assert error["error"]["message"] == "Overloaded"
    assert error["error"]["code"] == "server_is_overloaded"


def test_a_run_of_deltas_is_not_lost_by_a_malformed_one_after_it() -> None:
    frames = anthropic_stream([("text", list("abcdefgh"))], interleaved=False)
    deep = b'{"a":' * 3000 + b"1" + b"}" * 3000
    frames[8] = frames[8].replace(b'"index"', b'"x": ' + deep + b', "index"')

    def made() -> StreamTranslator:
        return StreamTranslator(
            SSEFramer(), ANTHROPIC_MESSAGES.decoder(), OPENAI_CHAT.encoder(REQUEST)
        )

    expected = outcome(made(), frames)
    assert expected[0].count(b'"content"') > 5
    assert outcome(made(), [b"".join(frames)]) == expected


def test_the_cost_of_a_run_of_deltas_is_linear() -> None:
    class Counting(type(ANTHROPIC_MESSAGES.decoder())):  # type: ignore[misc]
        tried = 0

        def run(self, pieces: list[bytes]) -> Any:
            self.tried += len(pieces)
            return super().run(pieces)

    head, start, *_, stop, end, done = anthropic_stream([("text", ["a"])], interleaved=False)
    delta = b'"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}\n\n'
    # Their beginnings change all the time.
    deltas = [b'data: {"%d":0,' % (at // 6) + delta for at in range(3000)]
    decoder = Counting()
    translator = StreamTranslator(SSEFramer(), decoder, OPENAI_CHAT.encoder(REQUEST))
    out = translator.feed(b"".join([head, start, *deltas, stop, end, done]))
    assert out.count(b'"content":"a"') == 3000
    assert decoder.tried < 3 * 3000


def test_text_that_was_sent_is_not_sent_again_by_fail() -> None:
    translator = StreamTranslator(
        SSEFramer(), ANTHROPIC_MESSAGES.decoder(), OPENAI_CHAT.encoder(REQUEST)
    )
    *before, last = frame_by_frame(stream_of("anthropic", "error-midway"))
    for packet in before:
        translator.feed(packet)
    with pytest.raises(APIError) as caught:
        translator.feed(last)
    assert b"Half" not in translator.fail(caught.value)


JUNK = [
    b"nonsense",
    b"[1]",
    b"7",
    b'{"type":7}',
    b'{"type":"message_start","message":null}',
    b'{"type":"content_block_stop","index":9}',
    b'{"type":"content_block_start","index":0,"content_block":7}',
    b'{"candidates":[7]}',
    b'{"candidates":[{"content":{"parts":[7]}}]}',
    b'{"message":7}',
    b'{"choices":[{"index":0,"delta":{"images":[7]}}]}',
    b'{"error":7}',
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("dialect", languages())
def test_invalid_data_from_a_provider_fails_only_that_response(dialect: str, junk: bytes) -> None:
    language = languages()[dialect]
    data = {"ollama": junk + b"\n", "bedrock": event("contentBlockDelta", junk)}.get(
        dialect, b"data: " + junk + b"\n\n"
    )
    translator = StreamTranslator(
        language.framer("text/event-stream"), language.decoder(), OPENAI_CHAT.encoder(REQUEST)
    )
    out, end = outcome(translator, [data])
    assert end != "whole"
    chunks, done = strict.chunks_in(out)
    assert not done
    assert "error" in chunks[-1]


def test_invalid_data_in_mid_stream_keeps_the_text_before_it() -> None:
    data = stream_of("anthropic", "truncated") + b"data: {nonsense\n\n"
    translator = StreamTranslator(
        SSEFramer(), ANTHROPIC_MESSAGES.decoder(), OPENAI_CHAT.encoder(REQUEST)
    )
    out, end = outcome(translator, [data])
    assert end == "The provider sent an answer that could not be read."
    assert b"Half an answer" in out


def test_the_last_text_of_a_stream_that_breaks_at_its_end_is_not_lost() -> None:
    # The last event lacks its end, and the answer its finish reason.
    data = stream_of("openai_chat", "truncated").rstrip(b"\n")
    translator = StreamTranslator(
        SSEFramer(), OPENAI_CHAT.decoder(), ANTHROPIC_MESSAGES.encoder(REQUEST)
    )
    out, end = outcome(translator, [data])
    assert "without a finish reason" in end
    assert b"Half an answer and then" in out


def test_a_frame_too_large_is_an_error_of_the_provider() -> None:
    for translator in (
        StreamTranslator(SSEFramer(10), OPENAI_CHAT.decoder(), OPENAI_CHAT.encoder(REQUEST)),
        NativeStreamTranslator(OpenAINativeStream(usage_wanted=True)),
    ):
        if isinstance(translator, NativeStreamTranslator):
            translator._framer = SSEFramer(10)
        out, end = outcome(translator, [b"data: xxxxxxxxxxx"])
        assert "larger than 10 bytes" in end
        assert b"larger than 10 bytes" in out


# ── whole answers, and bytes ─────────────────────────────────────────────────


def report(body: bytes) -> tuple[bytes, str, Usage | None]:
    if body == b"broken":
        raise KeyError("choices")
    if body == b"refused":
        raise APIError(ErrorKind.LIMITED, "Slow down.")
    return b"told: " + body, "model", Usage(input=1)


def test_a_whole_answer_is_sent_at_its_end() -> None:
    whole = BufferedTranslator(report)
    assert whole.feed(b"a") == b""
    assert whole.feed(b"b") == b""
    assert (whole.started, whole.model, whole.usage) == (False, "", None)
    assert whole.close() == b"told: ab"
    assert (whole.started, whole.model, whole.usage) == (True, "model", Usage(input=1))


@pytest.mark.parametrize(
    ("body", "kind"), [(b"broken", ErrorKind.UPSTREAM), (b"refused", ErrorKind.LIMITED)]
)
def test_a_whole_answer_that_cannot_be_encoded_never_started(body: bytes, kind: ErrorKind) -> None:
    whole = BufferedTranslator(report)
    whole.feed(body)
    with pytest.raises(APIError) as caught:
        whole.close()
    assert caught.value.kind is kind
    assert not whole.started
    assert whole.fail(caught.value) == b""


def test_a_whole_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "MAX_WHOLE", 10)
    whole = BufferedTranslator(report)
    whole.feed(b"12345")
    whole.feed(b"67890")
    with pytest.raises(APIError, match="larger than 10 bytes"):
        whole.feed(b"1")


def test_raw_bytes_pass_without_parsing() -> None:
    passing = RawTranslator()
    assert not passing.started
    assert passing.feed(b"\0\xff") == b"\0\xff"
    assert passing.started
    assert passing.close() == b""
    assert passing.fail(APIError(ErrorKind.UPSTREAM, "so")) == b""
    assert (passing.usage, passing.model) == (None, "")

    empty = RawTranslator()
    assert empty.close() == b""
    assert empty.started


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_stream_that_was_not_requested_is_collected(end: str) -> None:
    data = stream_of("ollama", "text").rstrip(b"\n") + end.encode()
    answer = collect_stream(OLLAMA_CHAT, NDJSONFramer(), data)
    assert answer.blocks == (Text("Hello, world."),)
    assert answer.usage == Usage(input=11, output=7)
    with pytest.raises(APIError):
        collect_stream(OLLAMA_CHAT, NDJSONFramer(), stream_of("ollama", "truncated"))


@pytest.mark.parametrize(
    ("event", "content"),
    [
        (MessageStart("m", "model"), False),
        (BlockStart(0, Text()), False),
        (BlockStart(0, Reasoning()), False),
        (BlockStart(0, Refusal()), False),
        (BlockStart(0, ToolCall("c", "f")), True),
        (BlockStart(0, Media(kind="image")), True),
        (BlockStart(0, Opaque("anthropic", {})), True),
        (BlockDelta(0, "a"), True),
        (BlockDelta(0, ""), False),
        (BlockEnd(0), False),
        (MessageEnd(StopReason.END), True),
    ],
)
def test_the_commit_point_is_the_first_content(event: Event, content: bool) -> None:
    assert is_content(event) is content


def test_all_translators_have_the_same_interface() -> None:
    def shape(it: Any) -> list[str]:
        return [n for n in ("usage", "model", "started", "feed", "close", "fail") if hasattr(it, n)]

    streamed = StreamTranslator(SSEFramer(), OPENAI_CHAT.decoder(), OPENAI_CHAT.encoder(REQUEST))
    assert {
        len(shape(it)) for it in (exact(), streamed, BufferedTranslator(report), RawTranslator())
    } == {6}
