"""Rerank: clients of Cohere's API, version 1 and 2, for every vendor."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import AIShim, Authenticate, OpenAIShim, ProviderRouter
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import (
    ANTHROPIC,
    COHERE,
    INFINITY,
    JINA,
    TEI,
    VLLM,
    VOYAGE,
    Provider,
    bedrock,
)
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses
from tests.support.strict_vendor import Endpoint, StrictVendor

pytestmark = pytest.mark.anyio

QUERY = "Which city is the capital?"
DOCUMENTS = ["Carson City is in Nevada.", "Washington is the capital.", "Fish swim."]
SCORES = [0.25, 0.75, 0.5]
ORDER = [1, 2, 0]
BEST_FIRST = [{"index": at, "relevance_score": SCORES[at]} for at in ORDER]


def cohere(body: Any, request: Any) -> Any:
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return {"id": "r-1", "results": BEST_FIRST[: body.get("top_n")], "meta": meta}


def jina(body: Any, request: Any) -> Any:
    usage = {"total_tokens": 30}
    return {"model": body["model"], "usage": usage, "results": BEST_FIRST[: body.get("top_n")]}


def voyage(body: Any, request: Any) -> Any:
    usage = {"total_tokens": 30}
    data = BEST_FIRST[: body.get("top_k")]
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def tei(body: Any, request: Any) -> Any:
    return [{"index": at, "score": SCORES[at]} for at in ORDER]


def amazon(body: Any, request: Any) -> Any:
    return {"results": BEST_FIRST[: body.get("top_n")]}


COMMON = {"model": str, "query": str, "documents": [str], "top_n": int}
NEEDED = ("model", "query", "documents")
ON_BEDROCK = {"query": str, "documents": [str], "top_n": int}
ROWS: list[tuple[Provider, str, Endpoint, dict[str, int]]] = [
    (COHERE, "rerank-v3.5",
     Endpoint("/v2/rerank", {**COMMON, "max_tokens_per_doc": int, "priority": int}, cohere, NEEDED),
     {"search_units": 1}),
    (JINA, "jina-reranker-v3",
     Endpoint("/v1/rerank", {**COMMON, "return_documents": bool, "truncation": bool}, jina, NEEDED),
     {"input": 30}),
    (VOYAGE, "rerank-2.5",
     Endpoint("/v1/rerank",
              {"model": str, "query": str, "documents": [str], "top_k": int,
               "return_documents": bool, "truncation": bool}, voyage, NEEDED),
     {"input": 30}),
    (VLLM, "BAAI/bge-reranker-v2-m3",
     Endpoint("/v1/rerank", {**COMMON, "truncate_prompt_tokens": int, "priority": int}, jina,
              NEEDED),
     {"input": 30}),
    (INFINITY, "mixedbread-ai/mxbai-rerank",
     Endpoint("/rerank", {**COMMON, "return_documents": bool, "raw_scores": bool}, jina, NEEDED),
     {"input": 30}),
    (TEI, "any",
     Endpoint("/rerank",
              {"query": str, "texts": [str], "raw_scores": bool, "return_text": bool,
               "truncate": bool}, tei, ("query", "texts")),
     {"search_units": 1}),
    (bedrock("us-west-2"), "cohere.rerank-v3-5:0",
     Endpoint(r"/model/cohere\.rerank-v3-5%3A0/invoke",
              {**ON_BEDROCK, "api_version": {2}, "max_tokens_per_doc": int}, amazon,
              ("query", "documents", "api_version")),
     {"search_units": 1}),
    (bedrock("us-west-2"), "amazon.rerank-v1:0",
     Endpoint(r"/model/amazon\.rerank-v1%3A0/invoke", ON_BEDROCK, amazon, ("query", "documents")),
     {"search_units": 1}),
]  # fmt: skip
every_vendor = pytest.mark.parametrize(
    ("row", "model", "endpoint", "usage"), ROWS, ids=[f"{r[0].name}-{r[1]}" for r in ROWS]
)


async def rerank(
    app: Any, path: str = "/v1/rerank", *, model: str = "m", documents: Any = None, **more: Any
) -> Any:
    body = {"model": model, "query": QUERY, "documents": documents or DOCUMENTS, **more}
    return await asgi.request(app, "POST", path, body)


@every_vendor
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_documents_are_ranked_by_every_vendor(
    row: Provider, model: str, endpoint: Endpoint, usage: dict[str, int], path: str
) -> None:
    if row is COHERE and path == "/v1/rerank":
        endpoint = Endpoint("/v1/rerank", endpoint.members, cohere, NEEDED)
    vendor, records = StrictVendor([endpoint]), list[UsageRecord]()

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    app = OpenAIShim(row.using("k"), transport=vendor.transport, record=keep)
    async with app:
        answer = await rerank(app, path, model=model, top_n=2)
    assert answer.status == 200, answer.body
    assert answer.json["results"] == BEST_FIRST[:2]
    (record,) = records
    assert (record.operation, record.provider) == ("rerank" if "2" in path else "rerank.v1",
                                                   row.name)  # fmt: skip
    assert record.usage is not None
    assert {name: getattr(record.usage, name) for name in usage} == usage
    assert answer.header("aiproxy-ignored") is None


@every_vendor
async def test_objects_are_ranked_by_their_text_and_returned_as_they_are(
    row: Provider, model: str, endpoint: Endpoint, usage: dict[str, int]
) -> None:
    if row is COHERE:  # version 1 is Cohere's own: it passes through
        return
    vendor = StrictVendor([endpoint])
    app = OpenAIShim(row.using("k"), transport=vendor.transport)
    given = [{"text": DOCUMENTS[0], "id": 7}, DOCUMENTS[1], {"text": DOCUMENTS[2]}]
    answer = await rerank(app, model=model, documents=given, return_documents=True)
    assert [each["document"] for each in answer.json["results"]] == [
        {"text": DOCUMENTS[1]},
        {"text": DOCUMENTS[2]},
        {"text": DOCUMENTS[0], "id": 7},
    ]
    sent = vendor.bodies[0]
    assert sent.get("documents", sent.get("texts")) == DOCUMENTS


async def test_rank_fields_name_the_text_of_an_object() -> None:
    vendor = StrictVendor([ROWS[1][2]])
    app = OpenAIShim(JINA.using("k"), transport=vendor.transport)
    given = [{"title": "A", "body": "x", "n": 1}, {"title": "B", "body": "y"}, {"title": "C"}]
    answer = await rerank(app, documents=given, rank_fields=["title", "body"])
    assert answer.status == 200
    assert vendor.bodies[0]["documents"] == ["A\nx", "B\ny", "C"]


async def test_a_response_serves_clients_of_cohere_and_of_jina() -> None:
    vendor = StrictVendor([ROWS[1][2]])
    app = OpenAIShim(JINA.using("k"), transport=vendor.transport)
    answer = (await rerank(app, "/v2/rerank", model="jina-reranker-v3")).json
    assert answer["meta"] == {"api_version": {"version": "2"}, "tokens": {"input_tokens": 30}}
    assert answer["usage"] == {"prompt_tokens": 30, "total_tokens": 30}
    assert answer["model"] == "jina-reranker-v3"
    assert isinstance(answer["id"], str)


async def test_members_that_a_vendor_lacks_are_named() -> None:
    vendor = StrictVendor([ROWS[2][2]])
    app = OpenAIShim(VOYAGE.using("k"), transport=vendor.transport)
    answer = await rerank(app, max_tokens_per_doc=100, truncation=True)
    assert answer.header("aiproxy-ignored") == "max_tokens_per_doc"
    assert vendor.bodies[0]["truncation"] is True
    strict = OpenAIShim(VOYAGE.using("k"), transport=vendor.transport, strict=True)
    refused = await rerank(strict, max_tokens_per_doc=100)
    assert refused.status == 400
    assert "max_tokens_per_doc" in refused.json["message"]


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"query": None}, "query"),
        ({"query": 5}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "one"}, "documents"),
        ({"documents": ["a", 5]}, "documents[1]"),
        ({"documents": ["a", {"image": "x"}]}, "documents[1]"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "3"}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"model": None}, "model"),
    ],
)
async def test_an_invalid_member_is_named_in_cohere_s_form(
    members: dict[str, Any], name: str
) -> None:
    upstream = Upstream(answers())
    app = AIShim(VOYAGE.using("k"), transport=upstream.transport)
    body = {"model": "m", "query": QUERY, "documents": DOCUMENTS, **members}
    answer = await asgi.request(app, "POST", "/v2/rerank", body)
    assert answer.status == 400
    assert f"'{name}'" in answer.json["message"]
    assert upstream.requests == []


async def test_a_vendor_without_rerank_and_a_model_of_bedrock_without_it_are_named() -> None:
    upstream = Upstream(answers())
    for provider in (ANTHROPIC, bedrock("us-west-2")):
        app = OpenAIShim(provider.using("k"), transport=upstream.transport)
        answer = await rerank(app, model="claude-x")
        assert answer.status == 404
        assert "'claude-x'" in answer.json["message"]
    assert upstream.requests == []


async def test_another_vendor_ranks_when_the_first_fails() -> None:
    upstream = Upstream(refuses(503), answers(b'{"data":[{"index":1,"relevance_score":0.9}]}'))
    router = ProviderRouter(
        {"rank": [(JINA.using("k"), "jina-reranker-v3"), (VOYAGE.using("k"), "rerank-2.5")]}
    )
    app = OpenAIShim(router, transport=upstream.transport)
    answer = await rerank(app, model="rank")
    assert answer.json["results"] == [{"index": 1, "relevance_score": 0.9}]
    assert answer.header("aiproxy-provider") == "voyage"


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{}", b'{"results":[{"index":9,"relevance_score":1}]}',
     b'{"results":[{"index":0,"relevance_score":"x"}]}', b'{"results":[5]}'],
)  # fmt: skip
async def test_a_response_without_usable_results_is_an_error_of_the_provider(body: bytes) -> None:
    upstream = Upstream(answers(body))
    app = OpenAIShim(JINA.using("k"), transport=upstream.transport, attempts=1)
    answer = await rerank(app)
    assert answer.status == 502
    assert "message" in answer.json


@pytest.mark.parametrize("path", ["/v1/rerank", "/ai/v2/rerank"])
async def test_a_middleware_refuses_in_coheres_form(path: str) -> None:
    app = Authenticate(OpenAIShim(COHERE.using("k")), verify=static_tokens({"good": "team"}))
    answer = await asgi.request(app, "POST", path, {}, headers={"authorization": "Bearer bad"})
    assert answer.status == 401
    assert isinstance(answer.json["message"], str)
