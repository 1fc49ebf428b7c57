"""Rerank: sort documents by how well they answer a query.

Clients use Cohere's API, in both of its versions, which Jina, vLLM and others have copied:
POST /v1/rerank and /v2/rerank. Documents may be strings or objects, as in version 1. A response
has what clients of both look for: Cohere's `meta`, and Jina's `model` and `usage`.

- Cohere: https://docs.cohere.com/reference/rerank, https://docs.cohere.com/v1/reference/rerank
- Jina: https://jina.ai/reranker, and vLLM:
  https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#re-rank-api
- Voyage: https://docs.voyageai.com/reference/reranker-api
- Text Embeddings Inference: https://huggingface.github.io/text-embeddings-inference/
- Amazon Bedrock:
  https://docs.aws.amazon.com/bedrock/latest/userguide/rerank-supported.html

Cohere charges by search units: a query with up to 100 documents is one. (A document with more than
500 tokens counts as several: its response says how many.) Others charge tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import getrandbits
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import (
    ClientOperation,
    OperationAPI,
    read_json,
    read_object,
)
from asgi_aiproxy.operations.bedrock import invoke_path, no_such_operation
from asgi_aiproxy.operations.forms import Form

V1, V2 = "rerank.v1", "rerank"
_DOCUMENTS_PER_UNIT = 100
_KNOWN = frozenset({"model", "query", "documents", "top_n", "return_documents", "provider"})


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a `model` to sort `documents` by a `query`; the client gets the best `top_n`.

    `version` is that of the client's API. `given` are the documents as the client wrote them, texts
    or objects, which are part of the
    response with `return_documents`. `rest` are the members without a neutral meaning.
    """

    model: str
    query: str
    documents: tuple[str, ...]
    given: tuple[Any, ...] = ()
    top_n: int | None = None
    return_documents: bool = False
    version: int = 2
    rest: Mapping[str, Any] = {}


class Ranked(msgspec.Struct, frozen=True):
    """The index of a document in the request, and its relevance to the query."""

    index: int
    score: float


class RerankResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The documents, best first: `results` of a `model`. `id` is the id of the response."""

    model: str
    results: tuple[Ranked, ...]
    usage: Usage | None = None
    id: str = ""


class RerankAPI(OperationAPI[RerankRequest, RerankResponse]):
    """An API for rerank, described by what vendors do differently.

    - `path`: that of the request.
    - `top`: the member for the number of results; empty if there is none: all are requested.
    - `own`: members that the vendor knows beside the common ones; they are passed on.
    - `results`, `score`: the members of the response for the list of results, and of each result
      for its relevance.
    - `quiet`: members that request a short response.
    """

    kind: ClassVar[str] = "rerank"

    def __init__(
        self,
        path: str = "/rerank",
        *,
        top: str = "top_n",
        own: Collection[str] = (),
        results: str = "results",
        score: str = "relevance_score",
        quiet: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = path
        self._top = top
        self._own = frozenset(own)
        self._results = results
        self._score = score
        self._quiet = dict(quiet or {})

    def encode_request(self, request: RerankRequest) -> ProviderRequest:
        """Write a request. Documents are not requested back: the client's own are returned."""
        body = {"model": request.model, **self.body(request)}
        return ProviderRequest(self._path, body, ignored=self.ignored(request))

    def body(self, request: RerankRequest) -> dict[str, Any]:
        """The members of a request but for its model."""
        body: dict[str, Any] = {
            "query": request.query,
            "documents": list(request.documents),
            **self._quiet,
        }
        if request.top_n is not None and self._top:
            body[self._top] = request.top_n
        body |= {name: value for name, value in request.rest.items() if name in self._own}
        return body

    def ignored(self, request: RerankRequest) -> tuple[str, ...]:
        """The members that the vendor does not know."""
        return tuple(name for name in request.rest if name not in self._own)

    def decode_response(self, bodies: Sequence[bytes], request: RerankRequest) -> RerankResponse:
        """Read a response."""
        body = bodies[-1]
        found = read_object(body)
        model = _parsing.get_text(found, "model") or request.model
        results = _results(found.get(self._results), self._score, request, body)
        id = _parsing.get_text(found, "id")
        return RerankResponse(model=model, results=results, usage=_usage(found), id=id)


class TEIRerank(RerankAPI):
    """Hugging Face's Text Embeddings Inference: the response is a list of all documents."""

    def body(self, request: RerankRequest) -> dict[str, Any]:
        """The members of a request."""
        body: dict[str, Any] = {"query": request.query, "texts": list(request.documents)}
        body |= {name: value for name, value in request.rest.items() if name in self._own}
        return body

    def encode_request(self, request: RerankRequest) -> ProviderRequest:
        """Write a request. The server has one model, which is not named."""
        return ProviderRequest("/rerank", self.body(request), ignored=self.ignored(request))

    def decode_response(self, bodies: Sequence[bytes], request: RerankRequest) -> RerankResponse:
        """Read a response."""
        body = bodies[-1]
        try:
            found = _json.loads(body)
        except _json.NotJSONError:
            raise _parsing.unparsable_response_error(200, body) from None
        return RerankResponse(model=request.model, results=_results(found, "score", request, body))


class BedrockRerank(RerankAPI):
    """Cohere's and Amazon's models for rerank on Amazon Bedrock, through InvokeModel."""

    def encode_request(self, request: RerankRequest) -> ProviderRequest:
        """Write the body of one family of models."""
        model = request.model
        body = self.body(request)
        if "cohere.rerank" in model:
            body["api_version"] = 2
        elif "amazon.rerank" in model:
            body = {name: body[name] for name in ("query", "documents", "top_n") if name in body}
        else:
            raise no_such_operation(model, "rerank")
        ignored = tuple(name for name in request.rest if name not in body)
        return ProviderRequest(invoke_path(model), body, ignored=ignored)

    def decode_response(self, bodies: Sequence[bytes], request: RerankRequest) -> RerankResponse:
        """Read a response, which has no usage: queries are counted."""
        response = super().decode_response(bodies, request)
        return msgspec.structs.replace(response, usage=units_of(request))


COHERE_RERANK = RerankAPI("/v2/rerank", own=("max_tokens_per_doc", "priority"))
JINA_RERANK = RerankAPI(own=("truncation",), quiet={"return_documents": False})
VOYAGE_RERANK = RerankAPI(
    top="top_k", own=("truncation",), results="data", quiet={"return_documents": False}
)
VLLM_RERANK = RerankAPI(own=("truncate_prompt_tokens", "priority", "mm_processor_kwargs"))
INFINITY_RERANK = RerankAPI(own=("raw_scores",), quiet={"return_documents": False})
TEI_RERANK = TEIRerank(own=("raw_scores", "truncate", "truncation_direction"))
BEDROCK_RERANK = BedrockRerank(own=("max_tokens_per_doc",))


class CohereRerankClient(ClientOperation[RerankRequest, RerankResponse]):
    """Cohere's API for rerank, as clients use it."""

    kind: ClassVar[str] = "rerank"
    endpoints: ClassVar[Mapping[str, Operation]] = {
        "/v1/rerank": Operation(V1, "/v1/rerank", converts="rerank"),
        "/v2/rerank": Operation(V2, "/v2/rerank", converts="rerank"),
        "/rerank": Operation(V1, "/v1/rerank", converts="rerank"),
    }

    def decode_request(self, operation: Operation, body: bytes | Form) -> RerankRequest:
        """Read a request. Objects need a `text`, or `rank_fields` that say what their text is."""
        fields = read_json(body)
        query = fields.get("query")
        if query is None:
            raise _parsing.missing_field_error("query")
        if not isinstance(query, str):
            raise invalid("Invalid type for 'query': expected a string.", "query", "invalid_type")
        given = fields.get("documents")
        if given is None:
            raise _parsing.missing_field_error("documents")
        if not isinstance(given, list) or not given:
            message = "'documents' must be a list that is not empty."
            raise invalid(message, "documents", "invalid_type")
        top = fields.get("top_n")
        if top is not None and (type(top) is not int or top < 1):
            raise invalid("'top_n' must be an integer of at least 1.", "top_n", "invalid_value")
        returned = fields.get("return_documents")
        if not isinstance(returned, bool | None):
            message = "'return_documents' must be true or false."
            raise invalid(message, "return_documents", "invalid_type")
        names = fields.get("rank_fields")
        rest = {k: v for k, v in fields.items() if k not in _KNOWN and v is not None}
        rest.pop("rank_fields", None)
        return RerankRequest(
            model=_parsing.get_text(fields, "model"),
            query=query,
            documents=tuple(
                _text(each, f"documents[{at}]", names) for at, each in enumerate(given)
            ),
            given=tuple(given),
            top_n=top,
            return_documents=returned is True,
            version=1 if operation.name == V1 else 2,
            rest=rest,
        )

    def encode_response(self, response: RerankResponse, request: RerankRequest) -> bytes:
        """Write a response, with the client's documents if it requested them."""
        results = []
        for each in response.results[: request.top_n]:
            one: dict[str, Any] = {"index": each.index, "relevance_score": each.score}
            if request.return_documents:
                document = request.given[each.index]
                one["document"] = {"text": document} if isinstance(document, str) else document
            results.append(one)
        usage = response.usage or Usage()
        billed = {"search_units": usage.search_units} if usage.search_units else {}
        tokens = {"input_tokens": usage.input} if usage.input else {}
        meta = {
            "api_version": {"version": str(request.version)},
            **({"billed_units": billed} if billed else {}),
            **({"tokens": tokens} if tokens else {}),
        }
        answer: dict[str, Any] = {
            "id": response.id or f"{getrandbits(128):032x}",
            "results": results,
            "meta": meta,
            "model": response.model,
        }
        if usage.input:
            answer["usage"] = {"prompt_tokens": usage.input, "total_tokens": usage.input}
        return _json.dumps(answer)

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read the usage of a response that passes through."""
        found = _parsing.parse_object(body) or {}
        return _parsing.get_text(found, "model"), _usage(found)

    def units(self, request: RerankRequest) -> Usage:
        """Search units."""
        return units_of(request)

    def encode_error(self, error: APIError) -> bytes:
        """Write an error as Cohere does."""
        answer: dict[str, Any] = {"message": _parsing.error_message(error)}
        if error.request_id:
            answer["id"] = error.request_id
        return _json.dumps(answer)


def units_of(request: RerankRequest) -> Usage:
    """The search units of a request, if no document is long."""
    return Usage(search_units=-(-len(request.documents) // _DOCUMENTS_PER_UNIT))


def _text(document: Any, where: str, names: Any) -> str:
    """The text of a document. Raises APIError if it has none."""
    if isinstance(document, str):
        return document
    if isinstance(document, dict):
        if isinstance(names, list) and names:
            texts = [document.get(name) for name in names if isinstance(name, str)]
            found = [text for text in texts if isinstance(text, str)]
            if found:
                return "\n".join(found)
        elif isinstance(document.get("text"), str):
            return str(document["text"])
        raise invalid(
            f"'{where}' has no text: the provider of this model ranks strings, and objects with a "
            "string 'text' or the members that 'rank_fields' names.",
            where,
            "unsupported_content",
        )
    raise invalid(f"Invalid type for '{where}': expected a string or an object.", where)


def _results(found: Any, score: str, request: RerankRequest, body: bytes) -> tuple[Ranked, ...]:
    """The results of a response, best first. Raises APIError if they are invalid."""
    if not isinstance(found, list):
        raise _parsing.unparsable_response_error(200, body)
    ranked = []
    for each in found:
        index = each.get("index") if isinstance(each, dict) else None
        value = each.get(score) if isinstance(each, dict) else None
        usable = type(index) is int and 0 <= index < len(request.documents)
        if not usable or isinstance(value, bool) or not isinstance(value, int | float):
            raise _parsing.unparsable_response_error(200, body)
        ranked.append(Ranked(index, value))  # type: ignore[arg-type]
    return tuple(sorted(ranked, key=lambda one: -one.score))


def _usage(found: Mapping[str, Any]) -> Usage | None:
    """The search units or tokens of a response, as Cohere, Jina, Voyage and vLLM report them."""
    meta = found.get("meta")
    billed = meta.get("billed_units") if isinstance(meta, dict) else None
    units = _parsing.read_count(billed, "search_units")
    usage = found.get("usage")
    tokens = _parsing.read_count(usage, "total_tokens") or _parsing.read_count(
        usage, "prompt_tokens"
    )
    return Usage(input=tokens, search_units=units) if units or tokens else None
