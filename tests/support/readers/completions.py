"""Reads legacy completions strictly. https://platform.openai.com/docs/api-reference/completions"""

from __future__ import annotations

import json
from typing import Any

from tests.support import chat_stream_reader as strict
from tests.support.readers.answer import Answer, filled, integer, string
from tests.support.readers.chat import FINISH, usage


def stream(data: bytes) -> Answer:
    """Read a stream."""
    chunks, done = strict.chunks_in(data)
    answer = Answer()
    if chunks and "error" in chunks[-1]:
        answer.error = chunks.pop()["error"]
    assert done == (answer.error is None)
    assert len({(c["id"], c["created"], c["model"]) for c in chunks}) <= 1
    for chunk in chunks:
        assert not answer.finish or not chunk["choices"]
        _read(answer, chunk)
    return answer


def whole(data: bytes) -> Answer:
    """Read a whole completion, or an error."""
    body = json.loads(data)
    if "error" in body:
        return Answer(error=body["error"])
    answer = Answer()
    _read(answer, body)
    assert answer.finish
    return answer


def _read(answer: Answer, body: dict[str, Any]) -> None:
    assert body["object"] == "text_completion"
    integer(body["created"])
    answer.id, answer.model = filled(body["id"]), string(body["model"])
    for choice in body["choices"]:
        assert choice["index"] == 0
        assert choice["logprobs"] is None
        answer.text += string(choice["text"])
        answer.finish = FINISH[choice["finish_reason"]] if choice["finish_reason"] else ""
    if body.get("usage"):
        answer.usage = usage(body["usage"])
