"""Reads Anthropic's messages strictly.

A stream is `message_start`, blocks one after the other (start, deltas, stop; indexes from 0 on),
`message_delta`, `message_stop`. https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.readers.answer import Answer, events, filled, integer, string

FINISH = {
    "end_turn": "end",
    "stop_sequence": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "filter",
    "pause_turn": "other",
}
ERRORS = {
    *("invalid_request_error", "authentication_error", "permission_error", "not_found_error"),
    *("request_too_large", "rate_limit_error", "api_error", "overloaded_error", "timeout_error"),
}
# The deltas that a block may have, and the member that they lengthen.
DELTAS = {
    "text": {"text_delta": "text", "citations_delta": "citation"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial_json"},
    "server_tool_use": {"input_json_delta": "partial_json"},
}


def stream(data: bytes) -> Answer:
    """Read a stream."""
    answer = Answer()
    reader = _Stream(answer)
    for name, content in events(data):
        assert answer.error is None, "something follows the error"
        assert not reader.stopped, "something follows message_stop"
        event = json.loads(content)
        assert name == event["type"]
        getattr(reader, name)(event)
    assert reader.stopped == (answer.error is None)
    return answer


def whole(data: bytes) -> Answer:
    """Read a whole message, or an error."""
    body = json.loads(data)
    answer = Answer()
    if body["type"] == "error":
        answer.error = _error(body)
        return answer
    _head(answer, body)
    for block in body["content"]:
        _block(answer, block)
    _end(answer, body)
    answer.usage = usage(body["usage"])
    return answer


class _Stream:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.stopped = False
        self._usage: dict[str, Any] = {}
        self._begun = self._ended = False
        self._count = 0
        self._open: dict[str, Any] | None = None
        self._json = ""

    def ping(self, event: dict[str, Any]) -> None:
        assert event == {"type": "ping"}

    def message_start(self, event: dict[str, Any]) -> None:
        assert not self._begun
        self._begun = True
        message = event["message"]
        assert message["content"] == []
        assert message["stop_reason"] is None
        assert message["stop_sequence"] is None
        _head(self.answer, message)
        self._usage = dict(message["usage"])
        usage(self._usage)

    def content_block_start(self, event: dict[str, Any]) -> None:
        assert self._begun
        assert self._open is None, "blocks do not overlap"
        assert not self._ended
        assert event["index"] == self._count
        self._count += 1
        block = self._open = dict(event["content_block"])
        self._json = ""
        for member in ("text", "thinking"):
            assert not block.get(member), "text comes in deltas"
        if block["type"] == "tool_use":
            assert block["input"] == {}

    def content_block_delta(self, event: dict[str, Any]) -> None:
        assert self._open is not None
        assert event["index"] == self._count - 1
        delta = event["delta"]
        member = DELTAS[self._open["type"]][delta["type"]]
        assert delta.keys() == {"type", member}
        if member == "partial_json":
            self._json += string(delta[member])
        elif member == "citation":
            self._open.setdefault("citations", []).append(delta[member])
        elif member == "signature":
            assert not self._open["signature"] or self._open["signature"] == delta[member]
            self._open[member] = filled(delta[member])
        else:
            assert "signature" not in delta
            self._open[member] += string(delta[member])

    def content_block_stop(self, event: dict[str, Any]) -> None:
        assert self._open is not None
        assert event["index"] == self._count - 1
        if self._json:
            try:
                self._open["input"] = json.loads(self._json)
            except ValueError:  # a model was cut off in it
                self._open["input"] = self._json
        _block(self.answer, self._open)
        self._open = None

    def message_delta(self, event: dict[str, Any]) -> None:
        assert self._begun
        assert self._open is None
        assert not self._ended
        self._ended = True
        _end(self.answer, event["delta"])
        integer(event["usage"]["output_tokens"])
        self._usage |= {k: v for k, v in event["usage"].items() if v is not None}
        self.answer.usage = usage(self._usage)

    def message_stop(self, event: dict[str, Any]) -> None:
        assert event == {"type": "message_stop"}
        assert self._ended
        self.stopped = True

    def error(self, event: dict[str, Any]) -> None:
        self.answer.error = _error(event)
        if self._open is not None and self._open["type"] in ("text", "thinking"):
            _block(self.answer, self._open)


def _head(answer: Answer, message: dict[str, Any]) -> None:
    assert message["type"] == "message"
    assert message["role"] == "assistant"
    answer.id, answer.model = filled(message["id"]), string(message["model"])


def _block(answer: Answer, block: dict[str, Any]) -> None:
    match block["type"]:
        case "text":
            answer.text += string(block["text"])
            for citation in block.get("citations") or ():
                title = citation.get("title") or citation.get("document_title")
                answer.sources.append(citation.get("url") or string(title))
        case "thinking":
            answer.thought += string(block["thinking"])
            answer.signatures += [block["signature"]] if string(block["signature"]) else []
        case "redacted_thinking":
            answer.signatures.append(filled(block["data"]))
        case "tool_use":
            answer.calls.append((filled(block["id"]), string(block["name"]), block["input"]))
        case "server_tool_use":
            filled(block["id"])


def _end(answer: Answer, end: dict[str, Any]) -> None:
    answer.finish = FINISH[end["stop_reason"]]
    assert isinstance(end["stop_sequence"], str | None)
    details = end.get("stop_details")
    if details:
        assert details["type"] == "refusal"
        answer.refusal += details["explanation"] or ""


def usage(counts: dict[str, Any]) -> tuple[int, int, int, int]:
    """Read `usage`, whose input leaves out what the cache held."""
    read = integer(counts.get("cache_read_input_tokens") or 0)
    written = integer(counts.get("cache_creation_input_tokens") or 0)
    thought = (counts.get("output_tokens_details") or {}).get("thinking_tokens", 0)
    into, out = integer(counts["input_tokens"]), integer(counts["output_tokens"])
    assert min(into, out, read, written) >= 0
    return into + read + written, out, read, thought


def _error(event: dict[str, Any]) -> dict[str, Any]:
    assert event["type"] == "error"
    error: dict[str, Any] = event["error"]
    assert error["type"] in ERRORS
    filled(error["message"])
    return error
