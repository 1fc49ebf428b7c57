"""What one process finds out about a key, all know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from asgi_aiproxy.keys import Health, Key, KeyPool, Lease, NoKeyError
from asgi_aiproxy.stores import Store
from tests.keys.conftest import Pools, health, is_so, until

pytestmark = pytest.mark.anyio

OK, COOLING, QUARANTINED, DEAD = Health.OK, Health.COOLING, Health.QUARANTINED, Health.DEAD


async def fails(pool: KeyPool, status: int, retry_after: float | None = None, id: str = "") -> None:
    with await pool.acquire(key_id=id) as lease:
        lease.settle(status, retry_after)


async def works(pool: KeyPool, id: str = "") -> None:
    await fails(pool, 200, id=id)


async def test_a_key_that_cools_in_one_process_cools_in_all(worker: Pools) -> None:
    keys = [Key("sk-a", id="a"), Key("sk-b", id="b")]
    first, second = await worker(*keys), await worker(*keys)
    await fails(first, 429, 60, id="a")
    await until(lambda: is_so(second, a=COOLING, b=OK))
    (rests,) = [status.rests for status in await second.status() if status.id == "a"]
    assert 50 < rests <= 60
    for _ in range(10):
        with await second.acquire() as lease:
            assert lease.key.id == "b"


async def test_a_process_that_starts_later_knows_what_was_found_out(worker: Pools) -> None:
    keys = [Key("sk-a", id="a"), Key("sk-b", id="b"), Key("sk-c", id="c")]
    first, second = await worker(*keys), await worker(*keys)
    await fails(first, 429, 60, id="a")
    await fails(first, 401, id="b")
    await until(lambda: is_so(second, a=COOLING, b=QUARANTINED))
    assert await health(await worker(*keys)) == {"a": COOLING, "b": QUARANTINED, "c": OK}


async def test_rests_get_longer_with_what_all_have_seen(worker: Pools) -> None:
    key = Key("sk", id="a")
    first, second = await worker(key, cooldown=1), await worker(key, cooldown=1)
    await fails(first, 429)
    await until(lambda: is_so(second, a=COOLING))
    with await when_rested(second) as lease:
        lease.settle(429)
    (status,) = await second.status()
    assert status.rests > 1


async def test_a_refused_key_is_tried_by_one_process_at_a_time_and_heals_in_all(
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
    trial.settle(500)  # says nothing of the key
    trial.release()
    again = await when_rested(second)
    with pytest.raises(NoKeyError):
        await first.acquire()
    again.settle(200)
    await until(lambda: is_so(first, a=OK))
    await works(first)
    again.release()


async def when_rested(pool: KeyPool) -> Lease:
    """A key, as soon as there is one."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await pool.acquire()
            except NoKeyError as error:
                await asyncio.sleep(min(error.retry_after or 0.01, 0.1))


async def test_a_trial_that_fails_sends_the_key_to_rest_everywhere(worker: Pools) -> None:
    key = Key("sk", id="a")
    first, second = await worker(key, cooldown=0.5), await worker(key, cooldown=0.5)
    await fails(first, 401)
    await until(lambda: is_so(second, a=QUARANTINED))
    trial = await when_rested(first)
    trial.settle(402)
    trial.release()

    async def rests() -> bool:
        (status,) = await second.status()
        return status.health is QUARANTINED and status.rests > 3000

    await until(rests)


async def test_a_refused_key_that_is_let_in_but_over_its_limit_only_cools(worker: Pools) -> None:
    key = Key("sk", id="a")
    first, second = await worker(key, cooldown=0.5), await worker(key, cooldown=0.5)
    await fails(first, 401)
    await until(lambda: is_so(second, a=QUARANTINED))
    trial = await when_rested(first)
    trial.settle(429, 60)
    trial.release()
    await until(lambda: is_so(second, a=COOLING))


async def test_of_two_verdicts_at_the_same_time_the_harder_one_holds(worker: Pools) -> None:
    key = Key("sk", id="a")
    pools = [await worker(key), await worker(key), await worker(key)]
    leases = [await pool.acquire() for pool in pools]
    for lease, status in zip(leases, (429, 402, 429), strict=True):
        lease.settle(status, 1.0)
        lease.release()
    for pool in pools:
        await until(lambda pool=pool: is_so(pool, a=QUARANTINED))


async def test_an_operator_switches_a_key_off_and_on_for_all(worker: Pools) -> None:
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


async def test_a_new_secret_is_not_blamed_for_the_old_one(worker: Pools) -> None:
    first, second = await worker(), await worker()
    await first.add(Key("old", id="a"))
    await fails(first, 401)
    await until(lambda: is_so(second, a=QUARANTINED))
    await first.rotate("a", "new")
    await until(lambda: is_so(second, a=OK))
    with await second.acquire() as lease:
        assert lease.key.secret == "new"


async def test_pools_of_other_names_are_left_alone(client: Callable[[], Store]) -> None:
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
