"""Reads generateContent answers strictly; a stream is an event stream of answers without types.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.readers.answer import Answer, events, filled, integer, string

FINISH = {
    "STOP": "end",
    "MAX_TOKENS": "length",
    "SAFETY": "filter",
    "RECITATION": "filter",
    "LANGUAGE": "filter",
    "BLOCKLIST": "filter",
    "PROHIBITED_CONTENT": "filter",
    "SPII": "filter",
    "IMAGE_SAFETY": "filter",
    "OTHER": "other",
}
# Status words by code. https://cloud.google.com/apis/design/errors
STATUSES = {
    400: ("INVALID_ARGUMENT", "FAILED_PRECONDITION"),
    401: ("UNAUTHENTICATED",),
    403: ("PERMISSION_DENIED",),
    404: ("NOT_FOUND",),
    413: ("INVALID_ARGUMENT",),
    429: ("RESOURCE_EXHAUSTED",),
    500: ("INTERNAL",),
    502: ("INTERNAL",),
    503: ("UNAVAILABLE",),
    504: ("DEADLINE_EXCEEDED",),
}


def stream(data: bytes) -> Answer:
    """Read a stream: ids and models agree, and the last chunk has the finish reason."""
    answer = Answer()
    heads = set()
    for name, content in events(data):
        assert not name
        assert answer.error is None, "something follows the error"
        assert not answer.finish, "something follows the finish reason"
        chunk = json.loads(content)
        if "error" in chunk:
            answer.error = _error(chunk)
        else:
            heads.add((chunk["responseId"], chunk["modelVersion"]))
            _read(answer, chunk)
    assert len(heads) <= 1
    assert answer.finish or answer.error is not None
    return _called(answer)


def whole(data: bytes) -> Answer:
    """Read a whole answer, or an error."""
    body = json.loads(data)
    if "error" in body:
        return Answer(error=_error(body))
    answer = Answer()
    _read(answer, body)
    assert answer.finish
    return _called(answer)


def _called(answer: Answer) -> Answer:
    """Google ends with STOP also where functions are called."""
    if answer.finish == "end" and answer.calls:
        answer.finish = "tools"
    return answer


def _read(answer: Answer, chunk: dict[str, Any]) -> None:
    (candidate,) = chunk["candidates"]
    assert candidate["index"] == 0
    assert candidate["content"]["role"] == "model"
    answer.id, answer.model = filled(chunk["responseId"]), string(chunk["modelVersion"])
    for part in candidate["content"]["parts"]:
        if part.get("thoughtSignature"):
            answer.signatures.append(part["thoughtSignature"])
        _part(answer, part)
    for source in candidate.get("groundingMetadata", {}).get("groundingChunks", ()):
        cited = source["web"]
        answer.sources.append(cited.get("uri") or string(cited["title"]))
    if "finishReason" in candidate:
        answer.finish = FINISH[candidate["finishReason"]]
    answer.refusal += candidate.get("finishMessage", "")
    if "usageMetadata" in chunk:
        answer.usage = usage(chunk["usageMetadata"])


def _part(answer: Answer, part: dict[str, Any]) -> None:
    kinds = part.keys() - {"thought", "thoughtSignature"}
    assert len(kinds) == 1, part
    match part:
        case {"text": str(text), "thought": True}:
            answer.thought += text
        case {"text": str(text)}:
            answer.text += text
        case {"functionCall": call}:
            assert isinstance(call["args"], dict)
            answer.calls.append((filled(call["id"]), string(call["name"]), call["args"]))
        case {"inlineData": blob} if "thought" not in part:
            filled(blob["mimeType"])
            answer.images.append(filled(blob["data"]))


def usage(counts: dict[str, Any]) -> tuple[int, int, int, int]:
    """Read `usageMetadata`; candidates leave out thoughts, the total holds all."""
    into, said = integer(counts["promptTokenCount"]), integer(counts["candidatesTokenCount"])
    thought = integer(counts.get("thoughtsTokenCount", 0))
    assert counts["totalTokenCount"] == into + said + thought
    return into, said + thought, integer(counts.get("cachedContentTokenCount", 0)), thought


def _error(body: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = body["error"]
    filled(error["message"])
    assert error["status"] in STATUSES[integer(error["code"])], error
    return error
