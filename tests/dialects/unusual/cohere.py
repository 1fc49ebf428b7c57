# ruff: noqa: E501 (a case a line)
"""Cohere's chat API, version 2. https://docs.cohere.com/reference/chat-stream

It has no refusals: what is withheld ends as `ERROR_TOXIC`.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data, typed

HI = "Hi there"
COUNTS = {
    "billed_units": {"input_tokens": 9, "output_tokens": 4},
    "tokens": {"input_tokens": 509, "output_tokens": 6},
}
COUNTED = (9, 4, 0, 0)
HEAD = {
    "type": "message-start",
    "id": "c0",
    "delta": {
        "message": {
            "role": "assistant",
            "content": [],
            "tool_plan": "",
            "tool_calls": [],
            "citations": [],
        }
    },
}


def delta(kind: str, index: int, **message: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


def text(piece: str) -> dict[str, Any]:
    return delta("content-delta", 0, content={"text": piece})


def thought(piece: str) -> dict[str, Any]:
    return delta("content-delta", 0, content={"thinking": piece})


def plan(piece: str) -> dict[str, Any]:
    return {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}}


def cited(start: int, end: int, id: str, **more: Any) -> dict[str, Any]:
    source = {"type": "document", "id": id, "document": {"id": id, "snippet": "x"}}
    citation = {"start": start, "end": end, "text": "x", "sources": [source], **more}
    return delta("citation-start", 0, citations=citation)


def call(index: int, id: str, name: str, *pieces: str) -> list[dict[str, Any]]:
    function = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    added = [
        delta("tool-call-delta", index, tool_calls={"function": {"arguments": piece}})
        for piece in pieces
    ]
    return [
        delta("tool-call-start", index, tool_calls=function),
        *added,
        {"type": "tool-call-end", "index": index},
    ]


def end(reason: str = "COMPLETE", usage: Any = COUNTS, **more: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage, **more}}


START = (
    HEAD,
    delta("content-start", 0, content={"type": "text", "text": ""}),
    text("Hi"),
    text(" there"),
    {"type": "content-end", "index": 0},
)
F = call(0, "f_1", "f", '{"a":', "1}")
G = call(1, "g_1", "g")
THOUGHT = (
    delta("content-start", 0, content={"type": "thinking", "thinking": ""}),
    thought("Hm"),
    thought("m."),
    {"type": "content-end", "index": 0},
)


def stream(name: str, *events: Any, **means: Any) -> Case:
    means = {"usage": None if means.get("error") else COUNTED, **means}
    return Case(dialect="cohere", name=name, data=typed(*events), stream=True, **means)


def said(name: str, *events: Any, **means: Any) -> Case:
    return stream(name, *events, **{"text": HI, **means})


def whole(name: str, content: Any, reason: str = "COMPLETE", **means: Any) -> Case:
    body = {
        "id": "c0",
        "finish_reason": reason,
        "message": {"role": "assistant", **content},
        "usage": COUNTS,
    }
    means = {"usage": COUNTED, **means}
    return Case(
        dialect="cohere",
        name=f"whole-{name}",
        data=data(body),
        stream=False,
        media_type="application/json",
        **means,
    )


CALL = {"id": "f_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
CASES = [
    said("plain", *START, end()),
    said("usage-missing", *START, end(usage=None), usage=None),
    said("usage-tokens-only", *START, end(usage={"tokens": {"input_tokens": 9, "output_tokens": 4}})),
    said("length", *START, end("MAX_TOKENS"), finish="length"),
    said("refusal-toxic", *START, end("ERROR_TOXIC"), finish="filter"),
    said("thinking", HEAD, *THOUGHT, *START[1:], end(), thought="Hmm."),
    stream("call", HEAD, *F, end("TOOL_CALL"), calls=(("f_1", "f", {"a": 1}),), finish="tools"),
    said("call-with-text", *START, *F, end("TOOL_CALL"), calls=(("f_1", "f", {"a": 1}),), finish="tools"),
    stream("calls", HEAD, *F, *G, end("TOOL_CALL"), calls=(("f_1", "f", {"a": 1}), ("g_1", "g", {})), finish="tools"),
    stream("calls-interleaved", HEAD, F[0], G[0], *F[1:], *G[1:], end("TOOL_CALL"), calls=(("f_1", "f", {"a": 1}), ("g_1", "g", {})), finish="tools"),
    stream("call-empty-arguments", HEAD, *call(0, "g_1", "g", "{}"), end("TOOL_CALL"), calls=(("g_1", "g", {}),), finish="tools"),
    stream("call-without-arguments", HEAD, *call(0, "g_1", "g"), end("TOOL_CALL"), calls=(("g_1", "g", {}),), finish="tools"),
    said("plan-and-call", HEAD, plan("Hi"), plan(" there"), *F, end("TOOL_CALL"), calls=(("f_1", "f", {"a": 1}),), finish="tools"),
    said("plan-cited", HEAD, plan(HI), cited(0, 2, "doc:1", type="PLAN"), *F, end("TOOL_CALL"), calls=(("f_1", "f", {"a": 1}),), finish="tools", sources=("doc:1",)),
    said("cited-while-written", *START[:3], cited(0, 2, "doc:1"), {"type": "citation-end", "index": 0}, *START[3:], end(), sources=("doc:1",)),
    said("cited-afterwards", *START, cited(0, 8, "doc:1"), cited(3, 8, "doc:2"), end(), sources=("doc:1", "doc:2")),
    said("cited-thinking", HEAD, *THOUGHT, cited(0, 2, "doc:1", type="THINKING_CONTENT"), *START[1:], end(), thought="Hmm."),
    said("logprobs", *START[:2], {**text(HI), "logprobs": {"text": HI, "token_ids": [1, 2], "logprobs": [-0.5]}}, START[4], end()),
    said("debug", HEAD, {"type": "debug", "prompt": "x"}, *START[1:], end()),
    said("stop-sequence", *START, end("STOP_SEQUENCE")),
    said("unknown-reason", *START, end("NEWS"), finish="other"),
    said("tool-call-without-a-call", *START, end("TOOL_CALL")),
    stream("failed-midway", *START, end("ERROR", usage=None), text=HI, error=ErrorKind.UPSTREAM, message="ERROR"),
    stream("timeout-midway", *START, end("TIMEOUT"), text=HI, error=ErrorKind.UPSTREAM, message="TIMEOUT"),
    stream("failed-without-text", HEAD, end("ERROR"), error=ErrorKind.UPSTREAM, message="ERROR"),
    stream("call-null-in-arguments", HEAD, *call(0, "f_1", "f", '{"a":', "null", "}"), end("TOOL_CALL"), calls=(("f_1", "f", {"a": None}),), finish="tools"),
    stream("call-null-arguments", HEAD, *call(0, "g_1", "g", "null"), end("TOOL_CALL"), calls=(("g_1", "g", {}),), finish="tools"),
    stream("error-first", {"type": "error", "message": "no capacity"}, error=ErrorKind.UPSTREAM, message="no capacity"),
    stream("error-midway", *START, end("ERROR", usage=None, error="out of memory"), text=HI, error=ErrorKind.UPSTREAM, message="out of memory"),
    stream("cut-off", *START, text=HI, error=ErrorKind.UPSTREAM),
    whole("plain", {"content": [{"type": "text", "text": HI}]}, text=HI),
    whole("thinking", {"content": [{"type": "thinking", "thinking": "Hmm."}, {"type": "text", "text": HI}]}, text=HI, thought="Hmm."),
    whole("call", {"tool_calls": [CALL]}, "TOOL_CALL", calls=(("f_1", "f", {"a": 1}),), finish="tools"),
    whole("call-null-arguments", {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": "null"}}]}, "TOOL_CALL", calls=(("f_1", "f", {}),), finish="tools"),
    whole("failed", {"content": [{"type": "text", "text": HI}]}, "TIMEOUT", error=ErrorKind.UPSTREAM, message="TIMEOUT"),
    whole("plan", {"tool_plan": HI, "tool_calls": [CALL, {**CALL, "id": "g_1", "function": {"name": "g", "arguments": "{}"}}]}, "TOOL_CALL", text=HI, calls=(("f_1", "f", {"a": 1}), ("g_1", "g", {})), finish="tools"),
    whole("length", {"content": [{"type": "text", "text": HI}]}, "MAX_TOKENS", text=HI, finish="length"),
]  # fmt: skip
