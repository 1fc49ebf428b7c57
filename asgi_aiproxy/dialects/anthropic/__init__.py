"""Anthropic's API: messages. https://docs.anthropic.com/en/api/messages"""

from __future__ import annotations

from collections.abc import Mapping
from random import getrandbits
from typing import ClassVar

import msgspec

from asgi_aiproxy.dialects import _read
from asgi_aiproxy.dialects.anthropic import request_encoder, requests, responses, streams
from asgi_aiproxy.dialects.anthropic.echo import Echo
from asgi_aiproxy.dialects.base import Dialect, Draft, Head, NewId, Operation
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import Request, Response

_MESSAGES = Operation("messages", "/v1/messages", chat=True)


def new_id() -> str:
    """An id as Anthropic's look."""
    return f"msg_{getrandbits(96):024x}"


class Anthropic(Dialect):
    """Anthropic's dialect. `new_id` is for tests that compare bytes."""

    name: ClassVar[str] = requests.NAME
    keepalive: ClassVar[bytes | None] = b'event: ping\ndata: {"type": "ping"}\n\n'
    request_headers: ClassVar[frozenset[str]] = frozenset({"anthropic-beta", "anthropic-version"})

    def __init__(self, *, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """POST /v1/messages."""
        return _MESSAGES if method == "POST" and path == "/v1/messages" else None

    def head(self, operation: Operation, body: bytes) -> Head:
        """Read model and streaming."""
        fields = _read.fields(body)
        _read.expect_list(fields, "messages")
        stream = _read.member(fields, "stream", _read.flag)
        return Head(_read.model_of(fields), stream is True, fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a message request."""
        return requests.decode_request(body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole message."""
        return responses.encode_response(response, self._new_id())

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return responses.encode_error(error)

    def encode_break(self, error: APIError) -> bytes:
        """An error frame."""
        return encode_frame(responses.encode_error(error), b"error")

    def encoder(self, request: Request) -> streams.Encoder:
        """A writer of message streams."""
        return streams.Encoder(new_id=self._new_id())

    def encode_request(self, request: Request) -> Draft:
        """Write a message request."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole message."""
        return responses.decode_response(body)

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error answer."""
        return responses.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A reader of message streams."""
        return streams.Decoder()

    def list_request(self) -> Draft:
        """GET /v1/models."""
        return Draft("/v1/models", {}, query="limit=1000")

    def decode_list(self, body: bytes) -> tuple[str, ...]:
        """Read the list."""
        return _read.names(body, "data", "id")

    def forward(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> Draft:
        """The request as it came, with the model's name."""
        return Draft(operation.path, {**fields, "model": model})

    def echo(self, *, usage_wanted: bool, exact: bool) -> Echo:
        """A companion for an answer that passes through."""
        return Echo()
