"""A client API of two vendors: requests in one vendor's format, answers in OpenAI's chunks.

Some paths of earlier gateways take the request of Anthropic's or Google's API and answer in the
format of OpenAI's chat completions. `NativeToChat` is an `InboundDialect` that reads with one
dialect and writes with the other, so that a `Shim` serves such a path like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, GEMINI_CONTENT, OPENAI_CHAT
from asgi_aiproxy.dialects.base import (
    Encoder,
    InboundDialect,
    NativeStream,
    Operation,
    ProviderRequest,
    RequestSummary,
)
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.messages import Request, Response
from asgi_aiproxy.shim import Shim


class NativeToChat(InboundDialect):
    """Reads requests with `source` at the path `/openai`, and writes OpenAI's chat format.

    The answer is a stream unless the request has `"stream": false`.
    """

    name: ClassVar[str] = OPENAI_CHAT.name
    keepalive: ClassVar[bytes | None] = OPENAI_CHAT.keepalive
    operation_name: ClassVar[str]

    def match(self, method: str, path: str) -> Operation | None:
        """POST /openai."""
        if (method, path.rstrip("/")) != ("POST", "/openai"):
            return None
        return Operation(self.operation_name, "/openai", chat=True)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole chat completion."""
        return OPENAI_CHAT.encode_response(response, request)

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return OPENAI_CHAT.encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write an error frame."""
        return OPENAI_CHAT.encode_stream_error(error)

    def encoder(self, request: Request) -> Encoder:
        """Return a new encoder of chunks."""
        return OPENAI_CHAT.encoder(request)

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """Not supported: no provider has this operation."""
        raise NotImplementedError(f"{self.name} is always translated")

    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> NativeStream:
        """Not supported: no provider has this operation."""
        raise NotImplementedError(f"{self.name} is always translated")


class AnthropicToChat(NativeToChat):
    """Anthropic's message requests, answered with OpenAI's chunks."""

    operation_name: ClassVar[str] = "anthropic_to_chat"

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model and streaming."""
        head = ANTHROPIC_MESSAGES.summarize(operation, body)
        return msgspec.structs.replace(head, stream=_streams(head.fields))

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a message request."""
        return ANTHROPIC_MESSAGES.decode_request(operation, body)


class GeminiToChat(NativeToChat):
    """Google's generateContent requests with a `model` in the body, answered with chunks.

    `default_model` is used for a request without a model.
    """

    operation_name: ClassVar[str] = "gemini_to_chat"

    def __init__(self, default_model: str) -> None:
        self._default = default_model

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model and streaming."""
        source = self._source(body)
        head = GEMINI_CONTENT.summarize(source, body)
        return msgspec.structs.replace(head, stream=_streams(head.fields))

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a generateContent request."""
        fields = _json.loads(body)
        for name in ("model", "stream"):
            fields.pop(name, None)
        return GEMINI_CONTENT.decode_request(self._source(body), _json.dumps(fields))

    def _source(self, body: bytes) -> Operation:
        try:
            model = msgspec.json.decode(body, type=_Model).model or self._default
        except msgspec.DecodeError as error:
            raise invalid(f"The request body is invalid: {error}.") from error
        except RecursionError:
            raise invalid("The request body is nested too deeply.") from None
        path = f"/v1beta/models/{model.removeprefix('models/')}:streamGenerateContent"
        found = GEMINI_CONTENT.match("POST", path)
        if found is None:
            raise invalid("model: must be the name of a model.", "model")
        return found


class _Model(msgspec.Struct):
    model: str = ""


def _streams(fields: Mapping[str, msgspec.Raw]) -> bool:
    return bytes(fields.get("stream", b"true")).strip() != b"false"


class AnthropicChatShim(Shim):
    """Serves POST /openai: Anthropic's requests, OpenAI's chunks."""

    faces = (AnthropicToChat(),)


def gemini_chat_shim(default_model: str) -> type[Shim]:
    """Return a shim class for POST /openai: Google's requests, OpenAI's chunks."""
    return type("GeminiChatShim", (Shim,), {"faces": (GeminiToChat(default_model),)})
