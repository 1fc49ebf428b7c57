"""Google's Gemini API: generateContent. https://ai.google.dev/api/generate-content"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits
from typing import ClassVar
from urllib.parse import unquote

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Dialect, NewId, Operation, ProviderRequest, RequestSummary
from asgi_aiproxy.dialects.gemini import (
    errors,
    request_encoder,
    requests,
    responses,
    stream_encoder,
    streams,
)
from asgi_aiproxy.dialects.gemini.native_stream import GeminiNativeStream
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Framer, JSONArrayFramer, SSEFramer, encode_frame
from asgi_aiproxy.messages import Request, Response, fold

_MODELS = re.compile(r"/v1(?:beta\d?|alpha)?/models(?:/(?P<model>[^:?]+))?")
_PATH = re.compile(r"/v1(?:beta\d?|alpha)?/models/(?P<model>[^:?]+):(?P<method>[A-Za-z]+)")


def new_id() -> str:
    """An id for an answer or a call; Google gives calls none."""
    return f"call_{getrandbits(96):024x}"


class Gemini(Dialect):
    """Google's dialect. `new_id` is for tests that compare bytes."""

    name: ClassVar[str] = requests.NAME
    keepalive: ClassVar[bytes | None] = None  # its SDKs parse whatever comes
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
        if found["method"] not in ("generateContent", "streamGenerateContent"):
            return None
        stream = found["method"] == "streamGenerateContent"
        model = unquote(found["model"])
        return Operation("generateContent", path, model=model, stream=stream, chat=True)

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """The body's members; the path has told the rest."""
        fields = _parsing.fields(body)
        if "contents" not in fields:
            raise _parsing.missing_field_error("contents")
        return RequestSummary(operation.model, bool(operation.stream), fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a generateContent request; model and streaming are told by its path."""
        return requests.decode_request(operation, body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole answer."""
        return responses.encode_response(response, self._new_id())

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return errors.encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """An error frame."""
        return encode_frame(errors.encode_error(error))

    def encoder(self, request: Request) -> stream_encoder.Encoder:
        """A writer of chunks."""
        return stream_encoder.Encoder(new_id=self._new_id())

    def model_name(self, model: str) -> str:
        """The name without `models/`, with which Google's own lists and SDKs write it."""
        return model.removeprefix("models/")

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a generateContent request."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole answer: one chunk that is all of it."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        for candidate in _parsing.objects(answer.get("candidates")):
            if candidate.get("content") and not candidate.get("finishReason"):
                candidate["finishReason"] = "STOP"  # without a reason it is whole all the same
        decoder = self.decoder()
        return fold([*decoder.chunk(answer), *decoder.close()])

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error answer."""
        return errors.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A reader of chunks."""
        return streams.Decoder(self._new_id)

    def models_request(self) -> ProviderRequest:
        """GET /v1beta/models."""
        return ProviderRequest("/v1beta/models", {}, query="pageSize=1000")

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list."""
        names = _parsing.names(body, "models", "name")
        return tuple(name.removeprefix("models/") for name in names)

    def framer(self, media_type: str) -> Framer:
        """An event stream with `alt=sse`, else a JSON array."""
        return JSONArrayFramer() if media_type == "application/json" else SSEFramer()

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The request as it came, for the model's path."""
        query = "alt=sse" if stream else ""
        return ProviderRequest(request_encoder.path(model, stream=stream), fields, query=query)

    def native_stream(self, *, usage_wanted: bool, exact: bool) -> GeminiNativeStream:
        """A companion for an answer that passes through."""
        return GeminiNativeStream()


def _match_models(path: str) -> Operation | None:
    found = _MODELS.fullmatch(path)
    if found is None:
        return None
    if found["model"] is None:
        return Operation("models", path, body="none")
    return Operation("model", path, body="none", model=unquote(found["model"]))
