"""Models listed below `/<provider>/`: for the vendor's own SDK, and for OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from asgi_aiproxy import Authenticate, ProviderRouter, UsageRecord
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.testing import MockProvider, serve
from tests import asgi

pytestmark = pytest.mark.anyio

TOKEN = "team-token"
MODELS = ["model-one", "model-two"]
KEYS = {"openai": "sk-openai", "anthropic": "sk-anthropic", "gemini": "sk-gemini"}


@dataclass
class World:
    """A router as an app, before a mock of every vendor."""

    url: str
    app: Authenticate
    mock: MockProvider
    records: list[UsageRecord] = field(default_factory=list)

    def openai(self, provider: str) -> openai.AsyncOpenAI:
        url = f"{self.url}/{provider}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key=TOKEN, max_retries=0)

    def anthropic(self, **how: str) -> anthropic.AsyncAnthropic:
        url = f"{self.url}/anthropic"
        return anthropic.AsyncAnthropic(base_url=url, max_retries=0, **how)  # type: ignore[arg-type]

    def gemini(self, version: str | None) -> genai.Client:
        url = f"{self.url}/gemini"
        options = types.HttpOptions(base_url=url, api_version=version)
        return genai.Client(api_key=TOKEN, http_options=options)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    mock = MockProvider(models=MODELS)
    async with serve(mock) as vendors:
        rows = [
            OPENAI.using(KEYS["openai"], base_url=f"{vendors}/v1"),
            ANTHROPIC.using(KEYS["anthropic"], base_url=vendors),
            GEMINI.using(KEYS["gemini"], base_url=vendors),
        ]
        records: list[UsageRecord] = []

        async def record(record: UsageRecord) -> None:
            records.append(record)

        router = ProviderRouter(providers=rows, record=record)
        app = Authenticate(router, verify=static_tokens({TOKEN: "team"}))
        async with serve(app) as url:
            yield World(url, app, mock, records)
        for seen in mock.requests:  # our keys, and never the caller's token
            assert seen.secrets == {KEYS[seen.dialect]}
            assert TOKEN not in f"{seen.headers} {seen.query}"


@pytest.mark.parametrize("how", [{"api_key": TOKEN}, {"auth_token": TOKEN}], ids=["key", "bearer"])
async def test_anthropics_sdk_gets_anthropics_list(world: World, how: dict[str, str]) -> None:
    async with world.anthropic(**how) as client:
        page = await client.models.list(limit=5)
        assert [(model.id, model.type) for model in page.data] == [(m, "model") for m in MODELS]
        assert page.data[0].created_at.year == 2023
        assert (page.first_id, page.last_id, page.has_more) == (*MODELS, False)
        one = await client.models.retrieve("model-one")
        assert (one.id, one.display_name) == ("model-one", "model-one")
    assert [(seen.path, seen.query) for seen in world.mock.requests] == [
        ("/v1/models", "limit=5"),
        ("/v1/models/model-one", ""),
    ]


@pytest.mark.parametrize("version", [None, "v1", "v1beta"])
async def test_googles_sdk_gets_googles_list(world: World, version: str | None) -> None:
    client = world.gemini(version)
    names = [model.name async for model in await client.aio.models.list()]
    assert names == [f"models/{name}" for name in MODELS]
    one = await client.aio.models.get(model="model-one")
    assert (one.name, one.supported_actions) == ("models/model-one", ["generateContent"])
    assert {seen.dialect for seen in world.mock.requests} == {"gemini"}


@pytest.mark.parametrize("provider", list(KEYS))
async def test_openais_sdk_gets_openais_list_of_every_vendor(world: World, provider: str) -> None:
    async with world.openai(provider) as client:
        found = [model async for model in await client.models.list()]
        assert [(model.id, model.object) for model in found] == [(m, "model") for m in MODELS]
        assert {model.owned_by for model in found} == {provider}
        assert (await client.models.retrieve("model-one")).owned_by == provider


async def test_what_a_vendors_client_may_ask_is_told_by_its_key(world: World) -> None:
    """Without an SDK: the vendor's own header for a key is enough."""
    lists = {
        ("/anthropic/v1/models", "x-api-key"): "first_id",
        ("/gemini/v1/models", "x-goog-api-key"): "models",
        ("/anthropic/v1/models", "x-goog-api-key"): "object",
        ("/openai/v1/models", "x-api-key"): "object",
    }
    for (path, header), member in lists.items():
        answer = await asgi.request(world.app, "GET", path, headers={header: TOKEN})
        assert answer.status == 200
        assert member in answer.json


async def test_who_has_no_token_gets_no_list(world: World) -> None:
    async with world.anthropic(api_key="stolen") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.models.list()
    assert world.mock.requests == []
