"""The simulators of OpenAI, Anthropic and Google, and the list of all."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import parse_qs

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import Anthropic, Gemini, OpenAIChat, OpenAIResponses
from asgi_aiproxy.testing import operations
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.bedrock import BedrockSimulator
from asgi_aiproxy.testing.cohere import CohereSimulator
from asgi_aiproxy.testing.ollama import OllamaSimulator
from asgi_aiproxy.testing.received import ReceivedRequest
from asgi_aiproxy.testing.reply import Reply
from asgi_aiproxy.testing.simulator import (
    DialectSimulator,
    RetryAfter,
    VendorSimulator,
    api_error,
    reason_phrase,
)


class OpenAISimulator(DialectSimulator):
    """OpenAI and vendors with the same API."""

    id_header: ClassVar = "x-request-id"
    required: ClassVar = operations.REQUIRED

    def __init__(self, received: ReceivedRequest, answer: Answer, models: Sequence[str]) -> None:
        super().__init__(received, answer, models)
        self.face = OpenAIChat(now=lambda: operations.CREATED, new_id=lambda: f"chatcmpl-{self.id}")

    def chat_reply(self, answer: Answer, *, stream: bool) -> Reply:
        """Return the reply to chat and to OpenAI's other operations."""
        if self.received.operation in ("chat", "token_count"):
            return super().chat_reply(answer, stream=stream)
        return operations.perform(self.received, answer, stream=stream)

    def model_entry(self, model: str) -> dict[str, Any]:
        """Return the description of a model."""
        return {"id": model, "object": "model", "created": operations.CREATED, "owned_by": "mock"}

    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the list of all models."""
        return {"object": "list", "data": rows}

    def missing_field_reply(self, name: str) -> Reply:
        """Return the response to a request without a required member."""
        message = f"Missing required parameter: '{name}'."
        error = api_error(400, message, param=name, code="missing_required_parameter")
        return Reply.whole(self.face.encode_error(error), status=400)

    def unauthorized(self) -> Reply:
        """Return the response to a request with a wrong key."""
        return self.error(401, "Incorrect API key provided.")

    def frame(self, data: bytes, index: int) -> bytes:
        """Return an event of the stream."""
        return b"data: " + data + b"\n\n"

    def reset(self, seconds: float) -> dict[str, str]:
        """Return durations; only the first of the two limits is exhausted."""
        span = f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"
        return {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": span,
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "6m0s",
        }


class OpenAIResponsesSimulator(OpenAISimulator):
    """OpenAI's Responses API."""

    required: ClassVar = {"chat": ("model", "input"), "token_count": ("model", "input")}

    def __init__(self, received: ReceivedRequest, answer: Answer, models: Sequence[str]) -> None:
        super().__init__(received, answer, models)
        self.face = OpenAIResponses(now=lambda: operations.CREATED, new_id=lambda: f"{self.id}")

    def frame(self, data: bytes, index: int) -> bytes:
        """Return an event of the stream, with its type as event name."""
        kind = _json.loads(data).get("type", "error")
        return b"event: %b\ndata: %b\n\n" % (str(kind).encode(), data)

    def broken(self, status: int, message: str, index: int) -> bytes:
        """Return an error event."""
        return self.face.encode_stream_error(api_error(status, message))


class AnthropicSimulator(DialectSimulator):
    """Anthropic."""

    overloaded: ClassVar = 529
    id_header: ClassVar = "request-id"
    required: ClassVar = {
        "chat": ("model", "max_tokens", "messages"),
        "token_count": ("model", "messages"),
    }

    def __init__(self, received: ReceivedRequest, answer: Answer, models: Sequence[str]) -> None:
        super().__init__(received, answer, models)
        self.face = Anthropic(new_id=lambda: f"msg_{self.id}")

    def events(self, answer: Answer) -> Iterator[bytes]:
        """Return the dialect's events, and Anthropic's ping among them."""
        for index, event in enumerate(super().events(answer)):
            yield event
            if index == 1:
                yield b'event: ping\ndata: {"type": "ping"}\n\n'

    def model_entry(self, model: str) -> dict[str, Any]:
        """Return the description of a model."""
        created = "2023-11-14T22:13:20Z"
        return {"type": "model", "id": model, "display_name": model, "created_at": created}

    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return all models on one page."""
        ids = [row["id"] for row in rows] or [None]
        return {"data": rows, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}

    def refuse(self, key: str | None) -> Reply | None:
        """Also refuse requests without `anthropic-version`."""
        refused = super().refuse(key)
        if refused is None and "anthropic-version" not in self.received.headers:
            return self.error(400, "anthropic-version: header is required")
        return refused

    def missing_field_reply(self, name: str) -> Reply:
        """Return the response to a request without a required member."""
        return self.error(400, f"{name}: Field required")

    def unauthorized(self) -> Reply:
        """Return the response to a request with a wrong key."""
        return self.error(401, "invalid x-api-key")

    def frame(self, data: bytes, index: int) -> bytes:
        """Return an event of the stream."""
        return b"event: content_block_delta\ndata: " + data + b"\n\n"

    def broken(self, status: int, message: str, index: int) -> bytes:
        """Return an error event."""
        return b"event: error\ndata: " + self.error_body(status, message) + b"\n\n"

    def reset(self, seconds: float) -> dict[str, str]:
        """Return timestamps; only the first of the two limits is exhausted."""
        now = time.time()
        return {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": _timestamp(now + seconds),
            "anthropic-ratelimit-tokens-limit": "400000",
            "anthropic-ratelimit-tokens-remaining": "399000",
            "anthropic-ratelimit-tokens-reset": _timestamp(now + 360),
        }


class GeminiSimulator(DialectSimulator):
    """Google: an event stream with CRLF for `alt=sse`, else a JSON array."""

    json_type = "application/json; charset=UTF-8"
    required: ClassVar = {"chat": ("contents",)}

    def __init__(self, received: ReceivedRequest, answer: Answer, models: Sequence[str]) -> None:
        super().__init__(received, answer, models)
        self.face = Gemini(new_id=lambda: self.id)
        self._array = "sse" not in parse_qs(received.query).get("alt", ())
        self.stream_type = self.json_type if self._array else "text/event-stream"

    def chat_reply(self, answer: Answer, *, stream: bool) -> Reply:
        """Chat, counts of tokens, and embeddings."""
        if self.received.operation == "embed":
            vectors = operations.gemini_embeddings(self.received, answer)
            return Reply.whole(_json.dumps(vectors), self.json_type)
        return super().chat_reply(answer, stream=stream)

    def events(self, answer: Answer) -> Iterator[bytes]:
        """Return the dialect's events in the requested form."""
        yield from super().events(answer)
        if self._array:
            yield b"\n]\n"

    def format_event(self, event: bytes, index: int) -> bytes:
        """Return one chunk."""
        return self.frame(event.removeprefix(b"data: ").removesuffix(b"\n\n"), index)

    def model_entry(self, model: str) -> dict[str, Any]:
        """Return the description of a model."""
        return {
            "name": f"models/{model}",
            "displayName": model,
            "supportedGenerationMethods": ["generateContent"],
        }

    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return all models on one page."""
        return {"models": rows}

    def missing_field_reply(self, name: str) -> Reply:
        """Return the response to a request without a required member."""
        return self.error(400, f"* GenerateContentRequest.{name}: {name} is not specified\n")

    def unauthorized(self) -> Reply:
        """Return status 400, where other vendors return 401."""
        detail = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        message = "API key not valid. Please pass a valid API key."
        return self._error(400, message, details=[detail])

    def error(
        self, status: int, message: str = "", *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Return an error response."""
        return self._error(status, message, headers=headers)

    def frame(self, data: bytes, index: int) -> bytes:
        """Return an event of the stream, or an item of the array."""
        if self._array:
            return (b",\r\n" if index else b"[") + data
        return b"data: " + data + b"\r\n\r\n"

    def broken(self, status: int, message: str, index: int) -> bytes:
        """Return an error among the chunks."""
        error = self.frame(self.error_body(status, message), index)
        return error + b"\n]\n" if self._array else error

    def rate_limited_reply(self, form: RetryAfter | None, seconds: float) -> Reply:
        """Return the time to wait in the body: Google has no headers for it."""
        if form not in ("reset", "body"):
            return super().rate_limited_reply(form, seconds)
        detail = {
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": f"{seconds:g}s",
        }
        message = f"You exceeded your current quota. Please retry in {seconds:g}s."
        return self._error(429, message, details=[detail])

    def reset(self, seconds: float) -> dict[str, str]:
        """Return no headers: Google has none."""
        return {}

    def _error(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Sequence[dict[str, Any]] = (),
    ) -> Reply:
        said = message or reason_phrase(status)
        body = _json.loads(self.error_body(status, said))
        if details:
            body["error"]["details"] = details
        if self._array and self.received.streamed:
            body = [body]  # in an array, the error is the only item
        return Reply.whole(_json.dumps(body), self.json_type, status=status, headers=headers)


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(math.ceil(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


SIMULATORS: dict[str, type[VendorSimulator]] = {
    "openai": OpenAISimulator,
    "openai_responses": OpenAIResponsesSimulator,
    "anthropic": AnthropicSimulator,
    "gemini": GeminiSimulator,
    "ollama": OllamaSimulator,
    "cohere": CohereSimulator,
    "bedrock": BedrockSimulator,
}
