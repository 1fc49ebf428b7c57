"""OpenAI's API: chat completions, and what only passes through (embeddings, images, audio …).

https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import getrandbits
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _read
from asgi_aiproxy.dialects.base import Clock, Dialect, Draft, Echo, Head, NewId, Operation
from asgi_aiproxy.dialects.openai_chat import request_encoder, requests, responses, streams, wire
from asgi_aiproxy.dialects.openai_chat.echo import Exact, Mending
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import Request, Response

# The models that OpenAI documents for requests which name none. (It has retired the one for images,
# and tells its callers to name one.)
_IMAGES = "dall-e-2"
_OPERATIONS = {
    "chat.completions": Operation("chat.completions", "/chat/completions", chat=True),
    "embeddings": Operation("embeddings", "/embeddings"),
    "moderations": Operation("moderations", "/moderations", default_model="omni-moderation-latest"),
    "images.generations": Operation(
        "images.generations", "/images/generations", default_model=_IMAGES
    ),
    "images.edits": Operation(
        "images.edits", "/images/edits", body="form", default_model="gpt-image-1.5"
    ),
    "images.variations": Operation(
        "images.variations", "/images/variations", body="form", default_model=_IMAGES
    ),
    "audio.speech": Operation("audio.speech", "/audio/speech", raw=True),
    "audio.transcriptions": Operation("audio.transcriptions", "/audio/transcriptions", body="form"),
    "audio.translations": Operation("audio.translations", "/audio/translations", body="form"),
}
_POST = {"/v1" + operation.path: operation for operation in _OPERATIONS.values()}
_TEXT = ord('"')
_MODELS = Operation("models", "/models", body="none")


def new_id() -> str:
    """An id as OpenAI's look."""
    return f"chatcmpl-{getrandbits(128):032x}"


def provider_of(fields: Mapping[str, msgspec.Raw]) -> str:
    """The caller's wish for a provider. An object in its place is OpenRouter's, and passes on."""
    raw = fields.get("provider")
    if raw is None or memoryview(raw)[0] != _TEXT:
        return ""
    return _read.member(fields, "provider", _read.text) or ""


class OpenAIChat(Dialect):
    """OpenAI's dialect. `now` and `new_id` are for tests that compare bytes."""

    name: ClassVar[str] = requests.NAME
    keepalive: ClassVar[bytes | None] = b": keep-alive\n\n"
    request_headers: ClassVar[frozenset[str]] = frozenset(
        {"openai-beta", "x-client-request-id", "idempotency-key"}
    )

    def __init__(self, *, now: Clock = time.time, new_id: NewId = new_id) -> None:
        self._now = now
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """Paths of the API reference, below `/v1`."""
        if method == "POST":
            return _POST.get(path)
        if method == "GET" and path == "/v1/models":
            return _MODELS
        if method == "GET" and path.startswith("/v1/models/"):
            model = unquote(path.removeprefix("/v1/models/"))
            return Operation("model", "/models", body="none", model=model) if model else None
        return None

    def head(self, operation: Operation, body: bytes) -> Head:
        """Read model, streaming, and the wishes for usage and provider."""
        fields = _read.fields(body)
        if operation.chat:
            _read.expect_list(fields, "messages")
        stream = _read.member(fields, "stream", _read.flag)
        options = _read.member(fields, "stream_options", wire.stream_options)
        return Head(
            model=_read.model_of(fields, operation.default_model),
            stream=stream is True,
            fields=fields,
            usage_wanted=bool(options and options.include_usage),
            provider=provider_of(fields),
        )

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a chat request."""
        return requests.decode_request(body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole chat completion."""
        return responses.encode_response(response, int(self._now()), self._new_id())

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return responses.encode_error(error)

    def encode_break(self, error: APIError) -> bytes:
        """An error frame."""
        return encode_frame(responses.encode_error(error))

    def encoder(self, request: Request) -> streams.Encoder:
        """A writer of chunks."""
        return streams.Encoder(
            usage_wanted=request.stream_usage, created=int(self._now()), new_id=self._new_id()
        )

    def encode_request(self, request: Request) -> Draft:
        """Write a chat request."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole chat completion."""
        return responses.decode_response(body)

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error answer."""
        return responses.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A reader of chunks."""
        return streams.Decoder()

    def list_request(self) -> Draft:
        """GET /models."""
        return Draft("/models", {})

    def decode_list(self, body: bytes) -> tuple[str, ...]:
        """Read the list."""
        return _read.names(body, "data", "id")

    def forward(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> Draft:
        """The request as it came, with the model's name and a wish for usage."""
        body: dict[str, Any] = {**fields, "model": model}
        if provider_of(fields):
            del body["provider"]  # that was for us
        if stream and operation.chat:
            options = _json.loads(bytes(fields.get("stream_options", b"null")))
            wished = options if isinstance(options, dict) else {}
            body["stream_options"] = {**wished, "include_usage": True}
        return Draft(operation.path, body)

    def echo(self, *, usage_wanted: bool, exact: bool) -> Echo:
        """A companion for an answer that passes through."""
        if exact:
            return Exact(usage_wanted=usage_wanted)
        return Mending(usage_wanted=usage_wanted, new_id=self._new_id())
