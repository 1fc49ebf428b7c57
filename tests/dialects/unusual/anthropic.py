# ruff: noqa: E501 (a case a line)
"""Anthropic's messages, and those of servers that copy them."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data, sse, typed

HI = "Hi there"
COUNTED = (9, 4, 0, 0)


def begin(usage: Any = None, **more: Any) -> dict[str, Any]:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1} if usage is None else usage,
    }
    return {"type": "message_start", "message": {**message, **more}}


def block(index: Any, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": members}


def delta(index: Any, kind: str, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def text(piece: str, index: int = 0) -> dict[str, Any]:
    return delta(index, "text_delta", text=piece)


def json_piece(piece: str, index: int = 0) -> dict[str, Any]:
    return delta(index, "input_json_delta", partial_json=piece)


def close(index: Any = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: Any = "end_turn", usage: Any = None, **more: Any) -> dict[str, Any]:
    usage = {"output_tokens": 4} if usage is None else usage
    change = {"stop_reason": reason, "stop_sequence": None, **more}
    return {"type": "message_delta", "delta": change, "usage": usage}


STOP = {"type": "message_stop"}
PING = {"type": "ping"}
TEXT = (block(0, type="text", text=""), text("Hi"), text(" there"), close())
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
CALL = (block(0, **USE), json_piece('{"a"'), json_piece(":1}"), close())
THINK = (
    block(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="Hm"),
)
SIGNED = delta(0, "signature_delta", signature="c2ln")


def at(index: int, *events: Any) -> tuple[dict[str, Any], ...]:
    """The events of a block, at another index."""
    return tuple({**event, "index": index} for event in events)


def stream(name: str, *events: Any, raw: bytes | None = None, **means: Any) -> Case:
    body = typed(*events) if raw is None else raw
    means = {"usage": None if means.get("error") else COUNTED, **means}
    return Case(dialect="anthropic", name=name, data=body, stream=True, **means)


def said(name: str, *events: Any, **means: Any) -> Case:
    return stream(name, *events, **{"text": HI, **means})


def plain(name: str, *middle: Any, **means: Any) -> Case:
    """An answer with odd events around a block of text."""
    return said(name, begin(), *TEXT, *middle, end(), STOP, **means)


def called(name: str, *middle: Any, **means: Any) -> Case:
    means = {"calls": (("toolu_1", "f", {"a": 1}),), "finish": "tools", **means}
    return stream(name, begin(), *middle, end("tool_use"), STOP, **means)


def whole(name: str, *content: Any, body: Any = None, **means: Any) -> Case:
    message = begin({"input_tokens": 9, "output_tokens": 4})["message"]
    message |= {"content": list(content), "stop_reason": "end_turn", **(body or {})}
    return Case(
        dialect="anthropic",
        name=f"whole-{name}",
        data=data(message),
        stream=False,
        media_type="application/json",
        **{"usage": COUNTED, **means},
    )


BYTES = typed(begin(), *TEXT, end(), STOP)
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "url": "https://a",
            "title": "A",
            "encrypted_content": "x",
            "page_age": None,
        }
    ],
}
CITED = {
    "type": "web_search_result_location",
    "url": "https://a",
    "title": "A",
    "cited_text": "q",
    "encrypted_index": "e",
}
T = {"type": "text", "text": HI}

CASES = [
    # framing
    plain("plain"),
    said("crlf", raw=BYTES.replace(b"\n", b"\r\n")),
    said("cr", raw=BYTES.replace(b"\n", b"\r")),
    said("bom", raw=b"\xef\xbb\xbf" + BYTES),
    said("no-event-lines", raw=sse(begin(), *TEXT, end(), STOP)),
    said("no-space-after-colon", raw=BYTES.replace(b"data: ", b"data:").replace(b"event: ", b"event:")),
    said("data-before-type", raw=b"".join(b"data: %b\nevent: %b\n\n" % (data(e), e["type"].encode()) for e in (begin(), *TEXT, end(), STOP))),
    said("comments", b": ping\n\n", begin(), b": x\n", *TEXT, b":\n\n", end(), b"retry: 100\n\n", STOP),
    said("pings", PING, begin(), PING, *TEXT, PING, end(), PING, STOP),
    said("ping-between-deltas", begin(), TEXT[0], PING, TEXT[1], PING, TEXT[2], PING, TEXT[3], end(), STOP),
    said("done-at-the-end", begin(), *TEXT, end(), STOP, b"data: [DONE]\n\n"),
    said("no-blank-line-at-the-end", raw=BYTES.rstrip(b"\n")),
    said("spaces-in-json", raw=BYTES.replace(b'":', b'": ').replace(b',"', b', "')),
    said("events-after-the-end", begin(), *TEXT, end(), STOP, *TEXT, end(), STOP),
    said("unicode", begin(), block(0, type="text", text=""), text("世"), text("🚀\u2028"), close(), end(), STOP, text="世🚀\u2028"),
    said("sse-in-text", begin(), block(0, type="text", text=""), text("event: error\ndata: x\n\n"), close(), end(), STOP, text="event: error\ndata: x\n\n"),
    said("words-of-events-in-text", begin(), block(0, type="text", text=""), text('{"type":"message_stop","error":{}}'), close(), end(), STOP, text='{"type":"message_stop","error":{}}'),
    # new and unknown
    plain("unknown-event", {"type": "message_news", "x": 1}, {"type": "content_block_news", "index": 9}),
    plain("unknown-block", block(1, type="news", content="x"), close(1), known=False),
    plain("unknown-block-with-deltas", block(1, type="compaction", content=None), delta(1, "compaction_delta", content="Summary"), close(1), known=False),
    said("unknown-delta", begin(), TEXT[0], delta(0, "news_delta", news="x"), *TEXT[1:], end(), STOP),
    said("unknown-members", begin(container=None, context_management=None, diagnostics={"a": 1}), *[{**e, "x": 1} for e in TEXT], end(container=None), {**STOP, "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9}}),
    plain("server-tool", block(1, **SEARCH), json_piece('{"query":"x"}', 1), close(1), block(2, **FOUND), close(2)),
    plain("server-tool-failed", block(1, **SEARCH), close(1), block(2, type="web_search_tool_result", tool_use_id="srvtoolu_1", content={"type": "web_search_tool_result_error", "error_code": "unavailable"}), close(2)),
    plain("code-execution", block(1, type="server_tool_use", id="srvtoolu_2", name="bash_code_execution", input={}), json_piece('{"command":"ls"}', 1), close(1), block(2, type="bash_code_execution_tool_result", tool_use_id="srvtoolu_2", content={"type": "bash_code_execution_result", "stdout": "", "stderr": "", "return_code": 0, "content": []}), close(2)),
    plain("mcp-tool", block(1, type="mcp_tool_use", id="mcptoolu_1", name="f", server_name="s", input={}), json_piece("{}", 1), close(1), block(2, type="mcp_tool_result", tool_use_id="mcptoolu_1", is_error=False, content=[]), close(2), known=False),
    plain("container-upload", block(1, type="container_upload", file_id="file_1"), close(1)),
    # members that are missing, null or of another kind
    said("no-usage", begin({}), *TEXT, {**end(), "usage": None}, STOP, usage=None),
    said("usage-null", begin({"input_tokens": 9, "output_tokens": 1, "cache_creation_input_tokens": None, "cache_read_input_tokens": None, "server_tool_use": None, "service_tier": None}), *TEXT, end(), STOP),
    said("usage-without-details", begin({"input_tokens": 9}), *TEXT, end(), STOP),
    said("usage-at-the-end-only", begin({"input_tokens": 0, "output_tokens": 0}), *TEXT, end(usage={"input_tokens": 9, "output_tokens": 4}), STOP),
    said("usage-input-zero-at-the-end", begin(), *TEXT, end(usage={"input_tokens": 0, "output_tokens": 4, "cache_read_input_tokens": 0}), STOP),
    said("usage-cached", begin({"input_tokens": 2, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 0}, "output_tokens": 1}), *TEXT, end(), STOP, usage=(9, 4, 5, 0)),
    said("usage-thinking", begin(), *TEXT, end(usage={"output_tokens": 4, "output_tokens_details": {"thinking_tokens": 3}}), STOP, usage=(9, 4, 0, 3)),
    said("usage-in-several-deltas", begin(), *TEXT, end(None, {"output_tokens": 2}), end(), STOP),
    said("message-null", {"type": "message_start", "message": None}, *TEXT, end(usage={"input_tokens": 9, "output_tokens": 4}), STOP),
    said("no-message-start", *TEXT, end(usage={"input_tokens": 9, "output_tokens": 4}), STOP),
    said("message-start-twice", begin(), begin(), *TEXT, end(), STOP),
    said("no-stop-sequence", begin(), *TEXT, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}, STOP),
    said("stop-reason-in-two-deltas", begin(), *TEXT, end("end_turn"), end(None), STOP),
    said("no-stop-reason", begin(), *TEXT, end(None), STOP, finish="other"),
    said("unknown-stop-reason", begin(), *TEXT, end("tired"), STOP, finish="other"),
    said("stop-sequence", begin(), *TEXT, end("stop_sequence", stop_sequence="END"), STOP),
    said("max-tokens", begin(), *TEXT, end("max_tokens"), STOP, finish="length"),
    said("context-window", begin(), *TEXT, end("model_context_window_exceeded"), STOP, finish="length"),
    said("pause-turn", begin(), *TEXT, block(1, **SEARCH), close(1), end("pause_turn"), STOP, finish="other"),
    said("refusal", begin(), *TEXT, end("refusal"), STOP, finish="filter"),
    stream("refusal-at-once", begin(), end("refusal", stop_details={"type": "refusal", "category": "cyber", "explanation": "No."}), STOP, refusal="No.", finish="filter"),
    said("refusal-details-null", begin(), *TEXT, end("refusal", stop_details={"type": "refusal", "category": None, "explanation": None}), STOP, finish="filter"),
    stream("nothing", begin(), end(), STOP),
    # blocks
    said("block-not-closed", begin(), *TEXT[:3], end(), STOP),
    said("block-not-opened", begin(), *TEXT[1:], end(), STOP),
    said("block-opens-with-text", begin(), block(0, type="text", text="Hi"), text(" there"), close(), end(), STOP),
    said("no-index", begin(), *[{k: v for k, v in e.items() if k != "index"} for e in TEXT], end(), STOP),
    said("index-gap", begin(), *at(7, *TEXT), end(), STOP),
    said("index-reused", begin(), *TEXT, *TEXT, end(), STOP, text=HI + HI),
    said("index-reused-without-close", begin(), *TEXT[:3], *TEXT, end(), STOP, text=HI + HI),
    said("empty-block", begin(), block(0, type="text", text=""), close(), *at(1, *TEXT), end(), STOP),
    said("empty-deltas", begin(), TEXT[0], text(""), *TEXT[1:], end(), STOP),
    said("text-null", begin(), block(0, type="text", text=None), *TEXT[1:], end(), STOP),
    said("citations", begin(), TEXT[0], *TEXT[1:3], delta(0, "citations_delta", citation=CITED), close(), end(), STOP, sources=("https://a",)),
    said("citations-of-documents", begin(), *TEXT[:3], delta(0, "citations_delta", citation={"type": "page_location", "cited_text": "q", "document_index": 0, "document_title": "D", "start_page_number": 1, "end_page_number": 2, "file_id": None}), close(), end(), STOP, sources=("D",)),
    said("citations-null", begin(), block(0, type="text", text="", citations=None), *TEXT[1:], end(), STOP),
    # thinking
    said("thinking", begin(), *THINK, SIGNED, close(), *at(1, *TEXT), end(), STOP, thought="Hm"),
    said("thinking-unsigned", begin(), block(0, type="thinking", thinking=""), THINK[1], close(), *at(1, *TEXT), end(), STOP, thought="Hm"),
    said("thinking-whole", begin(), block(0, type="thinking", thinking="Hm", signature="c2ln"), close(), *at(1, *TEXT), end(), STOP, thought="Hm"),
    said("thinking-omitted", begin(), THINK[0], SIGNED, close(), *at(1, *TEXT), end(), STOP),
    said("thinking-redacted", begin(), block(0, type="redacted_thinking", data="cmVk"), close(), *at(1, *TEXT), end(), STOP),
    said("thinking-estimated", begin(), THINK[0], delta(0, "thinking_delta", thinking="Hm", estimated_tokens=5), SIGNED, close(), *at(1, *TEXT), end(), STOP, thought="Hm"),
    stream("thinking-alone", begin(), *THINK, SIGNED, close(), end("max_tokens"), STOP, thought="Hm", finish="length"),
    # calls
    called("call", *CALL),
    called("call-empty-piece-first", CALL[0], json_piece(""), *CALL[1:]),
    called("call-whole-input", block(0, **{**USE, "input": {"a": 1}}), close()),
    called("call-input-and-pieces", block(0, **{**USE, "input": {"a": 1}}), *CALL[1:]),
    called("call-input-as-text", block(0, **{**USE, "input": '{"a":1}'}), close()),
    called("call-input-null", block(0, **{**USE, "input": None}), *CALL[1:]),
    called("call-input-missing", block(0, type="tool_use", id="toolu_1", name="f"), *CALL[1:]),
    called("call-without-input", block(0, **USE), close(), calls=(("toolu_1", "f", {}),)),
    called("call-empty-pieces-only", block(0, **USE), json_piece(""), close(), calls=(("toolu_1", "f", {}),)),
    called("call-with-caller", block(0, **USE, caller={"type": "direct"}), *CALL[1:]),
    called("call-without-id", block(0, type="tool_use", name="f", input={}), *CALL[1:], calls=(("?", "f", {"a": 1}),)),
    called("calls-of-one-id", *CALL, *at(1, *CALL), calls=(("toolu_1", "f", {"a": 1}), ("?", "f", {"a": 1}))),
    called("calls-interleaved", block(0, **USE), block(1, **{**USE, "id": "toolu_2"}), json_piece('{"a"'), json_piece('{"b"', 1), json_piece(":1}"), json_piece(":2}", 1), close(), close(1), calls=(("toolu_1", "f", {"a": 1}), ("toolu_2", "f", {"b": 2}))),
    called("call-after-text", *TEXT, *at(1, *CALL), text=HI),
    called("text-after-call", *CALL, *at(1, *TEXT), text=HI),
    stream("call-cut-off", begin(), CALL[0], json_piece('{"a'), close(), end("max_tokens"), STOP, calls=(("toolu_1", "f", '{"a'),), finish="length"),
    stream("call-with-end-turn", begin(), *CALL, end("end_turn"), STOP, calls=(("toolu_1", "f", {"a": 1}),), finish="tools"),
    # errors
    stream("error-instead", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, error=ErrorKind.OVERLOADED, message="Overloaded"),
    stream("error-midway", begin(), *TEXT[:3], {"type": "error", "error": {"type": "api_error", "message": "No."}, "request_id": "req_1"}, text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-after-everything", begin(), *TEXT, end(), {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, text=HI, error=ErrorKind.OVERLOADED),
    stream("error-unknown-type", begin(), *TEXT[:3], {"type": "error", "error": {"type": "news_error", "message": "No.", "details": None}}, text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-without-type", begin(), *TEXT[:3], b'data: {"error": {"type": "rate_limit_error", "message": "Slow down"}}\n\n', text=HI, error=ErrorKind.LIMITED, message="Slow down"),
    stream("error-as-text", begin(), *TEXT[:3], b'event: error\ndata: {"type": "error", "error": "No."}\n\n', text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("cut-off", begin(), *TEXT[:3], text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-in-event", begin(), *TEXT[:3], b'event: content_block_delta\ndata: {"type":"con', text=HI, error=ErrorKind.UPSTREAM),
    stream("empty", raw=b"", error=ErrorKind.UPSTREAM),
    # whole answers
    whole("plain", T, text=HI),
    whole("text-content", text=HI, body={"content": HI}),
    whole("citations", {**T, "citations": [CITED]}, text=HI, sources=("https://a",)),
    whole("citations-null", {**T, "citations": None}, text=HI),
    whole("thinking", {"type": "thinking", "thinking": "Hm", "signature": "c2ln"}, T, text=HI, thought="Hm"),
    whole("thinking-unsigned", {"type": "thinking", "thinking": "Hm"}, T, text=HI, thought="Hm"),
    whole("redacted", {"type": "redacted_thinking", "data": "cmVk"}, T, text=HI),
    whole("server-tools", SEARCH, FOUND, T, text=HI),
    whole("unknown-block", {"type": "news", "x": 1}, T, text=HI, known=False),
    whole("call", {**USE, "input": {"a": 1}}, calls=(("toolu_1", "f", {"a": 1}),), finish="tools", body={"stop_reason": "tool_use"}),
    whole("call-input-text", {**USE, "input": '{"a":1}'}, calls=(("toolu_1", "f", {"a": 1}),), finish="tools", body={"stop_reason": "tool_use"}),
    whole("calls-of-one-id", {**USE, "input": {"a": 1}}, {**USE, "input": {"a": 1}}, calls=(("toolu_1", "f", {"a": 1}), ("?", "f", {"a": 1})), finish="tools", body={"stop_reason": "tool_use"}),
    whole("refusal", body={"stop_reason": "refusal", "stop_details": {"type": "refusal", "category": "bio", "explanation": "No."}}, refusal="No.", finish="filter"),
    whole("pause", T, text=HI, finish="other", body={"stop_reason": "pause_turn"}),
    whole("no-usage", T, text=HI, body={"usage": None}, usage=None),
    whole("usage-cached", T, text=HI, body={"usage": {"input_tokens": 2, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 4}}, usage=(9, 4, 5, 0)),
    whole("empty"),
    whole("error", error=ErrorKind.OVERLOADED, message="Overloaded", body={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, usage=None),
]  # fmt: skip
