"""The simulator of Ollama's own API, which the package decodes but never encodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._parsing import parse_object
from asgi_aiproxy.messages import StopReason
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.reply import Reply
from asgi_aiproxy.testing.simulator import VendorSimulator

_AT = "2023-11-14T22:13:20Z"
_STOPS = {StopReason.LENGTH: "length"}


class OllamaSimulator(VendorSimulator):
    """Ollama: one JSON object per line, and tool calls in one piece, without ids."""

    json_type = "application/json; charset=utf-8"
    stream_type = "application/x-ndjson"
    required: ClassVar = {"chat": ("model",)}

    def events(self, answer: Answer) -> Iterator[bytes]:
        """One line per delta, and a last line that reports the end."""
        for piece in answer.cut(answer.reasoning):
            yield self._line({"content": "", "thinking": piece}, done=False)
        for piece in answer.cut(answer.words or answer.refusal):
            yield self._line({"content": piece}, done=False)
        if answer.tool_calls:
            yield self._line({"content": "", "tool_calls": _calls(answer)}, done=False)
        yield self._line({"content": ""}, **_end(answer))

    def body(self, answer: Answer) -> bytes:
        """The whole answer as one line."""
        message: dict[str, Any] = {"content": answer.words or answer.refusal}
        if answer.reasoning:
            message["thinking"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = _calls(answer)
        return self._line(message, **_end(answer)).rstrip()

    def model_entry(self, model: str) -> dict[str, Any]:
        """The description of a model in /api/tags."""
        return {
            "name": model,
            "model": model,
            "modified_at": _AT,
            "size": 1,
            "digest": "0" * 64,
            "details": {"format": "gguf", "family": "mock", "parameter_size": "1B"},
        }

    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The response of /api/tags."""
        return {"models": rows}

    def missing_field_reply(self, name: str) -> Reply:
        """The response to a request without a required member."""
        return self.error(400, f"{name} is required")

    def unauthorized(self) -> Reply:
        """The response to a request with a wrong key."""
        return self.error(401, "unauthorized")

    def error_body(self, status: int, message: str) -> bytes:
        """The body of an error, which is a string."""
        return _json.dumps({"error": message})

    def frame(self, data: bytes, index: int) -> bytes:
        """One line."""
        return data + b"\n"

    def reset(self, seconds: float) -> dict[str, str]:
        """Ollama documents no such header; the common one is used."""
        return {"retry-after": f"{seconds:g}"}

    def _line(self, message: dict[str, Any], **more: Any) -> bytes:
        head = {"model": self.received.model, "created_at": _AT}
        return _json.dumps({**head, "message": {"role": "assistant", **message}, **more}) + b"\n"


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"function": {"name": call.name, "arguments": parse_object(call.arguments.encode()) or {}}}
        for call in answer.tool_calls
    ]


def _end(answer: Answer) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": _STOPS.get(answer.stop or StopReason.END, "stop"),
        "total_duration": 2_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": answer.usage.input,
        "prompt_eval_duration": 1_000_000,
        "eval_count": answer.usage.output,
        "eval_duration": 1_000_000,
    }
