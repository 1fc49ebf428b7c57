"""OpenAI's API: chat completions, and the paths of its other operations, which pass through or are
converted by `asgi_aiproxy.operations`.

https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from random import getrandbits
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import (
    Clock,
    Dialect,
    NativeStream,
    NewId,
    Operation,
    ProviderRequest,
    RequestSummary,
    ToolNameRule,
)
from asgi_aiproxy.dialects.openai_chat import (
    errors,
    request_encoder,
    requests,
    responses,
    schemas,
    stream_encoder,
    streams,
)
from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
    OpenAINativeStream,
)
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import Request, Response

# The default model that OpenAI documents for image requests without a model. (OpenAI has retired it
# and now requires the name of a model.)
_DEFAULT_IMAGE_MODEL = "dall-e-2"
_OPERATIONS = {
    "chat.completions": Operation("chat.completions", "/chat/completions", chat=True),
    "embeddings": Operation("embeddings", "/embeddings", converts="embeddings"),
    "moderations": Operation(
        "moderations",
        "/moderations",
        converts="moderation",
        default_model="omni-moderation-latest",
    ),
    "images.generations": Operation(
        "images.generations",
        "/images/generations",
        converts="images",
        default_model=_DEFAULT_IMAGE_MODEL,
    ),
    "images.edits": Operation(
        "images.edits",
        "/images/edits",
        body="form",
        converts="images",
        default_model="gpt-image-1.5",
    ),
    "images.variations": Operation(
        "images.variations", "/images/variations", body="form", default_model=_DEFAULT_IMAGE_MODEL
    ),
    "audio.speech": Operation("audio.speech", "/audio/speech", raw=True, converts="speech"),
    "audio.transcriptions": Operation(
        "audio.transcriptions", "/audio/transcriptions", body="form", converts="transcription"
    ),
    "audio.translations": Operation(
        "audio.translations", "/audio/translations", body="form", converts="transcription"
    ),
}
_POST = {"/v1" + operation.path: operation for operation in _OPERATIONS.values()}
_QUOTE = ord('"')
_MODELS = Operation("models", "/models", body="none")


def new_id() -> str:
    """A response id in OpenAI's format."""
    return f"chatcmpl-{getrandbits(128):032x}"


def split_provider(fields: Mapping[str, msgspec.Raw]) -> str:
    """The provider that the caller requested, if `provider` is a string.

    An object is OpenRouter's own parameter: it is left in place and passed on.
    """
    raw = fields.get("provider")
    if raw is None or memoryview(raw)[0] != _QUOTE:
        return ""
    return _parsing.member(fields, "provider", _parsing.text) or ""


class OpenAIChat(Dialect):
    """OpenAI's chat dialect. `now` and `new_id` are replaced by tests that compare bytes."""

    name: ClassVar[str] = requests.NAME
    tool_names = ToolNameRule(re.compile("[a-zA-Z0-9_-]{1,64}"), 64)
    keepalive: ClassVar[bytes | None] = b": keep-alive\n\n"
    request_headers: ClassVar[frozenset[str]] = frozenset(
        {"openai-beta", "x-client-request-id", "idempotency-key"}
    )

    def __init__(self, *, now: Clock = time.time, new_id: NewId = new_id) -> None:
        self._now = now
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """The operations of OpenAI's API reference, below `/v1`."""
        if method == "POST":
            return _POST.get(path)
        if method == "GET" and path == "/v1/models":
            return _MODELS
        if method == "GET" and path.startswith("/v1/models/"):
            model = unquote(path.removeprefix("/v1/models/"))
            return Operation("model", "/models", body="none", model=model) if model else None
        return None

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model, streaming, and the requested usage and provider."""
        fields = _parsing.fields(body)
        if operation.chat:
            _parsing.require_list(fields, "messages")
        stream = "stream" in fields and _parsing.member(fields, "stream", _parsing.flag)
        options = None
        if "stream_options" in fields:
            options = _parsing.member(fields, "stream_options", schemas.stream_options)
        return RequestSummary(
            model=_parsing.read_model(fields, operation.default_model),
            stream=stream is True,
            fields=fields,
            usage_wanted=bool(options and options.include_usage),
            provider=split_provider(fields) if "provider" in fields else "",
        )

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a chat request."""
        return requests.decode_request(body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole chat completion."""
        return responses.encode_response(response, int(self._now()), self._new_id(), request.model)

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return errors.encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write an error frame."""
        return encode_frame(errors.encode_error(error))

    def encoder(self, request: Request) -> stream_encoder.Encoder:
        """A new encoder of chunks."""
        return stream_encoder.Encoder(
            usage_wanted=request.stream_usage,
            created=int(self._now()),
            new_id=self._new_id(),
            model=request.model,
        )

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a chat request."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole chat completion."""
        return responses.decode_response(body)

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        return errors.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A new decoder of chunks."""
        return streams.Decoder()

    def models_request(self) -> ProviderRequest:
        """GET /models."""
        return ProviderRequest("/models", {})

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models; some vendors send it without an object around it."""
        if body.lstrip().startswith(b"["):
            body = b'{"data":' + body + b"}"
        return _parsing.names(body, "data", "id")

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The client's request, with `model` as its model and usage always requested."""
        body: dict[str, Any] = {**fields, "model": model}
        if "provider" in fields and split_provider(fields):
            del body["provider"]  # it selected the provider
        if stream and operation.chat:
            options = _json.loads(bytes(fields.get("stream_options", b"null")))
            given = options if isinstance(options, dict) else {}
            body["stream_options"] = {**given, "include_usage": True}
        return ProviderRequest(operation.path, body)

    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> NativeStream:
        """A new observer for a response that passes through."""
        if strict_format:
            return OpenAINativeStream(usage_wanted=usage_wanted)
        return NormalizingNativeStream(usage_wanted=usage_wanted, new_id=self._new_id())


OPENAI_CHAT: OpenAIChat = OpenAIChat()
