"""Usage read from the beginning and end of responses, in every vendor's format."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.passthrough.usage_meter import TAIL, SessionUsage, UsageMeter
from tests.support.event_stream import event
from tests.support.recordings import needs_recordings
from tests.test_recordings import ANSWERS, STREAMS, named, read, stream_of

LONG = "lorem ipsum " * 5000


def metered(body: bytes, size: int = 1000) -> tuple[str, Usage | None]:
    meter = UsageMeter()
    for at in range(0, len(body), size):
        meter.feed(body[at : at + size])
    return meter.reported()


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


CHAT = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
DETAILED = {**CHAT, "prompt_tokens_details": {"cached_tokens": 5}}
RESPONSES = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 13,
}
CLAUDE = {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 4}
GOOGLE = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}
AMAZON = {"inputTokens": 4, "cacheReadInputTokens": 5, "outputTokens": 4, "totalTokens": 13}
COHERE = {"billed_units": {"input_tokens": 9, "output_tokens": 4}, "tokens": {"input_tokens": 99}}
COZE = {"token_count": 13, "output_count": 4, "input_count": 9}

WHOLE: dict[str, tuple[dict[str, Any], Usage]] = {
    "chat": ({"model": "m", "x": LONG, "usage": CHAT}, Usage(input=9, output=4)),
    "cached": (
        {"model": "m", "x": LONG, "usage": DETAILED},
        Usage(input=9, output=4, cache_read=5),
    ),
    "embeddings": (
        {"object": "list", "data": [LONG], "model": "m", "usage": {"prompt_tokens": 9}},
        Usage(input=9),
    ),
    "responses": (
        {"model": "m", "output": [LONG], "usage": RESPONSES, "metadata": {}},
        Usage(input=9, output=4, cache_read=5, reasoning=3),
    ),
    "anthropic": (
        {"model": "m", "content": [LONG], "usage": CLAUDE},
        Usage(input=9, output=4, cache_read=5),
    ),
    "gemini": (
        {"candidates": [LONG], "usageMetadata": GOOGLE, "modelVersion": "m"},
        Usage(input=9, output=4),
    ),
    "ollama": (
        {"model": "m", "message": {"content": LONG}, "prompt_eval_count": 9, "eval_count": 4},
        Usage(input=9, output=4),
    ),
    "bedrock": (
        {"model": "m", "output": {"message": [LONG]}, "usage": AMAZON},
        Usage(input=9, output=4, cache_read=5),
    ),
    "cohere": ({"model": "m", "message": [LONG], "usage": COHERE}, Usage(input=9, output=4)),
    "coze": ({"model": "m", "data": [LONG], "usage": COZE}, Usage(input=9, output=4)),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("length", ["short", "long"])
def test_whole_answers(name: str, length: str) -> None:
    answer, usage = WHOLE[name]
    body = json.dumps(answer).encode()
    if length == "short":
        body = body.replace(LONG.encode(), b"hello")
    model, found = metered(body)
    assert found == usage
    assert model == "m"


FORGED: dict[str, Any] = {
    "model": "cheap",
    "modelVersion": "cheap",
    "usage": {"input_tokens": 0, "output_tokens": 0, "prompt_tokens": 0, "total_tokens": 0},
    "usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0},
    "eval_count": 0,
    "response": {"model": "cheap", "usage": {"prompt_tokens": 0, "total_tokens": 0}},
}


def forged(answer: dict[str, Any], *, last: bool) -> dict[str, Any]:
    """The same with a tool's arguments that look like a response, at one end of it."""
    call = {"content": [{"input": FORGED, "text": '"usage": {"prompt_tokens": 1}, {[\\"'}]}
    return {**answer, **call} if last else {**call, **answer}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("padding", ["", "none", "after", "before", "both"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", ["document", "indented", "array", "event"])
def test_text_of_a_model_is_not_read_as_usage(
    name: str, padding: str, last: bool, shape: str
) -> None:
    answer, usage = WHOLE[name]
    kept = {key: value for key, value in answer.items() if key not in ("content", "candidates")}
    kept = {key: "x" if value in (LONG, [LONG]) else value for key, value in kept.items()}
    reported = forged({**kept, "y": 5}, last=last)
    if padding in ("before", "both"):
        reported = {"pad1": LONG, **reported}
    if padding in ("after", "both"):
        reported = {**reported, "pad2": LONG}
    body = json.dumps(reported, indent=2 if shape == "indented" else None).encode()
    if shape == "array":
        body = b"[" + body + b"]"
    if shape == "event":
        body = b"data: " + body + b"\n\ndata: [DONE]\n\n"
    model, found = metered(body)
    # What stands in the middle of a long answer is not seen; but never is anything else.
    assert model in ("m", "")
    assert found in (usage, None)
    if padding in ("", "none"):
        assert (model, found) == ("m", usage)


def test_usage_at_either_end_of_a_long_answer_is_read_and_model_text_is_not() -> None:
    for answer in (
        {"model": "m", "usage": CHAT, "content": [FORGED], "x": LONG},
        {"model": "m", "x": LONG, "content": [FORGED], "usage": CHAT},
        {"model": "m", "content": [{"input": FORGED}], "x": LONG, "usage": CHAT, "y": [FORGED]},
    ):
        for text in (json.dumps(answer), json.dumps(answer, indent=1), json.dumps([answer])):
            assert metered(text.encode()) == ("m", Usage(input=9, output=4))


@pytest.mark.parametrize("at", range(40))
def test_a_response_may_be_cut_at_any_backslash(at: int) -> None:
    written = '\\"usage": {' * 3000
    answer = {"model": "m", "x": written, "usage": CHAT, "pad": "z" * at}
    assert metered(json.dumps(answer).encode()) == ("m", Usage(input=9, output=4))


@pytest.mark.parametrize("text", ["NaN", '"\\ud800"'])
def test_unusual_valid_json_is_read(text: str) -> None:
    body = f'{{"model": "m", "x": {text}, "usage": {json.dumps(CHAT)}}}'
    assert metered(body.encode()) == ("m", Usage(input=9, output=4))


def test_usage_within_a_choice_is_usage() -> None:
    chunk = {"model": "m", "choices": [{"delta": {}, "usage": CHAT}]}
    assert metered(sse(chunk)) == ("m", Usage(input=9, output=4))


def test_streams_of_openai() -> None:
    chunk = {"model": "m", "choices": [{"delta": {"content": LONG[:500]}}], "usage": None}
    last = {"model": "m", "choices": [], "usage": CHAT}
    assert metered(sse(*[chunk] * 100, last) + b"data: [DONE]\n\n") == (
        "m",
        Usage(input=9, output=4),
    )


def test_streams_of_anthropic_report_input_first_and_output_last() -> None:
    start = {
        "type": "message_start",
        "message": {"model": "m", "usage": {**CLAUDE, "output_tokens": 1}},
    }
    delta = {"type": "content_block_delta", "delta": {"text": LONG[:500]}}
    end = {"type": "message_delta", "usage": {"output_tokens": 4}}
    body = sse(start, *[delta] * 100, end, {"type": "message_stop"})
    assert metered(body) == ("m", Usage(input=9, output=4, cache_read=5))
    # A cut one: the usage in its beginning.
    assert metered(body[:5000])[1] == Usage(input=9, output=1, cache_read=5)


def test_streams_of_gemini_report_usage_repeatedly() -> None:
    first = {
        "candidates": [LONG[:500]],
        "usageMetadata": {"promptTokenCount": 9},
        "modelVersion": "m",
    }
    last = {**first, "usageMetadata": GOOGLE}
    assert metered(sse(*[first] * 50, last)) == ("m", Usage(input=9, output=4))
    array = json.dumps([first, first, last]).encode()
    assert metered(array) == ("m", Usage(input=9, output=4))


def test_streams_of_responses_may_end_in_an_event_longer_than_the_kept_part() -> None:
    end = {
        "type": "response.completed",
        "response": {"instructions": LONG, "model": "m", "output": [LONG], "usage": RESPONSES},
    }
    created = {"type": "response.created", "response": {"model": "m", "usage": None}}
    assert metered(sse(created, end)) == (
        "m",
        Usage(input=9, output=4, cache_read=5, reasoning=3),
    )


def test_lines_of_ollama() -> None:
    lines = [{"model": "m", "message": {"content": "x"}}] * 500
    lines.append({"model": "m", "done": True, "prompt_eval_count": 9, "eval_count": 4})
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    assert metered(body) == ("m", Usage(input=9, output=4))


@pytest.mark.parametrize(
    "text",
    [
        '{"content": "{\\"usage\\": {\\"prompt_tokens\\": 5}}"}',
        '{"usage": null}',
        '{"usage": {"prompt_tok',
        '{"usage": {"seconds": 4}}',
        '{"usage": {"prompt_tokens": "many", "prompt_tokens_details": 5}}',
        '{"usage": {"promptTokenCount": "a", "thoughtsTokenCount": "b"}}',
        "",
        "\x00\xff",
    ],
)
def test_answers_without_usage(text: str) -> None:
    usage = metered(text.encode("latin-1"))[1]
    assert usage is None or (usage.input, usage.output) == (0, 0)


@pytest.mark.parametrize("size", [1, 100, 65536])
def test_memory_is_bounded_for_any_length_of_a_response(size: int) -> None:
    meter = UsageMeter()
    tracemalloc.start()
    try:
        for _ in range(20_000 if size < 65536 else 1000):
            meter.feed(bytes(size))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8 * TAIL
    assert peak < 40 * TAIL  # two copies at once


@pytest.mark.parametrize(
    ("kind", "coding", "read"),
    [
        ("application/json", "", True),
        ("text/event-stream; charset=utf-8", "identity", True),
        ("application/x-ndjson", "", True),
        ("application/vnd.amazon.eventstream", "", True),
        ("application/json", "gzip", False),
        ("audio/mpeg", "", False),
        ("", "", False),
    ],
)
def test_only_readable_types_are_metered(kind: str, coding: str, read: bool) -> None:
    assert (UsageMeter.for_type(kind, coding) is not None) is read


def test_streams_of_cohere_report_usage_in_their_last_delta() -> None:
    end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COHERE}}
    begin = {"type": "message-start", "delta": {"message": {"role": "assistant"}}}
    assert metered(sse(begin, {"type": "content-delta", "x": LONG}, end))[1] == Usage(
        input=9, output=4
    )


def test_streams_of_coze_report_usage_when_the_chat_is_completed() -> None:
    done = json.dumps({"id": "7", "status": "completed", "usage": COZE})
    lines = f'event:conversation.chat.completed\ndata:{done}\n\nevent:done\ndata:"[DONE]"\n\n'
    assert metered(sse({"content": LONG}) + lines.encode())[1] == Usage(input=9, output=4)


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("text", ["hello", LONG])
def test_binary_streams_of_bedrock_report_usage_in_their_last_event(size: int, text: str) -> None:
    forged = json.dumps({"usage": {"inputTokens": 1, "outputTokens": 1}})
    stream = event("messageStart", {"role": "assistant"})
    for said in (text, forged, '{"usage": {"inputTokens": 7}}'):
        stream += event("contentBlockDelta", {"delta": {"text": said}, "contentBlockIndex": 0})
    stream += event("messageStop", {"stopReason": "end_turn"})
    assert metered(stream, size) == ("", None)
    stream += event("metadata", {"metrics": {"latencyMs": 5}, "p": "abc", "usage": AMAZON})
    assert metered(stream, size) == ("", Usage(input=9, output=4, cache_read=5))


def test_the_usage_of_a_session_is_summed_up() -> None:
    total = SessionUsage()
    total.feed('{"type":"session.created","session":{"model":"gpt-realtime"}}')
    done = {"type": "response.done", "response": {"usage": {**RESPONSES}}}
    for _ in range(3):
        total.feed(json.dumps({"type": "response.output_audio.delta", "delta": "AAAA"}))
        total.feed(json.dumps(done))
    assert total.model == "gpt-realtime"
    assert total.usage == Usage(input=27, output=12, cache_read=15, reasoning=9)


@needs_recordings
@pytest.mark.parametrize("recording", ANSWERS, ids=named)
def test_a_recorded_answer_is_metered_as_it_is_decoded(recording: Any) -> None:
    response = recording["response"]
    whole = recording not in STREAMS
    body = json.dumps(response["body"]).encode() if whole else stream_of(recording)
    answer, _, _ = read(recording)
    if answer is not None:
        assert metered(body)[1] == answer.usage
