from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from asgi_aiproxy.stores import Store

pytestmark = pytest.mark.anyio

Elapse = Callable[[float], Awaitable[None]]


async def test_sums_add_up(store: Store, other: Store) -> None:
    assert await store.sums("day") == {}
    assert await store.add("day", {"in": 3, "out": 0}) == {"in": 3, "out": 0}
    assert await other.add("day", {"in": 4, "usd": -(2**52)}) == {"in": 7, "usd": -(2**52)}
    assert await store.sums("day") == {"in": 7, "out": 0, "usd": -(2**52)}
    assert await store.sums("day", ["in", "nothing"]) == {"in": 7}
    assert await store.sums("day", []) == {}
    assert await store.sums("tomorrow") == {}


async def test_thousands_of_sums_with_any_names_are_read_whole(store: Store) -> None:
    names = [f"cost/model \n\0 \N{SNOWMAN} {number}" for number in range(3500)]
    amounts = {name: 2**52 - number for number, name in enumerate(names)}
    await store.add("day", amounts)
    assert await store.sums("day") == amounts
    await store.add("day", {"cost/\ud800": -1})
    assert await store.sums("day") == {**amounts, "cost/\ud800": -1}


async def test_five_hundred_concurrent_additions_all_count(store: Store, other: Store) -> None:
    clients = (store, other)
    await asyncio.gather(*(clients[n % 2].add("day", {"n": n, "calls": 1}) for n in range(500)))
    assert await store.sums("day") == {"n": sum(range(500)), "calls": 500}


async def test_sums_are_forgotten_some_time_after_they_were_last_added_to(
    store: Store, elapse: Elapse
) -> None:
    await store.add("day", {"n": 1}, ttl=0.4)
    await elapse(0.3)
    await store.add("day", {"n": 1}, ttl=0.4)
    await elapse(0.3)
    assert await store.sums("day") == {"n": 2}
    await elapse(0.2)
    assert await store.sums("day") == {}
    assert await store.add("day", {"n": 5}) == {"n": 5}


async def test_a_repeated_addition_counts_once(store: Store) -> None:
    for _ in range(3):
        assert await store.add("day", {"n": 2}, once="exchange-1") == {"n": 2}
    assert await store.add("day", {"n": 2}, once="exchange-2") == {"n": 4}
    assert await store.add("other", {"n": 2}, once="exchange-1") == {"n": 2}


async def test_records_are_read_in_their_order(store: Store, other: Store) -> None:
    assert await store.read("log") == []
    records = [b"%d" % number + bytes(range(256)) for number in range(10)]
    for record in records:
        await store.append("log", record)
    found = await other.read("log")
    assert [record for _, record in found] == records
    after = found[3][0]
    assert [record for _, record in await other.read("log", after, 2)] == records[4:6]
    assert await other.read("log", found[-1][0]) == []
    newest = await other.read("log", limit=3, newest=True)
    assert [record for _, record in newest] == records[:6:-1]
    before = await other.read("log", newest[-1][0], newest=True)
    assert [record for _, record in before] == records[6::-1]


async def test_a_repeated_record_is_stored_once(store: Store) -> None:
    for _ in range(3):
        await store.append("log", b"1", once="exchange-1")
    await store.append("log", b"2", once="exchange-2")
    assert [record for _, record in await store.read("log")] == [b"1", b"2"]


async def test_a_log_is_trimmed_to_about_its_length(store: Store) -> None:
    for start in range(0, 1000, 100):
        await asyncio.gather(
            *(store.append("log", b"%d" % n, maxlen=200) for n in range(start, start + 100))
        )
    found = [record for _, record in await store.read("log", limit=2000)]
    assert 200 <= len(found) <= 400  # a server forgets in blocks
    assert found == [b"%d" % n for n in range(1000 - len(found), 1000)]


async def test_a_log_is_trimmed_up_to_and_with_a_record(store: Store, other: Store) -> None:
    await store.trim("log", "1")
    for number in range(5):
        await store.append("log", b"%d" % number)
    ids = [id for id, _ in await other.read("log")]
    await other.trim("log", ids[2])
    assert [record for _, record in await store.read("log")] == [b"3", b"4"]
    await store.trim("log", ids[0])
    assert [record for _, record in await store.read("log", ids[3])] == [b"4"]
    await store.trim("log", ids[-1])
    assert await other.read("log") == []
    await store.append("log", b"5")
    assert [record for _, record in await other.read("log", ids[-1])] == [b"5"]
