# ruff: noqa: E501 (a case a line)
"""Ollama's own API: JSON lines. https://github.com/ollama/ollama/blob/main/docs/api.md"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data

HI = "Hi there"
HEAD = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
COUNTS = {"total_duration": 1, "prompt_eval_count": 9, "eval_count": 4, "eval_duration": 1}
COUNTED = (9, 4, 0, 0)


def line(message: Any = None, **more: Any) -> dict[str, Any]:
    inner = {"role": "assistant", "content": ""} | (message or {})
    return {**HEAD, "message": inner, "done": False, **more}


def text(piece: str) -> dict[str, Any]:
    return line({"content": piece})


def end(reason: Any = "stop", **more: Any) -> dict[str, Any]:
    return {**line(), "done": True, "done_reason": reason, **COUNTS, **more}


def called(*found: Any) -> dict[str, Any]:
    return line({"tool_calls": list(found)})


F = {"function": {"name": "f", "arguments": {"a": 1}}}
START = (text("Hi"), text(" there"))


def stream(name: str, *lines: Any, raw: bytes | None = None, **means: Any) -> Case:
    body = b"".join(x if isinstance(x, bytes) else data(x) + b"\n" for x in lines)
    means = {"usage": COUNTED, **means}
    if means.get("error"):
        means["usage"] = None
    return Case(
        dialect="ollama",
        name=name,
        data=body if raw is None else raw,
        stream=True,
        media_type="application/x-ndjson",
        **means,
    )


def said(name: str, *lines: Any, **means: Any) -> Case:
    return stream(name, *lines, **{"text": HI, **means})


def calls(name: str, *lines: Any, **means: Any) -> Case:
    means = {"calls": (("?", "f", {"a": 1}),), "finish": "tools", **means}
    return stream(name, *lines, **means)


def whole(name: str, body: Any, **means: Any) -> Case:
    return Case(
        dialect="ollama",
        name=f"whole-{name}",
        data=data(body),
        stream=False,
        media_type="application/json",
        **{"usage": COUNTED, **means},
    )


LINES = b"".join(data(x) + b"\n" for x in (*START, end()))

CASES = [
    said("plain", *START, end()),
    said("crlf", raw=LINES.replace(b"\n", b"\r\n")),
    said("blank-lines", raw=b"\n\n" + LINES.replace(b"\n", b"\n\n")),
    said("no-line-end", raw=LINES.rstrip(b"\n")),
    said("bom", raw=b"\xef\xbb\xbf" + LINES),
    said("text-in-the-last-line", text("Hi"), end(message={"role": "assistant", "content": " there"})),
    said("no-message-at-the-end", *START, {**HEAD, "done": True, "done_reason": "stop", **COUNTS}),
    said("message-null", *START, {**end(), "message": None}),
    said("content-null", line({"content": None}), *START, end()),
    said("no-content", {**HEAD, "message": {"role": "assistant"}, "done": False}, *START, end()),
    said("no-role", {**HEAD, "message": {"content": HI}, "done": False}, end()),
    said("no-done", {**HEAD, "message": {"role": "assistant", "content": HI}}, end()),
    said("no-reason", *START, {k: v for k, v in end().items() if k != "done_reason"}),
    said("reason-null", *START, end(None)),
    said("reason-empty", *START, end("")),
    said("length", *START, end("length"), finish="length"),
    said("unknown-reason", *START, end("tired"), finish="other"),
    said("no-counts", *START, {**line(), "done": True, "done_reason": "stop"}, usage=None),
    said("prompt-cached", *START, {k: v for k, v in end().items() if k != "prompt_eval_count"}, usage=(0, 4, 0, 0)),
    said("counts-null", *START, end(prompt_eval_count=None), usage=(0, 4, 0, 0)),
    said("counts-floats", *START, end(prompt_eval_count=9.0, eval_count=4.0)),
    said("unknown-members", {**text(HI), "remote_model": "m", "remote_host": "https://ollama.com:443", "logprobs": [{"token": "Hi", "logprob": -1}]}, end(context=[1, 2])),
    said("model-missing", {"message": {"role": "assistant", "content": HI}, "done": False}, end()),
    said("unicode", text("世"), text("🚀"), end(), text="世🚀"),
    said("escaped", b'{"model":"m","message":{"role":"assistant","content":"\\u4e16\\ud83d\\ude80"},"done":false}\n', end(), text="世🚀"),
    said("line-separators", text("a\u2028b\u2029c\u0085d\x1ee"), end(), text="a\u2028b\u2029c\u0085d\x1ee"),
    said("newlines-in-text", text("a\n\nb\r\n"), end(), text="a\n\nb\r\n"),
    said("lines-after-the-end", *START, end(), text("more")),
    said("images-null", line({"images": None}), *START, end()),
    said("tool-calls-null", line({"tool_calls": None}), *START, end()),
    said("tool-calls-empty", line({"tool_calls": []}), *START, end()),
    stream("no-text", end()),
    stream("load", end("load"), finish="other"),
    said("thinking", line({"thinking": "Hm"}), line({"thinking": "m."}), *START, end(), thought="Hmm."),
    said("thinking-and-text", line({"thinking": "Hm", "content": HI}), end(), thought="Hm"),
    said("thinking-null", line({"thinking": None}), *START, end()),
    said("thinking-empty", line({"thinking": ""}), *START, end()),
    said("thinking-after-text", text("Hi"), line({"thinking": "Hm"}), text(" there"), end(), thought="Hm"),
    stream("thinking-alone", line({"thinking": "Hm"}), end("length"), thought="Hm", finish="length"),
    calls("call", called(F), end()),
    calls("call-in-the-last-line", end(message={"role": "assistant", "content": "", "tool_calls": [F]})),
    calls("call-with-id", called({"id": "call_x", **F}), end(), calls=(("call_x", "f", {"a": 1}),)),
    calls("call-empty-id", called({"id": "", **F}), end()),
    calls("call-with-index", called({"function": {**F["function"], "index": 0}}), called({"function": {"index": 1, "name": "g", "arguments": {}}}), end(), calls=(("?", "f", {"a": 1}), ("?", "g", {}))),
    calls("calls-in-one-line", called(F, {"function": {"name": "g", "arguments": {}}}), end(), calls=(("?", "f", {"a": 1}), ("?", "g", {}))),
    calls("same-call-twice", called(F), called(F), end(), calls=(("?", "f", {"a": 1}), ("?", "f", {"a": 1}))),
    calls("calls-of-one-id", called({"id": "x", **F}, {"id": "x", **F}), end(), calls=(("x", "f", {"a": 1}), ("?", "f", {"a": 1}))),
    calls("arguments-text", called({"function": {"name": "f", "arguments": '{"a":1}'}}), end()),
    calls("arguments-null", called({"function": {"name": "f", "arguments": None}}), end(), calls=(("?", "f", {}),)),
    calls("arguments-missing", called({"function": {"name": "f"}}), end(), calls=(("?", "f", {}),)),
    calls("call-after-text", *START, called(F), end(), text=HI),
    calls("text-after-call", called(F), *START, end(), text=HI),
    calls("thinking-then-call", line({"thinking": "Hm"}), called(F), end(), thought="Hm"),
    calls("call-typed", called({"type": "function", **F}), end()),
    calls("length-in-call", called(F), end("length"), finish="length"),
    stream("error-first", {"error": "model not found"}, error=ErrorKind.UPSTREAM, message="model not found"),
    stream("error-midway", *START, {"error": "out of memory"}, text=HI, error=ErrorKind.UPSTREAM, message="out of memory"),
    stream("error-object", *START, {"error": {"message": "out of memory", "code": 500}}, text=HI, error=ErrorKind.UPSTREAM, message="out of memory"),
    stream("cut-off", *START, text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-in-line", *START, b'{"model":"m","mess', text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-after-call", called(F), error=ErrorKind.UPSTREAM),
    stream("no-json", b"Internal Server Error\n", error=ErrorKind.UPSTREAM),
    stream("not-an-object", *START, b"[]\n", end(), text=HI, error=ErrorKind.UPSTREAM),
    stream("empty", raw=b"", error=ErrorKind.UPSTREAM),
    whole("plain", end(message={"role": "assistant", "content": HI}), text=HI),
    whole("thinking", end(message={"role": "assistant", "content": HI, "thinking": "Hm"}), text=HI, thought="Hm"),
    whole("call", end(message={"role": "assistant", "content": "", "tool_calls": [F]}), calls=(("?", "f", {"a": 1}),), finish="tools"),
    whole("error", {"error": "no"}, error=ErrorKind.UPSTREAM, message="no", usage=None),
]  # fmt: skip
