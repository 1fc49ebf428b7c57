"""Cluster only: slots that move, and nodes that fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    StoreUnavailableError,
    UsageLevel,
)
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.stores.redis.client import slot_of
from tests.support.redis_server import Server, cluster, copied, replica

pytestmark = pytest.mark.anyio


@pytest.fixture
def nodes() -> Iterator[list[Server]]:
    with cluster() as nodes:
        yield nodes


@pytest.fixture
async def store(nodes: list[Server]) -> AsyncIterator[RedisStore]:
    seeds = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    async with RedisStore(f"redis+cluster://{seeds}", timeout=1) as store:
        yield store


def account_at(node: int) -> str:
    """An account whose slot belongs to this node."""
    bounds = [16384 * number // 3 for number in range(4)]
    return next(
        f"account-{n}"
        for n in range(1000)
        if bounds[node] <= slot_of(f"account-{n}") < bounds[node + 1]
    )


def id_of(node: Server) -> str:
    return node.ask("CLUSTER", "MYID").split("\r\n")[1]


def test_a_slot_is_what_the_server_says(nodes: list[Server]) -> None:
    for account in ("a", "team-1", "ключ", "%7D", ""):
        tagged = f"aiproxy:{{{account}}}:t"
        if account:
            assert nodes[0].ask("CLUSTER", "KEYSLOT", tagged) == f":{slot_of(account)}\r\n"


async def test_a_slot_that_moved_is_followed(store: RedisStore, nodes: list[Server]) -> None:
    account = account_at(0)
    assert await store.add(account, {"n": 1}) == {"n": 1}
    slot, old, new = str(slot_of(account)), nodes[0], nodes[1]
    key = f"aiproxy:{{{account}}}:n"

    new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(old))
    old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(new))
    assert await store.add(account, {"n": 1}) == {"n": 2}  # it is still here
    moved = old.ask("MIGRATE", "127.0.0.1", str(new.port), key, "0", "5000")
    assert moved.startswith("+OK")
    results = await asyncio.gather(*(store.add(account, {"n": 1}) for _ in range(10)))
    assert sorted(result["n"] for result in results) == list(range(3, 13))  # asked for over there
    for node in (new, old, nodes[2]):
        assert node.ask("CLUSTER", "SETSLOT", slot, "NODE", id_of(new)).startswith("+OK")
    results = await asyncio.gather(*(store.add(account, {"n": 1}) for _ in range(10)))
    assert sorted(result["n"] for result in results) == list(range(13, 23))


async def test_a_dead_node_does_not_affect_others(store: RedisStore, nodes: list[Server]) -> None:
    for node in nodes:
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    accounts = [account_at(number) for number in range(3)]
    for account in accounts:
        assert await store.add(account, {"n": 1}) == {"n": 1}
    nodes[1].stop()
    for turn in range(2, 5):
        start = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await store.add(accounts[1], {"n": 1})
        assert time.monotonic() - start < 20
        assert await store.add(accounts[0], {"n": 1}) == {"n": turn}
        assert await store.add(accounts[2], {"n": 1}) == {"n": turn}
    await asyncio.to_thread(nodes[1].start)
    async with asyncio.timeout(20):
        while True:
            try:
                assert await store.add(accounts[1], {"n": 1}) == {"n": 1}  # it kept nothing
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.1)


async def test_when_a_node_dies_its_replica_is_found(
    store: RedisStore, nodes: list[Server]
) -> None:
    account = account_at(1)
    with replica(nodes, nodes[1]) as next_one:
        assert await store.add(account, {"n": 1}) == {"n": 1}
        copied(nodes[1], next_one)
        nodes[1].stop()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await store.add(account, {"n": 1}) == {"n": 2}
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.1)


async def test_grants_are_released_if_another_node_denies_or_is_unavailable(
    store: RedisStore, nodes: list[Server]
) -> None:
    for node in nodes:
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    first, second, third = (account_at(number) for number in range(3))
    grants = [
        ConcurrencySlot(first, "calls", 5),
        BudgetReservation(second, "usd", 10, 100),
        ConcurrencySlot(third, "calls", 0),
    ]
    refused = await store.admit("a", grants)
    assert isinstance(refused, Denied)
    assert refused.grant == grants[2]
    assert await store.peek(grants) == [UsageLevel(0)] * 3
    nodes[2].stop()
    with pytest.raises(StoreUnavailableError):
        await store.admit("b", grants)
    assert await store.peek(grants[:2]) == [UsageLevel(0)] * 2
    assert isinstance(await store.admit("c", grants[:2]), Admitted)


async def test_any_live_node_reports_the_others(nodes: list[Server]) -> None:
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes[2].port}"
    async with RedisStore(url, timeout=2) as store:
        results = await asyncio.gather(*(store.add(f"a{n}", {"n": n}) for n in range(50)))
        assert [result["n"] for result in results] == list(range(50))
