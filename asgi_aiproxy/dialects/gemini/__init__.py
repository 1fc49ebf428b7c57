"""Google's Gemini API: generateContent. https://ai.google.dev/api/generate-content"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits
from typing import ClassVar
from urllib.parse import unquote

import msgspec

from asgi_aiproxy.dialects import _read
from asgi_aiproxy.dialects.base import Dialect, Draft, Head, NewId, Operation
from asgi_aiproxy.dialects.gemini import request_encoder, requests, responses, streams
from asgi_aiproxy.dialects.gemini.echo import Echo
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Framer, JSONArrayFramer, SSEFramer, encode_frame
from asgi_aiproxy.messages import Request, Response, fold

_PATH = re.compile(r"/v1(?:beta\d?|alpha)?/models/(?P<model>[^:?]+):(?P<method>[A-Za-z]+)")


def new_id() -> str:
    """An id for an answer or a call; Google gives calls none."""
    return f"call_{getrandbits(96):024x}"


class Gemini(Dialect):
    """Google's dialect. `new_id` is for tests that compare bytes."""

    name: ClassVar[str] = requests.NAME
    keepalive: ClassVar[bytes | None] = None  # its SDKs parse whatever comes

    def __init__(self, *, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """POST /v1beta/models/{model}:generateContent, also streamed, and /v1."""
        found = _PATH.fullmatch(path)
        if method != "POST" or found is None:
            return None
        if found["method"] not in ("generateContent", "streamGenerateContent"):
            return None
        stream = found["method"] == "streamGenerateContent"
        model = unquote(found["model"])
        return Operation("generateContent", path, model=model, stream=stream, chat=True)

    def head(self, operation: Operation, body: bytes) -> Head:
        """The body's members; the path has told the rest."""
        fields = _read.fields(body)
        if "contents" not in fields:
            raise _read.required("contents")
        return Head(operation.model, bool(operation.stream), fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a generateContent request; model and streaming are told by its path."""
        return requests.decode_request(operation, body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole answer."""
        return responses.encode_response(response, self._new_id())

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return responses.encode_error(error)

    def encode_break(self, error: APIError) -> bytes:
        """An error frame."""
        return encode_frame(responses.encode_error(error))

    def encoder(self, request: Request) -> streams.Encoder:
        """A writer of chunks."""
        return streams.Encoder(new_id=self._new_id())

    def model_name(self, model: str) -> str:
        """The name without `models/`, with which Google's own lists and SDKs write it."""
        return model.removeprefix("models/")

    def encode_request(self, request: Request) -> Draft:
        """Write a generateContent request."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole answer: one chunk that is all of it."""
        answer = _read.object_in(body)
        if answer is None:
            raise _read.unreadable(200, body)
        for candidate in _read.objects(answer.get("candidates")):
            if candidate.get("content") and not candidate.get("finishReason"):
                candidate["finishReason"] = "STOP"  # without a reason it is whole all the same
        decoder = self.decoder()
        return fold([*decoder.chunk(answer), *decoder.close()])

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error answer."""
        return responses.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A reader of chunks."""
        return streams.Decoder(self._new_id)

    def list_request(self) -> Draft:
        """GET /v1beta/models."""
        return Draft("/v1beta/models", {}, query="pageSize=1000")

    def decode_list(self, body: bytes) -> tuple[str, ...]:
        """Read the list."""
        names = _read.names(body, "models", "name")
        return tuple(name.removeprefix("models/") for name in names)

    def framer(self, media_type: str) -> Framer:
        """An event stream with `alt=sse`, else a JSON array."""
        return JSONArrayFramer() if media_type == "application/json" else SSEFramer()

    def forward(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> Draft:
        """The request as it came, for the model's path."""
        query = "alt=sse" if stream else ""
        return Draft(request_encoder.path(model, stream=stream), fields, query=query)

    def echo(self, *, usage_wanted: bool, exact: bool) -> Echo:
        """A companion for an answer that passes through."""
        return Echo()
