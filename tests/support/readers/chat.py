"""Reads chat completions strictly. https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

import json
from typing import Any

from tests.support import chat_stream_reader as strict
from tests.support.readers.answer import Answer, arguments, filled, integer, string

FINISH = {"stop": "end", "length": "length", "tool_calls": "tools", "content_filter": "filter"}


def stream(data: bytes) -> Answer:
    """Read a stream. After an error there is no `[DONE]`, without one there is."""
    chunks, done = strict.chunks_in(data)
    answer = Answer()
    if chunks and "error" in chunks[-1]:
        answer.error = _error(chunks.pop())
    assert done == (answer.error is None)
    strict.read(chunks)
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        answer.id, answer.model = filled(chunk["id"]), chunk["model"]
        for choice in chunk["choices"]:
            assert choice["index"] == 0
            delta = choice["delta"]
            answer.text += delta.get("content") or ""
            answer.refusal += delta.get("refusal") or ""
            answer.thought += delta.get("reasoning_content") or ""
            _more(answer, delta)
            for call in delta.get("tool_calls", ()):
                known = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                known["id"] += call.get("id", "")
                known["name"] += call["function"].get("name", "")
                known["arguments"] += call["function"].get("arguments", "")
            if choice["finish_reason"] is not None:
                answer.finish = FINISH[choice["finish_reason"]]
        if chunk.get("usage"):
            answer.usage = usage(chunk["usage"])
    answer.calls = [(c["id"], c["name"], arguments(c["arguments"])) for c in calls.values()]
    assert answer.finish or answer.error is not None
    return answer


def whole(data: bytes) -> Answer:
    """Read a whole completion, or an error."""
    body = json.loads(data)
    if "error" in body:
        return Answer(error=_error(body))
    assert body["object"] == "chat.completion"
    integer(body["created"])
    (choice,) = body["choices"]
    assert choice["index"] == 0
    assert choice["logprobs"] is None
    message = choice["message"]
    assert message["role"] == "assistant"
    answer = Answer(
        id=filled(body["id"]),
        model=string(body["model"]),
        text=message["content"] or "",
        refusal=message["refusal"] or "",
        thought=message.get("reasoning_content") or "",
        finish=FINISH[choice["finish_reason"]],
    )
    _more(answer, message)
    assert message.get("tool_calls") != []
    for call in message.get("tool_calls", ()):
        assert call["type"] == "function"
        function = call["function"]
        answer.calls.append(
            (filled(call["id"]), string(function["name"]), arguments(function["arguments"]))
        )
    if "usage" in body:
        answer.usage = usage(body["usage"])
    return answer


def _more(answer: Answer, message: dict[str, Any]) -> None:
    for annotation in message.get("annotations", ()):
        cited = annotation["url_citation"]
        assert annotation["type"] == "url_citation"
        integer(cited["start_index"])
        integer(cited["end_index"])
        answer.sources.append(string(cited["url"]) or string(cited["title"]))
    for image in message.get("images", ()):
        answer.images.append(string(image["image_url"]["url"]).rpartition(",")[2])


def usage(counts: dict[str, Any]) -> tuple[int, int, int, int]:
    """Read `usage`, whose total is the sum."""
    into, out = integer(counts["prompt_tokens"]), integer(counts["completion_tokens"])
    assert counts["total_tokens"] == into + out
    cached = integer(counts["prompt_tokens_details"]["cached_tokens"])
    return into, out, cached, integer(counts["completion_tokens_details"]["reasoning_tokens"])


def _error(body: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = body["error"]
    filled(error["message"])
    filled(error["type"])
    assert error.keys() == {"message", "type", "param", "code"}
    return error
