"""Pages and searches are calculated in slices, between which other tasks run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from asgi_aiproxy import Ledger, MemoryStore
from asgi_aiproxy._turns import _IdleQueue
from asgi_aiproxy.services.recent import RecentQuery, RecentService
from asgi_aiproxy.services.shared import SharedResults
from asgi_aiproxy.services.usage import SumQuery, UsageService
from tests.console.support import filled, record

pytestmark = pytest.mark.anyio


async def turns_during(work: Any) -> int:
    """How often another task has its turn while `work` is done."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.ensure_future(count())
    await asyncio.sleep(0)
    await work
    other.cancel()
    return turns


async def slices_of(work: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """In how many turns on the event loop `work` is done."""
    slices = 0
    begin = _IdleQueue.begin

    def count(queue: _IdleQueue) -> asyncio.Future[None]:
        nonlocal slices
        slices += 1
        return begin(queue)

    with monkeypatch.context() as patched:
        patched.setattr(_IdleQueue, "begin", count)
        await work
    return slices


async def test_a_long_page_is_calculated_in_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = await filled()
    async with Ledger(shop.store) as ledger:
        for number in range(500):
            model = f"model-{number}"
            found = record(shop, number, "cat", time.time(), "plain")
            await ledger(msgspec.structs.replace(found, upstream_model=model))
    browser = shop.browser()
    await browser.sign_in()
    few = await slices_of(browser.open("/settings"), monkeypatch)
    assert await slices_of(browser.open("/usage?by=model"), monkeypatch) > few + 3
    assert await slices_of(browser.open("/log"), monkeypatch) > few + 3


async def test_sums_of_many_names_are_added_up_in_slices() -> None:
    store = MemoryStore()
    async with Ledger(store) as ledger:
        shop = await filled(store)
        for number in range(4000):
            found = record(shop, number, "cat", time.time(), "plain")
            await ledger(msgspec.structs.replace(found, principal=f"caller-{number}"))
    assert await turns_during(UsageService(store).sums(SumQuery(by="principal"))) > 20


async def test_viewers_at_the_same_time_share_one_calculation() -> None:
    results: SharedResults[int] = SharedResults(seconds=60)
    calls = 0

    async def calculate() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return calls

    assert await asyncio.gather(*(results.get("a", calculate) for _ in range(5))) == [1] * 5
    assert await results.get("b", calculate) == 2
    expired: SharedResults[int] = SharedResults(seconds=0)
    assert [await expired.get("a", calculate) for _ in range(2)] == [3, 4]

    async def fail() -> int:
        raise LookupError

    with pytest.raises(LookupError):
        await results.get("c", fail)
    assert await results.get("c", calculate) == 5


async def test_the_figures_of_now_are_those_of_one_calculation_for_a_second() -> None:
    store = CountingStore()
    service = RecentService(store)
    await asyncio.gather(*(service.recent(RecentQuery()) for _ in range(5)))
    assert store.reads == 1


class CountingStore(MemoryStore):
    reads = 0

    async def read(self, *arguments: Any, **options: Any) -> list[tuple[str, bytes]]:
        self.reads += 1
        return await super().read(*arguments, **options)
