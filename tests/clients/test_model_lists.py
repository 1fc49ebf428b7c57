"""Model lists below `/<provider>/`: for the vendor's own SDK, and for OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import anthropic
import httpx
import openai
import pytest
from google.genai import errors
from google.genai.client import AsyncClient

from asgi_aiproxy import AIShim, Authenticate, Principal, ProviderRouter, UsageRecord
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.testing import Fault, MockProvider, serve
from tests.support import asgi_client as asgi
from tests.support.google_sdk import google_client

pytestmark = pytest.mark.anyio

TOKEN = "team-token"
MODELS = ["model-one", "model-two"]
KEYS = {"openai": "sk-openai", "anthropic": "sk-anthropic", "gemini": "sk-gemini"}


@dataclass
class World:
    """A router as an app, in front of a mock of every vendor."""

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

    def gemini(self, version: str | None) -> AbstractAsyncContextManager[AsyncClient]:
        return google_client(f"{self.url}/gemini", key=TOKEN, version=version)


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
    async with world.gemini(version) as client:
        names = [model.name async for model in await client.models.list()]
        one = await client.models.get(model="model-one")
    assert names == [f"models/{name}" for name in MODELS]
    assert (one.name, one.supported_actions) == ("models/model-one", ["generateContent"])
    assert {seen.dialect for seen in world.mock.requests} == {"gemini"}


@pytest.mark.parametrize("provider", list(KEYS))
async def test_openais_sdk_gets_openais_list_of_every_vendor(world: World, provider: str) -> None:
    async with world.openai(provider) as client:
        found = [model async for model in await client.models.list()]
        assert [(model.id, model.object) for model in found] == [(m, "model") for m in MODELS]
        assert {model.owned_by for model in found} == {provider}
        assert (await client.models.retrieve("model-one")).owned_by == provider


VERSION = ("anthropic-version", "2023-06-01")


@pytest.mark.parametrize(
    ("path", "headers", "member"),
    [
        ("/anthropic/v1/models", [VERSION], "first_id"),
        ("/anthropic/v1/models", [], "object"),
        ("/anthropic/v1/models", [("x-api-key", TOKEN)], "object"),
        ("/openai/v1/models", [("x-api-key", TOKEN)], "object"),
        ("/openai/v1/models", [VERSION], "first_id"),
        ("/gemini/v1/models", [], "object"),
        ("/gemini/v1/models", [("x-goog-api-client", "genai")], "models"),
        ("/gemini/v1beta/models", [], "models"),
        ("/openai/v1beta/models", [], "models"),
    ],
)
async def test_a_list_has_the_format_of_the_clients_api_whatever_header_its_key_is_in(
    world: World, path: str, headers: list[tuple[str, str]], member: str
) -> None:
    sent = dict([*headers, ("authorization", f"Bearer {TOKEN}")])
    answer = await asgi.request(world.app, "GET", path, headers=sent)
    assert answer.status == 200
    assert member in answer.json


async def test_googles_key_header_identifies_its_clients(world: World) -> None:
    for path, member in {"/gemini/v1/models": "models", "/openai/v1/models": "models"}.items():
        answer = await asgi.request(world.app, "GET", path, headers={"x-goog-api-key": TOKEN})
        assert member in answer.json


# ── one mount for all clients ────────────────────────────────────────────────

TEAM = Principal("team", models=("model-*",))


@pytest.fixture
async def mount(world: World) -> AsyncIterator[str]:
    """The address of an AIShim whose models belong to several vendors."""
    vendor = OPENAI.using("sk-openai", base_url="http://127.0.0.1:9/v1")
    names = [*(f"model-{at:02}" for at in range(45)), "secret"]
    shim = AIShim(ProviderRouter(dict.fromkeys(names, vendor)))
    async with serve(Authenticate(shim, verify=static_tokens({TOKEN: TEAM}))) as url:
        yield url


NAMES = [f"model-{at:02}" for at in range(45)]


async def test_anthropics_sdk_reads_all_pages_of_a_mixed_list(mount: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=mount, auth_token=TOKEN, max_retries=0) as client:
        first = await client.models.list()
        assert (len(first.data), first.has_more, first.first_id) == (20, True, NAMES[0])
        assert [model.id async for model in first] == NAMES
        back = await client.models.list(before_id=NAMES[5], limit=3)
        assert ([m.id for m in back.data], back.has_more) == (NAMES[2:5], True)
        everything = await client.models.list(limit=1000)
        assert (len(everything.data), everything.has_more) == (45, False)
        one = await client.models.retrieve(NAMES[7])
        assert (one.id, one.type, one.lifecycle) == (NAMES[7], "model", "active")
        assert one.created_at.year == 1970
        with pytest.raises(anthropic.NotFoundError, match="secret"):
            await client.models.retrieve("secret")


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_googles_sdk_reads_all_pages_of_a_mixed_list(mount: str, version: str) -> None:
    async with google_client(mount, key=TOKEN, version=version) as client:
        pager = await client.models.list(config={"page_size": 20})
        assert [model.name async for model in pager] == [f"models/{name}" for name in NAMES]
        one = await client.models.get(model=NAMES[3])
        assert (one.name, one.display_name) == (f"models/{NAMES[3]}", NAMES[3])
        with pytest.raises(errors.ClientError, match="secret"):
            await client.models.get(model="secret")


async def test_openais_sdk_gets_the_mixed_list_at_once(mount: str) -> None:
    client = openai.AsyncOpenAI(base_url=f"{mount}/v1", api_key=TOKEN, max_retries=0)
    async with client:
        assert [model.id async for model in await client.models.list()] == NAMES


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("/v1/models", "limit=0", "limit"),
        ("/v1/models", "limit=1001", "limit"),
        ("/v1/models", "limit=ten", "limit"),
        ("/v1/models", "limit=%C2%B2", "limit"),
        ("/v1/models", "after_id=nothing", "after_id"),
        ("/v1/models", "before_id=secret", "before_id"),
        ("/v1/models", "before_id=model-01&after_id=model-02", "before_id"),
        ("/v1beta/models", "pageSize=-1", "pageSize"),
        ("/v1beta/models", "pageToken=%FF", "pageToken"),
        ("/v1beta/models", "pageToken=c2VjcmV0", "pageToken"),
        ("/v1beta/models", "pageToken=_w==", "pageToken"),
    ],
)
async def test_an_invalid_page_is_refused_with_the_name_of_the_parameter(
    mount: str, path: str, query: str, param: str
) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{mount}{path}?{query}", headers=headers)
    assert answer.status_code == 400
    assert param in answer.json()["error"]["message"]
    wrong_key = {"authorization": "Bearer stolen", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient() as client:
        refused = await client.get(f"{mount}{path}", headers=wrong_key)
    assert refused.status_code == 401
    assert ("type" in refused.json()) is (path == "/v1/models")  # in the form of the client's API


async def test_a_probe_of_the_mount_is_answered_without_a_body(mount: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient() as client:
        answer = await client.head(f"{mount}/", headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await client.get(f"{mount}/", headers=headers)).status_code == 404


async def test_callers_without_a_token_get_no_list(world: World) -> None:
    async with world.anthropic(api_key="stolen") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.models.list()
    assert world.mock.requests == []


# ── aliases and display names ────────────────────────────────────────────────


@pytest.fixture
async def aliases(world: World) -> AsyncIterator[str]:
    """The address of a gateway where Claude Code finds a model of OpenAI."""
    rows = {seen.name: seen for seen in world.app.app.providers.values()}  # type: ignore[attr-defined]
    router = ProviderRouter(
        {
            "claude-gpt": (rows["openai"], "model-one"),
            "claude-secret": (rows["openai"], "model-two"),
            "model-*": rows["anthropic"],
        },
        display_names={"claude-gpt": "GPT, by another name"},
    )
    team = Principal("team", models=("claude-gpt", "model-*"))
    app = Authenticate(AIShim(router), verify=static_tokens({TOKEN: team}))
    async with serve(app) as url:
        yield url


SHOWN = {"claude-gpt": "GPT, by another name", "model-one": "model-one", "model-two": "model-two"}


async def test_claude_code_finds_aliases_that_lead_to_other_vendors(aliases: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{aliases}/v1/models?limit=1000", headers=headers)
        assert answer.status_code == 200
        found = {model["id"]: model["display_name"] for model in answer.json()["data"]}
        assert found == SHOWN
        one = await client.get(f"{aliases}/v1/models/claude-gpt", headers=headers)
        assert one.json()["display_name"] == SHOWN["claude-gpt"]
        hidden = await client.get(f"{aliases}/v1/models/claude-secret", headers=headers)
        assert hidden.status_code == 404


async def test_googles_sdk_sees_display_names_and_openais_the_owner(aliases: str) -> None:
    async with google_client(aliases, key=TOKEN) as google:
        one = await google.models.get(model="claude-gpt")
    assert one.display_name == SHOWN["claude-gpt"]
    client = openai.AsyncOpenAI(base_url=f"{aliases}/v1", api_key=TOKEN, max_retries=0)
    async with client:
        owners = {m.id: m.owned_by async for m in await client.models.list()}
    assert owners == {"claude-gpt": "openai", "model-one": "anthropic", "model-two": "anthropic"}


async def test_the_names_that_a_vendor_shows_are_shown(world: World) -> None:
    listed = {"data": [{"type": "model", "id": "model-one", "display_name": "Model One"}]}
    world.mock.script(Fault.status(200, body=listed))
    router = ProviderRouter(providers=[world.app.app.providers["anthropic"]])  # type: ignore[attr-defined]
    async with serve(AIShim(router)) as url, httpx.AsyncClient() as client:
        headers = {"anthropic-version": "2023-06-01"}
        answer = await client.get(f"{url}/v1/models", headers=headers)
        shown = [(m["id"], m["display_name"]) for m in answer.json()["data"]]
        assert shown == [("anthropic/model-one", "Model One")]
        one = await client.get(f"{url}/v1/models/anthropic/model-one", headers=headers)
        assert one.json()["display_name"] == "Model One"
