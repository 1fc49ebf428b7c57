"""The limits of a key hold for all processes together."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.keys import Key, KeyPool, Lease, NoKeyError, shared_pool
from asgi_aiproxy.keys.encryption import NoEncryption
from asgi_aiproxy.stores import Admitted, ConcurrencySlot, Denied, MemoryStore, Store
from tests.keys.conftest import Pools
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def taken(pool: KeyPool, calls: int, **wish: Any) -> list[Lease]:
    """The leases that this many calls get, until one gets none."""
    leases = []
    for _ in range(calls):
        try:
            leases.append(await pool.acquire(**wish))
        except NoKeyError:
            break
    return leases


def release(leases: list[Lease]) -> None:
    for lease in leases:
        lease.release()
    leases.clear()


async def test_concurrent_requests_are_counted_together(worker: Pools) -> None:
    key = Key("sk", id="a", concurrency=3)
    first, second = await worker(key), await worker(key)
    one, two = await taken(first, 2), await taken(second, 5)
    assert (len(one), len(two)) == (2, 1)
    with pytest.raises(NoKeyError) as caught:
        await second.acquire()
    assert caught.value.exists
    release(one)
    await until(lambda: _can(second))
    release(two)


async def _can(pool: KeyPool) -> bool:
    leases = await taken(pool, 1)
    found = bool(leases)
    release(leases)
    return found


async def test_released_capacity_can_be_reserved_again_at_once(worker: Pools) -> None:
    pool = await worker(Key("sk", id="a", concurrency=1))
    for _ in range(100):
        async with pool.lease() as lease:
            lease.report(200)


async def test_requests_per_minute_are_counted_together(worker: Pools) -> None:
    key = Key("sk", id="a", rpm=7)
    first, second = await worker(key), await worker(key)
    got = [len(await taken(pool, 2)) for pool in (first, second, first)]
    assert got == [2, 2, 2]
    assert len(await taken(second, 5)) == 1
    for pool in (first, second):
        with pytest.raises(NoKeyError) as caught:
            await pool.acquire()
        assert caught.value.retry_after is not None
        assert 50 < caught.value.retry_after < 65


async def test_a_key_of_a_shared_pool_cannot_be_acquired_past_its_limits(worker: Pools) -> None:
    pool = await worker(Key("sk", id="a", rpm=1))
    with pytest.raises(ConfigurationError, match=r"await pool\.acquire"):
        pool.acquire_nowait()
    assert len(await taken(pool, 2)) == 1


async def test_tokens_per_minute_are_counted_together_when_they_are_known(worker: Pools) -> None:
    key = Key("sk", id="a", tpm=1000)
    first, second = await worker(key), await worker(key)
    with await first.acquire() as lease:
        lease.count_tokens(400)
        lease.count_tokens(200)
    with await second.acquire() as lease:
        lease.count_tokens(500)

    async def exhausted() -> bool:
        return not await _can(first) and not await _can(second)

    await until(exhausted)


async def test_a_key_over_its_limit_is_skipped_for_another(worker: Pools) -> None:
    keys = [Key("a", id="a", rpm=1), Key("b", id="b", concurrency=1), Key("c", id="c", priority=1)]
    first, second = await worker(*keys), await worker(*keys)
    leases = [await first.acquire(), await second.acquire()]
    assert {lease.key.id for lease in leases} == {"a", "b"}
    for pool in (first, second):
        with await pool.acquire() as lease:
            assert lease.key.id == "c"
    release(leases)


async def test_a_call_gets_only_keys_that_match_it(worker: Pools) -> None:
    keys = [Key("a", id="a", rpm=9), Key("b", id="b", rpm=9), Key("m", id="m", models=("x*",))]
    pool = await worker(*keys)
    for wish, expected in (
        ({"among": ("b*",)}, {"b"}),
        ({"exclude": ("b", "m")}, {"a"}),
        ({"model": "xyz", "exclude": ("a", "b")}, {"m"}),
        ({"model": "other"}, {"a", "b"}),
    ):
        leases = await taken(pool, 3, **wish)
        assert {lease.key.id for lease in leases} <= expected
        assert len(leases) == 3
        release(leases)
    with pytest.raises(NoKeyError) as caught:
        await pool.acquire(model="other", exclude=("a", "b"))
    assert not caught.value.exists


async def test_one_good_key_is_found_among_a_hundred_that_are_used_up(worker: Pools) -> None:
    keys = [Key(f"sk-{n}", id=f"k{n}", rpm=1) for n in range(100)]
    first, second = await worker(*keys), await worker(*keys)
    assert len(await taken(first, 99)) == 99
    with await second.acquire() as lease:
        last = lease.key.id
    assert last not in {status.id for status in await first.status() if status.uses}
    with pytest.raises(NoKeyError) as caught:
        await second.acquire()
    assert caught.value.retry_after


async def test_a_waiting_call_gets_what_another_process_releases(worker: Pools) -> None:
    key = Key("sk", id="a", concurrency=1)
    first, second = await worker(key), await worker(key, max_wait_seconds=30)
    held = await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    held.release()
    async with asyncio.timeout(60):
        release([await waiting])


async def test_the_longest_waiting_call_of_a_process_goes_first(worker: Pools) -> None:
    key = Key("sk", id="a", concurrency=1)
    pool, other = await worker(key, max_wait_seconds=30), await worker(key)
    held = await other.acquire()
    order: list[int] = []

    async def call(number: int) -> None:
        async with pool.lease():
            order.append(number)

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(call(number)))
        await asyncio.sleep(0.01)
    tasks[2].cancel()
    held.release()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4]
    assert not pool.shared.queue  # type: ignore[union-attr]


async def test_a_wait_ends_after_its_limit(worker: Pools) -> None:
    pool = await worker(Key("sk", id="a", concurrency=1), max_wait_seconds=0.1)
    async with pool.lease():
        with pytest.raises(NoKeyError):
            async with asyncio.timeout(60):
                await pool.acquire()
        with pytest.raises(NoKeyError) as caught:
            await pool.acquire(key_id="nobody")
        assert caught.value.unknown


async def test_no_limit_is_exceeded_and_no_capacity_lost_when_many_calls_are_cancelled(
    worker: Pools,
) -> None:
    keys = [Key("a", id="a", concurrency=2), Key("b", id="b", concurrency=3)]
    pools = [await worker(*keys, max_wait_seconds=60) for _ in range(3)]
    busy: Counter[str] = Counter()
    most: Counter[str] = Counter()
    rng = random.Random(3)

    async def call(pool: KeyPool) -> None:
        async with pool.lease() as lease:
            id = lease.key.id
            busy[id] += 1
            most[id] = max(most[id], busy[id])
            try:
                await asyncio.sleep(rng.choice((0, 0.001, 0.01)))
            finally:
                busy[id] -= 1

    tasks = [asyncio.create_task(call(pools[n % 3])) for n in range(150)]
    await asyncio.sleep(0.05)
    for task in rng.sample(tasks, 50):
        task.cancel()
    async with asyncio.timeout(60):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
    assert most == {"a": 2, "b": 3}
    await until(lambda: _none_held(pools[0], "a", "b"))
    for pool in pools:
        assert {status.in_flight for status in await pool.status()} == {0}


async def _none_held(pool: KeyPool, *ids: str) -> bool:
    part = pool.shared
    assert part is not None
    slots = [slot for slot in pool.key_set.states.values() if slot.key.id in ids]
    grants = [ConcurrencySlot(part.account, f"{slot.tag}:slots", None) for slot in slots]
    assert len(grants) == len(ids)
    return all(level.used == 0 for level in await part.table.store.peek(grants))


async def test_the_capacity_of_a_dead_process_expires(
    worker: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_pool, "_RESERVATION_TTL", 0.6)
    key = Key("sk", id="a", concurrency=1)
    dies, lives = await worker(key), await worker(key)
    await dies.acquire()
    dies.shared.limits.stop_renewal()  # type: ignore[union-attr]
    assert not await _can(lives)
    await until(lambda: _can(lives))


async def test_a_long_use_is_renewed(worker: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_pool, "_RESERVATION_TTL", 0.6)
    key = Key("sk", id="a", concurrency=1)
    first, second = await worker(key), await worker(key)
    held = await first.acquire()
    for _ in range(15):
        await asyncio.sleep(0.1)
        assert not await _can(second)
    held.release()
    await until(lambda: _can(second))


class Counting(MemoryStore):
    """Counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    async def admit(self, *arguments: Any, **options: Any) -> Admitted | Denied:
        self.calls["admit"] += 1
        return await super().admit(*arguments, **options)

    async def settle(self, *arguments: Any, **options: Any) -> Any:
        self.calls["settle"] += 1
        return await super().settle(*arguments, **options)

    async def rows(self, *arguments: Any, **options: Any) -> dict[str, bytes]:
        self.calls["rows"] += 1
        return await super().rows(*arguments, **options)

    async def holds(self, account: str) -> Any:
        self.calls["holds"] += 1
        return await super().holds(account)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (Key("sk"), {}),
        (Key("sk", rpm=1000), {"admit": 20}),
        (Key("sk", concurrency=1), {"admit": 20, "settle": 20}),
        (Key("sk", rpm=1000, tpm=10**6, concurrency=100), {"admit": 20, "settle": 20}),
    ],
    ids=["no limits", "requests", "concurrency", "all"],
)
async def test_the_store_is_called_once_for_keys_with_limits_and_never_for_others(
    key: Key, expected: dict[str, int]
) -> None:
    store = Counting()
    async with KeyPool(key, name="v", store=store) as pool:
        await asyncio.sleep(0.01)
        store.calls.clear()
        for _ in range(20):
            async with pool.lease() as lease:
                lease.report(200)
                lease.count_tokens(10)
        await asyncio.sleep(0.01)
        assert store.calls == expected


async def test_the_store_is_not_called_again_for_keys_known_to_be_used_up() -> None:
    store, now = Counting(), [1000.0]
    keys = [Key(f"sk-{n}", rpm=1) for n in range(5)]
    async with (
        KeyPool(keys, name="v", store=store, clock=lambda: now[0]) as first,
        KeyPool(keys, name="v", store=store, clock=lambda: now[0]) as second,
    ):
        assert len(await taken(first, 6)) == 5
        for _ in range(3):
            with pytest.raises(NoKeyError):
                await second.acquire()
        store.calls.clear()
        for _ in range(10):
            with pytest.raises(NoKeyError) as caught:
                await second.acquire()
            assert caught.value.retry_after == pytest.approx(60, abs=5)
        assert store.calls["admit"] == 0
        now[0] += 65
        with pytest.raises(NoKeyError):  # by the store's own clock a minute has not passed
            await second.acquire()
        assert store.calls["admit"] > 0


async def test_a_call_cancelled_during_the_store_call_holds_nothing(
    client: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Key("sk", id="a", concurrency=1)
    async with client() as store:
        admit = store.admit

        async def slow(*arguments: Any, **options: Any) -> Admitted | Denied:
            found = await admit(*arguments, **options)
            requested.set()
            await asyncio.sleep(60)
            return found

        requested = asyncio.Event()
        async with KeyPool(key, name="v", store=store) as pool:
            monkeypatch.setattr(store, "admit", slow)
            call = asyncio.create_task(pool.acquire())
            async with asyncio.timeout(60):
                await requested.wait()
            call.cancel()
            await asyncio.wait((call,))
            monkeypatch.undo()
            await until(lambda: _none_held(pool, "a"))
            assert await _can(pool)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "release", "other"]), st.integers(0, 2), st.integers(0, 9)),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=STEPS,
    limits=st.lists(
        st.tuples(st.none() | st.integers(1, 3), st.none() | st.integers(1, 12)),
        min_size=1,
        max_size=4,
    ),
)
def test_any_sequence_of_leases_keeps_the_limits_and_refuses_no_free_key(
    steps: list[Step], limits: list[tuple[int | None, int | None]]
) -> None:
    asyncio.run(_walk(steps, limits))


async def _walk(steps: list[Step], limits: list[tuple[int | None, int | None]]) -> None:
    store = MemoryStore(clock=lambda: 1_700_000_000.0)
    keys = [
        Key(f"sk-{n}", id=str(n), concurrency=concurrency, rpm=rpm)
        for n, (concurrency, rpm) in enumerate(limits)
    ]
    pools = [
        KeyPool(keys, name="v", store=store, sealer=NoEncryption(), clock=lambda: 1000.0)
        for _ in range(3)
    ]
    held: list[Lease] = []
    uses: Counter[str] = Counter()
    for what, which, number in steps:
        if what == "release":
            if held:
                held.pop(number % len(held)).release()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            continue
        busy = Counter(lease.key.id for lease in held)
        possible = {
            key.id
            for key in keys
            if (key.concurrency is None or busy[key.id] < key.concurrency)
            and (key.rpm is None or uses[key.id] < key.rpm)
        }
        try:
            lease = await pools[which].acquire()
        except NoKeyError:
            assert not possible
        else:
            assert lease.key.id in possible
            uses[lease.key.id] += 1
            held.append(lease)
    for lease in held:
        lease.release()
    for pool in pools:
        await pool.__aexit__()
    for key in keys:
        if key.concurrency is not None:
            assert await _none_held(pools[0], key.id)
