"""Anthropic's API: messages. https://docs.anthropic.com/en/api/messages"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._carriers import needles
from asgi_aiproxy.dialects.anthropic import (
    errors,
    request_encoder,
    requests,
    responses,
    stream_encoder,
    streams,
    token_count,
)
from asgi_aiproxy.dialects.anthropic.native_stream import AnthropicNativeStream
from asgi_aiproxy.dialects.base import (
    Dialect,
    NewId,
    Operation,
    ProviderRequest,
    RequestSummary,
    ToolNameRule,
)
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import Request, Response

_MESSAGES = Operation("messages", "/v1/messages", chat=True)
_COUNT = Operation(token_count.OPERATION, token_count.PATH, converts="token_count")
_POST = {operation.path: operation for operation in (_MESSAGES, _COUNT)}
_MODELS = Operation("models", "/v1/models", body="none")
_CARRIERS = needles(requests.NAME)
_PROBE = Operation("probe", "/", body="none")


def new_id() -> str:
    """A message id in Anthropic's format."""
    return f"msg_{getrandbits(96):024x}"


class Anthropic(Dialect):
    """Anthropic's dialect. `new_id` is replaced by tests that compare bytes."""

    name: ClassVar[str] = requests.NAME
    tool_names = ToolNameRule(re.compile("[a-zA-Z0-9_-]{1,128}"), 128)
    token_count_operation: ClassVar[str] = token_count.OPERATION
    clients_match_errors: ClassVar[bool] = True
    keepalive: ClassVar[bytes | None] = b'event: ping\ndata: {"type": "ping"}\n\n'
    request_headers: ClassVar[frozenset[str]] = frozenset({"anthropic-beta", "anthropic-version"})
    request_parameters: ClassVar[frozenset[str]] = frozenset({"beta"})
    client_headers: ClassVar[frozenset[bytes]] = frozenset({b"anthropic-version"})

    def __init__(self, *, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """Messages, their tokens, models, and HEAD /, by which clients look for the API."""
        if method == "POST":
            return _POST.get(path)
        if method == "HEAD":
            return _PROBE if path in ("", "/") else None
        if method == "GET" and path == "/v1/models":
            return _MODELS
        if method == "GET" and (model := unquote(path.partition("/v1/models/")[2])):
            known = path.startswith("/v1/models/")
            return Operation("model", path, body="none", model=model) if known else None
        return None

    def features(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """The betas."""
        betas = headers.get("anthropic-beta", "").split(",")
        return tuple(f"anthropic-beta: {name}" for beta in betas if (name := beta.strip()))

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model and streaming."""
        fields = _parsing.fields(body)
        _parsing.require_list(fields, "messages")
        stream = _parsing.member(fields, "stream", _parsing.flag)
        streamed = stream is True and operation.chat
        return RequestSummary(_parsing.read_model(fields), streamed, fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a message request."""
        return requests.decode_request(body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole message."""
        return responses.encode_response(response, self._new_id(), request.model)

    def encode_token_count(self, count: int) -> bytes:
        """Write a count of tokens."""
        return token_count.encode_count(count)

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return errors.encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write an error frame."""
        return encode_frame(errors.encode_error(error), b"error")

    def encoder(self, request: Request) -> stream_encoder.Encoder:
        """A new encoder of message streams."""
        return stream_encoder.Encoder(new_id=self._new_id(), model=request.model)

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a message request."""
        return request_encoder.encode_request(request)

    def encode_token_count_request(self, request: Request) -> ProviderRequest:
        """Write a request that counts tokens."""
        return token_count.encode_count_request(request)

    def decode_token_count(self, body: bytes) -> int:
        """Read a count of tokens."""
        return token_count.decode_count(body)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole message."""
        return responses.decode_response(body)

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        return errors.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A new decoder of message streams."""
        return streams.Decoder()

    def models_request(self) -> ProviderRequest:
        """GET /v1/models."""
        return ProviderRequest("/v1/models", {}, query="limit=1000")

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models."""
        return _parsing.names(body, "data", "id")

    def decode_display_names(self, body: bytes) -> Mapping[str, str]:
        """Read the names for people in the list of models."""
        return _parsing.titles(body, "data", "id", "display_name")

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The client's request, with `model` as its model, without other vendors' signatures."""
        body: dict[str, Any] = {**fields, "model": model}
        messages = bytes(fields.get("messages", b""))
        if any(needle in messages for needle in _CARRIERS):
            own = requests.without_carriers(messages)
            body["messages"] = body["messages"] if own is None else own
        return ProviderRequest(operation.path, body)

    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> AnthropicNativeStream:
        """A new observer for a response that passes through."""
        return AnthropicNativeStream()


ANTHROPIC_MESSAGES: Anthropic = Anthropic()
