"""Callers take turns where the keys of a pool are the bottleneck."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import Key, KeyPool, MemoryStore
from asgi_aiproxy.keys import Lease, NoEncryption
from asgi_aiproxy.keys.wait_queue import FairLock, Turns

pytestmark = pytest.mark.anyio


def pool(shared: bool) -> KeyPool:
    keys = [Key("sk-1", id="1", concurrency=1)]
    store = MemoryStore() if shared else None
    return KeyPool(keys, name="p", max_wait_seconds=60, store=store, sealer=NoEncryption())


@pytest.mark.parametrize("shared", [False, True])
async def test_a_caller_with_many_requests_does_not_delay_another_with_one(shared: bool) -> None:
    keys = pool(shared)
    served: list[str] = []

    async def use(caller: str) -> None:
        lease = await keys.acquire(caller=caller)
        served.append(caller)
        await asyncio.sleep(0)
        lease.release()

    async with keys:
        first: Lease = await keys.acquire(caller="many")
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(use("many"))
            await asyncio.sleep(0.05)  # they wait now
            group.create_task(use("one"))
            group.create_task(use("other"))
            await asyncio.sleep(0.05)
            first.release()
    assert len(served) == 12
    assert served.index("one") <= 3
    assert served.index("other") <= 4


async def test_a_caller_that_gives_up_leaves_no_trace() -> None:
    keys = pool(False)
    lease = await keys.acquire(caller="a")
    waiting = asyncio.ensure_future(keys.acquire(caller="b"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert keys.key_set.waiting.idle
    lease.release()
    (await keys.acquire(caller="b")).release()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_turns_serve_each_caller_once_before_any_twice(arrivals: list[str]) -> None:
    turns = Turns()
    order = sorted((turns.next(caller), n, caller) for n, caller in enumerate(arrivals))
    left = Counter(arrivals)
    while order:
        served = {caller for turn, _, caller in order if turn == order[0][0]}
        assert served == set(+left)
        order = order[len(served) :]
        left -= Counter(served)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12))
def test_a_lock_is_held_by_one_and_given_to_all_that_wait(
    requests: list[tuple[str, bool]],
) -> None:
    async def run() -> int:
        lock, held, done = FairLock(), 0, 0

        async def hold(caller: str) -> None:
            nonlocal held, done
            await lock.acquire(caller)
            held += 1
            assert held == 1
            await asyncio.sleep(0)
            held -= 1
            done += 1
            lock.release()

        tasks = [asyncio.ensure_future(hold(caller)) for caller, _ in requests]
        await asyncio.sleep(0)
        for task, (_, leaves) in zip(tasks[1:], requests[1:], strict=False):
            if leaves:
                task.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait(tasks) if tasks else None
        await lock.acquire("last")
        return done

    expected = len([1 for n, (_, leaves) in enumerate(requests) if not leaves or n == 0])
    assert asyncio.run(run()) >= expected
