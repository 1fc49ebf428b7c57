"""Routes, prices and calls in flight over the admin API, and their pages in the console."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from asgi_aiproxy import (
    AdminApp,
    Ledger,
    MemoryStore,
    Price,
    Prices,
    ProviderRouter,
    RedisStore,
    Target,
)
from asgi_aiproxy.console import Console
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers import ANTHROPIC, GROQ, OPENAI
from asgi_aiproxy.usage.record import UsageRecord
from tests.console.support import ROOT, Browser
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

HEADERS = {"authorization": f"Bearer {ROOT}"}
OPEN, CLAUDE, FAST = OPENAI.using("sk-1"), ANTHROPIC.using("sk-2"), GROQ.using("sk-3")


def routed() -> ProviderRouter:
    return ProviderRouter(
        {
            "smart": [CLAUDE, (OPEN, "gpt-5")],
            "fast": [Target(FAST, "llama", weight=3), Target(OPEN, "gpt-4o-mini", weight=1)],
            "gpt-*": OPEN,
            "*": FAST,
        },
        display_names={"smart": "Our best <model>"},
    )


async def get(app: AdminApp, path: str) -> Any:
    answer = await asgi.request(app, "GET", path, headers=HEADERS)
    assert answer.status == 200, answer.body
    return answer.json


async def test_routes_are_listed_with_their_providers_in_order_and_their_shares() -> None:
    app = AdminApp(MemoryStore(), token=ROOT, providers=[OPEN, CLAUDE, FAST], router=routed())
    routes = {route["name"]: route for route in (await get(app, "/routes"))["data"]}
    assert list(routes)[:4] == ["smart", "fast", "gpt-*", "*"]
    smart, fast = routes["smart"], routes["fast"]
    assert [(t["provider"], t["model"], t["priority"]) for t in smart["targets"]] == [
        ("anthropic", "smart", 0),
        ("openai", "gpt-5", 1),
    ]
    assert smart["display_name"] == "Our best <model>"
    assert [(t["provider"], t["share"]) for t in fast["targets"]] == [
        ("groq", 0.75),
        ("openai", 0.25),
    ]
    assert fast["targets"][0]["keys"] == {"ok": 1}
    assert routes["*"]["preceded_by"] == ["smart", "fast", "gpt-*"]
    assert routes["gpt-*"]["preceded_by"] == []
    assert routes["openai/*"]["kind"] == "provider"
    plain = AdminApp(MemoryStore(), token=ROOT)
    assert (await get(plain, "/routes"))["data"] == []


async def test_prices_are_those_of_routes_and_traffic_with_their_source() -> None:
    store = MemoryStore()
    prices = Prices({"gpt-*": Price(input=2.5, output=10, cache_read=0.25)}, listed=False)
    app = AdminApp(store, token=ROOT, router=routed(), prices=prices)
    async with Ledger(store) as ledger:
        for model, cost in (("gpt-5", 100), ("surprise", None), ("surprise", None)):
            await ledger(
                UsageRecord(
                    id=uuid.uuid4().hex,
                    provider="openai",
                    upstream_model=model,
                    usage=Usage(input=1, output=1),
                    cost=cost,
                    started=time.time(),
                )
            )
    models = (await get(app, "/prices"))["data"]
    assert (models[0]["model"], models[0]["unpriced"], models[0]["price"]) == ("surprise", 2, None)
    found = {(each["provider"], each["model"]): each for each in models}
    assert found["openai", "gpt-5"]["price"]["input"] == 2.5
    assert found["openai", "gpt-5"]["price"]["source"] == "configuration"
    assert found["openai", "gpt-5"]["requests"] == 1
    assert found["openai", "gpt-4o-mini"]["routed"]
    assert found["groq", "llama"]["price"] is None
    assert (await get(app, "/prices/changes"))["data"] == []


async def test_the_pages_show_routes_and_prices() -> None:
    prices = Prices({"gpt-*": Price(input=2.5, output=10)}, listed=False)
    admin = AdminApp(
        MemoryStore(), token=ROOT, providers=[OPEN, CLAUDE, FAST], router=routed(), prices=prices
    )
    browser = Browser(Console(admin), "/x")
    await browser.sign_in()
    routes = await browser.open("/routes")
    assert "Our best &lt;model&gt;" in routes.text
    assert "75 %" in routes.text
    assert "/x/explain?model=smart" in routes.page.links
    assert "$2.50" in (await browser.open("/prices")).text


async def test_calls_in_flight_are_counted_in_all_workers(redis_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    async with (
        RedisStore(redis_url, prefix=prefix, timeout=5.0) as first,
        RedisStore(redis_url, prefix=prefix, timeout=5.0) as second,
    ):
        here, there = OPENAI.using("sk-1"), OPENAI.using("sk-1")
        near = AdminApp(first, token=ROOT, providers=[here])
        far = AdminApp(second, token=ROOT, providers=[there])
        async with near, far:
            assert here.keys is not None
            assert there.keys is not None
            own, other = await here.keys.acquire(), await there.keys.acquire()
            async with asyncio.timeout(30):
                while (found := await get(near, "/in-flight"))["total"] != 2:
                    await asyncio.sleep(0.01)
            assert found["providers"] == {"openai": 2}
            assert [worker["in_flight"] for worker in found["workers"]] == [{"openai": 1}] * 2
            own.release()
            assert (await get(near, "/in-flight"))["total"] == 1
            other.release()
            async with asyncio.timeout(30):
                while (await get(near, "/in-flight"))["total"]:
                    await asyncio.sleep(0.01)
        # A worker that ends is not counted any more.
        assert len((await get(near, "/in-flight"))["workers"]) == 1
