"""The list of models with limits, modalities and prices; models without a price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from asgi_aiproxy import AIShim, InProcessTransport, MemoryStore, Price, Prices, ProviderRouter
from asgi_aiproxy.__main__ import main
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.dialects.model_facts import ModelFacts, read_facts
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers import OPENAI, OPENROUTER
from asgi_aiproxy.testing import serve_in_thread
from asgi_aiproxy.upstream import HttpxTransport
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

LIST = {
    "data": [
        {
            "id": "acme/fast",
            "context_length": 128_000,
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "top_provider": {"max_completion_tokens": 8192},
        },
        {"id": "bare"},
    ]
}


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        ({"id": "m", "context_window": 5, "max_completion_tokens": 3}, ModelFacts(5, 3)),
        ({"id": "m", "max_context_length": 5}, ModelFacts(5)),
        ({"id": "m", "max_model_len": 5}, ModelFacts(5)),
        ({"id": "m", "max_input_tokens": 5, "max_tokens": 2}, ModelFacts(5, 2)),
        ({"id": "m", "max_tokens": 2}, None),  # of a vendor that means something else
        ({"name": "models/m", "inputTokenLimit": 5, "outputTokenLimit": 2}, ModelFacts(5, 2)),
        ({"id": "m", "capabilities": {"vision": True}}, ModelFacts(input=("text", "image"))),
        ({"id": "m", "capabilities": {"vision": False}}, ModelFacts(input=("text",))),
        ({"id": "m", "context_length": "5", "architecture": "llama"}, None),
        ({"id": "m", "context_length": -1, "input_modalities": [1, None]}, None),
        ({"id": "m", "context_length": True}, None),
    ],
)
def test_facts_are_read_from_the_lists_of_vendors(row: Any, facts: ModelFacts | None) -> None:
    found = {} if facts is None else {"m": facts}
    assert read_facts(json.dumps({"data": [row]}).encode()) == found
    assert read_facts(json.dumps({"models": [row]}).encode()) == found
    assert read_facts(json.dumps([row]).encode()) == found


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"data": 5}', b'{"data": [5]}'])
def test_other_lists_have_no_facts(body: bytes) -> None:
    assert read_facts(body) == {}


def gateway() -> AIShim:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=LIST)

    return AIShim(
        ProviderRouter(
            {"own": OPENAI.using("sk", catalogue=("own",))},
            providers=[OPENROUTER.using("sk-or")],
        ),
        transport=HttpxTransport(httpx.MockTransport(answer)),
        prices=Prices({"own": Price(input=1, output=2, max_output=50)}),
    )


async def test_openai_clients_get_limits_modalities_and_prices() -> None:
    transport: Any = InProcessTransport(gateway())
    async with httpx2.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(base_url="http://ai/v1", api_key="-", http_client=http)
        models: dict[str, Any] = {model.id: model async for model in client.models.list()}
        one: Any = await client.models.retrieve("own")
    fast = next(model for name, model in models.items() if name.endswith("acme/fast"))
    assert fast.context_length == 128_000
    assert fast.max_output_tokens == 8192
    assert fast.architecture["input_modalities"] == ["text", "image"]
    assert one.max_output_tokens == 50
    assert one.pricing["currency"] == "USD"
    assert (one.pricing["input"], one.pricing["output"]) == (1.0, 2.0)
    assert one.pricing["source"] == "configuration"
    bare = next(model for name, model in models.items() if name.endswith("bare"))
    assert not hasattr(bare, "context_length")


async def test_anthropic_clients_get_them_in_their_own_members() -> None:
    transport: Any = InProcessTransport(gateway())
    async with httpx2.AsyncClient(transport=transport) as http:
        client = anthropic.AsyncAnthropic(base_url="http://ai", api_key="-", http_client=http)
        models = {model.id: model async for model in client.models.list()}
    fast = next(model for name, model in models.items() if name.endswith("acme/fast"))
    assert (fast.max_input_tokens, fast.max_tokens) == (128_000, 8192)


async def test_google_clients_get_them_in_their_own_members() -> None:
    transport: Any = InProcessTransport(gateway())
    async with httpx2.AsyncClient(transport=transport) as http:
        options = types.HttpOptions(base_url="http://ai", httpx_async_client=http)
        with genai.Client(api_key="-", http_options=options) as client:
            models = {model.name: model async for model in await client.aio.models.list()}
    fast = next(model for name, model in models.items() if str(name).endswith("acme/fast"))
    assert (fast.input_token_limit, fast.output_token_limit) == (128_000, 8192)


async def test_list_prices_name_the_version_of_the_list() -> None:
    facts = Prices().facts("openai", "gpt-4o")
    assert facts.context == 128_000
    assert facts.price is not None
    assert facts.price.source.startswith("genai-prices ")
    assert Prices().facts("openai", "no-such-model-at-all") == ModelFacts()
    assert Prices().facts("ollama", "gpt-4o") == ModelFacts()


async def test_without_prices_the_list_has_none() -> None:
    app = AIShim(OPENAI.using("sk", catalogue=("gpt-4o",)))
    answer = await asgi.request(app, "GET", "/v1/models")
    assert "pricing" not in answer.json["data"][0]


# ── models without a price ───────────────────────────────────────────────────


def record(model: str, cost: int | None, *, tokens: int = 5) -> UsageRecord:
    return UsageRecord(
        id=f"{model}-{cost}-{tokens}",
        started=1_000.0,
        provider="acme",
        upstream_model=model,
        usage=Usage(input=tokens, output=1),
        cost=cost,
    )


async def test_the_admin_api_lists_models_without_a_price() -> None:
    store = MemoryStore()
    async with Ledger(store) as ledger:
        for each in (record("free", 0), record("odd", None), record("odd", None, tokens=7)):
            await ledger(each)
    app = AdminApp(store, token="admin-token-of-the-test")
    headers = {"authorization": "Bearer admin-token-of-the-test"}
    answer = await asgi.request(app, "GET", "/usage/unpriced", headers=headers)
    assert answer.status == 200
    (found,) = answer.json["data"]
    assert (found["provider"], found["model"], found["requests"]) == ("acme", "odd", 2)
    assert (found["input"], found["output"]) == (12, 2)


# ── the command ──────────────────────────────────────────────────────────────

CONFIG = """
store_file = "{folder}/state"
[providers.acme]
kind = "openai-compatible"
base_url = "{url}/v1"
keys = ["sk"]
[routes]
"fast" = ["acme/acme/fast"]
"b*" = ["acme"]
[prices."acme/fast"]
input = 1.5
output = 3
"""


async def vendor(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(LIST).encode()})


def test_the_command_lists_what_is_configured_and_what_providers_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "aiproxy.toml"
    with serve_in_thread(vendor) as url:
        config.write_text(CONFIG.format(folder=tmp_path, url=url))
        assert main(["models", "--config", str(config)]) == 0
        plain = capsys.readouterr()
        assert "fast" in plain.out
        assert "1.5" in plain.out
        assert "bare" not in plain.out
        assert "--refresh" in plain.err
        assert main(["models", "--refresh", "--json", "--config", str(config)]) == 0
        models = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert models["fast"]["facts"]["context"] == 128_000
    assert any(name.endswith("bare") for name in models)
    assert main(["models", "--unpriced", "--config", str(config)]) == 0
    assert "have a price" in capsys.readouterr().out
