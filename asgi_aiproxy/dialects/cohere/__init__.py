"""Cohere's chat API, version 2: POST /v2/chat. Only called, not served to clients.

https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/chat-stream

- `capabilities`: what a model supports;
- `request_encoder`: neutral requests to Cohere's;
- `json_schema`: the subset of JSON Schema that Cohere supports;
- `streams`: streamed and whole responses to neutral events;
- `errors`: error responses.
"""

from __future__ import annotations

from random import getrandbits
from typing import ClassVar

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import NewId, OutboundDialect, ProviderRequest
from asgi_aiproxy.dialects.cohere import errors, request_encoder, streams
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Framer, NDJSONFramer, SSEFramer
from asgi_aiproxy.messages import Request, Response, fold

_LINES = frozenset({"application/x-ndjson", "application/stream+json"})


def new_id() -> str:
    """An id for a call that has none."""
    return f"call_{getrandbits(96):024x}"


class Cohere(OutboundDialect):
    """Cohere's dialect. `new_id` is replaced by tests that compare bytes."""

    name: ClassVar[str] = request_encoder.NAME

    def __init__(self, *, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write the body of POST /v2/chat."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a whole response."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        decoder = self.decoder()
        return fold([*decoder.whole(answer), *decoder.close()])

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        return errors.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A new decoder of events."""
        return streams.Decoder(self._new_id)

    def models_request(self) -> ProviderRequest:
        """GET /v1/models, the models for chat."""
        return ProviderRequest("/v1/models", {}, query="endpoint=chat&page_size=1000")

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models."""
        return _parsing.names(body, "models", "name")

    def framer(self, media_type: str) -> Framer:
        """An event stream, or lines for clients that do not accept one."""
        return NDJSONFramer() if media_type in _LINES else SSEFramer()


COHERE_CHAT: Cohere = Cohere()
