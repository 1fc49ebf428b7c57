"""Requests that wait for a key are served in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_aiproxy.keys import (
    Key,
    KeyPool,
    Lease,
    NoKeyError,
)
from tests.support.key_pools import Clock, fails, in_flight, named

pytestmark = pytest.mark.anyio


async def turn() -> None:
    """Let all tasks that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


class Queue:
    """Calls that wait for a key of a pool; `order` is the order in which they got one."""

    def __init__(self, keys: KeyPool) -> None:
        self.keys = keys
        self.order: list[str] = []
        self.leases: dict[str, Lease] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _call(self, name: str, wish: dict[str, Any]) -> None:
        lease = await self.keys.acquire(**wish)
        self.order.append(name)
        self.leases[name] = lease

    async def join(self, name: str, **wish: Any) -> None:
        self.tasks[name] = asyncio.create_task(self._call(name, wish))
        await turn()

    async def release(self, name: str) -> None:
        self.leases.pop(name).release()
        await turn()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await turn()

    async def empty(self) -> None:
        for lease in self.leases.values():
            lease.release()
        self.leases.clear()
        for task in self.tasks.values():
            task.cancel()
        await asyncio.wait(self.tasks.values(), timeout=5)
        assert not self.keys.key_set.waiting
        assert self.keys.key_set.waiting._timer is None
        assert await in_flight(self.keys) == 0


async def test_the_longest_waiting_request_is_served_first() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "abcde":
        await queue.join(name)
    assert queue.order == ["a"]
    for name in "abcd":
        await queue.release(name)
    assert queue.order == list("abcde")
    await queue.empty()


async def test_a_newcomer_does_not_jump_the_queue() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "ab":
        await queue.join(name)
    queue.leases.pop("a").release()  # before "b" has noticed, "c" comes
    await queue.join("c")
    assert queue.order == ["a", "b"]
    await queue.release("b")
    assert queue.order == ["a", "b", "c"]
    await queue.empty()


async def test_a_request_waiting_for_another_key_delays_no_other() -> None:
    keys = KeyPool(
        [
            Key("1", id="x", models=("x*",), concurrency=1),
            Key("2", id="y", models=("y*",), concurrency=1),
        ],
        max_wait_seconds=30,
    )
    queue = Queue(keys)
    await queue.join("x1", model="x")
    await queue.join("y1", model="y")
    await queue.join("x2", model="x")
    await queue.join("y2", model="y")
    await queue.release("y1")
    assert queue.order == ["x1", "y1", "y2"]
    await queue.join("y3", model="y")
    await queue.release("x1")
    assert queue.order == ["x1", "y1", "y2", "x2"]
    await queue.empty()


async def test_one_release_serves_one_request_and_a_new_key_all() -> None:
    keys = KeyPool([Key("sk", id="old", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "abcde":
        await queue.join(name)
    await queue.release("a")
    assert queue.order == ["a", "b"]
    await keys.add(Key("new", id="new"))
    await turn()
    assert queue.order == list("abcde")
    await queue.empty()


async def test_a_cancelled_request_leaves_its_place_to_the_next() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "abcd":
        await queue.join(name)
    await queue.cancel("b")
    # "c" is given its turn and cancelled in the same moment: "d" has it.
    queue.leases.pop("a").release()
    queue.tasks["c"].cancel()
    await turn()
    assert queue.order == ["a", "d"]
    assert queue.tasks["c"].cancelled()
    assert await in_flight(keys) == 1
    await queue.empty()


async def test_a_wait_ends_after_its_limit() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=0.02)
    async with keys.lease():
        with pytest.raises(NoKeyError) as caught:
            await keys.acquire()
        assert caught.value.exists
    assert not keys.key_set.waiting
    assert (await keys.acquire()).key.secret == "sk"


async def test_no_request_waits_for_a_key_that_will_not_become_usable() -> None:
    keys = KeyPool(named("a", models=("x",)), max_wait_seconds=30)
    for wish in ({"model": "y"}, {"key_id": "nobody"}, {"exclude": ("a",)}):
        with pytest.raises(NoKeyError):
            await asyncio.wait_for(keys.acquire(**wish), 60)
    assert not keys.key_set.waiting


async def test_a_request_waiting_for_a_removed_key_fails_at_once() -> None:
    keys = KeyPool([Key("sk", id="a", concurrency=1)], max_wait_seconds=30)
    lease = keys.acquire_nowait()
    queue = Queue(keys)
    await queue.join("x")
    await keys.remove("a")
    with pytest.raises(NoKeyError):
        await asyncio.wait_for(queue.tasks["x"], 60)
    lease.release()
    await queue.empty()


async def test_a_request_can_wait_for_a_cooling_key() -> None:
    keys = KeyPool(["sk"], max_wait_seconds=30)
    queue = Queue(keys)
    running = keys.acquire_nowait()
    fails(keys, 429, 0.5)
    await queue.join("a")
    await queue.join("b")
    assert queue.order == []
    running.release()  # frees nothing: the key cools down
    await asyncio.wait_for(asyncio.gather(*queue.tasks.values()), 60)
    assert queue.order == ["a", "b"]
    await queue.empty()


async def test_a_request_waits_on_when_its_key_begins_to_cool_down() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    running = keys.acquire_nowait()
    await queue.join("a")
    running.report(429, 0.5)
    running.release()
    await asyncio.wait_for(queue.tasks["a"], 60)
    await queue.empty()


async def test_waiting_requests_are_served_as_soon_as_a_trial_succeeds() -> None:
    clock = Clock()
    keys = KeyPool(["sk"], max_wait_seconds=30, clock=clock)
    fails(keys, 401)
    clock.now += 31
    trial = keys.acquire_nowait()
    queue = Queue(keys)
    for name in "ab":
        await queue.join(name)
    assert queue.order == []
    trial.report(200)  # its answer may take minutes yet
    await turn()
    assert queue.order == ["a", "b"]
    trial.release()
    await queue.empty()


async def test_five_hundred_calls_share_three_keys_without_a_leak() -> None:
    keys = KeyPool(named("a", "b", "c", concurrency=2), max_wait_seconds=30)
    most = 0

    async def call(number: int) -> None:
        nonlocal most
        async with keys.lease() as lease:
            most = max(most, await in_flight(keys))
            await asyncio.sleep(0)
            if number % 5 == 0:
                raise ValueError
            lease.report(200)

    tasks = [asyncio.create_task(call(number)) for number in range(500)]
    await asyncio.sleep(0)
    for task in tasks[100:400:7]:
        task.cancel()
    ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    assert {type(end) for end in ends} == {type(None), ValueError, asyncio.CancelledError}
    assert most == 6
    assert await in_flight(keys) == 0
    assert not keys.key_set.waiting
    assert not keys.key_set.waiting._kinds
