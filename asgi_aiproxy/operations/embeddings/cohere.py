"""Cohere's embeddings, version 2 of its API: POST /v2/embed.

https://docs.cohere.com/reference/embed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.embeddings.base import (
    EmbeddingsAPI,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Task,
    ignored_members,
    no_dimensions,
)

# Cohere requires a purpose; without one the texts are documents.
_TASKS: Mapping[Task | None, str] = {
    None: "search_document",
    "document": "search_document",
    "query": "search_query",
    "question_answering": "search_query",
    "fact_verification": "search_query",
    "code_query": "search_query",
    "similarity": "clustering",
    "clustering": "clustering",
    "classification": "classification",
}
_OWN = ("truncate", "max_tokens")
_ONE_LENGTH = ("-v2.0", "-v3")  # of older models


class _BilledUnits(msgspec.Struct):
    input_tokens: float = 0


class _Meta(msgspec.Struct):
    billed_units: _BilledUnits | None = None


class _ByType(msgspec.Struct):
    float: list[msgspec.Raw]


class _Answer(msgspec.Struct):
    embeddings: _ByType | list[msgspec.Raw]
    meta: _Meta | None = None


_answer = msgspec.json.Decoder(_Answer).decode


class CohereEmbeddings(EmbeddingsAPI):
    """Cohere's API for embeddings."""

    max_inputs = 96

    def encode_batch(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write a request."""
        body = {"model": request.model, **embed_body(request)}
        ignored = ignored_members(request, task=True, own=_OWN)
        return ProviderRequest("/v2/embed", body, ignored=ignored)

    def decode_batch(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read a response."""
        return decode_embed(body, request)


def embed_body(request: EmbeddingsRequest) -> dict[str, Any]:
    """The members of a request but for its model. Raises APIError."""
    body: dict[str, Any] = {
        "texts": [each.text for each in request.inputs],
        "input_type": _TASKS[request.task],
        "embedding_types": ["float"],
    }
    if request.dimensions is not None:
        if any(mark in request.model for mark in _ONE_LENGTH):
            raise no_dimensions(request)
        body["output_dimension"] = request.dimensions
    body |= {name: request.rest[name] for name in _OWN if name in request.rest}
    return body


def decode_embed(body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
    """Read a response, of Cohere or of its models on Amazon Bedrock. Raises APIError."""
    try:
        answer = _answer(body)
    except (msgspec.DecodeError, RecursionError):
        raise _parsing.unparsable_response_error(200, body) from None
    found = answer.embeddings
    vectors = found.float if isinstance(found, _ByType) else found
    billed = answer.meta.billed_units if answer.meta is not None else None
    usage = Usage(input=int(billed.input_tokens)) if billed is not None else None
    return EmbeddingsResponse(model=request.model, vectors=tuple(vectors), usage=usage)


COHERE_EMBEDDINGS: CohereEmbeddings = CohereEmbeddings()
