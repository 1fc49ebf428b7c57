"""Streams in the same dialect, whole responses, and invalid data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from asgi_aiproxy import translate
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, GEMINI_CONTENT, OLLAMA_CHAT, OPENAI_CHAT
from asgi_aiproxy.dialects.base import NativeStream
from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
    OpenAINativeStream,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange import guarded
from asgi_aiproxy.exchange.guarded import GuardedTranslator
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
    TranslatedBy,
    Translator,
    collect_stream,
    is_content,
)
from tests.support import chat_stream_reader as strict
from tests.support.event_stream import event
from tests.support.stream_fixtures import HERE, STREAMS, Stream, faces, languages, meaning

REQUEST = Request(model="m", messages=(), stream=True)


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
        ("openai_chat, normalized", "error-midway", ErrorKind.UPSTREAM),
        ("openai_chat, normalized", "error-named-event", ErrorKind.INVALID),
        ("openai_chat, normalized", "error-in-choice", ErrorKind.LIMITED),
        ("openai_chat, normalized", "error-bare-json", ErrorKind.OVERLOADED),
        ("anthropic", "error-midway", ErrorKind.OVERLOADED),
        ("gemini", "error-midway", ErrorKind.OVERLOADED),
    ],
)
def test_an_error_in_a_native_stream_follows_all_received_text(
    dialect: str, name: str, kind: ErrorKind
) -> None:
    data = stream_of(dialect.removesuffix(", normalized"), name)
    for parts in ([data], frame_by_frame(data)):
        translator = normalizing() if dialect.endswith("normalized") else PASSING[dialect]()
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


# ── verbatim, and normalized ─────────────────────────────────────────────────


def normalizing(usage_wanted: bool = True) -> NativeStreamTranslator:
    return NativeStreamTranslator(
        NormalizingNativeStream(usage_wanted=usage_wanted, new_id="chatcmpl-new")
    )


CHAT = [s for s in STREAMS if s.dialect == "openai_chat"]


@pytest.mark.parametrize("stream", CHAT, ids=str)
def test_a_normalized_stream_equals_what_openai_would_send(stream: Stream) -> None:
    translator = normalizing()
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
    out, _ = outcome(normalizing(), [stream.data])
    assert meaning(collect_stream(language, SSEFramer(), out)) == meaning(before)


@pytest.mark.parametrize("name", ["text", "quirk-late-name", "usage-beside-choice", "no-done"])
def test_a_normalized_stream_is_the_same_wherever_it_is_cut(name: str) -> None:
    data = stream_of("openai_chat", name)
    expected = outcome(normalizing(), [data])
    for parts in cuts(data):
        assert outcome(normalizing(), parts) == expected


def test_unknown_members_survive_normalizing() -> None:
    out, _ = outcome(normalizing(), [stream_of("openai_chat", "quirk-whole-message")])
    chunks, _ = strict.chunks_in(out)
    assert chunks[0]["citations"] == ["https://a.example"]

    out, _ = outcome(normalizing(), [stream_of("openai_chat", "quirk-azure-filter-first")])
    chunks, _ = strict.chunks_in(out)
    assert chunks[0]["prompt_filter_results"][0]["prompt_index"] == 0
    assert (chunks[0]["id"], chunks[0]["model"]) == ("chatcmpl-1", "gpt-test")


def test_normalizing_adds_only_what_is_missing() -> None:
    out, _ = outcome(normalizing(), [stream_of("openai_chat", "quirk-bare-chunks")])
    chunks, _ = strict.chunks_in(out)
    assert chunks[0]["id"] == "chatcmpl-new"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Hi."}


@pytest.mark.parametrize(
    "name", ["usage-beside-choice", "usage-every-chunk", "usage-first", "text"]
)
def test_normalized_usage_is_sent_once_and_only_if_requested(name: str) -> None:
    data = stream_of("openai_chat", name)
    requested, unasked = normalizing(), normalizing(usage_wanted=False)
    chunks, _ = strict.chunks_in(outcome(requested, [data])[0])
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert b'"usage":{' not in outcome(unasked, [data])[0]
    assert requested.usage == unasked.usage
    assert requested.usage is not None
    assert requested.usage.input == 11
    assert requested.model == "gpt-test"


def test_a_normalized_stream_ends_with_done_even_if_the_connection_stays_open() -> None:
    translator = normalizing()
    out = translator.feed(stream_of("openai_chat", "text"))
    assert out.endswith(b"data: [DONE]\n\n")
    assert translator.started
    assert translator.feed(b'data: {"choices":[{"delta":{"content":"more"}}]}\n\n') == b""
    assert translator.close() == b""


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
    whole = BufferedTranslator(TranslatedBy(report))
    assert whole.feed(b"a") == b""
    assert whole.feed(b"b") == b""
    assert (whole.started, whole.model, whole.usage) == (False, "", None)
    assert whole.close() == b"told: ab"
    assert (whole.started, whole.model, whole.usage) == (True, "model", Usage(input=1))


@pytest.mark.parametrize(
    ("body", "kind"), [(b"broken", ErrorKind.UPSTREAM), (b"refused", ErrorKind.LIMITED)]
)
def test_a_whole_answer_that_cannot_be_encoded_never_started(body: bytes, kind: ErrorKind) -> None:
    whole = BufferedTranslator(TranslatedBy(report))
    whole.feed(body)
    with pytest.raises(APIError) as caught:
        whole.close()
    assert caught.value.kind is kind
    assert not whole.started
    assert whole.fail(caught.value) == b""


def test_a_whole_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "MAX_WHOLE", 10)
    whole = BufferedTranslator(TranslatedBy(report))
    whole.feed(b"12345")
    whole.feed(b"67890")
    with pytest.raises(APIError, match="larger than 10 bytes"):
        whole.feed(b"1")


def test_a_whole_answer_that_is_checked_has_the_same_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guarded, "MAX_WHOLE", 10)
    dialect = OPENAI_CHAT
    checked = GuardedTranslator(
        [], stream=None, decode=dialect.decode_response, encoder=None, encode=lambda _: b""
    )
    checked.feed(b"1234567890")
    with pytest.raises(APIError, match="longer than 10 bytes"):
        checked.feed(b"1")


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
        len(shape(it))
        for it in (exact(), streamed, BufferedTranslator(TranslatedBy(report)), RawTranslator())
    } == {6}
