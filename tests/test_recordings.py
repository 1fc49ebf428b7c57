"""Responses of recorded providers, decoded whole and cut at any position.

The recordings are in the shared folder, see `recordings.py`; each states in `expect`, in the
provider's own terms, what was sent. Their usage is converted to neutral counts here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import OutboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.framing import Framer
from asgi_aiproxy.messages import (
    BlockDelta,
    Opaque,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    Usage,
    fold,
)
from tests.support.recordings import RECORDINGS, needs_recordings
from tests.support.stream_fixtures import cut, decode, events_as_json, languages

pytestmark = needs_recordings

DIALECTS = (
    (re.compile(r"anthropic\.messages"), "anthropic"),
    (re.compile(r"(gemini|vertex)\.(stream)?[gG]enerateContent"), "gemini"),
    (re.compile(r"ollama\.chat"), "ollama"),
    (re.compile(r"\w+\.responses"), "openai_responses"),
    (re.compile(r"bedrock\.converse(Stream)?"), "bedrock"),
    (re.compile(r"cohere\.v2\.chat"), "cohere"),
    (re.compile(r"coze\.v3\.chat"), "coze"),
    (re.compile(r"(?!coze|cohere)\w+\.chat"), "openai_chat"),
)
# Neutral words for the providers' reasons; without an entry it is the end.
STOPS = {
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "incomplete"), "length"),
    **dict.fromkeys(("tool_use", "tool_calls", "function_call"), "tools"),
    **dict.fromkeys(("content_filter", "safety", "refusal", "guardrail_intervened"), "filter"),
    **dict.fromkeys(("pause_turn", "unexpected_tool_call"), "other"),
}
# What is not compared, and why.
LEFT_OUT = {
    "azure.chat.content-filter-finish": "edited by hand: a choice is not an answer",
    "azure.chat.content-filter-error-with-status-200": "edited by hand: Azure answers 400",
    "vertex.streamGenerateContent.stream-partial-args-array-unterminated": "cut off within a call",
}
# OpenRouter's place for signatures is written for clients, but not read from providers.
NO_SIGNATURES = ("openrouter.chat.",)


def dialect_of(recording: Any) -> str | None:
    return next((d for pattern, d in DIALECTS if pattern.fullmatch(recording["api"])), None)


def recordings() -> list[Any]:
    if not RECORDINGS.is_dir():
        return []
    found = [json.loads(p.read_bytes()) for p in sorted(RECORDINGS.glob("*.*.*.json"))]
    return [r for r in found if dialect_of(r) and r["expect"]["kind"] in ("chat", "error")]


ALL = recordings()
ANSWERS = [r for r in ALL if r["expect"]["kind"] == "chat" and r["id"] not in LEFT_OUT]
STREAMS = [r for r in ANSWERS if {"sse", "ndjson", "base64"} & r["response"].keys()]
ERRORS = [r for r in ALL if r["expect"]["kind"] == "error"]


def named(recording: Any) -> str:
    return str(recording["id"])


def stream_of(recording: Any) -> bytes:
    response = recording["response"]
    if "base64" in response:
        return base64.b64decode(response["base64"])
    return str(response.get("sse") or response.get("ndjson")).encode()


def language_of(recording: Any) -> OutboundDialect:
    return languages()[dialect_of(recording) or ""]


def framer_of(recording: Any) -> Framer:
    kind = "text/event-stream" if "sse" in recording["response"] else "application/x-ndjson"
    return language_of(recording).framer(kind)


def read(recording: Any) -> tuple[Response | None, APIError | None, str]:
    """The answer, or the error at its end and the text before it."""
    language = language_of(recording)
    if recording not in STREAMS:
        body = json.dumps(recording["response"]["body"]).encode()
        return language.decode_response(body), None, ""
    events, error = decode(language, cut(framer_of(recording), [stream_of(recording)]))
    if error is None:
        return fold(events), None, ""
    return None, error, "".join(e.text for e in events if isinstance(e, BlockDelta))


def test_there_are_recordings_of_every_language() -> None:
    assert {dialect_of(r) for r in ANSWERS} == set(languages())
    assert len(ANSWERS) > 80


@pytest.mark.parametrize("recording", ANSWERS, ids=named)
def test_a_recorded_response_is_decoded_correctly(recording: Any) -> None:
    expect = recording["expect"]
    answer, error, before = read(recording)
    if expect.get("error"):
        assert error is not None
        assert expect["error"]["message"] in error.message
        assert before == expect["reasoning"] + expect["text"]
        return
    assert error is None
    assert answer is not None
    said = "".join(b.text for b in answer.blocks if isinstance(b, Text))
    assert said == expect.get("tool_plan", "") + expect["text"]
    assert "".join(b.text for b in answer.blocks if isinstance(b, Reasoning)) == expect["reasoning"]
    refused = "".join(b.text for b in answer.blocks if isinstance(b, Refusal)) or answer.refusal
    assert refused == (expect.get("refusal") or refused)
    assert answer.model == (expect.get("model") or answer.model)
    assert answer.id == (expect.get("id") or answer.id)
    assert calls(answer) == [
        (call["id"], call["name"], call.get("arguments")) for call in expected_calls(expect, answer)
    ]
    assert answer.stop.value == stop_of(expect)


def calls(answer: Response) -> list[tuple[str, str, Any]]:
    found = [block for block in answer.blocks if isinstance(block, ToolCall)]
    return [(call.id, call.name, json.loads(call.arguments)) for call in found]


def expected_calls(expect: Any, answer: Response) -> Iterator[Any]:
    """The recorded calls; with a generated id where the provider sent none."""
    made = [block for block in answer.blocks if isinstance(block, ToolCall)]
    assert len(made) == len(expect["tool_calls"])
    for call, ours in zip(expect["tool_calls"], made, strict=True):
        if "arguments_raw" in call:  # the free text of a custom tool
            call["arguments"] = {"input": call["arguments_raw"]}
        yield {**call, "id": call["id"] or ours.id, "arguments": call["arguments"] or {}}


def stop_of(expect: Any) -> str:
    word = expect.get("incomplete_reason") or expect["finish_reason"] or ""
    stop = STOPS.get(word.lower(), "end")
    if expect.get("block_reason"):
        return "filter"
    return "tools" if stop == "end" and expect["tool_calls"] else stop


@pytest.mark.parametrize("recording", ANSWERS, ids=named)
def test_usage_has_its_neutral_meaning(recording: Any) -> None:
    answer, _, _ = read(recording)
    given = recording["expect"].get("usage")
    if answer is None or not given:
        return
    # What was recorded does not say how much of the input was pictures.
    events_as_json = msgspec.structs.replace(answer.usage, image_input=0) if answer.usage else None
    billed = recording["expect"].get("billed_units") or {}
    assert events_as_json in list(neutral(dialect_of(recording), given, billed)), given


def neutral(dialect: str | None, given: dict[str, int], billed: dict[str, int]) -> Iterator[Usage]:
    """The neutral counts, which are all inclusive."""
    into, out, thought = given.get("input", 0), given.get("output", 0), given.get("reasoning", 0)
    read, written = given.get("cached_input", 0), given.get("cache_write", 0)
    total = given.get("total", 0)
    common = {"cache_read": read, "cache_write": written, "reasoning": thought}
    match dialect:
        case "anthropic" | "bedrock":
            yield Usage(input=into + read + written, output=out, **common)
        case "gemini":
            # The input of hosted tools is counted separately, and only the total includes it.
            apart = max(total - into - out - thought, 0) if total else 0
            yield Usage(input=into + apart, output=out + thought, **common)
        case "cohere" if billed:
            yield Usage(input=billed["input"], output=billed["output"])
        case _:
            # xAI does not count reasoning as completion, and only the total includes it.
            if total == into + out + thought:
                out += thought
            yield Usage(input=into, output=out, **common)


@pytest.mark.parametrize(
    "recording",
    [r for r in ANSWERS if r["expect"].get("signatures") and not r["id"].startswith(NO_SIGNATURES)],
    ids=named,
)
def test_every_signature_is_kept_unchanged(recording: Any) -> None:
    answer, _, _ = read(recording)
    assert answer is not None
    found = [signature for block in answer.blocks for signature in signatures(block)]
    expect = recording["expect"]["signatures"]
    assert len(found) == expect["count"]
    assert hashlib.sha256("".join(found).encode()).hexdigest()[:16] == expect["sha256_16"]


_PROOFS = ("signature", "redacted", "encrypted_content")


def signatures(block: Any) -> Iterator[str]:
    if isinstance(block, Opaque):
        sign = block.payload.get("thoughtSignature")
        yield from [sign] if sign else []
        return
    for own in getattr(block, "extra", {}).values():
        yield from (own[name] for name in _PROOFS if name in own)


@pytest.mark.parametrize("recording", STREAMS, ids=named)
def test_a_stream_has_the_same_meaning_wherever_it_is_cut(recording: Any) -> None:
    data = stream_of(recording)
    whole = cut(framer_of(recording), [data])
    meant = events_as_json(*decode(language_of(recording), whole))
    step = max(len(data) // 40, 1)
    ways = [[data[:at], data[at:]] for at in range(1, len(data), step)]
    ways.append([data[at : at + 1] for at in range(len(data))])
    for parts in ways:
        pieces = cut(framer_of(recording), parts)
        if pieces != whole:  # decoders see whole pieces only
            assert events_as_json(*decode(language_of(recording), pieces)) == meant


@pytest.mark.parametrize("recording", ERRORS, ids=named)
def test_an_error_is_decoded(recording: Any) -> None:
    response, expect = recording["response"], recording["expect"]["error"]
    body = json.dumps(response["body"]) if "body" in response else response.get("text", "")
    error = language_of(recording).decode_error(response["status"], body.encode())
    assert error.upstream_status == response["status"]
    bad_key = recording["id"] == "gemini.generateContent.error-400-bad-key"
    assert error.kind is (
        ErrorKind.KEY_REJECTED if bad_key else error_kind_for_status(response["status"])
    )
    message = expect.get("message") or ""
    if not message.lstrip().startswith("<"):  # of a page only its text is quoted
        assert message in error.message
    assert "<" not in error.message
    assert len(error.message) < 1000
