"""The neutral types for embeddings as an API: for calls within the process.

A request is the JSON of an `EmbeddingsRequest`, a response that of an `EmbeddingsResponse`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import ClientOperation
from asgi_aiproxy.operations.embeddings.base import EmbeddingsRequest, EmbeddingsResponse
from asgi_aiproxy.operations.forms import Form

_request = msgspec.json.Decoder(EmbeddingsRequest)
_response = msgspec.json.Decoder(EmbeddingsResponse)
_numbers: Any = msgspec.json.Decoder(list[float]).decode


class NeutralEmbeddings(ClientOperation[EmbeddingsRequest, EmbeddingsResponse]):
    """The neutral types for embeddings, as the API of calls within the process."""

    kind = "embeddings"

    def decode_request(self, operation: Operation, body: bytes | Form) -> EmbeddingsRequest:
        """Read an `EmbeddingsRequest`."""
        assert not isinstance(body, Form)  # noqa: S101 (the caller is within the process)
        return _parsing.body(_request, body)

    def encode_response(self, response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
        """Write an `EmbeddingsResponse`."""
        return _json.dumps(response)

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read model and usage of a response."""
        response = decode_response(body)
        return response.model, response.usage


# What the caller within the process needs.


def encode_request(request: EmbeddingsRequest) -> bytes:
    """Write the body of a request."""
    return _json.dumps(request)


def decode_response(body: bytes) -> EmbeddingsResponse:
    """Read a response with vectors."""
    return _json.typed(_response, body)


def vectors_of(response: EmbeddingsResponse) -> list[list[float]]:
    """The vectors as numbers."""
    return [_numbers(vector) for vector in response.vectors]
