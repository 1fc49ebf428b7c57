"""The vendors' own SDKs through the proxy, for operations that the shims do not have."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from google.genai import types
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_aiproxy import (
    Authenticate,
    PassthroughProxy,
    ProviderRouter,
    UsageRecord,
    lifespan,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.testing import serve
from tests.support.google_sdk import google_client
from tests.support.vendor_resources import Vendors

pytestmark = pytest.mark.anyio

TOKEN = "gateway-token-of-ada"
KEYS = {"Bearer sk-openai", "sk-anthropic", "sk-google"}


class World:
    def __init__(self) -> None:
        self.vendors = Vendors()
        self.records: list[UsageRecord] = []
        self.url = ""

    async def record(self, record: UsageRecord) -> None:
        self.records.append(record)

    def app(self, upstream: str, kind: str) -> Any:
        rows = {
            "openai": OPENAI.using("sk-openai", base_url=f"{upstream}/v1"),
            "anthropic": ANTHROPIC.using("sk-anthropic", base_url=upstream),
            "gemini": GEMINI.using("sk-google", base_url=upstream),
        }
        tokens = static_tokens({TOKEN: "ada"})
        if kind == "router":
            router = ProviderRouter(providers=rows.values(), record=self.record)
            app = Authenticate(router, verify=tokens)
            return Starlette(routes=[Mount("/ai", app)], lifespan=lifespan(app))
        proxies = {
            name: Authenticate(PassthroughProxy(row, record=self.record), verify=tokens)
            for name, row in rows.items()
        }
        mounts = [Mount(f"/ai/{name}", proxy) for name, proxy in proxies.items()]
        return Starlette(routes=mounts, lifespan=lifespan(*proxies.values()))


@pytest.fixture(params=["proxies", "router"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = World()
    async with (
        serve(made.vendors.app) as upstream,
        serve(made.app(upstream, request.param)) as url,
    ):
        made.url = f"{url}/ai"
        yield made
        assert made.vendors.keys <= KEYS
        assert TOKEN not in str(made.vendors.seen) + str(made.vendors.queries)


async def test_openai_files_and_batches(world: World) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{world.url}/openai/v1", api_key=TOKEN, max_retries=0
    ) as client:
        data = b'{"custom_id": 1}\n' * 1000
        made = await client.files.create(file=("a.jsonl", data), purpose="batch")
        assert made.bytes == len(data)
        assert (await client.files.content(made.id)).content == data
        assert [file.id async for file in client.files.list()] == [made.id]
        batch = await client.batches.create(
            input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert (batch.status, batch.input_file_id) == ("validating", made.id)
        assert (await client.files.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError, match="not served by this gateway"):
            await client.get("/organization/admin_api_keys", cast_to=object)
    assert {path for _, path, _ in world.vendors.seen} <= {
        "/v1/files",
        "/v1/files/file-1",
        "/v1/files/file-1/content",
        "/v1/batches",
    }


async def test_openai_realtime(world: World) -> None:
    async with (
        openai.AsyncOpenAI(
            base_url=f"{world.url}/openai/v1", api_key=TOKEN, max_retries=0
        ) as client,
        client.realtime.connect(model="gpt-realtime") as session,
    ):
        assert (await session.recv()).type == "session.created"
        await session.response.create()
        said = ""
        async for event in session:
            if event.type == "response.output_text.delta":
                said += event.delta
            if event.type == "response.done":
                break
        assert said == "Hello"
    (seen,) = world.vendors.seen
    assert seen[:2] == ("WEBSOCKET", "/v1/realtime")
    assert seen[2]["authorization"] == "Bearer sk-openai"


async def test_anthropic_batches_and_counting(world: World) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=f"{world.url}/anthropic", api_key=TOKEN, max_retries=0
    ) as client:
        params: Any = {"model": "claude", "max_tokens": 5, "messages": []}
        batch = await client.messages.batches.create(
            requests=[{"custom_id": "a", "params": params}]
        )
        assert batch.processing_status == "in_progress"
        batch = await client.messages.batches.retrieve(batch.id)
        assert batch.processing_status == "ended"
        counted = await client.messages.count_tokens(
            model="claude", messages=[{"role": "user", "content": "Hi"}]
        )
        assert counted.input_tokens == 7
        with pytest.raises(anthropic.NotFoundError):
            await client.get("/v1/organizations/api_keys", cast_to=object)
    assert all(headers["anthropic-version"] for *_, headers in world.vendors.seen)


async def test_google_files_and_caches(world: World) -> None:
    async with google_client(f"{world.url}/gemini", key=TOKEN) as client:
        made = await client.files.upload(
            file=io.BytesIO(b"words " * 1000), config={"mime_type": "text/plain"}
        )
        assert made.name == "files/7"
        assert world.vendors.files["files/7"] == b"words " * 1000
        assert (await client.files.get(name="files/7")).state == types.FileState.ACTIVE
        cache = await client.caches.create(model="gemini-x", config={"display_name": "c"})
        assert cache.name == "cachedContents/1"
