"""List prices that change while the gateway runs."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices.types import ModelPrice

from asgi_aiproxy import ConfigurationError, MemoryStore, Prices
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import PriceUpdates
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

NOVEMBER, DECEMBER = 1_795_996_800.0, 1_796_256_000.0  # 2026-11-30 and 2026-12-03
USED = Usage(output=1_000_000)


class List:
    """A list of genai-prices with the output prices of some models."""

    from_auto_update = True

    def __init__(self, **prices: float) -> None:
        self._prices = prices
        self.timestamp = SimpleNamespace(date=lambda: SimpleNamespace(isoformat=lambda: "today"))

    def find_provider_model(self, model: str, *more: Any) -> Any:
        if model not in self._prices:
            raise LookupError(model)
        price = ModelPrice(input_mtok=0, output_mtok=self._prices[model])  # type: ignore[arg-type]
        return None, SimpleNamespace(get_prices=lambda when: price, context_window=None)


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **prices: float) -> None:
        self.now = NOVEMBER
        first = List(**prices)
        monkeypatch.setattr("asgi_aiproxy.prices.price_list._load_package", lambda: first)
        self.prices = Prices(clock=lambda: self.now)

    def cost(self, model: str) -> float | None:
        cost = self.prices.cost("acme", model, USED, 1_000_000)
        return None if cost is None else cost / 1_000_000

    async def update(self, **prices: float) -> None:
        await PriceUpdates(self.prices, fetch=lambda: List(**prices)).update()


async def test_cheaper_and_new_prices_apply_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, cheap=10)
    assert (world.cost("cheap"), world.cost("new")) == (10, None)
    await world.update(cheap=8, new=3)
    assert (world.cost("cheap"), world.cost("new")) == (8, 3)
    (change,) = world.prices.changes
    assert (change.output_before, change.output, change.month) == (10, 8, "2026-11")


async def test_a_higher_price_applies_from_the_next_month_on_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(monkeypatch, m=10)
    with caplog.at_level(logging.WARNING, "asgi_aiproxy"):
        for price in (12, 15, 15):
            await world.update(m=price)
            assert world.cost("m") == 10
    (change,) = world.prices.changes
    assert (change.output_before, change.output, change.month) == (10, 15, "2026-12")
    assert caplog.text.count("acme/m changes") == 2
    world.now = DECEMBER
    assert world.cost("m") == 15
    await world.update(m=20)  # the next one waits for its month
    assert world.cost("m") == 15


async def test_a_model_that_left_the_list_keeps_its_price_in_this_month(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, m=10)
    await world.update(other=1)
    assert world.cost("m") == 10


async def test_a_price_that_rises_only_in_one_kind_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, m=10)
    dearer = ModelPrice(input_mtok=1, output_mtok=5)  # type: ignore[arg-type]
    latest = List(m=5)
    entry = SimpleNamespace(get_prices=lambda when: dearer, context_window=None)
    monkeypatch.setattr(latest, "find_provider_model", lambda *more: (None, entry))
    await PriceUpdates(world.prices, fetch=lambda: latest).update()
    assert world.cost("m") == 10


async def test_updates_run_in_the_background_and_survive_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, m=10)
    fetched = asyncio.Event()
    loop, failures = asyncio.get_running_loop(), [OSError("no route")]

    def fetch() -> Any:
        if failures:
            raise failures.pop()
        loop.call_soon_threadsafe(fetched.set)
        return List(m=7)

    async with PriceUpdates(world.prices, fetch=fetch):
        async with asyncio.timeout(30):
            await fetched.wait()
            while world.cost("m") != 7:
                await asyncio.sleep(0.001)
    with pytest.raises(ConfigurationError):
        PriceUpdates(world.prices, interval=1)


async def test_the_admin_api_lists_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, m=10)
    await world.update(m=12)
    world.cost("m")
    app = AdminApp(
        MemoryStore(),
        token="admin-token-of-the-test",
        prices=world.prices,
    )
    headers = {"authorization": "Bearer admin-token-of-the-test"}
    answer = await asgi.request(app, "GET", "/prices/changes", headers=headers)
    assert answer.status == 200
    assert answer.json["data"][0]["month"] == "2026-12"
