"""OpenAI's embeddings, which most vendors imitate: POST /v1/embeddings.

https://platform.openai.com/docs/api-reference/embeddings/create

OpenAI has no purpose of embeddings. Some servers with its API take `input_type`, as Cohere and
Voyage call it; it is read in their words and in Google's, for providers that distinguish purposes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.dialects.openai_chat.native_stream import openai_usage
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import read_json
from asgi_aiproxy.operations.embeddings.base import (
    ClientEmbeddingsAPI,
    EmbeddingInput,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Task,
    from_base64,
    ignored_members,
    require_dimensions,
    to_base64,
)
from asgi_aiproxy.operations.forms import Form

TASKS: dict[str, Task] = {
    "query": "query",
    "document": "document",
    "passage": "document",
    "search_query": "query",
    "search_document": "document",
    "retrieval_query": "query",
    "retrieval_document": "document",
    "semantic_similarity": "similarity",
    "classification": "classification",
    "clustering": "clustering",
    "question_answering": "question_answering",
    "fact_verification": "fact_verification",
    "code_retrieval_query": "code_query",
}
_TASK_MEMBERS = ("input_type", "task_type")
_KNOWN = frozenset({"model", "input", "dimensions", "encoding_format", "user", "provider"})


class _Item(msgspec.Struct):
    embedding: msgspec.Raw
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]


_answer = msgspec.json.Decoder(_Answer).decode
_text = msgspec.json.Decoder(str).decode


class OpenAIEmbeddings(ClientEmbeddingsAPI):
    """OpenAI's API for embeddings."""

    operation: ClassVar[str] = "embeddings"
    max_inputs = 2048

    def decode_request(self, operation: Operation, body: bytes | Form) -> EmbeddingsRequest:
        """Read a request. Inputs must be text: tokens mean nothing to another vendor's model."""
        fields = read_json(body)
        rest = {k: v for k, v in fields.items() if k not in _KNOWN and v is not None}
        task: Task | None = None
        task_member = ""
        for name in _TASK_MEMBERS:
            word = rest.get(name)
            if isinstance(word, str) and word.lower() in TASKS:
                task, task_member = TASKS[word.lower()], name
                del rest[name]
        form = fields.get("encoding_format")
        if form not in (None, "float", "base64"):
            message = "'encoding_format' must be 'float' or 'base64'."
            raise invalid(message, "encoding_format", "invalid_value")
        texts = _texts(fields.get("input"))
        return EmbeddingsRequest(
            model=_parsing.get_text(fields, "model"),
            inputs=tuple(map(EmbeddingInput, texts)),
            dimensions=require_dimensions(fields.get("dimensions"), "dimensions"),
            task=task,
            task_member=task_member,
            base64=form == "base64",
            batch=isinstance(fields.get("input"), list),
            user=_parsing.get_text(fields, "user"),
            rest=rest,
        )

    def encode_batch(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write a request, for vectors as numbers."""
        texts = [each.text for each in request.inputs]
        body: dict[str, Any] = {
            "model": request.model,
            "input": texts if request.batch else texts[0],
            "encoding_format": "float",
        }
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        if request.user:
            body["user"] = request.user
        ignored = ignored_members(request, task=False, user=True)
        return ProviderRequest("/embeddings", body, ignored=ignored)

    def decode_batch(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read a response. Vectors may come in base64, though numbers were requested."""
        return decode_list(body, request)

    def encode_response(self, response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
        """Write a response, with vectors as the client requested them."""
        count = response.usage.input if response.usage is not None else 0
        data = [
            {
                "object": "embedding",
                "index": at,
                "embedding": to_base64(vector) if request.base64 else vector,
            }
            for at, vector in enumerate(response.vectors)
        ]
        return _json.dumps(
            {
                "object": "list",
                "data": data,
                "model": response.model,
                "usage": {"prompt_tokens": count, "total_tokens": count},
            }
        )

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read model and usage of a response that passes through."""
        return read_usage(body)


def decode_list(body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
    """Read a response in OpenAI's format, as many vendors send it. Raises APIError."""
    try:
        items = _answer(body).data
    except (msgspec.DecodeError, RecursionError):
        raise _parsing.unparsable_response_error(200, body) from None
    if all(item.index is not None for item in items):
        items.sort(key=lambda item: item.index or 0)
    model, usage = read_usage(body)
    vectors = tuple(_vector(item.embedding) for item in items)
    return EmbeddingsResponse(model=model or request.model, vectors=vectors, usage=usage)


def read_usage(body: bytes) -> tuple[str, Usage | None]:
    """Model and usage of a response. Some vendors (Voyage) report the total only."""
    model, usage = openai_usage(body)
    if usage is not None and not usage.input:
        found = _parsing.parse_object(body) or {}
        usage = Usage(input=_parsing.read_count(found.get("usage"), "total_tokens"))
    return model, usage


def _vector(raw: msgspec.Raw) -> msgspec.Raw:
    return from_base64(_text(raw)) if memoryview(raw)[0] == ord('"') else raw


def _texts(given: Any) -> list[str]:
    if isinstance(given, str):
        return [given]
    if given is None:
        raise _parsing.missing_field_error("input")
    if not isinstance(given, list) or not given:
        raise invalid(
            "'input' must be a string or a list of strings that is not empty.",
            "input",
            "invalid_type",
        )
    for at, text in enumerate(given):
        if not isinstance(text, str):
            raise _no_text(f"input[{at}]", text)
    return given


def _no_text(where: str, given: Any) -> APIError:
    if isinstance(given, int | list):
        return invalid(
            f"'{where}': tokens cannot be converted for the provider of this model. Send text.",
            where,
            "invalid_type",
        )
    return invalid(f"Invalid type for '{where}': expected a string.", where, "invalid_type")


OPENAI_EMBEDDINGS: OpenAIEmbeddings = OpenAIEmbeddings()
