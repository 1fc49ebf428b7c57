"""A store that is used in another process or event loop later."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    MemoryStore,
    Settled,
    UsageLevel,
)
from asgi_aiproxy.stores.redis import RedisStore
from tests.stores.conftest import Clock

FORKS = """
import asyncio, os, sys
from asgi_aiproxy.stores.redis import RedisStore

store = RedisStore(sys.argv[1], prefix=sys.argv[2], timeout=5)
loop = asyncio.new_event_loop()

async def use():
    return (await store.add("day", {"n": 1}))["n"]

assert loop.run_until_complete(use()) == 1
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        asyncio.run(use())
        os._exit(0)
    children.append(child)
    loop.run_until_complete(use())
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert loop.run_until_complete(use()) == 8
loop.run_until_complete(store.aclose())
loop.close()
"""


def test_a_store_that_was_used_before_a_fork_serves_parent_and_children(
    redis_url: str, prefix: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKS, redis_url, prefix],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")


ENDS = """
import asyncio, sys
from asgi_aiproxy.stores.redis import RedisStore

async def main():
    store = RedisStore(sys.argv[1], prefix=sys.argv[2], timeout=5)
    store.watch("t", lambda: None)
    await store.put("t", "k", b"1")
    await store.page("t", limit=10_000)

asyncio.run(main())
"""


def test_a_store_that_was_not_closed_ends_with_its_loop(redis_url: str, prefix: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ENDS, redis_url, prefix],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_store_answers_two_event_loops_that_use_it_at_the_same_time(
    redis_url: str, prefix: str
) -> None:
    store = RedisStore(redis_url, prefix=prefix, timeout=60)
    started = threading.Barrier(2)

    async def use() -> None:
        await store.add("day", {"n": 1})
        started.wait()  # both have a connection
        for _ in range(20):
            await asyncio.gather(*(store.add("day", {"n": 1}) for _ in range(10)))
        await store.aclose()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(asyncio.run, use()) for _ in range(2)]:
            done.result(timeout=120)
    assert asyncio.run(store.add("day", {"n": 1}))["n"] == 2 * 201 + 1


def test_a_memory_store_forgets_accounts_that_are_no_longer_used(clock: Clock) -> None:
    async def run() -> None:
        store = MemoryStore(clock=clock)
        for number in range(3000):
            budget = BudgetReservation(f"user-{number % 1000}", "month", 1, 100, keep=60)
            slot = ConcurrencySlot(f"user-{number % 1000}", "calls", 5)
            await store.admit(f"{number}", [budget, slot], ttl=5)
            clock.now += 0.01
        assert len(store._accounts) >= 1000
        clock.now += 120
        for number in range(3000):
            await store.admit(f"x{number}", [ConcurrencySlot("one", "calls", None)], ttl=5)
        assert len(store._accounts) == 1

    asyncio.run(run())


def test_a_day_after_it_expired_a_reservation_stays_charged(clock: Clock) -> None:
    async def run() -> None:
        store = MemoryStore(clock=clock)
        budget = BudgetReservation("team", "usd", 10, 25)
        got = await store.admit("a", [budget], ttl=5)
        assert isinstance(got, Admitted)
        clock.now += 10
        assert await store.peek([budget]) == [UsageLevel(10)]
        clock.now += 86_401
        assert await store.peek([budget]) == [UsageLevel(10)]
        assert await store.settle(got, {budget: 1}) == Settled(first=False, spent={budget: 10})

    asyncio.run(run())


def test_a_budget_that_is_forgotten_takes_its_expired_reservations_with_it(clock: Clock) -> None:
    async def run() -> None:
        store = MemoryStore(clock=clock)
        budget = BudgetReservation("team", "month", 10, 25, keep=3600)
        got = await store.admit("a", [budget], ttl=5)
        assert isinstance(got, Admitted)
        for seconds, spent in ((10, 10), (4000, 0), (90_000, 0)):
            clock.now += seconds
            assert await store.peek([budget]) == [UsageLevel(spent)]
        assert not (await store.settle(got, {budget: 1})).first

    asyncio.run(run())


@pytest.mark.parametrize("accounts", [10, 100_000])
def test_admission_costs_the_same_however_many_accounts_there_are(accounts: int) -> None:
    """Measured in calls of Python functions, which do not depend on the machine."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    async def run() -> None:
        store = MemoryStore()
        for number in range(accounts):
            await store.admit("x", [ConcurrencySlot(f"{number}", "calls", 5)])
        sys.setprofile(count)
        try:
            for number in range(100):
                await store.admit(f"{number}", [ConcurrencySlot("0", "calls", 500)])
        finally:
            sys.setprofile(None)

    asyncio.run(run())
    assert calls < 100 * 200
