"""Official SDKs count tokens through one mount, with every vendor."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import openai
import pytest

from asgi_aiproxy import (
    AIShim,
    Authenticate,
    Budget,
    Limits,
    MemoryStore,
    Principal,
    ProviderRouter,
    UsageRecord,
)
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.middleware import Quota, static_tokens
from asgi_aiproxy.prices import Prices
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI, OPENAI_RESPONSES, openai_compatible
from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from tests.support.google_sdk import google_client
from tests.support.socket_server import PATIENCE

pytestmark = pytest.mark.anyio

TOKEN = "team-token"
COUNT = 321
# Models, and the path at which the provider counts their tokens; None: it cannot.
MODELS: dict[str, str | None] = {
    "claude-sonnet-4-5": "/v1/messages/count_tokens",
    "gemini-2.5-flash": "/v1beta/models/gemini-2.5-flash:countTokens",
    "gpt-chat": "/v1/responses/input_tokens",
    "gpt-responses": "/v1/responses/input_tokens",
    "local": None,
}


@dataclass
class World:
    url: str
    mock: MockProvider
    records: queue.Queue[UsageRecord] = field(default_factory=queue.Queue)

    async def take(self, record: UsageRecord) -> None:
        """The sink; runs in the server's thread."""
        self.records.put(record)

    async def record(self) -> UsageRecord:
        return await asyncio.to_thread(self.records.get, timeout=PATIENCE)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    mock = MockProvider(Answer(usage=Usage(input=COUNT, output=1)))
    world = World("", mock)
    async with serve(mock) as vendors:
        router = ProviderRouter(
            {
                "claude-*": ANTHROPIC.using("sk-anthropic", base_url=vendors),
                "gemini-*": GEMINI.using("sk-gemini", base_url=vendors),
                "gpt-chat": OPENAI.using("sk-openai", base_url=f"{vendors}/v1"),
                "gpt-responses": OPENAI_RESPONSES.using("sk-openai", base_url=f"{vendors}/v1"),
                "local": openai_compatible(f"{vendors}/v1").using("sk-local"),
            }
        )
        poor = Principal(
            "team",
            models=("claude-*", "gemini-*", "gpt-*", "local"),
            limits=Limits(budgets=(Budget.usd(0.000001),)),
        )
        async with MemoryStore() as store:
            shim = AIShim(router, record=world.take)
            app = Authenticate(
                Quota(shim, store=store, prices=Prices({})), verify=static_tokens({TOKEN: poor})
            )
            async with serve(app) as url:
                world.url = url
                yield world


async def count_as_anthropic(url: str, model: str) -> tuple[int, httpx.Headers]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=TOKEN, max_retries=0) as client:
        answer = await client.messages.with_raw_response.count_tokens(
            model=model,
            system="Be brief.",
            messages=[{"role": "user", "content": "How many tokens are these?"}],
            tools=[{"name": "look", "input_schema": {"type": "object", "properties": {}}}],
        )
        return (await answer.parse()).input_tokens, answer.headers


async def count_as_gemini(url: str, model: str) -> tuple[int, httpx.Headers]:
    async with google_client(url, key=TOKEN) as client:
        answer = await client.models.count_tokens(model=model, contents="How many are these?")
    assert answer.total_tokens is not None
    assert answer.sdk_http_response is not None
    return answer.total_tokens, httpx.Headers(answer.sdk_http_response.headers)


async def count_as_openai(url: str, model: str) -> tuple[int, httpx.Headers]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client:
        answer = await client.responses.input_tokens.with_raw_response.count(
            model=model, instructions="Be brief.", input="How many tokens are these?"
        )
        return answer.parse().input_tokens, answer.headers


COUNTERS: dict[str, Callable[[str, str], Awaitable[tuple[int, httpx.Headers]]]] = {
    "anthropic": count_as_anthropic,
    "gemini": count_as_gemini,
    "openai": count_as_openai,
}


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("sdk", list(COUNTERS))
async def test_an_sdk_counts_the_tokens_of_any_model_and_an_estimate_says_that_it_is_one(
    world: World, sdk: str, model: str
) -> None:
    count, headers = await COUNTERS[sdk](world.url, model)
    paths = [seen.path for seen in world.mock.requests]
    if MODELS[model] is None:
        assert 0 < count < 2_000
        assert headers["aiproxy-estimated"] == "true"
        assert paths == []
    else:
        assert count == COUNT
        assert "aiproxy-estimated" not in headers
        assert paths == [MODELS[model]]
        sent = world.mock.requests[0].json
        assert not {"max_tokens", "stream", "store", "include", "generationConfig"} & sent.keys()
        assert TOKEN not in json.dumps(sent)
    record = await world.record()
    assert world.records.empty()
    assert record.operation in ("messages.count_tokens", "countTokens", "responses.input_tokens")
    assert (record.outcome, record.status, record.requested_model) == ("done", 200, model)
    assert (record.usage, record.cost, record.principal) == (None, 0, "team")


BODY = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hi"}]}


async def ask(world: World, path: str, body: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        headers = {"authorization": f"Bearer {TOKEN}", **headers}
        return await client.post(world.url + path, json=body, headers=headers)


async def test_anthropics_count_is_verbatim_with_betas_and_members_that_are_not_known(
    world: World,
) -> None:
    body = {**BODY, "speed": "fast", "new_member": {"a": 1}}
    head = {"anthropic-version": "2026-10-21", "anthropic-beta": "new-beta-2027-01-01"}
    answer = await ask(world, "/v1/messages/count_tokens", body, **head)
    assert answer.json() == {"input_tokens": COUNT}
    (seen,) = world.mock.requests
    assert seen.json == body
    assert {name: seen.headers[name] for name in head} == head


async def test_a_whole_generate_content_request_is_counted_with_its_tools_and_system(
    world: World,
) -> None:
    whole = {
        "model": "models/claude-sonnet-4-5",
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [{"name": "look"}]}],
    }
    path = "/v1beta/models/claude-sonnet-4-5:countTokens"
    answer = await ask(world, path, {"generateContentRequest": whole})
    assert answer.json() == {"totalTokens": COUNT}
    (seen,) = world.mock.requests
    assert seen.json["system"] == "Be brief."
    assert [tool["name"] for tool in seen.json["tools"]] == ["look"]


async def test_the_model_within_a_count_is_the_one_of_the_path_and_is_sent_by_the_vendors_name(
    world: World,
) -> None:
    contents = [{"parts": [{"text": "Hi"}]}]
    for model, path in (("gemini-2.5-flash", "gemini-2.5-flash"), ("claude-x", "claude-x")):
        other = {"model": "models/other", "contents": contents}
        answer = await ask(
            world, f"/v1beta/models/{path}:countTokens", {"generateContentRequest": other}
        )
        assert answer.status_code in (400, 403), model
        assert "other" in answer.text or "generateContentRequest.model" in answer.text
    assert world.mock.requests == []
    own = {"model": "models/gemini-2.5-flash", "contents": contents}
    path = "/v1beta/models/gemini-2.5-flash:countTokens"
    assert (await ask(world, path, {"generateContentRequest": own})).status_code == 200
    assert world.mock.requests[0].json == {"generateContentRequest": own}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/messages/count_tokens", {**BODY, "model": "secret"}, 403),
        ("/v1beta/models/secret:countTokens", {"contents": []}, 403),
        ("/v1/responses/input_tokens", {"model": "secret", "input": "Hi"}, 403),
        ("/v1/messages/count_tokens", {"model": "claude-x"}, 400),
        ("/v1beta/models/claude-x:countTokens", {}, 400),
        ("/v1/responses/input_tokens", {"input": "Hi"}, 400),
        ("/v1/responses/input_tokens", {"model": "local"}, 400),
        ("/v1/responses/input_tokens", {"model": "local", "previous_response_id": "r"}, 400),
    ],
)
async def test_a_count_is_refused_as_the_call_itself_would_be(
    world: World, path: str, body: dict[str, Any], status: int
) -> None:
    answer = await ask(world, path, body)
    assert answer.status_code == status
    assert world.mock.requests == []


async def test_the_vendors_refusal_of_a_count_is_the_clients_in_its_own_words(
    world: World,
) -> None:
    world.mock.script(Fault.status(400, "messages.0: too odd"))
    answer = await ask(world, "/v1/messages/count_tokens", BODY)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "messages.0: too odd"
    world.mock.script(Fault.status(400, "messages.0: too odd"))
    body = {"contents": [{"parts": [{"text": "Hi"}]}]}
    answer = await ask(world, "/v1beta/models/claude-x:countTokens", body)
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


async def test_a_provider_that_sends_no_count_is_an_error_and_not_zero(world: World) -> None:
    world.mock.always(Fault.status(200, "No."))
    answer = await ask(world, "/v1/messages/count_tokens", {**BODY, "model": "gpt-responses"})
    assert answer.status_code == 502
