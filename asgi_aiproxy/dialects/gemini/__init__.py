"""Google's Gemini API: generateContent. https://ai.google.dev/api/generate-content"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits
from typing import ClassVar
from urllib.parse import unquote

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import (
    Dialect,
    NewId,
    Operation,
    ProviderRequest,
    RequestSummary,
    ToolNameRule,
)
from asgi_aiproxy.dialects.gemini import (
    carriers,
    errors,
    request_encoder,
    requests,
    responses,
    stream_encoder,
    streams,
    token_count,
)
from asgi_aiproxy.dialects.gemini.model_names import rename_model
from asgi_aiproxy.dialects.gemini.native_stream import GeminiNativeStream
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Framer, JSONArrayFramer, SSEFramer, encode_frame
from asgi_aiproxy.messages import Request, Response, fold

_MODELS = re.compile(r"/v1(?:beta\d?|alpha)?/models(?:/(?P<model>[^:?]+))?")
_METHODS = {
    "generateContent": Operation("generateContent", "", chat=True, stream=False),
    "streamGenerateContent": Operation("generateContent", "", chat=True, stream=True),
    "countTokens": Operation(token_count.OPERATION, "", converts="token_count"),
    "embedContent": Operation("embedContent", "", converts="embeddings"),
    "batchEmbedContents": Operation("batchEmbedContents", "", converts="embeddings"),
}
_REQUIRED = {
    "generateContent": ("contents",),
    "countTokens": ("contents", "generateContentRequest", "generate_content_request"),
    "embedContent": ("content",),
    "batchEmbedContents": ("requests",),
}
_PATH = re.compile(r"/v1(?:beta\d?|alpha)?/models/(?P<model>[^:?]+):(?P<method>[A-Za-z]+)")


def new_id() -> str:
    """An id for a response or a call. Google's calls have no ids."""
    return f"call_{getrandbits(96):024x}"


class Gemini(Dialect):
    """Google's dialect. `new_id` is replaced by tests that compare bytes."""

    name: ClassVar[str] = requests.NAME
    tool_names = ToolNameRule(re.compile("[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}"), 64)
    token_count_operation: ClassVar[str] = token_count.OPERATION
    keepalive: ClassVar[bytes | None] = None  # its SDKs parse every line
    client_headers: ClassVar[frozenset[bytes]] = frozenset(
        {b"x-goog-api-key", b"x-goog-api-client"}
    )

    def __init__(self, *, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """Methods of /v1beta/models/{model}, the list of models, and the same below /v1."""
        if method == "GET":
            return _match_models(path)
        found = _PATH.fullmatch(path)
        if method != "POST" or found is None:
            return None
        operation = _METHODS.get(found["method"])
        if operation is None:
            return None
        return msgspec.structs.replace(operation, path=path, model=unquote(found["model"]))

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read the members of the body; the path has model and streaming."""
        fields = _parsing.fields(body)
        required = _REQUIRED[operation.name]
        if not any(name in fields for name in required):
            raise _parsing.missing_field_error(required[0])
        return RequestSummary(operation.model, bool(operation.stream), fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a generateContent request, or one in a request to count its tokens."""
        if operation.converts == "token_count":
            return token_count.decode_count_request(operation.model, body)
        return requests.decode_request(operation, body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole response.

        Google's types allow no further members: only a client that requests a conversation gets it.
        """
        if request.conversation is None and response.conversation:
            response = msgspec.structs.replace(response, conversation="")
        return responses.encode_response(response, self._new_id(), request.model)

    def encode_token_count(self, count: int) -> bytes:
        """Write a count of tokens."""
        return token_count.encode_count(count)

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return errors.encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write an error frame."""
        return encode_frame(errors.encode_error(error))

    def encoder(self, request: Request) -> stream_encoder.Encoder:
        """A new encoder of chunks."""
        return stream_encoder.Encoder(
            new_id=self._new_id(),
            model=request.model,
            conversation=request.conversation is not None,
        )

    def model_name(self, model: str) -> str:
        """The name without the prefix `models/` of Google's lists and SDKs."""
        return model.removeprefix("models/")

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a generateContent request."""
        return request_encoder.encode_request(request)

    def encode_token_count_request(self, request: Request) -> ProviderRequest:
        """Write a request that counts tokens."""
        return token_count.encode_count_request(request)

    def decode_token_count(self, body: bytes) -> int:
        """Read a count of tokens."""
        return token_count.decode_count(body)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole response, which has the shape of a single chunk."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        for candidate in _parsing.objects(answer.get("candidates")):
            if candidate.get("content") and not candidate.get("finishReason"):
                candidate["finishReason"] = "STOP"  # complete without a reason
        decoder = self.decoder()
        return fold([*decoder.chunk(answer), *decoder.close()])

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        return errors.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A new decoder of chunks."""
        return streams.Decoder(self._new_id)

    def models_request(self) -> ProviderRequest:
        """GET /v1beta/models."""
        return ProviderRequest("/v1beta/models", {}, query="pageSize=1000")

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models."""
        names = _parsing.names(body, "models", "name")
        return tuple(name.removeprefix("models/") for name in names)

    def decode_display_names(self, body: bytes) -> Mapping[str, str]:
        """Read the names for people in the list of models."""
        found = _parsing.titles(body, "models", "name", "displayName")
        return {name.removeprefix("models/"): title for name, title in found.items()}

    def framer(self, media_type: str) -> Framer:
        """An event stream with `alt=sse`, else a JSON array."""
        return JSONArrayFramer() if media_type == "application/json" else SSEFramer()

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The client's request, at the path of `model`, without other vendors' signatures."""
        fields = carriers.own_members(fields)
        if not operation.chat:
            path = request_encoder.method_path(model, operation.name)
            return ProviderRequest(path, rename_model(fields, operation.model, model))
        query = "alt=sse" if stream else ""
        return ProviderRequest(request_encoder.path(model, stream=stream), fields, query=query)

    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> GeminiNativeStream:
        """A new observer for a response that passes through."""
        return GeminiNativeStream()


def _match_models(path: str) -> Operation | None:
    found = _MODELS.fullmatch(path)
    if found is None:
        return None
    if found["model"] is None:
        return Operation("models", path, body="none")
    return Operation("model", path, body="none", model=unquote(found["model"]))


GEMINI_CONTENT: Gemini = Gemini()
