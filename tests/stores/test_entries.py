"""Entries: values that expire, each under a name of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.stores.entries import ExpiringEntries

pytestmark = pytest.mark.anyio

Elapse = Callable[[float], Awaitable[None]]


async def test_an_entry_is_seen_by_all_until_it_is_deleted(store: Store, other: Store) -> None:
    assert await store.get_entry("a") is None
    await store.set_entry("a", b"one", seconds=60)
    await store.set_entry("b {odd}%", bytes(range(256)), seconds=60)
    await other.set_entry("a", b"two", seconds=60)
    assert await store.get_entry("a") == b"two"
    assert await other.get_entry("b {odd}%") == bytes(range(256))
    assert await other.delete_entry("a")
    assert not await store.delete_entry("a")
    assert await store.get_entry("a") is None
    assert await store.get_entry("b {odd}%") is not None


async def test_an_entry_expires(store: Store, elapse: Elapse) -> None:
    await store.set_entry("a", b"one", seconds=0.3)
    await store.set_entry("a", b"two", seconds=0.1)
    await store.set_entry("b", b"", seconds=60)
    await elapse(0.15)
    assert await store.get_entry("a") is None
    assert not await store.delete_entry("a")
    assert await store.get_entry("b") == b""


async def test_a_large_entry_is_kept_whole(store: Store) -> None:
    value = bytes(range(256)) * 16_384
    await store.set_entry("a", value, seconds=60)
    assert await store.get_entry("a") == value


async def test_many_entries_at_once(store: Store, other: Store) -> None:
    await asyncio.gather(*(store.set_entry(f"{n}", b"%d" % n, seconds=60) for n in range(300)))
    found = await asyncio.gather(*(other.get_entry(f"{n}") for n in range(300)))
    assert found == [b"%d" % n for n in range(300)]


def test_above_the_limit_the_oldest_entries_are_dropped() -> None:
    entries = ExpiringEntries(max_bytes=40)
    for number in range(10):
        entries.set(f"{number}", b"123456789", 10.0, 0.0)
    assert [n for n in range(10) if entries.get(f"{n}", 0.0) is not None] == [6, 7, 8, 9]
    entries.set("large", bytes(100), 10.0, 0.0)
    assert len(entries) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.sampled_from(("set", "delete")))
    )
)
def test_entries_are_those_of_a_plain_dictionary_with_ends(
    steps: list[tuple[str, int, str]],
) -> None:
    entries, expected = ExpiringEntries(), dict[str, tuple[float, bytes]]()
    for now, (name, seconds, what) in enumerate(steps):
        if what == "set":
            entries.set(name, b"%d" % now, now + seconds, now)
            expected[name] = now + seconds, b"%d" % now
        else:
            ends, _ = expected.pop(name, (0.0, b""))
            assert entries.delete(name, now) == (ends > now)
        for known in "abc":
            ends, value = expected.get(known, (0.0, b""))
            assert entries.get(known, now) == (value if ends > now else None)


async def test_entries_do_not_go_into_the_file_of_a_memory_store(tmp_path: object) -> None:
    path = f"{tmp_path}/state"
    async with MemoryStore(file=path) as store:
        await store.put("table", "row", b"value")
        await store.set_entry("a", b"one", seconds=60)
    async with MemoryStore(file=path) as store:
        assert await store.get("table", "row") == b"value"
        assert await store.get_entry("a") is None
