# ruff: noqa: E501 (a case a line)
"""Google's generateContent, on the Gemini API and on Vertex AI."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data, sse

HI = "Hi there"
COUNTS = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}
COUNTED = (9, 4, 0, 0)
HEAD = {"modelVersion": "m", "responseId": "r1"}


def candidate(*parts: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if finish is not None:
        found["finishReason"] = finish
    return {**found, "index": 0, **more}


def chunk(*parts: Any, finish: Any = None, usage: Any = COUNTS, **more: Any) -> dict[str, Any]:
    """A chunk with one candidate, whose further members are `more`."""
    counted = {"usageMetadata": usage} if usage is not None else {}
    return {"candidates": [candidate(*parts, finish=finish, **more)], **counted, **HEAD}


def text(piece: str, **more: Any) -> dict[str, Any]:
    return {"text": piece, **more}


START = (chunk(text("Hi")), chunk(text(" there")))
END = chunk(text(""), finish="STOP")
F = {"functionCall": {"name": "f", "args": {"a": 1}}}


def stream(name: str, *events: Any, raw: bytes | None = None, **means: Any) -> Case:
    body = sse(*events) if raw is None else raw
    means = {"usage": None if means.get("error") else COUNTED, **means}
    return Case(dialect="gemini", name=name, data=body, stream=True, **means)


def said(name: str, *events: Any, **means: Any) -> Case:
    return stream(name, *events, **{"text": HI, **means})


def called(name: str, *events: Any, **means: Any) -> Case:
    means = {"calls": (("?", "f", {"a": 1}),), "finish": "tools", **means}
    return stream(name, *events, **means)


def array(name: str, body: bytes, **means: Any) -> Case:
    """A stream without `alt=sse`."""
    means = {"usage": None if means.get("error") else COUNTED, "native": False, **means}
    return Case(
        dialect="gemini",
        name=f"array-{name}",
        data=body,
        stream=True,
        media_type="application/json",
        **means,
    )


def whole(name: str, *parts: Any, more: Any = None, **means: Any) -> Case:
    return Case(
        dialect="gemini",
        name=f"whole-{name}",
        data=data(chunk(*parts, finish="STOP", **(more or {}))),
        stream=False,
        media_type="application/json",
        **{"usage": COUNTED, **means},
    )


BYTES = sse(*START, END)
GROUND = {
    "webSearchQueries": ["q"],
    "searchEntryPoint": {"renderedContent": "<div>"},
    "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
    "groundingSupports": [{"segment": {"endIndex": 2, "text": "Hi"}, "groundingChunkIndices": [0]}],
}
BLOCKED = {
    "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
    "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    **HEAD,
}
RATINGS = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
DENIED = {"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}

CASES = [
    # framing
    said("plain", *START, END),
    said("crlf", raw=BYTES.replace(b"\n", b"\r\n")),
    said("cr", raw=BYTES.replace(b"\n", b"\r")),
    said("bom", raw=b"\xef\xbb\xbf" + BYTES),
    said("comments", b": x\n\n", *START, b": y\n\n", END),
    said("no-space-after-colon", raw=BYTES.replace(b"data: ", b"data:")),
    said("no-blank-line-at-the-end", raw=BYTES.rstrip(b"\n")),
    said("pretty-json-over-lines", raw=b"".join(b"data: {\ndata:  " + data(e)[1:-1] + b"\ndata: }\n\n" for e in (*START, END))),
    said("done-at-the-end", *START, END, b"data: [DONE]\n\n"),
    said("keepalive-words", b"data: ping\n\n", *START, END),
    said("spaces-in-json", raw=BYTES.replace(b'":', b'": ').replace(b',"', b', "')),
    said("unicode", chunk(text("世")), chunk(text("🚀\u2028")), END, text="世🚀\u2028"),
    said("escaped-less-than", b'data: {"candidates":[{"content":{"parts":[{"text":"\\u003cb\\u003e"}],"role":"model"},"index":0}],"modelVersion":"m","responseId":"r1"}\n\n', END, text="<b>"),
    said("finish-words-in-text", chunk(text('"finishReason":"SAFETY" {"error":{}}')), END, text='"finishReason":"SAFETY" {"error":{}}'),
    # members that are missing, null or of another kind
    said("no-index", *[{**e, "candidates": [{k: v for k, v in e["candidates"][0].items() if k != "index"}]} for e in (*START, END)]),
    said("no-role", {**HEAD, "candidates": [{"content": {"parts": [text(HI)]}}]}, END),
    said("no-head", *[{k: v for k, v in e.items() if k not in HEAD} for e in (*START, END)]),
    said("no-usage", *[{k: v for k, v in e.items() if k != "usageMetadata"} for e in (*START, END)], usage=None),
    said("usage-in-the-last-only", chunk(text(HI), usage=None), END),
    said("usage-after-the-finish", chunk(text(HI), finish="STOP", usage=None), {"usageMetadata": COUNTS, **HEAD}),
    said("usage-traffic-type-alone", chunk(text("Hi"), usage={"trafficType": "ON_DEMAND"}), chunk(text(" there"), finish="STOP")),
    said("usage-grows", chunk(text("Hi"), usage={"promptTokenCount": 9, "totalTokenCount": 9}), chunk(text(" there"), usage={**COUNTS, "candidatesTokenCount": 1}), END),
    said("usage-cached-and-thoughts", *START, chunk(finish="STOP", usage={**COUNTS, "candidatesTokenCount": 1, "thoughtsTokenCount": 3, "cachedContentTokenCount": 5}), usage=(9, 4, 5, 3)),
    said("usage-tool-prompt", *START, chunk(finish="STOP", usage={"promptTokenCount": 7, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 4, "totalTokenCount": 13})),
    said("usage-details-null", *START, chunk(finish="STOP", usage={**COUNTS, "promptTokensDetails": None, "candidatesTokensDetails": [{"modality": "TEXT"}]})),
    said("no-content-at-the-end", *START, {**HEAD, "candidates": [{"finishReason": "STOP", "index": 0}], "usageMetadata": COUNTS}),
    said("content-without-parts", *START, {**HEAD, "candidates": [{"content": {"role": "model"}, "finishReason": "STOP", "index": 0}], "usageMetadata": COUNTS}),
    said("content-null", *START, {**HEAD, "candidates": [{"content": None, "finishReason": "STOP"}], "usageMetadata": COUNTS}),
    said("parts-null", *START, {**HEAD, "candidates": [{"content": {"parts": None}, "finishReason": "STOP"}], "usageMetadata": COUNTS}),
    said("candidates-null", {**HEAD, "candidates": None}, *START, END),
    said("candidates-empty", {**HEAD, "candidates": []}, *START, END),
    said("finish-null", *[chunk(text(t), finishReason=None) for t in ("Hi", " there")], END),
    said("finish-with-the-last-text", chunk(text("Hi")), chunk(text(" there"), finish="STOP")),
    said("finish-in-every-chunk", chunk(text("Hi"), finish="STOP"), chunk(text(" there"), finish="STOP")),
    said("finish-unspecified-until-the-end", chunk(text("Hi"), finish="FINISH_REASON_UNSPECIFIED"), chunk(text(" there"), finish="STOP")),
    said("text-null", chunk({"text": None}), *START, END),
    said("empty-texts", chunk(text("")), *START, chunk(text("")), END),
    said("two-parts-in-one", chunk(text("Hi"), text(" there")), END),
    said("second-candidate", {**HEAD, "candidates": [candidate(text(HI)), candidate(text("other"), index=1)]}, END),
    said("second-candidate-first", {**HEAD, "candidates": [candidate(text("other"), index=1, finish="MAX_TOKENS")]}, *START, END),
    said("unknown-members", *[{**e, "createTime": "2026-01-01T00:00:00Z", "modelStatus": {"modelStage": "STABLE"}} for e in START], chunk(finish="STOP", avgLogprobs=-0.1, logprobsResult={}, safetyRatings=RATINGS, tokenCount=4)),
    said("snake-case-parts", chunk(text(HI)), chunk({"video_metadata": {}}), END),
    said("prompt-feedback-not-blocked", {**chunk(text("Hi")), "promptFeedback": {"safetyRatings": RATINGS}}, START[1], END),
    # ends
    said("max-tokens", *START, chunk(finish="MAX_TOKENS"), finish="length"),
    stream("max-tokens-without-text", chunk(finish="MAX_TOKENS"), finish="length"),
    said("safety-midway", *START, {**HEAD, "candidates": [{"finishReason": "SAFETY", "index": 0, "safetyRatings": RATINGS}], "usageMetadata": COUNTS}, finish="filter"),
    said("recitation", *START, chunk(finish="RECITATION", citationMetadata={"citationSources": [{"startIndex": 0, "endIndex": 2, "uri": "https://a", "license": ""}]}), finish="filter", sources=("https://a",)),
    said("citation-metadata", *START, chunk(finish="STOP", citationMetadata={"citations": [{"startIndex": 0, "endIndex": 2, "uri": "https://a", "title": "A"}]}), sources=("https://a",)),
    said("blocklist", *START, chunk(finish="BLOCKLIST"), finish="filter"),
    said("language", *START, chunk(finish="LANGUAGE", finishMessage="Unsupported language."), finish="filter", refusal="Unsupported language."),
    stream("prompt-blocked", BLOCKED, finish="filter", usage=(9, 0, 0, 0), refusal="The prompt was blocked by Google (PROHIBITED_CONTENT)."),
    stream("prompt-blocked-with-candidates", {**BLOCKED, "candidates": []}, finish="filter", usage=(9, 0, 0, 0), refusal="The prompt was blocked by Google (PROHIBITED_CONTENT)."),
    said("malformed-call-after-text", *START, chunk(finish="MALFORMED_FUNCTION_CALL", finishMessage="Malformed: f("), finish="other"),
    stream("malformed-call", chunk(finish="MALFORMED_FUNCTION_CALL", finishMessage="Malformed: f("), error=ErrorKind.UPSTREAM, message="MALFORMED_FUNCTION_CALL"),
    stream("unexpected-call", chunk(finish="UNEXPECTED_TOOL_CALL"), error=ErrorKind.UPSTREAM),
    stream("no-image", chunk(finish="NO_IMAGE"), error=ErrorKind.UPSTREAM),
    stream("unknown-finish", chunk(finish="NEWS"), error=ErrorKind.UPSTREAM),
    said("unknown-finish-after-text", *START, chunk(finish="NEWS"), finish="other"),
    stream("nothing", END),
    # thoughts, signatures
    said("thought", chunk(text("Hm", thought=True)), *START, END, thought="Hm"),
    said("thought-false", chunk(text("Hi", thought=False)), chunk(text(" there", thought=False)), END),
    said("thought-and-text-in-one", chunk(text("Hm", thought=True), text(HI)), END, thought="Hm"),
    said("thought-after-text", START[0], chunk(text("Hm", thought=True)), START[1], END, thought="Hm"),
    said("signature-on-text", START[0], chunk(text(" there", thoughtSignature="c2ln")), END),
    said("signature-on-empty-text", *START, chunk(text("", thoughtSignature="c2ln"), finish="STOP")),
    said("signature-without-text", *START, chunk({"thoughtSignature": "c2ln"}, finish="STOP")),
    said("signature-empty", chunk(text(HI, thoughtSignature="")), END),
    stream("thought-alone", chunk(text("Hm", thought=True), finish="MAX_TOKENS"), thought="Hm", finish="length"),
    # sources, code, pictures
    said("grounding", *START, chunk(finish="STOP", groundingMetadata=GROUND), sources=("https://a",)),
    said("grounding-in-every-chunk", chunk(text("Hi"), groundingMetadata={"webSearchQueries": ["q"]}), chunk(text(" there"), groundingMetadata=GROUND), END, sources=("https://a",)),
    said("grounding-without-supports", *START, chunk(finish="STOP", groundingMetadata={"groundingChunks": GROUND["groundingChunks"]}), sources=("https://a",)),
    said("grounding-of-documents", *START, chunk(finish="STOP", groundingMetadata={"groundingChunks": [{"retrievedContext": {"uri": "gs://b/d", "title": "D", "text": "x"}}, {"maps": {"uri": "https://maps", "title": "P"}}]}), sources=("gs://b/d", "https://maps")),
    said("grounding-null", *START, chunk(finish="STOP", groundingMetadata={"groundingChunks": None, "groundingSupports": None})),
    said("grounding-odd-index", *START, chunk(finish="STOP", groundingMetadata={**GROUND, "groundingSupports": [{"segment": None, "groundingChunkIndices": [0, 5]}, {}]}), sources=("https://a",)),
    said("url-context", *START, chunk(finish="STOP", urlContextMetadata={"urlMetadata": [{"retrievedUrl": "https://a", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"}]})),
    said("code-execution", chunk({"executableCode": {"language": "PYTHON", "code": "1+1"}}), chunk({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}}), *START, END),
    said("server-tool", chunk({"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {}, "id": "t1"}, "thoughtSignature": "c2ln"}), chunk({"toolResponse": {"id": "t1", "response": {}}}), *START, END),
    said("image", *START, chunk({"inlineData": {"mimeType": "image/png", "data": "iVBO"}}), END, images=("iVBO",)),
    said("image-of-a-thought", chunk({"inlineData": {"mimeType": "image/png", "data": "iVBO"}, "thought": True}), *START, END),
    said("unknown-part", chunk({"newsData": {"x": 1}}), *START, END),
    # calls
    called("call", chunk(F, finish="STOP")),
    called("call-then-finish", chunk(F), END),
    called("call-with-id", chunk({"functionCall": {"id": "x1", "name": "f", "args": {"a": 1}}}), END, calls=(("x1", "f", {"a": 1}),)),
    called("call-id-empty", chunk({"functionCall": {"id": "", "name": "f", "args": {"a": 1}}}), END),
    called("call-args-null", chunk({"functionCall": {"name": "f", "args": None}}), END, calls=(("?", "f", {}),)),
    called("call-args-missing", chunk({"functionCall": {"name": "f"}}), END, calls=(("?", "f", {}),)),
    called("call-args-text", chunk({"functionCall": {"name": "f", "args": '{"a":1}'}}), END),
    called("calls-in-one-chunk", chunk(F, {"functionCall": {"name": "g", "args": {}}}), END, calls=(("?", "f", {"a": 1}), ("?", "g", {}))),
    called("calls-in-chunks", chunk(F), chunk(F), END, calls=(("?", "f", {"a": 1}), ("?", "f", {"a": 1}))),
    called("calls-of-one-id", chunk({"functionCall": {"id": "x1", "name": "f", "args": {"a": 1}}}), chunk({"functionCall": {"id": "x1", "name": "f", "args": {"a": 1}}}), END, calls=(("x1", "f", {"a": 1}), ("?", "f", {"a": 1}))),
    called("call-signed", chunk({**F, "thoughtSignature": "c2ln"}), END),
    called("call-thought", chunk(text("Hm", thought=True)), chunk(F), END, thought="Hm"),
    called("call-after-text", *START, chunk(F, finish="STOP"), text=HI),
    called("text-after-call", chunk(F), *START, END, text=HI),
    called("call-with-max-tokens", chunk(F, finish="MAX_TOKENS"), finish="length"),
    # errors
    stream("error-instead", DENIED, error=ErrorKind.LIMITED, message="Quota"),
    stream("error-midway", *START, {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE", "details": None}}, text=HI, error=ErrorKind.OVERLOADED, message="Overloaded"),
    stream("error-as-text", *START, {"error": "No."}, text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-event", *START, b'event: error\ndata: {"error": {"code": 500, "message": "No.", "status": "INTERNAL"}}\n\n', text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("error-bare", *START, data({"error": {"code": 500, "message": "No.", "status": "INTERNAL"}}), text=HI, error=ErrorKind.UPSTREAM, message="No."),
    stream("cut-off", *START, text=HI, error=ErrorKind.UPSTREAM),
    stream("cut-off-in-chunk", *START, b'data: {"candi', text=HI, error=ErrorKind.UPSTREAM),
    stream("no-candidates", {"usageMetadata": COUNTS, **HEAD}, error=ErrorKind.UPSTREAM),
    stream("empty", raw=b"", error=ErrorKind.UPSTREAM),
    # without alt=sse
    array("plain", b"[" + b"\n,\r\n".join(map(data, (*START, END))) + b"]", text=HI),
    array("pretty", b"[\n  " + b",\n  ".join(map(data, (*START, END))) + b"\n]\n", text=HI),
    array("error", data([DENIED]), error=ErrorKind.LIMITED, message="Quota"),
    array("cut-off", b"[" + b",".join(map(data, START)), text=HI, error=ErrorKind.UPSTREAM),
    # whole answers
    whole("plain", text(HI), text=HI),
    whole("thoughts", text("Hm", thought=True), text(HI), text=HI, thought="Hm"),
    whole("call", F, calls=(("?", "f", {"a": 1}),), finish="tools"),
    whole("calls", {"functionCall": {"name": "f", "args": None}}, F, calls=(("?", "f", {}), ("?", "f", {"a": 1})), finish="tools"),
    whole("grounding", text(HI), more={"groundingMetadata": GROUND}, text=HI, sources=("https://a",)),
    whole("image", text(HI), {"inlineData": {"mimeType": "image/png", "data": "iVBO"}}, text=HI, images=("iVBO",)),
    whole("nulls", text(HI), text=HI, more={"safetyRatings": None, "groundingMetadata": None, "finishMessage": None}),
    Case(dialect="gemini", name="whole-blocked", data=data(BLOCKED), stream=False, media_type="application/json", finish="filter", usage=(9, 0, 0, 0), refusal="The prompt was blocked by Google (PROHIBITED_CONTENT)."),
    Case(dialect="gemini", name="whole-error", data=data(DENIED), stream=False, media_type="application/json", error=ErrorKind.LIMITED, message="Quota"),
    Case(dialect="gemini", name="whole-malformed-call", data=data(chunk(finish="MALFORMED_FUNCTION_CALL")), stream=False, media_type="application/json", error=ErrorKind.UPSTREAM),
    Case(dialect="gemini", name="whole-no-candidates", data=data({"usageMetadata": COUNTS, **HEAD}), stream=False, media_type="application/json", error=ErrorKind.UPSTREAM),
    Case(dialect="gemini", name="whole-length", data=data(chunk(text(HI), finish="MAX_TOKENS")), stream=False, media_type="application/json", text=HI, finish="length", usage=COUNTED),
]  # fmt: skip
