"""The health of a key that one process finds is known to all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from asgi_aiproxy.keys import Health, Key, KeyPool, Lease, NoKeyError
from asgi_aiproxy.stores import Hold, MemoryStore, Store
from tests.keys.conftest import Pools, health, is_so
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

OK, COOLING, QUARANTINED, DEAD = Health.OK, Health.COOLING, Health.QUARANTINED, Health.DEAD


async def fails(pool: KeyPool, status: int, retry_after: float | None = None, id: str = "") -> None:
    with await pool.acquire(key_id=id) as lease:
        lease.report(status, retry_after)


async def works(pool: KeyPool, id: str = "") -> None:
    await fails(pool, 200, id=id)


async def test_a_key_that_cools_in_one_process_cools_in_all(worker: Pools) -> None:
    keys = [Key("sk-a", id="a"), Key("sk-b", id="b")]
    first, second = await worker(*keys), await worker(*keys)
    await fails(first, 429, 60, id="a")
    await until(lambda: is_so(second, a=COOLING, b=OK))
    (cooldowns,) = [status.cooldown_seconds for status in await second.status() if status.id == "a"]
    assert 50 < cooldowns <= 60
    for _ in range(10):
        with await second.acquire() as lease:
            assert lease.key.id == "b"


async def test_a_process_that_starts_later_knows_the_health_of_keys(worker: Pools) -> None:
    keys = [Key("sk-a", id="a"), Key("sk-b", id="b"), Key("sk-c", id="c")]
    first, second = await worker(*keys), await worker(*keys)
    await fails(first, 429, 60, id="a")
    await fails(first, 401, id="b")
    await until(lambda: is_so(second, a=COOLING, b=QUARANTINED))
    assert await health(await worker(*keys)) == {"a": COOLING, "b": QUARANTINED, "c": OK}


async def test_cooldowns_grow_with_failures_seen_by_all_workers(worker: Pools) -> None:
    key = Key("sk", id="a")
    first, second = await worker(key, cooldown=1), await worker(key, cooldown=1)
    await fails(first, 429)
    await until(lambda: is_so(second, a=COOLING))
    with await when_rested(second) as lease:
        lease.report(429)
    (status,) = await second.status()
    assert status.cooldown_seconds > 1


async def test_a_refused_key_is_tried_by_one_process_at_a_time_and_recovers_in_all(
    worker: Pools,
) -> None:
    key = Key("sk", id="a")
    first, second = await worker(key, cooldown=0.5), await worker(key, cooldown=0.5)
    await fails(first, 401)
    await until(lambda: is_so(second, a=QUARANTINED))
    trial = await when_rested(first)
    with pytest.raises(NoKeyError) as caught:
        await second.acquire()
    assert caught.value.exists
    trial.report(500)  # says nothing of the key
    trial.release()
    again = await when_rested(second)
    with pytest.raises(NoKeyError):
        await first.acquire()
    again.report(200)
    await until(lambda: is_so(first, a=OK))
    await works(first)
    again.release()


async def when_rested(pool: KeyPool, id: str = "") -> Lease:
    """Wait until a key is usable, and return it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await pool.acquire(key_id=id)
            except NoKeyError as error:
                await asyncio.sleep(min(error.retry_after or 0.01, 0.1))


async def test_a_recovered_key_gets_its_share_back_gradually_in_every_process(
    worker: Pools,
) -> None:
    keys = [Key("sk-a", id="a"), Key("sk-b", id="b")]
    firsts = []
    options = {"cooldown": 0.5, "strategy": "fill_first"}
    healer = await worker(*keys, **options)
    others = [await worker(*keys, **options, random=random.Random(n)) for n in range(12)]
    await fails(healer, 401, id="a")
    for pool in others:
        await until(lambda pool=pool: is_so(pool, a=QUARANTINED))
    with await when_rested(healer, "a") as lease:
        lease.report(200)
    for pool in others:
        await until(lambda pool=pool: is_so(pool, a=OK))
        with await pool.acquire() as lease:
            firsts.append(lease.key.id)
    assert firsts.count("b") >= 8  # an eighth is a's
    for _ in range(3):
        await works(others[0], id="a")
    with await others[0].acquire() as lease:
        assert lease.key.id == "a"


async def test_a_pool_can_be_closed_and_used_again(worker: Pools) -> None:
    key = Key("sk", id="a", concurrency=5)
    first, second = await worker(key), await worker(key)
    for _ in range(2):
        async with first:
            await works(first)
        await works(first)
        await until(lambda: _rested(second))
        await fails(first, 429, 60)
        await until(lambda: is_so(second, a=COOLING))
        await second.enable("a")
        await until(lambda: is_so(first, a=OK))


async def _rested(pool: KeyPool) -> bool:
    try:
        (await pool.acquire()).release()
    except NoKeyError:
        return False
    return True


async def test_a_trial_that_fails_cools_the_key_down_in_all_workers(worker: Pools) -> None:
    key = Key("sk", id="a")
    first, second = await worker(key, cooldown=0.5), await worker(key, cooldown=0.5)
    await fails(first, 401)
    await until(lambda: is_so(second, a=QUARANTINED))
    trial = await when_rested(first)
    trial.report(402)
    trial.release()

    async def cooldowns() -> bool:
        (status,) = await second.status()
        return status.health is QUARANTINED and status.cooldown_seconds > 3000

    await until(cooldowns)


async def test_a_quarantined_key_that_is_accepted_but_over_its_limit_cools_down(
    worker: Pools,
) -> None:
    key = Key("sk", id="a")
    first, second = await worker(key, cooldown=0.5), await worker(key, cooldown=0.5)
    await fails(first, 401)
    await until(lambda: is_so(second, a=QUARANTINED))
    trial = await when_rested(first)
    trial.report(429, 60)
    trial.release()
    await until(lambda: is_so(second, a=COOLING))


async def test_of_two_concurrent_health_changes_the_longer_one_counts(worker: Pools) -> None:
    key = Key("sk", id="a")
    pools = [await worker(key), await worker(key), await worker(key)]
    leases = [await pool.acquire() for pool in pools]
    for lease, status in zip(leases, (429, 402, 429), strict=True):
        lease.report(status, 1.0)
        lease.release()
    for pool in pools:
        await until(lambda pool=pool: is_so(pool, a=QUARANTINED))


class Slow(MemoryStore):
    """Answers about holds with random delays."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng

    async def _dawdle(self) -> None:
        await asyncio.sleep(self.rng.random() * 0.01)

    async def hold(self, *arguments: Any) -> bool:
        await self._dawdle()
        return await super().hold(*arguments)

    async def lift(self, *arguments: Any) -> bool:
        await self._dawdle()
        return await super().lift(*arguments)

    async def holds(self, account: str) -> dict[str, Hold]:
        found = await super().holds(account)
        await self._dawdle()
        return found


async def test_health_changes_in_any_order_give_the_same_result_in_all_workers() -> None:
    async def one(seed: int) -> None:
        rng = random.Random(seed)
        store, key = Slow(rng), Key("sk", id="a")
        async with AsyncExitStack() as stack:
            pools = [
                await stack.enter_async_context(KeyPool(key, name="v", store=store))
                for _ in range(3)
            ]
            leases = [await pool.acquire() for pool in pools for _ in range(2)]
            verdicts = [402, 429, 429, 429, 200, 500]
            rng.shuffle(verdicts)
            for lease, status in zip(leases, verdicts, strict=True):
                await asyncio.sleep(rng.choice((0, 0.003, 0.01)))
                lease.report(status, 60.0)
                lease.release()
            for _ in range(2):
                for pool in pools:
                    await until(lambda pool=pool: is_so(pool, a=QUARANTINED))
                await asyncio.sleep(0.1)
            for pool in pools:
                (status_of_key,) = await pool.status()
                assert status_of_key.health is QUARANTINED
                assert 3500 < status_of_key.cooldown_seconds <= 3600

    await asyncio.gather(*map(one, range(60)))


async def test_an_operator_disables_and_enables_a_key_for_all_workers(worker: Pools) -> None:
    keys = [Key("sk-a", id="a"), Key("sk-b", id="b")]
    first, second = await worker(*keys), await worker(*keys)
    await first.disable("a")
    assert await is_so(first, a=DEAD)
    await until(lambda: is_so(second, a=DEAD))
    assert await is_so(await worker(*keys), a=DEAD)
    await fails(second, 401, id="b")
    await until(lambda: is_so(first, b=QUARANTINED))
    await first.enable("a")
    await first.enable("b")
    await until(lambda: is_so(second, a=OK, b=OK))
    assert await health(await worker(*keys)) == {"a": OK, "b": OK}
    for change in (first.disable, first.enable, first.remove):
        with pytest.raises(KeyError):
            await change("nobody")


async def test_a_new_secret_does_not_inherit_the_health_of_the_old_one(worker: Pools) -> None:
    first, second = await worker(), await worker()
    await first.add(Key("old", id="a"))
    await fails(first, 401)
    await until(lambda: is_so(second, a=QUARANTINED))
    await first.rotate("a", "new")
    await until(lambda: is_so(second, a=OK))
    with await second.acquire() as lease:
        assert lease.key.secret == "new"


async def test_pools_with_other_names_are_not_affected(client: Callable[[], Store]) -> None:
    async with client() as store:
        key = Key("sk", id="a")
        async with (
            KeyPool(key, name="x", store=store) as x,
            KeyPool(key, name="y", store=store) as y,
        ):
            await fails(x, 401)
            await asyncio.sleep(0)
            await until(lambda: _on_hold(store, "pool:x"))
            assert await store.holds("pool:y") == {}
            assert await is_so(y, a=OK)


async def _on_hold(store: Store, account: str) -> bool:
    return bool(await store.holds(account))
