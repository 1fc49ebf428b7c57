# ruff: noqa: E501 (a case a line)
"""Chat completions of OpenAI and of the many servers that copy them."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data, sse

HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
COUNTS = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
COUNTED = (9, 4, 0, 0)
DONE = b"data: [DONE]\n\n"
HI = "Hi there"


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """One chunk with one choice."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {**HEAD, "choices": [choice], **more}


def text(piece: str, **more: Any) -> dict[str, Any]:
    return chunk({"content": piece}, **more)


def call(at: Any, id: Any = None, name: Any = None, arguments: Any = None, **more: Any) -> Any:
    """A fragment of a call; what is None is left out."""
    part = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    head = {k: v for k, v in (("index", at), ("id", id)) if v is not None}
    if id is not None:
        head["type"] = "function"
    return {**head, "function": part, **more}


def calls(*fragments: Any) -> dict[str, Any]:
    return chunk({"tool_calls": list(fragments)})


ROLE = chunk({"role": "assistant", "content": ""})
STOP, CALLED = chunk(finish="stop"), chunk(finish="tool_calls")
USAGE = {**HEAD, "choices": [], "usage": COUNTS}
START = (ROLE, text("Hi"), text(" there"))


def stream(name: str, *events: Any, raw: bytes | None = None, **means: Any) -> Case:
    body = sse(*events) if raw is None else raw
    return Case(dialect="openai_chat", name=name, data=body, stream=True, **means)


def said(name: str, *events: Any, raw: bytes | None = None, **means: Any) -> Case:
    """A stream that says hi, whatever is odd about it."""
    return stream(name, *events, raw=raw, **{"text": HI, **means})


def called(name: str, *events: Any, **means: Any) -> Case:
    """A stream that calls a function."""
    means = {"calls": (("call_a", "f", {"a": 1}),), "finish": "tools", **means}
    return stream(name, ROLE, *events, CALLED, DONE, **means)


def whole(name: str, said: Any, word: Any = "stop", **means: Any) -> Case:
    """A whole completion; `body` replaces members of it."""
    body = {
        **HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": said, "finish_reason": word}],
        "usage": COUNTS,
        **means.pop("body", {}),
    }
    means = {"usage": COUNTED, **means}
    return Case(
        dialect="openai_chat",
        name=f"whole-{name}",
        data=data(body),
        stream=False,
        media_type="application/json",
        **means,
    )


PLAIN = {"role": "assistant", "content": HI}
A1 = '{"a":1}'
A = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": A1}}

CASES = [
    # framing
    said("crlf", raw=sse(*START, STOP, DONE).replace(b"\n", b"\r\n")),
    said("cr", raw=sse(*START, STOP, DONE).replace(b"\n", b"\r")),
    said("bom", raw=b"\xef\xbb\xbf" + sse(*START, STOP, DONE)),
    said("no-space-after-colon", raw=sse(*START, STOP, DONE).replace(b"data: ", b"data:")),
    said("comments", b": OPENROUTER PROCESSING\n\n", *START, b": ping\n\n", STOP, DONE),
    said("comment-glued-to-data", b": x\n", *START, b": y\n", STOP, b": z\n", DONE),
    said("retry-and-ids", b"retry: 3000\nid: 7\n", *START, b"id: 8\n\n", STOP, DONE),
    said("typed-events", b"event: message\n", START[0], *START[1:], STOP, DONE),
    said("empty-data-lines", b"data:\n\n", *START, b"data: \n\n", STOP, DONE),
    said("blank-lines", b"\n\n\n", *START, b"\n\n", STOP, b"\n", DONE, b"\n\n"),
    said("ping-events", b"event: ping\ndata: {}\n\n", *START, b"event: ping\ndata: {}\n\n", STOP, DONE),
    said("words-as-data", b"data: keep-alive\n\n", *START, b"data: OK\n\n", STOP, DONE),
    said("no-blank-line-at-the-end", raw=sse(*START, STOP) + b"data: [DONE]"),
    said("done-with-spaces", *START, STOP, b"data:  [DONE] \n\n"),
    said("data-after-done", *START, STOP, DONE, text("more"), DONE),
    said("data-over-lines", START[0], b'data: {"id":"c1","object":"chat.completion.chunk",\ndata: "created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Hi there"}}]}\n\n', STOP, DONE),
    said("spaces-in-json", raw=sse(*START, STOP, DONE).replace(b'":', b'" : ').replace(b",", b" , ")),
    said("escaped-unicode", ROLE, b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"\\u4e16\\ud83d\\ude80"},"finish_reason":null}]}\n\n', STOP, DONE, text="世🚀"),
    said("pair-of-surrogates-in-two-chunks", ROLE, text("half"), text("世"), text("🚀"), STOP, DONE, text="half世🚀"),
    said("line-separators-in-text", ROLE, text("a\u2028b\u0085c\x0bd"), STOP, DONE, text="a\u2028b\u0085c\x0bd"),
    said("sse-in-text", ROLE, text("data: x\n\ndata: [DONE]\n\n"), STOP, DONE, text="data: x\n\ndata: [DONE]\n\n"),
    # members that are missing, null or of another kind
    said("nulls-everywhere", chunk({"role": "assistant", "content": None, "refusal": None, "tool_calls": None, "function_call": None, "reasoning_content": None, "annotations": None, "audio": None}, logprobs=None, usage=None, system_fingerprint=None), *START[1:], STOP, DONE),
    said("delta-null", {**HEAD, "choices": [{"index": 0, "delta": None, "finish_reason": None}]}, *START, {**HEAD, "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}, DONE),
    said("no-delta-at-the-end", *START, {**HEAD, "choices": [{"index": 0, "finish_reason": "stop"}]}, DONE),
    said("no-role", *START[1:], STOP, DONE),
    said("role-in-every-chunk", chunk({"role": "assistant", "content": "Hi"}), chunk({"role": "assistant", "content": " there"}), STOP, DONE),
    said("empty-role", chunk({"role": "", "content": "Hi"}), chunk({"role": "", "content": " there"}), STOP, DONE),
    said("no-index", {**HEAD, "choices": [{"delta": {"content": HI}}]}, {**HEAD, "choices": [{"delta": {}, "finish_reason": "stop"}]}, DONE),
    said("index-as-text", {**HEAD, "choices": [{"index": "0", "delta": {"content": HI}}]}, STOP, DONE),
    said("no-head", {"choices": [{"index": 0, "delta": {"content": HI}}]}, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, DONE),
    said("head-changes", *START, {**STOP, "id": "c2", "model": "m2", "created": 2}, DONE),
    said("created-as-float", *[{**e, "created": 1.5} for e in (*START, STOP)], DONE),
    said("choices-null", {**HEAD, "choices": None}, *START, {**HEAD, "choices": None, "usage": COUNTS}, STOP, DONE, usage=COUNTED),
    said("no-choices", {**HEAD}, *START, {**HEAD, "usage": COUNTS}, STOP, DONE, usage=COUNTED),
    said("finish-empty-until-the-end", chunk({"role": "assistant", "content": "Hi"}, ""), chunk({"content": " there"}, ""), STOP, DONE),
    said("finish-with-the-last-text", ROLE, text("Hi"), chunk({"content": " there"}, "stop"), DONE),
    said("finish-then-usage-with-choice", *START, STOP, {**chunk(), "usage": COUNTS}, DONE, usage=COUNTED),
    said("finish-words-in-capitals", *START, chunk(finish="STOP"), DONE),
    said("unknown-finish", *START, chunk(finish="finished_nicely"), DONE),
    said("finish-eos", *START, chunk(finish="eos"), DONE),
    said("finish-content-filter", *START, chunk(finish="content_filter"), DONE, finish="filter"),
    said("finish-max-tokens", *START, chunk(finish="max_tokens"), DONE, finish="length"),
    said("unknown-members", {**ROLE, "p": "abc", "obfuscation": "x", "nvext": {"a": 1}}, *[{**e, "x_new": [1]} for e in START[1:]], STOP, DONE),
    said("content-in-parts", chunk({"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}), chunk({"content": [{"type": "text", "text": " there"}, {"type": "reference", "reference_ids": [1]}]}), STOP, DONE),
    said("second-choice", *START, {**HEAD, "choices": [{"index": 1, "delta": {"content": "other"}}]}, STOP, {**HEAD, "choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}, DONE),
    stream("nothing-but-an-end", ROLE, STOP, DONE, text=""),
    stream("length-without-text", ROLE, chunk(finish="length"), USAGE, DONE, finish="length", usage=COUNTED),
    # usage
    said("usage-first", {**HEAD, "choices": [], "usage": {**COUNTS, "completion_tokens": 0}}, *START, STOP, USAGE, DONE, usage=COUNTED),
    said("usage-in-every-chunk", *[{**e, "usage": {**COUNTS, "completion_tokens": n}} for n, e in enumerate((*START, STOP))], USAGE, DONE, usage=COUNTED),
    said("usage-floats", *START, STOP, {**USAGE, "usage": {"prompt_tokens": 9.0, "completion_tokens": 4.0, "total_tokens": 13.0}}, DONE, usage=COUNTED),
    said("usage-text", *START, STOP, {**USAGE, "usage": {"prompt_tokens": "9", "completion_tokens": "4", "total_tokens": "13"}}, DONE, usage=COUNTED),
    said("usage-null-details", *START, STOP, {**USAGE, "usage": {**COUNTS, "prompt_tokens_details": None, "completion_tokens_details": None}}, DONE, usage=COUNTED),
    said("usage-null-counts", *START, STOP, {**USAGE, "usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": None}, "completion_tokens_details": {"reasoning_tokens": None}}}, DONE, usage=COUNTED),
    said("usage-cached-and-reasoning", *START, STOP, {**USAGE, "usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 3, "accepted_prediction_tokens": 0}}}, DONE, usage=(9, 4, 5, 3)),
    said("usage-after-done", *START, STOP, USAGE, DONE, USAGE, usage=COUNTED),
    said("usage-with-cost", *START, STOP, {**USAGE, "usage": {**COUNTS, "cost": 0.01, "is_byok": False, "cost_details": {"x": None}}}, DONE, usage=COUNTED),
    # reasoning
    said("reasoning-both-names", chunk({"role": "assistant", "reasoning": "Hm", "reasoning_content": "Hm", "content": ""}), *START[1:], STOP, DONE, thought="Hm"),
    said("reasoning-null-then-text", chunk({"reasoning_content": "Hm", "content": None}), chunk({"reasoning_content": None, "content": HI}), STOP, DONE, thought="Hm"),
    said("reasoning-and-text-in-one", chunk({"reasoning_content": "Hm", "content": HI}), STOP, DONE, thought="Hm"),
    said("reasoning-after-text", ROLE, text("Hi"), chunk({"reasoning_content": "Hm"}), text(" there"), STOP, DONE, thought="Hm"),
    said("reasoning-details-alone", chunk({"role": "assistant", "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "index": 0, "format": None}]}), chunk({"reasoning_details": [{"type": "reasoning.text", "text": "m.", "index": 0}]}), *START[1:], STOP, DONE, thought="Hmm."),
    said("reasoning-summary-details", chunk({"role": "assistant", "reasoning_details": [{"type": "reasoning.summary", "summary": "Hm", "index": 0, "format": "openai-responses-v1"}]}), *START[1:], STOP, DONE, thought="Hm"),
    said("thinking-parts", chunk({"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}), *START[1:], STOP, DONE, thought="Hm"),
    stream("reasoning-alone", chunk({"role": "assistant", "reasoning_content": "Hm"}), chunk(finish="length"), DONE, thought="Hm", finish="length"),
    # refusals, sources, pictures, sound
    stream("refusal", chunk({"role": "assistant", "refusal": "I can"}), chunk({"refusal": "not."}), STOP, DONE, refusal="I cannot."),
    said("annotations-at-the-end", *START, chunk({"annotations": [{"type": "url_citation", "url_citation": {"url": "https://a", "title": "A", "start_index": 0, "end_index": 2}}]}), STOP, DONE, sources=("https://a",)),
    said("annotations-unknown", *START, chunk({"annotations": [{"type": "file_citation", "x": 1}, None, "x"]}), STOP, DONE),
    said("logprobs", ROLE, {**HEAD, "choices": [{"index": 0, "delta": {"content": HI}, "logprobs": {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72], "top_logprobs": []}], "refusal": None}, "finish_reason": None}]}, STOP, DONE),
    said("image", *START, chunk({"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}, "index": 0}]}), STOP, DONE, images=("iVBO",)),
    stream("audio-transcript", chunk({"role": "assistant", "audio": {"id": "a1", "transcript": "Hi"}}), chunk({"audio": {"transcript": " there"}}), chunk({"audio": {"data": "UklG"}}), chunk({"audio": {"expires_at": 1}}), STOP, DONE, text=HI),
    # calls
    called("call-whole", calls(A)),
    called("call-in-pieces", calls(call(0, "call_a", "f", "")), calls(call(0, arguments='{"a"')), calls(call(0, arguments=":1}"))),
    called("call-null-in-a-piece", calls(call(0, "call_a", "f", "")), calls(call(0, arguments='{"a":')), calls(call(0, arguments="null")), calls(call(0, arguments="}")), calls=(("call_a", "f", {"a": None}),)),
    called("call-id-in-every-piece", calls(call(0, "call_a", "f", "")), calls(call(0, "call_a", None, '{"a"')), calls(call(0, "call_a", "", ":1}"))),
    called("call-empty-id-later", calls(call(0, "call_a", "f", "")), calls(call(0, "", "", A1))),
    called("call-null-members-later", calls(call(0, "call_a", "f", "")), calls({"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": A1}})),
    called("call-arguments-null", calls({**A, "function": {"name": "f", "arguments": None}}), calls(call(0, arguments=A1))),
    called("call-arguments-object", calls({**A, "function": {"name": "f", "arguments": {"a": 1}}})),
    called("call-no-index", calls({k: v for k, v in A.items() if k != "index"})),
    called("call-index-gap", calls({**A, "index": 3}), calls(call(900, "call_b", "g", "{}")), calls=(("call_a", "f", {"a": 1}), ("call_b", "g", {}))),
    called("call-index-from-one", calls({**A, "index": 1})),
    called("calls-interleaved", calls(call(0, "call_a", "f", "")), calls(call(1, "call_b", "g", "")), calls(call(0, arguments='{"a"')), calls(call(1, arguments='{"b"')), calls(call(0, arguments=":1}")), calls(call(1, arguments=":2}")), calls=(("call_a", "f", {"a": 1}), ("call_b", "g", {"b": 2}))),
    called("calls-in-one-chunk", calls(A, {**A, "index": 1, "id": "call_b"}), calls=(("call_a", "f", {"a": 1}), ("call_b", "f", {"a": 1}))),
    called("calls-of-one-id", calls(A), calls({**A, "index": 1}), calls=(("call_a", "f", {"a": 1}), ("?", "f", {"a": 1}))),
    called("call-without-arguments", calls({**A, "function": {"name": "f"}}), calls=(("call_a", "f", {}),)),
    called("call-empty-arguments", calls({**A, "function": {"name": "f", "arguments": ""}}), calls=(("call_a", "f", {}),)),
    called("call-after-text", *START[1:], calls(A), text=HI),
    called("text-after-call", calls(A), *START[1:], text=HI),
    called("call-and-text-in-one", chunk({"content": HI, "tool_calls": [A]}), text=HI),
    called("call-cut-off", calls({**A, "function": {"name": "f", "arguments": '{"a'}}), chunk(finish="length"), calls=(("call_a", "f", '{"a'),), finish="length"),
    called("call-without-id", calls({k: v for k, v in A.items() if k != "id"}), calls=(("?", "f", {"a": 1}),)),
    called("empty-tool-calls", chunk({"tool_calls": []}), calls(A), chunk({"tool_calls": []})),
    called("name-in-pieces", calls(call(0, "call_a")), calls(call(0, None, "f")), calls(call(0, arguments=A1))),
    stream("call-with-stop", ROLE, calls(A), STOP, DONE, calls=(("call_a", "f", {"a": 1}),), finish="tools"),
    stream("function-call", chunk({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}), chunk({"function_call": {"arguments": A1}}), chunk(finish="function_call"), DONE, calls=(("?", "f", {"a": 1}),), finish="tools"),
    stream("custom-tool", ROLE, calls({"index": 0, "id": "call_a", "type": "custom", "custom": {"name": "f", "input": "free "}}), calls({"index": 0, "custom": {"input": "text"}}), CALLED, DONE, calls=(("call_a", "f", "free text"),), finish="tools"),
    # errors
    stream("error-instead", {"error": {"message": "No.", "type": "server_error", "code": None}}, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-then-done", *START, {"error": {"message": "No.", "type": "server_error"}}, DONE, text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-as-text", *START, {"error": "Out of memory"}, text=HI, error=ErrorKind.UPSTREAM, message="Out of memory"),
    stream("error-with-code", *START, {"error": {"message": "Slow down", "code": 429}}, text=HI, error=ErrorKind.LIMITED, message="Slow down"),
    stream("error-event", *START, b'event: error\ndata: {"message": "Slow down", "code": "rate_limit_exceeded"}\n\n', text=HI, error=ErrorKind.LIMITED, message="Slow down"),
    stream("error-object", *START, {"object": "error", "message": "No.", "type": "BadRequestError", "code": 400}, text=HI, error=ErrorKind.INVALID, message="No."),
    stream("error-in-choice", *START, {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "No."}}]}, DONE, text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-detail", *START, {"detail": "Internal error", "error": True}, text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off", *START, text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-in-chunk", *START, b'data: {"id":"c1","obj', text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-in-call", ROLE, calls(call(0, "call_a", "f", '{"a')), error=ErrorKind.UPSTREAM),
    stream("done-without-anything", DONE, error=ErrorKind.UPSTREAM),
    stream("empty", raw=b"", error=ErrorKind.UPSTREAM),
    # whole answers
    whole("plain", PLAIN, text=HI),
    whole("nulls", {**PLAIN, "refusal": None, "tool_calls": None, "function_call": None, "annotations": None, "audio": None}, text=HI),
    whole("no-role", {"content": HI}, text=HI),
    whole("no-finish", PLAIN, None, text=HI),
    whole("no-usage", PLAIN, text=HI, body={"usage": None}, usage=None),
    whole("parts", {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": HI}]}, text=HI, thought="Hm"),
    whole("output-text-parts", {"role": "assistant", "content": [{"type": "output_text", "text": HI}]}, text=HI),
    whole("call", {"role": "assistant", "content": None, "tool_calls": [A]}, "tool_calls", calls=(("call_a", "f", {"a": 1}),), finish="tools"),
    whole("call-object", {"role": "assistant", "content": "", "tool_calls": [{**A, "function": {"name": "f", "arguments": {"a": 1}}}]}, "stop", calls=(("call_a", "f", {"a": 1}),), finish="tools"),
    whole("call-arguments-null-as-text", {"role": "assistant", "tool_calls": [{**A, "function": {"name": "f", "arguments": "null"}}]}, "tool_calls", calls=(("call_a", "f", {}),), finish="tools"),
    whole("call-null-arguments", {"role": "assistant", "tool_calls": [{**A, "function": {"name": "f", "arguments": None}}]}, "tool_calls", calls=(("call_a", "f", {}),), finish="tools"),
    whole("calls-of-one-id", {"role": "assistant", "tool_calls": [A, A]}, "tool_calls", calls=(("call_a", "f", {"a": 1}), ("?", "f", {"a": 1})), finish="tools"),
    whole("empty-calls", {**PLAIN, "tool_calls": []}, text=HI),
    whole("refusal", {"role": "assistant", "content": None, "refusal": "No."}, refusal="No."),
    whole("reasoning", {**PLAIN, "reasoning": "Hm"}, text=HI, thought="Hm"),
    whole("reasoning-details", {**PLAIN, "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}, text=HI, thought="Hm"),
    whole("audio", {"role": "assistant", "content": None, "audio": {"id": "a", "data": "UklG", "transcript": HI, "expires_at": 1}}, text=HI),
    whole("annotations", {**PLAIN, "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a", "title": "A", "start_index": 0, "end_index": 2}}]}, text=HI, sources=("https://a",)),
    whole("two-choices", PLAIN, text=HI, body={"choices": [{"index": 0, "message": PLAIN, "finish_reason": "stop"}, {"index": 1, "message": {**PLAIN, "content": "other"}, "finish_reason": "length"}]}),
    whole("empty-text", {"role": "assistant", "content": ""}),
    whole("error", PLAIN, body={"error": {"message": "No.", "type": "server_error"}}, error=ErrorKind.UPSTREAM, message="No."),
    whole("no-choices", PLAIN, body={"choices": []}, error=ErrorKind.UPSTREAM),
]  # fmt: skip
