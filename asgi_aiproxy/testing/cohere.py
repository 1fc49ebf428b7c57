"""The simulator of Cohere's chat API, which the package decodes but never encodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from asgi_aiproxy import _json
from asgi_aiproxy.messages import StopReason
from asgi_aiproxy.testing import operations
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.reply import Reply
from asgi_aiproxy.testing.simulator import VendorSimulator

_STOPS = {
    StopReason.LENGTH: "MAX_TOKENS",
    StopReason.TOOLS: "TOOL_CALL",
    StopReason.FILTER: "ERROR_TOXIC",
}


class CohereSimulator(VendorSimulator):
    """Cohere, version 2 of its API: named events, and text beside calls as their plan."""

    stream_type = "text/event-stream"
    required: ClassVar = {
        "chat": ("model", "messages"),
        "embed": ("model", "texts", "input_type"),
        "rerank": ("model", "query", "documents"),
    }

    def chat_reply(self, answer: Answer, *, stream: bool) -> Reply:
        """Chat, embeddings and rerank."""
        if self.received.operation in ("embed", "rerank"):
            found = operations.cohere_operation(self.received, answer)
            return Reply.whole(_json.dumps(found), self.json_type)
        return super().chat_reply(answer, stream=stream)

    def events(self, answer: Answer) -> Iterator[bytes]:
        """Blocks of content, a plan, calls, and the end."""
        empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
        yield self._event("message-start", {"message": empty}, id=self.id)
        text = answer.words or answer.refusal
        index = 0
        if answer.reasoning:
            yield from self._content(index, "thinking", answer.cut(answer.reasoning))
            index += 1
        if text and answer.tool_calls:
            for piece in answer.cut(text):
                yield self._event("tool-plan-delta", {"message": {"tool_plan": piece}})
        elif text:
            yield from self._content(index, "text", answer.cut(text))
        for number, call in enumerate(answer.tool_calls):
            function = {"name": call.name, "arguments": ""}
            opening = {"id": call.id, "type": "function", "function": function}
            yield self._event("tool-call-start", {"message": {"tool_calls": opening}}, index=number)
            for piece in answer.cut(call.arguments or "{}"):
                more = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
                yield self._event("tool-call-delta", more, index=number)
            yield self._event("tool-call-end", None, index=number)
        yield self._event("message-end", _end(answer))
        yield b"data: [DONE]\n\n"

    def _content(self, index: int, kind: str, pieces: list[str]) -> Iterator[bytes]:
        opening = {"message": {"content": {"type": kind, kind: ""}}}
        yield self._event("content-start", opening, index=index)
        for piece in pieces:
            more = {"message": {"content": {kind: piece}}}
            yield self._event("content-delta", more, index=index)
        yield self._event("content-end", None, index=index)

    def _event(self, kind: str, delta: Any, **members: Any) -> bytes:
        data = {"type": kind, **members, **({"delta": delta} if delta is not None else {})}
        return b"event: " + kind.encode() + b"\n" + self.frame(_json.dumps(data), 0)

    def body(self, answer: Answer) -> bytes:
        """A whole response."""
        message: dict[str, Any] = {"role": "assistant"}
        text = answer.words or answer.refusal
        content = [{"type": "thinking", "thinking": answer.reasoning}] if answer.reasoning else []
        if answer.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments or "{}"},
                }
                for call in answer.tool_calls
            ]
            if text:
                message["tool_plan"] = text
        elif text:
            content.append({"type": "text", "text": text})
        if content:
            message["content"] = content
        return _json.dumps({"id": self.id, "message": message, **_end(answer)})

    def model_entry(self, model: str) -> dict[str, Any]:
        """The description of a model."""
        return {"name": model, "endpoints": ["chat"], "finetuned": False, "context_length": 128_000}

    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The list of models."""
        return {"models": rows}

    def missing_field_reply(self, name: str) -> Reply:
        """The reply to a request without the member `name`."""
        return self.error(400, f"invalid request: {name} is required")

    def unauthorized(self) -> Reply:
        """The reply to a request without the right key."""
        return self.error(401, "invalid api token")

    def error_body(self, status: int, message: str) -> bytes:
        """An error with the request's id."""
        return _json.dumps({"id": self.id, "message": message})

    def frame(self, data: bytes, index: int) -> bytes:
        """An event."""
        return b"data: " + data + b"\n\n"

    def reset(self, seconds: float) -> dict[str, str]:
        """Cohere documents no header for it; the common one is sent."""
        return {"retry-after": f"{seconds:g}"}


def _end(answer: Answer) -> dict[str, Any]:
    stop = answer.stop or (StopReason.TOOLS if answer.tool_calls else StopReason.END)
    usage = {"input_tokens": answer.usage.input, "output_tokens": answer.usage.output}
    return {
        "finish_reason": _STOPS.get(stop, "COMPLETE"),
        "usage": {"billed_units": usage, "tokens": usage},
    }
