"""Google's embeddings: models/{model}:embedContent and :batchEmbedContents.

https://ai.google.dev/api/embeddings
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.dialects.gemini.model_names import check_model
from asgi_aiproxy.dialects.gemini.request_encoder import method_path
from asgi_aiproxy.dialects.gemini.schemas import camel
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.inspection import strip_models_prefix
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import read_json
from asgi_aiproxy.operations.embeddings.base import (
    ClientEmbeddingsAPI,
    EmbeddingInput,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Task,
    ignored_members,
    require_dimensions,
)
from asgi_aiproxy.operations.forms import Form

SINGLE, BATCH = "embedContent", "batchEmbedContents"
_TASKS: dict[str, Task] = {
    "RETRIEVAL_QUERY": "query",
    "RETRIEVAL_DOCUMENT": "document",
    "SEMANTIC_SIMILARITY": "similarity",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
    "QUESTION_ANSWERING": "question_answering",
    "FACT_VERIFICATION": "fact_verification",
    "CODE_RETRIEVAL_QUERY": "code_query",
}
TASK_WORDS = {task: word for word, task in _TASKS.items()}
_KNOWN = frozenset({"model", "content", "taskType", "title", "outputDimensionality"})


class _Values(msgspec.Struct):
    values: msgspec.Raw


class _UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0


class _Answer(msgspec.Struct, rename="camel"):
    embeddings: list[_Values] | None = None
    embedding: _Values | None = None
    usage_metadata: _UsageMetadata | None = None


_answer = msgspec.json.Decoder(_Answer).decode


class GeminiEmbeddings(ClientEmbeddingsAPI):
    """Google's API for embeddings. Providers are always sent a batch."""

    operation: ClassVar[str] = BATCH
    max_inputs = 100

    def decode_request(self, operation: Operation, body: bytes | Form) -> EmbeddingsRequest:
        """Read a request. All requests of a batch must have the same options."""
        parsed = camel(read_json(body))
        batch = operation.name == BATCH
        requests = parsed.get("requests") if batch else [parsed]
        if not isinstance(requests, list) or not requests:
            message = "'requests' must be a list of requests that is not empty."
            raise invalid(message, "requests", "invalid_type")
        inputs: list[EmbeddingInput] = []
        wanted: list[tuple[int | None, Any]] = []
        rest: dict[str, Any] = {k: v for k, v in parsed.items() if batch and k != "requests"}
        for at, each in enumerate(requests):
            where = f"requests[{at}]." if batch else ""
            if not isinstance(each, dict):
                place = f"requests[{at}]"
                raise invalid(f"Invalid type for '{place}': expected an object.", place)
            check_model(each.get("model"), operation.model, f"{where}model")
            config = each.get("embedContentConfig")  # as Vertex AI calls it
            each = {**each, **config} if isinstance(config, dict) else each
            inputs.append(EmbeddingInput(_text(each, where), _parsing.get_text(each, "title")))
            size = f"{where}outputDimensionality"
            dimensions = require_dimensions(each.get("outputDimensionality"), size)
            wanted.append((dimensions, each.get("taskType")))
            if wanted[at] != wanted[0]:
                name = "taskType" if wanted[at][0] == wanted[0][0] else "outputDimensionality"
                raise invalid(
                    f"'{where}{name}' differs from that of the first request: for the provider of "
                    "this model it must be the same in all requests of a batch.",
                    f"{where}{name}",
                )
            rest |= {
                name: value
                for name, value in each.items()
                if name not in _KNOWN and name != "embedContentConfig" and value is not None
            }
        dimensions, word = wanted[0]
        task = _TASKS.get(word) if isinstance(word, str) else None
        if task is None and word not in (None, "TASK_TYPE_UNSPECIFIED"):
            rest["taskType"] = word
        return EmbeddingsRequest(
            model=operation.model,
            inputs=tuple(inputs),
            dimensions=dimensions,
            task=task,
            task_member="taskType",
            input_member="requests",
            dimensions_member="outputDimensionality",
            batch=batch,
            rest=rest,
        )

    def encode_batch(self, request: EmbeddingsRequest) -> ProviderRequest:
        """Write a batch."""
        shared: dict[str, Any] = {"model": f"models/{strip_models_prefix(request.model)}"}
        if request.task is not None:
            shared["taskType"] = TASK_WORDS[request.task]
        if request.dimensions is not None:
            shared["outputDimensionality"] = request.dimensions
        requests = []
        for each in request.inputs:
            one = {**shared, "content": {"parts": [{"text": each.text}]}}
            if each.title:
                one["title"] = each.title
            requests.append(one)
        ignored = ignored_members(request, task=True, titles=True)
        path = method_path(request.model, BATCH)
        return ProviderRequest(path, {"requests": requests}, ignored=ignored)

    def decode_batch(self, body: bytes, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """Read the response to a batch."""
        try:
            answer = _answer(body)
        except (msgspec.DecodeError, RecursionError):
            raise _parsing.unparsable_response_error(200, body) from None
        found = answer.embeddings or ([answer.embedding] if answer.embedding is not None else [])
        vectors = tuple(each.values for each in found)
        return EmbeddingsResponse(model=request.model, vectors=vectors, usage=_usage(answer))

    def encode_response(self, response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
        """Write the response to one request, or to a batch."""
        vectors = [{"values": vector} for vector in response.vectors]
        answer: dict[str, Any] = {"embeddings": vectors}
        if not request.batch:
            answer = {"embedding": vectors[0]}
        if response.usage is not None:
            answer["usageMetadata"] = {"promptTokenCount": response.usage.input}
        return _json.dumps(answer)

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read the usage of a response that passes through; it names no model."""
        try:
            return "", _usage(_answer(body))
        except (msgspec.DecodeError, RecursionError):
            return "", None


def _usage(answer: _Answer) -> Usage | None:
    read = answer.usage_metadata
    return Usage(input=read.prompt_token_count) if read is not None else None


def _text(request: Mapping[str, Any], where: str) -> str:
    """The text of a request's content. Raises APIError for anything else in it."""
    content = request.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        raise _parsing.missing_field_error(f"{where}content")
    parts = content.get("parts")
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not parts:
        raise _parsing.missing_field_error(f"{where}content.parts")
    texts: list[str] = []
    for at, part in enumerate(parts):
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            place = f"{where}content.parts[{at}]"
            raise invalid(
                f"'{place}': the provider of this model embeds text only.",
                place,
                "unsupported_content",
            )
        texts.append(text)
    return "\n".join(texts)


GEMINI_EMBEDDINGS: GeminiEmbeddings = GeminiEmbeddings()
