# ruff: noqa: E501 (a case a line)
"""Bedrock's Converse API: a binary event stream.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html

It has no refusals: what is withheld ends as `guardrail_intervened` or `content_filtered`.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data
from tests.support.event_stream import event, message

HI = "Hi there"
COUNTS = {"inputTokens": 9, "outputTokens": 4, "totalTokens": 13}
COUNTED = (9, 4, 0, 0)
HEAD = event("messageStart", {"role": "assistant"})


def delta(index: int, **piece: Any) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": piece})


def text(piece: str, index: int = 0) -> bytes:
    return delta(index, text=piece)


def stop(index: int) -> bytes:
    return event("contentBlockStop", {"contentBlockIndex": index})


def opened(index: int, id: str, name: str) -> bytes:
    start = {"toolUse": {"toolUseId": id, "name": name}}
    return event("contentBlockStart", {"contentBlockIndex": index, "start": start})


def hosted(index: int) -> bytes:
    start = {"toolUse": {"toolUseId": "s_1", "name": "search", "type": "server_tool_use"}}
    return event("contentBlockStart", {"contentBlockIndex": index, "start": start})


def call(index: int, id: str, name: str, *pieces: str) -> list[bytes]:
    return [
        opened(index, id, name),
        *[delta(index, toolUse={"input": piece}) for piece in pieces],
        stop(index),
    ]


def end(reason: str = "end_turn", usage: Any = COUNTS) -> bytes:
    return event("messageStop", {"stopReason": reason}) + event(
        "metadata", {"usage": usage, "metrics": {"latencyMs": 1}}
    )


START = (HEAD, text("Hi"), text(" there"), stop(0))
F = call(0, "f_1", "f", '{"a":', "1}")
G = call(1, "g_1", "g")
REASONED = (delta(0, reasoningContent={"text": "Hm"}), delta(0, reasoningContent={"text": "m."}))


def stream(name: str, *events: bytes, **means: Any) -> Case:
    means = {"usage": None if means.get("error") else COUNTED, **means}
    return Case(
        dialect="bedrock",
        name=name,
        data=b"".join(events),
        stream=True,
        media_type="application/vnd.amazon.eventstream",
        **means,
    )


def said(name: str, *events: bytes, **means: Any) -> Case:
    return stream(name, *events, **{"text": HI, **means})


def whole(name: str, content: Any, reason: str = "end_turn", **means: Any) -> Case:
    body = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": reason,
        "usage": COUNTS,
    }
    means = {"usage": COUNTED, **means}
    return Case(
        dialect="bedrock",
        name=f"whole-{name}",
        data=data(body),
        stream=False,
        media_type="application/json",
        **means,
    )


CALL = {"toolUse": {"toolUseId": "f_1", "name": "f", "input": {"a": 1}}}
CASES = [
    said("plain", *START, end()),
    said("usage-cached", *START, end(usage={**COUNTS, "cacheReadInputTokens": 3}), usage=(12, 4, 3, 0)),
    said("length", *START, end("max_tokens"), finish="length"),
    said("refusal-guardrail", *START, end("guardrail_intervened"), finish="filter"),
    said("reasoning", HEAD, *REASONED, stop(0), text("Hi", 1), text(" there", 1), stop(1), end(), thought="Hmm."),
    said("reasoning-signed", HEAD, *REASONED, delta(0, reasoningContent={"signature": "c2ln"}), stop(0), text(HI, 1), stop(1), end(), thought="Hmm."),
    stream("call", HEAD, *F, end("tool_use"), calls=(("f_1", "f", {"a": 1}),), finish="tools"),
    said("call-with-text", *START, *call(1, "f_1", "f", '{"a":1}'), end("tool_use"), calls=(("f_1", "f", {"a": 1}),), finish="tools"),
    stream("calls", HEAD, *F, *G, end("tool_use"), calls=(("f_1", "f", {"a": 1}), ("g_1", "g", {})), finish="tools"),
    stream("call-empty-arguments", HEAD, *call(0, "g_1", "g", "{}"), end("tool_use"), calls=(("g_1", "g", {}),), finish="tools"),
    stream("call-without-arguments", HEAD, *call(0, "g_1", "g"), end("tool_use"), calls=(("g_1", "g", {}),), finish="tools"),
    said("citation", *START[:3], delta(0, citation={"title": "D", "location": {"documentChar": {"documentIndex": 0, "start": 1, "end": 2}}}), stop(0), end(), sources=("D",)),
    said("citation-of-a-page", *START, delta(1, citation={"location": {"web": {"url": "https://a", "domain": "a"}}}), stop(1), end(), sources=("https://a",)),
    said("redacted-reasoning", HEAD, delta(0, reasoningContent={"redactedContent": "eA=="}), stop(0), text(HI, 1), stop(1), end()),
    said("hosted-tool", HEAD, hosted(0), delta(0, toolUse={"input": '{"q":1}'}), stop(0), event("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolResult": {"toolUseId": "s_1", "type": "x", "status": "success"}}}), delta(1, toolResult=[{"json": {}}]), stop(1), text(HI, 2), stop(2), end()),
    said("traces", *START, event("messageStop", {"stopReason": "end_turn", "additionalModelResponseFields": {"stop_sequence": None}}), event("metadata", {"usage": COUNTS, "metrics": {"latencyMs": 1}, "trace": {"guardrail": {"modelOutput": ["x"]}}, "performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "flex"}})),
    said("padding", *[event(name, {"contentBlockIndex": 0, "delta": {"text": piece}, "p": "abcdef"}) for name, piece in (("contentBlockDelta", "Hi"), ("contentBlockDelta", " there"))], stop(0), end()),
    said("unknown-event", *START, event("news", {"text": "x"}), end()),
    said("cache-write", *START, end(usage={**COUNTS, "cacheReadInputTokens": 3, "cacheWriteInputTokens": 5, "cacheDetails": [{"ttl": "1h", "inputTokens": 5}]}), usage=(17, 4, 3, 0)),
    said("context-exceeded", *START, end("model_context_window_exceeded"), finish="length"),
    said("tool-use-without-a-call", *START, end("tool_use")),
    said("image", *START, event("contentBlockStart", {"contentBlockIndex": 1, "start": {"image": {"format": "png"}}}), delta(1, image={"source": {"bytes": "iVBO"}}), stop(1), end(), images=("iVBO",)),
    stream("malformed-without-text", HEAD, end("malformed_model_output"), error=ErrorKind.UPSTREAM, message="malformed_model_output"),
    stream("error-without-exception", *START, message({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "lost"}, b""), text=HI, error=ErrorKind.UPSTREAM, message="lost"),
    stream("error-first", event("throttlingException", {"message": "too fast"}, "exception"), error=ErrorKind.LIMITED, message="too fast"),
    stream("error-midway", *START, event("modelStreamErrorException", {"message": "out of memory"}, "exception"), text=HI, error=ErrorKind.UPSTREAM, message="out of memory"),
    stream("cut-off", *START, text=HI, error=ErrorKind.UPSTREAM),
    whole("plain", [{"text": HI}], text=HI),
    whole("reasoning", [{"reasoningContent": {"reasoningText": {"text": "Hmm."}}}, {"text": HI}], text=HI, thought="Hmm."),
    whole("call", [CALL], "tool_use", calls=(("f_1", "f", {"a": 1}),), finish="tools"),
    whole("length", [{"text": HI}], "max_tokens", text=HI, finish="length"),
]  # fmt: skip
