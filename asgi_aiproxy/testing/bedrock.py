"""The simulator of Amazon Bedrock's Converse, which the package decodes but never encodes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from zlib import crc32

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._parsing import parse_object
from asgi_aiproxy.messages import StopReason
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.reply import Reply
from asgi_aiproxy.testing.simulator import VendorSimulator, reason_phrase

_STOPS = {
    StopReason.LENGTH: "max_tokens",
    StopReason.TOOLS: "tool_use",
    StopReason.FILTER: "guardrail_intervened",
}
_EXCEPTIONS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


class BedrockSimulator(VendorSimulator):
    """Bedrock's Converse: binary events, each with two checksums."""

    id_header: ClassVar = "x-amzn-requestid"
    stream_type = "application/vnd.amazon.eventstream"
    required: ClassVar = {"chat": ("messages",)}

    def events(self, answer: Answer) -> Iterator[bytes]:
        """Numbered blocks, the reason of the end, and the usage."""
        yield self._event("messageStart", {"role": "assistant"})
        for index, (opening, deltas) in enumerate(_blocks(answer)):
            if opening:
                start = {"contentBlockIndex": index, "start": opening}
                yield self._event("contentBlockStart", start)
            for delta in deltas:
                more = {"contentBlockIndex": index, "delta": delta}
                yield self._event("contentBlockDelta", more)
            yield self._event("contentBlockStop", {"contentBlockIndex": index})
        yield self._event("messageStop", {"stopReason": _stop(answer)})
        yield self._event("metadata", {"usage": _usage(answer), "metrics": {"latencyMs": 1}})

    def _event(self, name: str, payload: Any) -> bytes:
        return _message({":event-type": name, ":message-type": "event"}, _json.dumps(payload))

    def body(self, answer: Answer) -> bytes:
        """A whole response."""
        content: list[dict[str, Any]] = []
        if answer.reasoning or answer.signature:
            reasoning = {"text": answer.reasoning}
            reasoning |= {"signature": answer.signature} if answer.signature else {}
            content.append({"reasoningContent": {"reasoningText": reasoning}})
        if text := answer.words or answer.refusal:
            content.append({"text": text})
        for call in answer.tool_calls:
            value = parse_object(call.arguments.encode()) or {}
            content.append({"toolUse": {"toolUseId": call.id, "name": call.name, "input": value}})
        message = {"role": "assistant", "content": content}
        return _json.dumps(
            {
                "output": {"message": message},
                "stopReason": _stop(answer),
                "usage": _usage(answer),
                "metrics": {"latencyMs": 1},
            }
        )

    def model_entry(self, model: str) -> dict[str, Any]:
        """The description of a model."""
        return {"modelId": model, "modelName": model, "providerName": "Mock"}

    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The list of models."""
        return {"modelSummaries": rows}

    def missing_field_reply(self, name: str) -> Reply:
        """The reply to a request without the member `name`."""
        return self.error(400, f"The {name} field is required.")

    def unauthorized(self) -> Reply:
        """The reply to a request without the right key."""
        kind = {"x-amzn-errortype": "UnrecognizedClientException"}
        return self.error(
            403, "The security token included in the request is invalid.", headers=kind
        )

    def error(
        self, status: int, message: str = "", *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """An error response, whose exception is named in a header."""
        kind = _EXCEPTIONS.get(status, "InternalServerException")
        return super().error(status, message, headers={"x-amzn-errortype": kind, **(headers or {})})

    def error_body(self, status: int, message: str) -> bytes:
        """The message alone."""
        return _json.dumps({"message": message})

    def frame(self, data: bytes, index: int) -> bytes:
        """An event without a meaning of its own."""
        return _message({":event-type": "chunk", ":message-type": "event"}, data)

    def broken(self, status: int, message: str, index: int) -> bytes:
        """An exception in the middle of a stream."""
        name = _EXCEPTIONS.get(status, "InternalServerException")
        headers = {
            ":exception-type": name[0].lower() + name[1:],
            ":message-type": "exception",
        }
        return _message(headers, self.error_body(status, message or reason_phrase(status)))

    def reset(self, seconds: float) -> dict[str, str]:
        """Bedrock documents no header for it; the common one is sent."""
        return {"retry-after": f"{seconds:g}"}


def _blocks(answer: Answer) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The start of each block, if it has one, and its deltas."""
    if answer.reasoning or answer.signature:
        thoughts = [{"text": piece} for piece in answer.cut(answer.reasoning)]
        signed = [{"signature": answer.signature}] if answer.signature else []
        yield {}, [{"reasoningContent": delta} for delta in (*thoughts, *signed)]
    if text := answer.words or answer.refusal:
        yield {}, [{"text": piece} for piece in answer.cut(text)]
    for call in answer.tool_calls:
        pieces = answer.cut(call.arguments or "{}")
        opening = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        yield opening, [{"toolUse": {"input": piece}} for piece in pieces]


def _stop(answer: Answer) -> str:
    stop = answer.stop or (StopReason.TOOLS if answer.tool_calls else StopReason.END)
    return _STOPS.get(stop, "end_turn")


def _usage(answer: Answer) -> dict[str, int]:
    usage = answer.usage
    cached = usage.cache_read + usage.cache_write
    return {
        "inputTokens": usage.input - cached,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    }


def _message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message of the binary event stream; see `asgi_aiproxy.dialects._event_stream`."""
    block = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value))
        + value.encode()
        for name, value in headers.items()
    )  # fmt: skip
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    body = prelude + struct.pack("!I", crc32(prelude)) + block + payload
    return body + struct.pack("!I", crc32(body))
