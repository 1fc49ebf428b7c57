"""Embeddings on Google's Vertex AI: models/{model}:predict.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.gemini.request_encoder import method_path
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.embeddings.base import (
    EmbeddingsAPI,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ignored_members,
)
from asgi_aiproxy.operations.embeddings.gemini import TASK_WORDS


class _Statistics(msgspec.Struct):
    token_count: float = 0


class _Embeddings(msgspec.Struct):
    values: msgspec.Raw
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Embeddings


class _Answer(msgspec.Struct):
    predictions: list[_Prediction]


_answer = msgspec.json.Decoder(_Answer).decode


class VertexEmbeddings(EmbeddingsAPI):
    """Vertex AI's API for embeddings."""

    def limit_of(self, request: EmbeddingsRequest) -> int:
        """One text for Gemini's models; others take more."""
        return 1 if "gemini" in request.model else 100

    def encode_batch(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write a request."""
        shared = {"task_type": TASK_WORDS[request.task]} if request.task is not None else {}
        instances = []
        for each in request.inputs:
            one: dict[str, Any] = {"content": each.text, **shared}
            if each.title:
                one["title"] = each.title
            instances.append(one)
        body: dict[str, Any] = {"instances": instances}
        parameters = {}
        if request.dimensions is not None:
            parameters["outputDimensionality"] = request.dimensions
        if "autoTruncate" in request.rest:
            parameters["autoTruncate"] = request.rest["autoTruncate"]
        if parameters:
            body["parameters"] = parameters
        ignored = ignored_members(request, task=True, titles=True, own=("autoTruncate",))
        return ProviderRequest(method_path(request.model, "predict"), body, ignored=ignored)

    def decode_batch(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read a response."""
        try:
            found = [each.embeddings for each in _answer(body).predictions]
        except (msgspec.DecodeError, RecursionError):
            raise _parsing.unparsable_response_error(200, body) from None
        counts = [each.statistics.token_count for each in found if each.statistics is not None]
        return EmbeddingsResponse(
            model=request.model,
            vectors=tuple(each.values for each in found),
            usage=Usage(input=int(sum(counts))) if counts else None,
        )


VERTEX_EMBEDDINGS = VertexEmbeddings()
