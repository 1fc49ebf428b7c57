# ruff: noqa: E501 (a case a line)
"""OpenAI's Responses API, and servers that copy it (vLLM, LM Studio, OpenRouter, xAI, Groq)."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data, sse, typed

HI = "Hi there"
COUNTS = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 13,
}
COUNTED = (9, 4, 0, 0)
HEAD = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}


def event(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": 0, **members}


def about(kind: str, **members: Any) -> dict[str, Any]:
    """An event about the whole response."""
    response = {**HEAD, "status": "in_progress", "output": [], "usage": None, **members}
    return event(kind, response=response)


def added(item: Any, index: Any = 0) -> dict[str, Any]:
    return event("output_item.added", output_index=index, item=item)


def done(item: Any, index: Any = 0) -> dict[str, Any]:
    return event("output_item.done", output_index=index, item=item)


def piece(kind: str, text: str, index: Any = 0, item: str = "msg_1", **more: Any) -> dict[str, Any]:
    return event(f"{kind}.delta", item_id=item, output_index=index, delta=text, **more)


def words(text: str, index: Any = 0, part: int = 0, item: str = "msg_1") -> dict[str, Any]:
    return piece("output_text", text, index, item, content_index=part, logprobs=[])


def end(*output: Any, kind: str = "completed", **more: Any) -> dict[str, Any]:
    return about(kind, **{"status": kind, "output": list(output), "usage": COUNTS, **more})


def part(kind: str, text: str = "", index: Any = 0, at: int = 0, **more: Any) -> dict[str, Any]:
    body = {"type": "output_text", "text": text, "annotations": [], **more}
    return event(
        f"content_part.{kind}", item_id="msg_1", output_index=index, content_index=at, part=body
    )


def message(*texts: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": t, "annotations": []} for t in texts]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": parts,
        **more,
    }


CREATED = (about("created"), about("in_progress"))
MESSAGE = message(HI)
DELTAS = (words("Hi"), words(" there"))
TEXT = (
    added({**MESSAGE, "content": [], "status": "in_progress"}),
    part("added"),
    *DELTAS,
    event("output_text.done", item_id="msg_1", output_index=0, content_index=0, text=HI),
    part("done", HI),
    done(MESSAGE),
)
END = end(MESSAGE)
F = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_a",
    "name": "f",
    "arguments": '{"a":1}',
    "status": "completed",
}
F0 = {**F, "arguments": "", "status": "in_progress"}
G = {**F, "id": "fc_2", "call_id": "call_b", "name": "g", "arguments": '{"b":2}'}
R = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}


def arguments(text: str, index: Any = 0, item: str = "fc_1") -> dict[str, Any]:
    return piece("function_call_arguments", text, index, item)


CALL = (
    added(F0),
    arguments('{"a"'),
    arguments(":1}"),
    event("function_call_arguments.done", item_id="fc_1", output_index=0, arguments='{"a":1}'),
    done(F),
)
SUMMARY = (
    added({**R, "summary": []}),
    event(
        "reasoning_summary_part.added",
        item_id="rs_1",
        output_index=0,
        summary_index=0,
        part={"type": "summary_text", "text": ""},
    ),
    piece("reasoning_summary_text", "Hm", item="rs_1", summary_index=0),
    event(
        "reasoning_summary_text.done", item_id="rs_1", output_index=0, summary_index=0, text="Hm"
    ),
    event(
        "reasoning_summary_part.done",
        item_id="rs_1",
        output_index=0,
        summary_index=0,
        part=R["summary"][0],
    ),
    done(R),
)


def at(index: Any, *events: Any) -> tuple[dict[str, Any], ...]:
    """The events of an item, at another index."""
    return tuple({**e, "output_index": index} for e in events)


def stream(name: str, *events: Any, raw: bytes | None = None, **means: Any) -> Case:
    body = typed(*events) if raw is None else raw
    means = {"usage": None if means.get("error") else COUNTED, **means}
    return Case(dialect="openai_responses", name=name, data=body, stream=True, **means)


def said(name: str, *events: Any, **means: Any) -> Case:
    return stream(name, *events, **{"text": HI, **means})


def plain(name: str, *before: Any, **means: Any) -> Case:
    """An answer with odd events between its head and its text, which is item 1."""
    return said(name, *CREATED, *before, *at(1, *TEXT), end(MESSAGE), **means)


def called(name: str, *events: Any, **means: Any) -> Case:
    means = {"calls": (("call_a", "f", {"a": 1}),), "finish": "tools", **means}
    return stream(name, *CREATED, *events, **means)


def whole(name: str, *output: Any, body: Any = None, **means: Any) -> Case:
    answer = {
        **HEAD,
        "status": "completed",
        "output": list(output),
        "usage": COUNTS,
        "error": None,
        "incomplete_details": None,
        **(body or {}),
    }
    return Case(
        dialect="openai_responses",
        name=f"whole-{name}",
        data=data(answer),
        stream=False,
        media_type="application/json",
        **{"usage": COUNTED, **means},
    )


BYTES = typed(*CREATED, *TEXT, END)
CITED = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 2}
WEB = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "q"},
}
FAILED = {"status": "failed", "error": {"code": "server_error", "message": "No."}}
CUSTOM = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "call_id": "call_a",
    "name": "f",
    "input": "free text",
    "status": "completed",
}

CASES = [
    # framing
    said("plain", *CREATED, *TEXT, END),
    said("crlf", raw=BYTES.replace(b"\n", b"\r\n")),
    said("cr", raw=BYTES.replace(b"\n", b"\r")),
    said("bom", raw=b"\xef\xbb\xbf" + BYTES),
    said("no-event-lines", raw=sse(*CREATED, *TEXT, END)),
    said("comments", b": ping\n\n", *CREATED, b": x\n", *TEXT, b"retry: 1\n\n", END),
    said("keepalive-events", *CREATED, {"type": "keepalive", "sequence_number": 2}, *TEXT, {"type": "keepalive"}, END),
    said("done-at-the-end", *CREATED, *TEXT, END, b"data: [DONE]\n\n"),
    said("no-blank-line-at-the-end", raw=BYTES.rstrip(b"\n")),
    said("spaces-in-json", raw=BYTES.replace(b'":', b'": ').replace(b',"', b', "')),
    said("events-after-the-end", *CREATED, *TEXT, END, *TEXT, END),
    said("unicode", *CREATED, TEXT[0], TEXT[1], words("世"), words("🚀\u2028"), done(message("世🚀\u2028")), end(message("世🚀\u2028")), text="世🚀\u2028"),
    said("words-of-events-in-text", *CREATED, TEXT[0], TEXT[1], words('{"type":"error","response":{}}'), done(message('{"type":"error","response":{}}')), end(), text='{"type":"error","response":{}}'),
    said("obfuscation", *CREATED, *[{**e, "obfuscation": "xyz"} for e in TEXT], END),
    # events that are missing
    said("no-created", *TEXT, END),
    said("queued", about("queued", status="queued"), *CREATED, *TEXT, END),
    said("no-in-progress", CREATED[0], *TEXT, END),
    said("no-part-events", *CREATED, TEXT[0], *DELTAS, done(MESSAGE), END),
    said("no-item-events", *CREATED, *DELTAS, END),
    said("no-item-done", *CREATED, *TEXT[:-1], END),
    said("no-item-added", *CREATED, *DELTAS, done(MESSAGE), END),
    said("items-done-only", *CREATED, done(MESSAGE), END),
    said("end-only", END),
    said("created-and-end-only", *CREATED, END),
    said("end-without-output", *CREATED, *TEXT, end()),
    said("end-without-usage", *CREATED, *TEXT, end(MESSAGE, usage=None), usage=None),
    said("text-done-without-deltas", *CREATED, TEXT[0], TEXT[1], *TEXT[4:], END),
    said("no-sequence-numbers", *[{k: v for k, v in e.items() if k != "sequence_number"} for e in (*CREATED, *TEXT, END)]),
    said("no-logprobs", *CREATED, *[{k: v for k, v in e.items() if k != "logprobs"} for e in TEXT], END),
    said("no-item-ids", *CREATED, *[{k: v for k, v in e.items() if k != "item_id"} for e in TEXT], END),
    said("no-output-index", *CREATED, *[{k: v for k, v in e.items() if k != "output_index"} for e in TEXT], END),
    said("no-content-index", *CREATED, *[{k: v for k, v in e.items() if k != "content_index"} for e in TEXT], END),
    said("parts-from-one", *CREATED, TEXT[0], *[{**e, "content_index": 1} for e in TEXT[1:6]], TEXT[6], END),
    said("index-gap", *CREATED, *at(5, *TEXT), END),
    said("empty-deltas", *CREATED, *TEXT[:2], words(""), *TEXT[2:], words(""), END),
    said("item-ids-change", *CREATED, TEXT[0], *[{**e, "item_id": f"m{n}"} for n, e in enumerate(TEXT[1:6])], done({**MESSAGE, "id": "other"}), END),
    said("status-missing", *CREATED, *TEXT, about("completed", output=[MESSAGE], usage=COUNTS)),
    said("unknown-event", *CREATED, event("news", x=1), *TEXT, event("news.delta", delta="x", output_index=0), END),
    said("phase", *CREATED, done(message("I will look.", phase="commentary")), *at(1, *TEXT), end(), text="I will look." + HI),
    # ends and usage
    said("incomplete-length", *CREATED, *TEXT, end(MESSAGE, kind="incomplete", incomplete_details={"reason": "max_output_tokens"}), finish="length"),
    said("incomplete-filter", *CREATED, *TEXT, end(MESSAGE, kind="incomplete", incomplete_details={"reason": "content_filter"}), finish="filter"),
    said("incomplete-without-details", *CREATED, *TEXT, end(MESSAGE, kind="incomplete", incomplete_details=None), finish="length"),
    said("incomplete-unknown", *CREATED, *TEXT, end(MESSAGE, kind="incomplete", incomplete_details={"reason": "news"}), finish="other"),
    stream("incomplete-without-text", *CREATED, done(R), end(R, kind="incomplete", incomplete_details={"reason": "max_output_tokens"}), thought="Hm", finish="length"),
    said("usage-cached-and-reasoning", *CREATED, *TEXT, end(MESSAGE, usage={**COUNTS, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 3}}), usage=(9, 4, 5, 3)),
    said("usage-without-details", *CREATED, *TEXT, end(MESSAGE, usage={"input_tokens": 9, "output_tokens": 4, "total_tokens": 13})),
    said("usage-null-details", *CREATED, *TEXT, end(MESSAGE, usage={**COUNTS, "input_tokens_details": None, "output_tokens_details": None})),
    said("usage-floats", *CREATED, *TEXT, end(MESSAGE, usage={"input_tokens": 9.0, "output_tokens": "4"})),
    stream("nothing", *CREATED, end()),
    # refusals, sources, other items
    stream("refusal", *CREATED, TEXT[0], event("content_part.added", item_id="msg_1", output_index=0, content_index=0, part={"type": "refusal", "refusal": ""}), piece("refusal", "No.", content_index=0), event("refusal.done", item_id="msg_1", output_index=0, content_index=0, refusal="No."), done(message(content=[{"type": "refusal", "refusal": "No."}])), end(), refusal="No."),
    stream("refusal-whole", *CREATED, done(message(content=[{"type": "refusal", "refusal": "No."}])), end(), refusal="No."),
    said("annotations", *CREATED, *TEXT[:4], event("output_text.annotation.added", item_id="msg_1", output_index=0, content_index=0, annotation_index=0, annotation=CITED), *TEXT[4:], END, sources=("https://a",)),
    said("annotations-in-the-done-item", *CREATED, *TEXT[:4], done(message(content=[{"type": "output_text", "text": HI, "annotations": [CITED]}])), end(), sources=("https://a",)),
    said("annotations-of-files", *CREATED, *TEXT[:4], event("output_text.annotation.added", item_id="msg_1", output_index=0, content_index=0, annotation_index=0, annotation={"type": "file_citation", "file_id": "file_1", "filename": "D", "index": 2}), *TEXT[4:], END, sources=("D",)),
    said("annotations-null", *CREATED, *TEXT[:4], event("output_text.annotation.added", item_id="msg_1", output_index=0, content_index=0, annotation_index=0, annotation=None), *TEXT[4:], END),
    said("two-parts", *CREATED, TEXT[0], part("added"), words("Hi"), part("done", "Hi"), part("added", at=1), words(" there", part=1), part("done", " there", at=1), done(message("Hi", " there")), END),
    plain("web-search", added({**WEB, "status": "in_progress"}), event("web_search_call.in_progress", item_id="ws_1", output_index=0), event("web_search_call.searching", item_id="ws_1", output_index=0), event("web_search_call.completed", item_id="ws_1", output_index=0), done(WEB)),
    plain("file-search", added({"id": "fs_1", "type": "file_search_call", "status": "in_progress", "queries": []}), done({"id": "fs_1", "type": "file_search_call", "status": "completed", "queries": ["q"], "results": None})),
    plain("code-interpreter", added({"id": "ci_1", "type": "code_interpreter_call", "status": "in_progress", "code": "", "container_id": "c", "outputs": []}), event("code_interpreter_call_code.delta", item_id="ci_1", output_index=0, delta="1+1"), event("code_interpreter_call_code.done", item_id="ci_1", output_index=0, code="1+1"), done({"id": "ci_1", "type": "code_interpreter_call", "status": "completed", "code": "1+1", "container_id": "c", "outputs": None})),
    plain("mcp", added({"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "s", "tools": []}), done({"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "s", "tools": []})),
    plain("mcp-call", added({"id": "mcp_1", "type": "mcp_call", "server_label": "s", "name": "f", "arguments": ""}), event("mcp_call_arguments.delta", item_id="mcp_1", output_index=0, delta='{"a":1}'), event("mcp_call.completed", item_id="mcp_1", output_index=0), done({"id": "mcp_1", "type": "mcp_call", "server_label": "s", "name": "f", "arguments": '{"a":1}', "output": "x", "error": None, "status": "completed"})),
    plain("image-generation", added({"id": "ig_1", "type": "image_generation_call", "status": "in_progress", "result": None}), event("image_generation_call.partial_image", item_id="ig_1", output_index=0, partial_image_index=0, partial_image_b64="eA=="), done({"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "iVBO", "output_format": "png"}), images=("iVBO",)),
    plain("compaction", done({"id": "cmp_1", "type": "compaction", "encrypted_content": "gA=="})),
    plain("unknown-item", added({"id": "x_1", "type": "news"}), done({"id": "x_1", "type": "news", "status": "completed"}), known=False),
    plain("item-null", added(None), done(None)),
    said("audio-transcript", *CREATED, event("audio.transcript.delta", delta="x"), *TEXT, END),
    # reasoning
    plain("reasoning", *SUMMARY, thought="Hm"),
    plain("reasoning-done-only", done(R), thought="Hm"),
    plain("reasoning-empty", added({**R, "summary": []}), done({**R, "summary": []})),
    plain("reasoning-text", added({**R, "summary": [], "content": []}), piece("reasoning_text", "Hm", item="rs_1", content_index=0), event("reasoning_text.done", item_id="rs_1", output_index=0, content_index=0, text="Hm"), done({**R, "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}), thought="Hm"),
    plain("reasoning-content-null", added({**R, "summary": [], "content": None, "encrypted_content": None}), *SUMMARY[1:5], done({**R, "content": None, "encrypted_content": None}), thought="Hm"),
    plain("reasoning-encrypted", added({**R, "summary": [], "encrypted_content": ""}), *SUMMARY[1:5], done({**R, "encrypted_content": "gAAA"}), thought="Hm"),
    plain("reasoning-not-done", *SUMMARY[:3], thought="Hm"),
    plain("reasoning-no-item", piece("reasoning_summary_text", "Hm", item="rs_1", summary_index=0), thought="Hm"),
    # calls
    called("call", *CALL, end(F)),
    called("call-whole", added(F), done(F), end(F)),
    called("call-done-only", done(F), end(F)),
    called("call-end-only", end(F)),
    called("call-arguments-done-only", added(F0), event("function_call_arguments.done", item_id="fc_1", output_index=0, arguments='{"a":1}', name="f"), done(F), end(F)),
    called("call-arguments-done-without-item-done", added(F0), event("function_call_arguments.done", item_id="fc_1", output_index=0, arguments='{"a":1}'), end()),
    called("call-not-done", *CALL[:3], end()),
    called("call-id-missing", *[{**e, "item": {k: v for k, v in e["item"].items() if k != "call_id"}} if "item" in e else e for e in CALL], end(), calls=(("fc_1", "f", {"a": 1}),)),
    called("call-no-item-id", *[{**e, "item": {k: v for k, v in e["item"].items() if k != "id"}} if "item" in e else e for e in CALL], end()),
    called("call-arguments-null", added({**F0, "arguments": None}), *CALL[1:], end(F)),
    called("call-empty-arguments", added(F0), done({**F, "arguments": ""}), end(), calls=(("call_a", "f", {}),)),
    called("call-arguments-object", added({**F0, "arguments": {}}), done({**F, "arguments": {"a": 1}}), end()),
    called("calls", *CALL, *at(1, added({**G, "arguments": ""}), arguments('{"b":2}', 1, "fc_2"), done(G)), end(F, G), calls=(("call_a", "f", {"a": 1}), ("call_b", "g", {"b": 2}))),
    called("calls-interleaved", added(F0), added({**G, "arguments": ""}, 1), arguments('{"a"'), arguments('{"b"', 1, "fc_2"), arguments(":1}"), arguments(":2}", 1, "fc_2"), done(F), done(G, 1), end(F, G), calls=(("call_a", "f", {"a": 1}), ("call_b", "g", {"b": 2}))),
    called("calls-at-one-index", *CALL[:3], added({**G, "arguments": ""}), arguments('{"b":2}', 0, "fc_2"), end(F, G), calls=(("call_a", "f", {"a": 1}), ("call_b", "g", {"b": 2}))),
    called("calls-of-one-id", *CALL, *at(1, *CALL), end(), calls=(("call_a", "f", {"a": 1}), ("?", "f", {"a": 1}))),
    called("call-beside-open-text", *TEXT[:3], *at(1, *CALL), words(" there"), done(MESSAGE), end(MESSAGE, F), text=HI),
    called("call-only-in-the-end", *TEXT, end(MESSAGE, F), text=HI),
    called("text-after-call", *CALL, *at(1, *TEXT), end(F, MESSAGE), text=HI),
    called("call-namespace", done({**F, "namespace": "ns"}), end(), calls=(("call_a", "ns__f", {"a": 1}),)),
    called("custom-call", added({**CUSTOM, "input": ""}), piece("custom_tool_call_input", "free ", item="ctc_1"), piece("custom_tool_call_input", "text", item="ctc_1"), event("custom_tool_call_input.done", item_id="ctc_1", output_index=0, input="free text"), done(CUSTOM), end(CUSTOM), calls=(("call_a", "f", {"input": "free text"}),)),
    called("custom-call-done-only", done(CUSTOM), end(CUSTOM), calls=(("call_a", "f", {"input": "free text"}),)),
    called("custom-call-not-done", added({**CUSTOM, "input": ""}), piece("custom_tool_call_input", "free text", item="ctc_1"), end(), calls=(("call_a", "f", {"input": "free text"}),)),
    called("call-cut-off", added(F0), arguments('{"a'), done({**F, "arguments": '{"a', "status": "incomplete"}), end(kind="incomplete", incomplete_details={"reason": "max_output_tokens"}), calls=(("call_a", "f", '{"a'),), finish="length"),
    # errors
    stream("failed-at-once", about("failed", **FAILED), error=ErrorKind.UPSTREAM, message="No."),
    stream("failed-midway", *CREATED, *TEXT[:4], about("failed", **FAILED), text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("failed-without-error", *CREATED, *TEXT[:4], about("failed", status="failed", error=None), text=HI, error=ErrorKind.UPSTREAM),
    stream("failed-limited", *CREATED, about("failed", status="failed", error={"code": "rate_limit_exceeded", "message": "Slow down"}), error=ErrorKind.LIMITED, message="Slow down"),
    stream("failed-invalid-prompt", *CREATED, about("failed", status="failed", error={"code": "invalid_prompt", "message": "No."}), error=ErrorKind.INVALID, message="No."),
    stream("failed-invalid-image", *CREATED, about("failed", status="failed", error={"code": "image_too_large", "message": "No."}), error=ErrorKind.INVALID, message="No."),
    stream("error-event", *CREATED, *TEXT[:4], {"type": "error", "code": "rate_limit_exceeded", "message": "Slow down", "param": None, "sequence_number": 5}, text=HI, error=ErrorKind.LIMITED, message="Slow down"),
    stream("error-event-nested", *CREATED, {"type": "error", "error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "Too long", "param": "input"}}, error=ErrorKind.INVALID, message="Too long"),
    stream("error-then-failed", *CREATED, *TEXT[:4], {"type": "error", "code": "server_error", "message": "No.", "param": None}, about("failed", **FAILED), text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-without-type", *CREATED, b'data: {"error": {"message": "No.", "type": "server_error"}}\n\n', error=ErrorKind.UPSTREAM, message="No."),
    stream("error-code-null", *CREATED, *TEXT[:4], {"type": "error", "code": None, "message": "No.", "param": None}, text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("cut-off", *CREATED, *TEXT[:4], text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-in-event", *CREATED, *TEXT[:4], b'event: response.output_text.delta\ndata: {"type":"resp', text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-before-the-end", *CREATED, *TEXT, text=HI, error=ErrorKind.UPSTREAM),
    stream("empty", raw=b"", error=ErrorKind.UPSTREAM),
    # whole answers
    whole("plain", MESSAGE, text=HI),
    whole("no-status", MESSAGE, text=HI, body={"status": None}),
    whole("content-null", message(content=None), MESSAGE, text=HI),
    whole("reasoning", R, MESSAGE, text=HI, thought="Hm"),
    whole("reasoning-content", {**R, "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}, MESSAGE, text=HI, thought="Hm"),
    whole("reasoning-summary-null", {**R, "summary": None, "encrypted_content": None}, MESSAGE, text=HI),
    whole("call", F, calls=(("call_a", "f", {"a": 1}),), finish="tools"),
    whole("call-empty-arguments", {**F, "arguments": ""}, calls=(("call_a", "f", {}),), finish="tools"),
    whole("calls-of-one-id", F, F, calls=(("call_a", "f", {"a": 1}), ("?", "f", {"a": 1})), finish="tools"),
    whole("hosted", WEB, MESSAGE, text=HI),
    whole("annotations", message(content=[{"type": "output_text", "text": HI, "annotations": [CITED, {"type": "file_path", "file_id": "f", "index": 1}]}]), text=HI, sources=("https://a",)),
    whole("refusal", message(content=[{"type": "refusal", "refusal": "No."}]), refusal="No."),
    whole("incomplete", MESSAGE, text=HI, finish="length", body={"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}),
    whole("no-usage", MESSAGE, text=HI, usage=None, body={"usage": None}),
    whole("failed", error=ErrorKind.UPSTREAM, message="No.", body=FAILED),
    whole("cancelled", error=ErrorKind.UPSTREAM, body={"status": "cancelled"}),
    whole("no-output", error=ErrorKind.UPSTREAM, body={"output": None}),
]  # fmt: skip
