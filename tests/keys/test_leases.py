"""A lease ends exactly once, whatever happens, and no key serves more than its limit."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asgi_aiproxy.keys import (
    Health,
    Key,
    KeyPool,
    Lease,
    NoKeyError,
)
from tests.support.key_pools import STRATEGIES, Clock, fails, health, in_flight, named, pool

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_lease_ends_with_its_block_however_that_ends(how: type[BaseException]) -> None:
    keys, _ = pool("sk")

    async def work() -> None:
        async with keys.lease():
            assert await in_flight(keys) == 1
            raise how

    with pytest.raises(how):
        await work()
    assert await in_flight(keys) == 0
    with pytest.raises(how), keys.acquire_nowait():
        raise how
    assert await in_flight(keys) == 0


async def test_a_lease_ends_when_its_task_is_cancelled() -> None:
    keys, _ = pool("sk")
    inside = asyncio.Event()

    async def work() -> None:
        async with keys.lease():
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    assert await in_flight(keys) == 1
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert await in_flight(keys) == 0


async def test_releasing_twice_and_settling_late_are_harmless() -> None:
    keys, _ = pool(Key("sk", id="a"))
    lease, other = keys.acquire_nowait(), keys.acquire_nowait()
    lease.release()
    lease.release()
    lease.report(401)
    with lease:
        pass
    assert await in_flight(keys) == 1
    assert await health(keys) == {"a": Health.OK}
    other.release()
    assert await in_flight(keys) == 0


async def test_status_counts_uses_and_failures() -> None:
    keys, _ = pool(*named("a"))
    fails(keys, 429, 12)
    (status,) = await keys.status()
    assert (status.id, status.health, status.cooldown_seconds) == ("a", Health.COOLING, 12)
    assert (status.uses, status.failures, status.in_flight) == (1, 1, 0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "acquire", "settle", "release", "wait", "edit", "cancel"]),
        st.integers(0, 1000),
    ),
    max_size=120,
)


@given(steps=STEPS, strategy=st.sampled_from(STRATEGIES), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_key_exceeds_its_limit_and_all_leases_are_released(
    steps: list[tuple[str, int]], strategy: Any, seed: int
) -> None:
    asyncio.run(random_walk(steps, strategy, seed))


async def random_walk(steps: list[tuple[str, int]], strategy: Any, seed: int) -> None:
    clock = Clock()
    limits = {"a": 1, "b": 2, "c": 3}
    made = [Key(f"sk-{id}", id=id, weight=n, concurrency=n) for id, n in limits.items()]
    keys = KeyPool(
        made, strategy=strategy, max_wait_seconds=30, clock=clock, random=random.Random(seed)
    )
    held: list[Lease] = []
    waiting: list[asyncio.Task[Lease]] = []
    for action, number in steps:
        if action == "take":
            affinity = f"s{number}" if number % 3 == 0 else ""
            try:
                held.append(keys.acquire_nowait(affinity=affinity))
            except NoKeyError:
                pass
        elif action == "acquire":
            wish = {"key_id": "abc"[number % 3]} if number % 4 == 0 else {}
            waiting.append(asyncio.create_task(keys.acquire(**wish)))
            await asyncio.sleep(0)
        elif action == "settle" and held:
            status = (200, 429, 401, 402, 500)[number % 5]
            held[number % len(held)].report(status, [None, 5.0][number % 2])
        elif action == "release" and held:
            held.pop(number % len(held)).release()
        elif action == "wait":
            clock.now += number
        elif action == "edit":
            id = "abc"[number % 3]
            await (keys.enable(id) if number % 2 else keys.disable(id))
        elif action == "cancel" and waiting:
            waiting[number % len(waiting)].cancel()
        if number % 2:
            await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            waiting.remove(task)
            if not task.cancelled() and task.exception() is None:
                held.append(task.result())
        now = await keys.status()
        assert all(status.in_flight <= limits[status.id] for status in now)
        assert sum(status.in_flight for status in now) >= len(held)
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting)
    ended = [task for task in waiting if not task.cancelled() and task.exception() is None]
    held += [task.result() for task in ended]
    for lease in held:
        lease.release()
    assert await in_flight(keys) == 0
    assert not keys.key_set.waiting
