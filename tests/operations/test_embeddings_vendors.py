"""Embeddings of vendors with APIs of their own, for OpenAI's and Google's clients."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from asgi_aiproxy import AIShim
from asgi_aiproxy.providers import (
    COHERE,
    GEMINI,
    JINA,
    MISTRAL,
    OPENAI,
    VOYAGE,
    Provider,
    bedrock,
    vertex,
)
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses
from tests.support.strict_vendor import Endpoint, StrictVendor

pytestmark = pytest.mark.anyio


def vector(text: str) -> list[float]:
    return [float(len(text)), 0.5, -0.25]


def as_openai(body: Any, request: Any) -> Any:
    data = [
        {"object": "embedding", "index": at, "embedding": vector(text)}
        for at, text in enumerate(body["input"])
    ]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def as_cohere(body: Any, request: Any) -> Any:
    texts = body["texts"]
    meta = {"billed_units": {"input_tokens": len(texts)}}
    return {"id": "e", "embeddings": {"float": [vector(t) for t in texts]}, "meta": meta}


def as_titan(body: Any, request: Any) -> Any:
    return {"embedding": vector(body["inputText"]), "inputTextTokenCount": 1}


def as_google(body: Any, request: Any) -> Any:
    texts = [each["content"]["parts"][0]["text"] for each in body["requests"]]
    found = [{"values": vector(text)} for text in texts]
    return {"embeddings": found, "usageMetadata": {"promptTokenCount": len(texts)}}


COHERE_TASKS = {"search_document", "search_query", "classification", "clustering", "image"}
EMBED = {"texts": [str], "input_type": COHERE_TASKS, "embedding_types": [{"float"}],
         "truncate": {"NONE", "START", "END"}, "max_tokens": int,
         "output_dimension": int}  # fmt: skip
JINA_TASKS = {"retrieval.query", "retrieval.passage", "text-matching", "classification",
              "separation"}  # fmt: skip
VENDORS: dict[str, tuple[Provider, str, Endpoint, bool]] = {
    "cohere": (COHERE, "embed-v4.0",
               Endpoint("/v2/embed", {"model": str, **EMBED}, as_cohere,
                        ("model", "input_type", "embedding_types")), True),
    "mistral": (MISTRAL, "codestral-embed",
                Endpoint("/v1/embeddings",
                         {"model": str, "input": [str], "output_dimension": int,
                          "output_dtype": str, "encoding_format": {"float", "base64"},
                          "metadata": dict}, as_openai, ("model", "input")), False),
    "voyage": (VOYAGE, "voyage-3.5",
               Endpoint("/v1/embeddings",
                        {"model": str, "input": [str], "input_type": {"query", "document"},
                         "truncation": bool, "output_dimension": int, "output_dtype": str,
                         "encoding_format": {"base64"}}, as_openai, ("model", "input")), True),
    "jina": (JINA, "jina-embeddings-v3",
             Endpoint("/v1/embeddings",
                      {"model": str, "input": [str], "task": JINA_TASKS, "dimensions": int,
                       "normalized": bool, "late_chunking": bool, "truncate": bool,
                       "embedding_type": str}, as_openai, ("model", "input")), True),
    "titan": (bedrock("us-east-1"), "amazon.titan-embed-text-v2:0",
              Endpoint(r"/model/amazon\.titan-embed-text-v2%3A0/invoke",
                       {"inputText": str, "dimensions": {256, 512, 1024}, "normalize": bool,
                        "embeddingTypes": [str]}, as_titan, ("inputText",)), False),
    "cohere-on-bedrock": (bedrock("us-east-1"), "cohere.embed-v4:0",
                          Endpoint(r"/model/cohere\.embed-v4%3A0/invoke", EMBED, as_cohere,
                                   ("texts", "input_type")), True),
}  # fmt: skip
every_vendor = pytest.mark.parametrize("name", VENDORS)


def app_of(name: str, records: list[UsageRecord] | None = None) -> tuple[AIShim, StrictVendor]:
    provider, _, endpoint, _ = VENDORS[name]

    async def keep(record: UsageRecord) -> None:
        (records if records is not None else []).append(record)

    vendor = StrictVendor([endpoint])
    return AIShim(provider.using("k"), transport=vendor.transport, record=keep), vendor


async def embed(app: Any, name: str, **members: Any) -> Any:
    body = {"model": VENDORS[name][1], "input": ["one", "three"], **members}
    return await asgi.request(app, "POST", "/v1/embeddings", body)


@every_vendor
async def test_openais_clients_get_vectors_and_usage(name: str) -> None:
    records: list[UsageRecord] = []
    app, vendor = app_of(name, records)
    async with app:
        answer = await embed(app, name, encoding_format="float", dimensions=256)
    assert answer.status == 200, answer.body
    found = answer.json
    assert [each["embedding"] for each in found["data"]] == [vector("one"), vector("three")]
    assert [each["index"] for each in found["data"]] == [0, 1]
    assert answer.header("aiproxy-ignored") is None
    assert found["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert records[0].usage is not None
    assert records[0].usage.input == 2
    assert 256 in vendor.bodies[0].values()


@every_vendor
async def test_base64_is_made_for_clients_that_request_it(name: str) -> None:
    app, _ = app_of(name)
    answer = await embed(app, name, encoding_format="base64", input="one")
    packed = base64.b64decode(answer.json["data"][0]["embedding"])
    assert list(struct.unpack("<3f", packed)) == vector("one")


@every_vendor
async def test_googles_clients_get_vectors(name: str) -> None:
    _, model, _, tasks = VENDORS[name]
    app, vendor = app_of(name)
    one = {"content": {"parts": [{"text": "one"}]}, "taskType": "RETRIEVAL_QUERY",
           "outputDimensionality": 512}  # fmt: skip
    path = f"/v1beta/models/{model.replace(':', '%3A')}:batchEmbedContents"
    answer = await asgi.request(app, "POST", path, {"requests": [one, one]})
    assert answer.status == 200, answer.body
    assert [each["values"] for each in answer.json["embeddings"]] == [vector("one")] * 2
    assert answer.header("aiproxy-ignored") == (None if tasks else "taskType")
    assert 512 in vendor.bodies[0].values()


@every_vendor
async def test_the_purpose_is_in_the_vendors_words(name: str) -> None:
    _, _, _, tasks = VENDORS[name]
    app, vendor = app_of(name)
    answer = await embed(app, name, input_type="query", user="ann")
    assert answer.status == 200, answer.body
    ignored = (answer.header("aiproxy-ignored") or "").split(", ")
    assert ("input_type" in ignored) is not tasks
    assert "user" in ignored
    words = {"search_query", "query", "retrieval.query"}
    sent = [value for value in vendor.bodies[0].values() if isinstance(value, str)]
    assert bool(words & set(sent)) is tasks


@every_vendor
@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
async def test_token_numbers_are_refused_by_name(name: str, tokens: Any) -> None:
    app, vendor = app_of(name)
    answer = await embed(app, name, input=tokens)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "input[0]"
    assert vendor.requests == []


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        (COHERE, "embed-multilingual-v3.0"),
        (bedrock("us-east-1"), "cohere.embed-english-v3"),
        (bedrock("us-east-1"), "amazon.titan-embed-text-v1"),
    ],
)
async def test_dimensions_of_a_model_with_one_length_are_refused_by_name(
    provider: Provider, model: str
) -> None:
    app = AIShim(provider.using("k"), transport=StrictVendor([]).transport)
    body = {"model": model, "input": "a", "dimensions": 256}
    answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, "dimensions")
    one = {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 256}
    answer = await asgi.request(app, "POST", f"/v1beta/models/{model}:embedContent", one)
    assert answer.status == 400
    assert "'outputDimensionality'" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cohere", [96, 96, 8]),
        ("cohere-on-bedrock", [96, 96, 8]),
        ("titan", [1] * 100),
        ("mistral", [256, 144]),
        ("voyage", [1000, 500]),
        ("jina", [2048, 52]),
    ],
)
async def test_more_texts_than_a_request_may_have_are_split_and_joined(
    name: str, sizes: list[int]
) -> None:
    records: list[UsageRecord] = []
    app, vendor = app_of(name, records)
    texts = ["x" * (at % 7 + 1) for at in range(sum(sizes))]
    async with app:
        answer = await embed(app, name, input=texts)
    assert answer.status == 200, answer.body
    assert [each["embedding"] for each in answer.json["data"]] == [vector(t) for t in texts]
    if name == "titan":
        assert len(vendor.bodies) == 100
    else:
        member = "texts" if "cohere" in name else "input"
        assert [len(body[member]) for body in vendor.bodies] == sizes
    assert answer.json["usage"]["prompt_tokens"] == len(texts)
    assert len(records) == 1  # one call, whatever it takes


async def test_more_texts_than_a_call_may_have_are_refused_by_name() -> None:
    app, vendor = app_of("titan")
    answer = await embed(app, "titan", input=["x"] * 101)
    assert (answer.status, answer.json["error"]["param"]) == (400, "input")
    assert vendor.requests == []


async def test_googles_batches_have_at_most_100_texts() -> None:
    each = {"model": str, "content": {"parts": [{"text": str}]}, "taskType": str, "title": str,
            "outputDimensionality": int}  # fmt: skip
    path = "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    vendor = StrictVendor([Endpoint(path, {"requests": [each]}, as_google, ("requests",))])
    app = AIShim(GEMINI.using("k"), transport=vendor.transport)
    body = {"model": "gemini-embedding-001", "input": ["a"] * 250}
    answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    assert len(answer.json["data"]) == 250
    assert [len(body["requests"]) for body in vendor.bodies] == [100, 100, 50]
    assert answer.json["usage"]["prompt_tokens"] == 250


async def test_a_batch_that_fails_begins_again_with_the_next_key() -> None:
    one = b'{"embedding":[1],"inputTextTokenCount":1}'
    upstream = Upstream(answers(one), refuses(429), answers(one), answers(b'{"embedding":[2]}'))
    provider = bedrock("us-east-1").using(["first", "second"])
    app = AIShim(provider, transport=upstream.transport, attempts=1)
    body = {"model": "amazon.titan-embed-text-v2:0", "input": ["a", "b"]}
    answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    assert [each["embedding"] for each in answer.json["data"]] == [[1], [2]]
    assert upstream.keys in (["first"] * 2 + ["second"] * 2, ["second"] * 2 + ["first"] * 2)


async def test_vertex_embeds_one_text_of_geminis_models_at_once() -> None:
    def predict(body: Any, request: Any) -> Any:
        texts = [each["content"] for each in body["instances"]]
        return {
            "predictions": [
                {"embeddings": {"values": vector(t), "statistics": {"token_count": 2}}}
                for t in texts
            ]
        }

    instance = {"content": str, "task_type": str, "title": str}
    place = "/v1/projects/my-project/locations/global/publishers/google/models"
    members = {
        "instances": [instance],
        "parameters": {"outputDimensionality": int, "autoTruncate": bool},
    }
    vendor = StrictVendor(
        [
            Endpoint(f"{place}/gemini-embedding-001:predict", members, predict),
            Endpoint(f"{place}/text-embedding-005:predict", members, predict),
        ]
    )
    app = AIShim(vertex("my-project").using("ya29.token"), transport=vendor.transport)
    for model, requests in (("gemini-embedding-001", 2), ("text-embedding-005", 1)):
        vendor.requests.clear()
        body = {"model": model, "input": ["one", "three"], "dimensions": 3, "input_type": "query"}
        answer = await asgi.request(app, "POST", "/v1/embeddings", body)
        assert answer.status == 200, answer.body
        found = [each["embedding"] for each in answer.json["data"]]
        assert found == [vector("one"), vector("three")]
        assert answer.json["usage"]["prompt_tokens"] == 4
        assert len(vendor.requests) == requests
    assert vendor.bodies[0]["instances"] == [{"content": "one", "task_type": "RETRIEVAL_QUERY"}]


@pytest.mark.parametrize("numbers", [False, True], ids=["texts", "tokens"])
async def test_openais_own_requests_are_split_at_2048_inputs(numbers: bool) -> None:
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    def embedded(body: Any, request: Any) -> Any:
        found = as_openai({**body, "input": [str(each) for each in body["input"]]}, request)
        found["data"].reverse()  # their index counts
        return found

    each = [int] if numbers else str
    endpoint = Endpoint("/v1/embeddings", {"model": str, "input": [each], "user": str}, embedded)
    vendor = StrictVendor([endpoint])
    texts = [f"{'x' * (at % 5)}{at}" for at in range(4100)]
    inputs: Any = [[at, 2] for at in range(4100)] if numbers else texts
    app = AIShim(OPENAI.using("k"), transport=vendor.transport, record=keep)
    async with app:
        body = {"model": "text-embedding-3-small", "input": inputs, "user": "u"}
        answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    assert answer.status == 200, answer.body
    assert [len(body["input"]) for body in vendor.bodies] == [2048, 2048, 4]
    found = answer.json
    assert [each["index"] for each in found["data"]] == list(range(4100))
    assert [each["embedding"] for each in found["data"]] == [vector(str(t)) for t in inputs]
    assert found["usage"] == {"prompt_tokens": 4100, "total_tokens": 4100}
    assert [record.usage.input for record in records if record.usage is not None] == [4100]


async def test_googles_own_batches_are_split_at_100_requests() -> None:
    path = "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    each = {"model": str, "content": {"parts": [{"text": str}]}}
    vendor = StrictVendor([Endpoint(path, {"requests": [each]}, as_google, ("requests",))])
    app = AIShim(GEMINI.using("k"), transport=vendor.transport)
    texts = ["x" * (at % 7 + 1) for at in range(250)]
    requests = [
        {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]}}
        for text in texts
    ]
    answer = await asgi.request(app, "POST", path, {"requests": requests})
    assert answer.status == 200, answer.body
    assert [each["values"] for each in answer.json["embeddings"]] == [vector(t) for t in texts]
    assert answer.json["usageMetadata"] == {"promptTokenCount": 250}
    assert [len(body["requests"]) for body in vendor.bodies] == [100, 100, 50]


async def test_an_error_of_one_batch_is_the_error_of_the_whole_request() -> None:
    data = [{"object": "embedding", "index": at, "embedding": [1]} for at in range(2048)]
    first = json.dumps({"object": "list", "data": data, "model": "m"}).encode()
    error = b'{"error":{"message":"A text is too long.","type":"invalid_request_error"}}'
    upstream = Upstream(answers(first), refuses(400, error))
    app = AIShim(OPENAI.using("k"), transport=upstream.transport)
    body = {"model": "m", "input": ["x"] * 3000}
    answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    assert (answer.status, answer.json["error"]["message"]) == (400, "A text is too long.")


async def test_the_tokens_of_one_input_are_not_split() -> None:
    upstream = Upstream(answers(b'{"data":[{"index":0,"embedding":[1]}],"model":"m"}'))
    app = AIShim(OPENAI.using("k"), transport=upstream.transport)
    body = {"model": "m", "input": list(range(5000))}
    answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    assert answer.status == 200
    assert json.loads(upstream.requests[0].content)["input"] == list(range(5000))
