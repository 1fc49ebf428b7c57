"""OpenAI's Responses API. https://platform.openai.com/docs/api-reference/responses"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from random import getrandbits
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import (
    Clock,
    Dialect,
    NewId,
    Operation,
    ProviderRequest,
    RequestSummary,
    ToolNameRule,
)
from asgi_aiproxy.dialects.openai_chat.errors import decode_error, encode_error
from asgi_aiproxy.dialects.openai_responses import (
    compaction_items,
    paths,
    reasoning,
    request_encoder,
    requests,
    responses,
    stream_encoder,
    streams,
    token_count,
)
from asgi_aiproxy.dialects.openai_responses.native_stream import OpenAIResponsesNativeStream
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import Request, Response


def new_id() -> str:
    """Return the common part of the ids of a response and its items."""
    return f"{getrandbits(192):048x}"


class OpenAIResponses(Dialect):
    """The dialect of the Responses API. `now` and `new_id` are replaced by tests that compare
    bytes.
    """

    name: ClassVar[str] = NAME
    tool_names = ToolNameRule(re.compile("[a-zA-Z0-9_-]{1,64}"), 64)
    keeps_conversations: ClassVar[bool] = True
    token_count_operation: ClassVar[str] = token_count.OPERATION
    keepalive: ClassVar[bytes | None] = b": keep-alive\n\n"
    request_headers: ClassVar[frozenset[str]] = frozenset(
        {
            *("openai-beta", "x-client-request-id", "idempotency-key", "session-id", "thread-id"),
            # Codex: they go with members and items of the body.
            *("x-codex-beta-features", "x-openai-internal-codex-responses-lite"),
        }
    )

    def __init__(self, *, now: Clock = time.time, new_id: NewId = new_id) -> None:
        self._now = now
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """POST /v1/responses, and what there is below it."""
        return paths.match(method, path)

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model and streaming."""
        if operation.resource:
            return RequestSummary("", False, {})
        fields = _parsing.fields(body)
        stream = _parsing.member(fields, "stream", _parsing.flag)
        streamed = stream is True and operation.chat
        return RequestSummary(_parsing.read_model(fields), streamed, fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a request."""
        return requests.decode_request(body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole response."""
        return responses.encode_response(response, request, int(self._now()), self._new_id())

    def encode_token_count(self, count: int) -> bytes:
        """Write a count of tokens."""
        return token_count.encode_count(count)

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write an error event."""
        event = {"type": "error", "sequence_number": 0, **responses.error_event(error)}
        return encode_frame(_json.dumps(event), b"error")

    def encoder(self, request: Request) -> stream_encoder.Encoder:
        """A new encoder of events."""
        return stream_encoder.Encoder(request, created=int(self._now()), token=self._new_id())

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a request."""
        return request_encoder.encode_request(request)

    def encode_token_count_request(self, request: Request) -> ProviderRequest:
        """Write a request that counts tokens."""
        return token_count.encode_count_request(request)

    def decode_token_count(self, body: bytes) -> int:
        """Read a count of tokens."""
        return token_count.decode_count(body)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole response."""
        return responses.decode_response(body)

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        return decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A new decoder of events."""
        return streams.Decoder()

    def models_request(self) -> ProviderRequest:
        """GET /models."""
        return ProviderRequest("/models", {})

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models."""
        return _parsing.names(body, "data", "id")

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The client's request, with `model` as its model, without other vendors' signatures."""
        if operation.resource:
            return ProviderRequest(operation.path, {}, query=operation.query)
        body: dict[str, Any] = {**fields, "model": model}
        items = bytes(fields.get("input", b""))
        if any(needle in items for needle in reasoning.NEEDLES):
            own = reasoning.without_carriers(items)
            body["input"] = body["input"] if own is None else own
        if compaction_items.NEEDLE in items:
            known = body["input"]
            body["input"] = compaction_items.with_messages(
                known if isinstance(known, list) else items
            )
        return ProviderRequest(operation.path, body)

    def native_stream(
        self, *, usage_wanted: bool, strict_format: bool
    ) -> OpenAIResponsesNativeStream:
        """A new observer for a response that passes through."""
        return OpenAIResponsesNativeStream(strict_format=strict_format)


OPENAI_RESPONSES: OpenAIResponses = OpenAIResponses()
