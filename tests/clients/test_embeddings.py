"""Embeddings: OpenAI's and Google's SDKs through one mount, for vendors with either API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from asgi_aiproxy import AIShim, Authenticate, ProviderRouter
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OLLAMA, OPENAI, openai_compatible
from asgi_aiproxy.testing import Fault, MockProvider, serve
from asgi_aiproxy.testing.operations import embed
from tests.support.google_sdk import google_client

pytestmark = pytest.mark.anyio

TOKEN = "team-token"
TEXTS = ["one", "two", "three"]
MODELS = ("embed-openai", "embed-google", "embed-compatible", "embed-ollama")


@dataclass
class World:
    url: str
    mock: MockProvider

    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=TOKEN, max_retries=0)

    async def post(self, path: str, body: Any) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            headers = {"authorization": f"Bearer {TOKEN}"}
            return await client.post(self.url + path, json=body, headers=headers)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    mock = MockProvider()
    async with serve(mock) as vendors:
        gemini = GEMINI.using("sk-gemini", base_url=vendors)
        compatible = openai_compatible(f"{vendors}/v1").using("sk-local")
        router = ProviderRouter(
            {
                "embed-openai": OPENAI.using("sk-openai", base_url=f"{vendors}/v1"),
                "embed-google": (gemini, "gemini-embedding-001"),
                "embed-compatible": (compatible, "nomic"),
                "embed-ollama": OLLAMA.using(base_url=vendors),
                "chat-only": ANTHROPIC.using("sk-anthropic", base_url=vendors),
            }
        )
        app = Authenticate(AIShim(router, attempts=1), verify=static_tokens({TOKEN: "team"}))
        async with serve(app) as url:
            yield World(url, mock)


def near(vectors: list[list[float]], size: int = 8) -> bool:
    return [list(v) for v in vectors] == [
        pytest.approx(embed(text, size), abs=1e-6) for text in TEXTS
    ]


@pytest.mark.parametrize("form", ["base64", "float", None])
@pytest.mark.parametrize("model", MODELS)
async def test_openais_sdk_gets_the_embeddings_of_every_vendor(
    world: World, model: str, form: Any
) -> None:
    async with world.openai() as client:
        options = {} if form is None else {"encoding_format": form}
        found = await client.embeddings.create(model=model, input=TEXTS, dimensions=5, **options)
    vectors = [item.embedding for item in found.data]
    if form == "base64":  # the SDK only decodes what it requested itself
        assert all(isinstance(vector, str) for vector in vectors)
    else:
        assert near(vectors, 5)
    assert [item.index for item in found.data] == [0, 1, 2]
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (12, 12)


@pytest.mark.parametrize("model", MODELS)
async def test_googles_sdk_gets_the_embeddings_of_every_vendor(world: World, model: str) -> None:
    async with google_client(world.url, key=TOKEN) as client:
        found = await client.models.embed_content(
            model=model,
            contents=TEXTS,
            config={"output_dimensionality": 5, "task_type": "RETRIEVAL_QUERY"},
        )
    assert found.embeddings is not None
    assert near([list(each.values or ()) for each in found.embeddings], 5)
    (seen,) = world.mock.requests
    if model == "embed-google":
        assert seen.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
        named = {each["model"] for each in seen.json["requests"]}
        assert named == {"models/gemini-embedding-001"}
        assert {each["taskType"] for each in seen.json["requests"]} == {"RETRIEVAL_QUERY"}
    else:
        assert seen.path == "/v1/embeddings"
        assert seen.json["input"] == TEXTS
        assert seen.json["dimensions"] == 5


@pytest.mark.parametrize("model", MODELS)
async def test_a_single_embedding_of_googles_api_has_its_shape_and_its_usage(
    world: World, model: str
) -> None:
    body = {
        "content": {"parts": [{"text": "one"}]},
        "task_type": "CLUSTERING",
        "title": "A title",
    }
    answer = await world.post(f"/v1beta/models/{model}:embedContent", body)
    assert answer.status_code == 200
    found = answer.json()
    assert found["embedding"]["values"] == pytest.approx(embed("one", 8), abs=1e-6)
    if model == "embed-google":
        assert "aiproxy-ignored" not in answer.headers
        assert world.mock.requests[0].path.endswith(":embedContent")
    else:
        assert answer.headers["aiproxy-ignored"] == "taskType, title"
    assert found["usageMetadata"] == {"promptTokenCount": 12}


@pytest.mark.parametrize(
    ("member", "word", "task"),
    [
        ("input_type", "query", "RETRIEVAL_QUERY"),
        ("input_type", "search_document", "RETRIEVAL_DOCUMENT"),
        ("task_type", "SEMANTIC_SIMILARITY", "SEMANTIC_SIMILARITY"),
        ("task_type", "CODE_RETRIEVAL_QUERY", "CODE_RETRIEVAL_QUERY"),
    ],
)
async def test_the_purpose_of_embeddings_reaches_google_from_openais_clients(
    world: World, member: str, word: str, task: str
) -> None:
    body = {"model": "embed-google", "input": "one", "user": "u", "odd": 1, member: word}
    answer = await world.post("/v1/embeddings", body)
    assert answer.status_code == 200
    assert answer.headers["aiproxy-ignored"] == "odd, user"
    (sent,) = world.mock.requests[0].json["requests"]
    assert sent == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "one"}]},
        "taskType": task,
    }


def batch(*requests: Any) -> dict[str, Any]:
    return {"requests": list(requests)}


ONE = {"content": {"parts": [{"text": "one"}]}}
IMAGE = {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]}}
COMPATIBLE = "/v1beta/models/embed-compatible"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"model": "embed-google"}, "input"),
        ("/v1/embeddings", {"model": "embed-google", "input": []}, "input"),
        ("/v1/embeddings", {"model": "embed-google", "input": {"a": 1}}, "input"),
        ("/v1/embeddings", {"model": "embed-google", "input": ["a", 5]}, "input[1]"),
        ("/v1/embeddings", {"model": "embed-google", "input": [[1, 2], [3]]}, "input[0]"),
        ("/v1/embeddings", {"model": "embed-google", "input": [1, 2]}, "input[0]"),
        ("/v1/embeddings", {"model": "embed-google", "input": "a", "dimensions": 0}, "dimensions"),
        (
            "/v1/embeddings",
            {"model": "embed-google", "input": "a", "encoding_format": "int8"},
            "encoding_format",
        ),
        (f"{COMPATIBLE}:embedContent", {}, "content"),
        (f"{COMPATIBLE}:embedContent", IMAGE, "content.parts[0]"),
        (f"{COMPATIBLE}:embedContent", {**ONE, "model": "models/other"}, "model"),
        (
            f"{COMPATIBLE}:embedContent",
            {**ONE, "outputDimensionality": "5"},
            "outputDimensionality",
        ),
        (f"{COMPATIBLE}:batchEmbedContents", {}, "requests"),
        (f"{COMPATIBLE}:batchEmbedContents", {"requests": {}}, "requests"),
        (f"{COMPATIBLE}:batchEmbedContents", batch(ONE, 5), "requests[1]"),
        (f"{COMPATIBLE}:batchEmbedContents", batch(ONE, {}), "requests[1].content"),
        (f"{COMPATIBLE}:batchEmbedContents", batch(ONE, IMAGE), "requests[1].content.parts[0]"),
        (
            f"{COMPATIBLE}:batchEmbedContents",
            batch(ONE, {**ONE, "model": "models/other"}),
            "requests[1].model",
        ),
        (
            f"{COMPATIBLE}:batchEmbedContents",
            batch(ONE, {**ONE, "outputDimensionality": 5}),
            "requests[1].outputDimensionality",
        ),
        (
            f"{COMPATIBLE}:batchEmbedContents",
            batch(ONE, {**ONE, "taskType": "CLUSTERING"}),
            "requests[1].taskType",
        ),
        (
            "/v1beta/models/embed-google:batchEmbedContents",
            batch(ONE, {**ONE, "model": "models/other"}),
            "requests[1].model",
        ),
        ("/v1beta/models/embed-google:batchEmbedContents", batch(ONE, "x"), "requests[1]"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_the_path_of_the_member(
    world: World, path: str, body: dict[str, Any], param: str
) -> None:
    answer = await world.post(path, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error.get("param", param) == param
    assert f"'{param}'" in error["message"]
    assert world.mock.requests == []


async def test_a_vendor_without_embeddings_is_named(world: World) -> None:
    for path, body in (
        ("/v1/embeddings", {"model": "chat-only", "input": "a"}),
        ("/v1beta/models/chat-only:embedContent", ONE),
    ):
        answer = await world.post(path, body)
        assert answer.status_code == 404
        assert "'anthropic'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("model", ["embed-google", "embed-compatible"])
async def test_too_few_embeddings_and_unreadable_ones_are_errors(world: World, model: str) -> None:
    other = f"/v1beta/models/{model}:batchEmbedContents" if model != "embed-google" else ""
    path, body = other or "/v1/embeddings", batch(ONE, ONE)
    if not other:
        body = {"model": model, "input": TEXTS}
    world.mock.script(
        Fault.status(200, body={"data": [], "embeddings": []}), Fault.status(200, body="[]")
    )
    for _ in range(2):
        answer = await world.post(path, body)
        assert answer.status_code == 502
