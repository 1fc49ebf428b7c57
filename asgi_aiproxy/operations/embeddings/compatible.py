"""Embeddings of vendors whose API is OpenAI's with other members: Mistral, Voyage, Jina.

They take texts only, no lists of token numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.operations.embeddings.base import (
    EmbeddingsAPI,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Task,
    ignored_members,
)
from asgi_aiproxy.operations.embeddings.openai import decode_list


class CompatibleEmbeddings(EmbeddingsAPI):
    """An API like OpenAI's, with its own names of members.

    - `dimensions`: the member for the length of vectors.
    - `task`, `tasks`: the member for the purpose, and the vendor's words for those it knows.
    - `own`: members that only this vendor has; they are passed on.
    - `max_inputs`: how many texts one request may have.
    """

    def __init__(
        self,
        *,
        dimensions: str,
        task: str = "",
        tasks: Mapping[Task, str] | None = None,
        own: Collection[str] = (),
        max_inputs: int = 0,
    ) -> None:
        self._dimensions = dimensions
        self._task = task
        self._tasks = dict(tasks or {})
        self._own = frozenset(own)
        self.max_inputs = max_inputs

    def encode_batch(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write a request, for vectors as numbers, which is the default."""
        body: dict[str, Any] = {
            "model": request.model,
            "input": [each.text for each in request.inputs],
        }
        if request.dimensions is not None:
            body[self._dimensions] = request.dimensions
        word = self._tasks.get(request.task) if request.task is not None else None
        if word is not None:
            body[self._task] = word
        body |= {name: value for name, value in request.rest.items() if name in self._own}
        ignored = ignored_members(request, task=word is not None, own=self._own)
        return ProviderRequest("/embeddings", body, ignored=ignored)

    def decode_batch(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read a response in OpenAI's format."""
        return decode_list(body, request)


# https://docs.mistral.ai/api/endpoint/embeddings (It answers 257 texts with "Too many inputs in
# request, split into more batches.")
MISTRAL_EMBEDDINGS: CompatibleEmbeddings = CompatibleEmbeddings(
    dimensions="output_dimension", own=("output_dtype", "metadata"), max_inputs=256
)
# https://docs.voyageai.com/reference/embeddings-api
VOYAGE_EMBEDDINGS: CompatibleEmbeddings = CompatibleEmbeddings(
    dimensions="output_dimension",
    task="input_type",
    tasks={
        "query": "query",
        "document": "document",
        "question_answering": "query",
        "fact_verification": "query",
        "code_query": "query",
    },
    own=("truncation", "output_dtype"),
    max_inputs=1000,
)
# https://jina.ai/embeddings
JINA_EMBEDDINGS: CompatibleEmbeddings = CompatibleEmbeddings(
    dimensions="dimensions",
    task="task",
    tasks={
        "query": "retrieval.query",
        "document": "retrieval.passage",
        "similarity": "text-matching",
        "classification": "classification",
        "clustering": "separation",
        "question_answering": "retrieval.query",
        "fact_verification": "retrieval.query",
    },
    own=("task", "normalized", "late_chunking", "truncate"),
    max_inputs=2048,
)
