"""`MockProvider` ranks and embeds as Cohere and Jina do, for tests of applications."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.providers import COHERE, JINA
from asgi_aiproxy.testing import Fault, MockProvider
from asgi_aiproxy.testing.operations import embed
from asgi_aiproxy.upstream import HttpxTransport
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

BODY = {"model": "m", "query": "red apples", "documents": ["a fish", "red apples", "apples"]}


def app_of(row: Any, mock: MockProvider) -> OpenAIShim:
    transport = HttpxTransport(httpx.ASGITransport(mock))
    return OpenAIShim(row.using("k"), transport=transport, attempts=1)


@pytest.mark.parametrize(("row", "path"), [(COHERE, "/v2/rerank"), (JINA, "/v1/rerank")])
async def test_documents_are_ranked_by_the_words_of_the_query(row: Any, path: str) -> None:
    mock = MockProvider(key="k")
    answer = await asgi.request(app_of(row, mock), "POST", path, {**BODY, "top_n": 2})
    assert answer.status == 200, answer.body
    assert {each["index"] for each in answer.json["results"]} == {1, 2}
    assert len(mock.requests) == 1


async def test_texts_are_embedded() -> None:
    mock = MockProvider()
    body = {"model": "embed-v4.0", "input": ["one"], "dimensions": 4}
    answer = await asgi.request(app_of(COHERE, mock), "POST", "/v1/embeddings", body)
    assert answer.json["data"][0]["embedding"] == pytest.approx(embed("one", 4))


async def test_faults_apply_to_these_operations_too() -> None:
    mock = MockProvider()
    mock.script(Fault.status(503))
    app = app_of(COHERE, mock)
    assert (await asgi.request(app, "POST", "/v2/rerank", BODY)).status >= 500
    assert (await asgi.request(app, "POST", "/v2/rerank", BODY)).status == 200
