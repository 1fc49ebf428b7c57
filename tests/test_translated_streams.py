"""Streams that are translated from one dialect to another."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, OPENAI_CHAT
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.translate import (
    StreamTranslator,
)
from tests.support import chat_stream_reader as strict
from tests.support.stream_fixtures import STREAMS, Stream, faces
from tests.test_translate import (
    BROKEN,
    REQUEST,
    SOME,
    cuts,
    frame_by_frame,
    outcome,
    stream_of,
)


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


def chat_chunk(delta: dict[str, Any], finish: str | None = None, **members: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice], **members}


UNEQUAL_CHUNKS = [
    chat_chunk({"content": "t"}, obfuscation="x"),
    chat_chunk({"content": "t", "reasoning_content": "r"}),
    chat_chunk({"content": ""}),
    chat_chunk({"content": None}),
    chat_chunk({"refusal": "no"}),
    chat_chunk({"content": "t"}, choices=[{"index": 1, "delta": {"content": "t"}}]),
    chat_chunk({"content": "t"}, note={"content": "t"}),
    chat_chunk({"content": 'a","b'}),
    chat_chunk({"content": "t"}, usage={"prompt_tokens": 1, "completion_tokens": 2}),
]


@given(
    st.lists(WORDS.filter(bool), min_size=6, max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(UNEQUAL_CHUNKS)), max_size=2),
    st.sampled_from(sorted(faces())),
)
def test_chunks_that_differ_in_their_text_give_the_same_bytes_in_one_packet_as_alone(
    words: list[str], others: list[tuple[int, dict[str, Any]]], face: str
) -> None:
    chunks = [chat_chunk({"content": word}) for word in words]
    for at, other in others:
        chunks.insert(at, other)
    chunks = [chat_chunk({"role": "assistant", "content": "b"}), *chunks, chat_chunk({}, "stop")]
    frames = [b"data: %b\n\n" % json.dumps(c, separators=(",", ":")).encode() for c in chunks]

    def made() -> StreamTranslator:
        return StreamTranslator(SSEFramer(), OPENAI_CHAT.decoder(), faces()[face].encoder(REQUEST))

    head, *rest = frames
    assert outcome(made(), [head, b"".join(rest)]) == outcome(made(), frames)


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
