"""What vendors get of operations besides chat: members that their SDKs declare, and no others."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from cohere.v2.raw_client import RawV2Client
from mistralai.client.models import ClassificationRequest, EmbeddingRequest

from asgi_aiproxy import AIShim
from asgi_aiproxy.providers import COHERE, MISTRAL, Provider
from asgi_aiproxy.upstream import HttpxTransport
from tests.support import asgi_client as asgi
from tests.support.sdk_types import misfit, of_method

pytestmark = pytest.mark.anyio

TEXTS = ["One.", "Two."]
EMBEDDINGS: list[dict[str, Any]] = [
    {"input": "One."},
    {"input": TEXTS},
    {"input": TEXTS, "dimensions": 256, "encoding_format": "base64", "user": "u1"},
    {"input": TEXTS, "input_type": "query", "encoding_format": "float"},
]
RERANK: list[dict[str, Any]] = [
    {"query": "Q", "documents": TEXTS},
    {"query": "Q", "documents": TEXTS, "top_n": 1, "max_tokens_per_doc": 100, "priority": 1},
]
MODERATION: list[dict[str, Any]] = [
    {"input": "One."},
    {"input": TEXTS},
    {"input": [{"type": "text", "text": "One."}]},
]
CASES: list[tuple[Provider, str, Any, list[dict[str, Any]]]] = [
    (COHERE, "/v1/embeddings", of_method(RawV2Client.embed, "request_options"), EMBEDDINGS),
    (COHERE, "/v2/rerank", of_method(RawV2Client.rerank, "request_options"), RERANK),
    (MISTRAL, "/v1/embeddings", EmbeddingRequest, EMBEDDINGS),
    (MISTRAL, "/v1/moderations", ClassificationRequest, MODERATION),
]


@pytest.mark.parametrize(
    ("row", "path", "kind", "body"),
    [
        pytest.param(row, path, kind, body, id=f"{row.name}{path}-{number}")
        for row, path, kind, bodies in CASES
        for number, body in enumerate(bodies)
    ],
)
async def test_vendors_get_only_what_their_sdk_declares(
    row: Provider, path: str, kind: Any, body: dict[str, Any]
) -> None:
    refusals: list[str] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        refusals.append(misfit(json.loads(await request.aread()), kind))
        return httpx.Response(400, json={"message": "seen"})

    transport = HttpxTransport(httpx.MockTransport(handle))
    app = AIShim(row.using("sk-1"), transport=transport, attempts=1)
    answer = await asgi.request(app, "POST", path, {"model": "m", **body})
    assert refusals == [""], answer.body
