from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from asgi_aiproxy.stores import Store

pytestmark = pytest.mark.anyio


async def test_a_row_is_read_as_it_was_written(store: Store) -> None:
    assert await store.get("tokens", "a") is None
    for value in (b"", b"1", bytes(range(256)), b"x" * 100_000):
        assert await store.put("tokens", "a", value)
        assert await store.get("tokens", "a") == value
    assert await store.get("keys", "a") is None


@pytest.mark.parametrize("name", ["ключ", "a b", "a}b{c", "", "%7D", "x:y", "\n"])
async def test_any_text_names_a_table_and_a_row(store: Store, name: str) -> None:
    assert await store.put(f"t{name}", f"k{name}", b"1")
    assert await store.rows(f"t{name}") == {f"k{name}": b"1"}
    assert await store.page(f"t{name}") == {f"k{name}": b"1"}
    assert await store.drop(f"t{name}", f"k{name}")


async def test_a_row_is_written_only_over_what_is_expected(store: Store) -> None:
    assert not await store.put("t", "a", b"1", expected=b"0")
    assert await store.put("t", "a", b"1", expected=None)
    assert not await store.put("t", "a", b"2", expected=None)
    assert not await store.put("t", "a", b"2", expected=b"")
    assert await store.put("t", "a", b"2", expected=b"1")
    assert await store.put("t", "a", b"3")
    assert await store.get("t", "a") == b"3"


async def test_of_many_concurrent_writes_of_a_row_one_succeeds(store: Store, other: Store) -> None:
    await store.put("t", "a", b"")
    clients = (store, other)
    won = await asyncio.gather(
        *(clients[n % 2].put("t", "a", b"%d" % n, expected=b"") for n in range(100))
    )
    assert sum(won) == 1
    assert await other.get("t", "a") == b"%d" % won.index(True)


async def test_many_rows_are_written_or_none(store: Store) -> None:
    assert await store.put_many("t", {"a": b"1", "b": b"2", "c": b"3"}) == []
    wrong = await store.put_many(
        "t", {"a": b"9", "b": None, "d": b"9"}, expected={"a": b"1", "b": b"9", "c": None}
    )
    assert sorted(wrong) == ["b", "c"]
    assert await store.rows("t") == {"a": b"1", "b": b"2", "c": b"3"}
    assert await store.put_many("t", {"a": b"9", "b": None}, expected={"c": b"3", "d": None}) == []
    assert await store.rows("t") == {"a": b"9", "c": b"3"}


async def test_rows_are_read_by_their_keys(store: Store) -> None:
    await store.put_many("t", {"a": b"1", "b": b"2"})
    assert await store.rows("t", ["b", "x"]) == {"b": b"2"}
    assert await store.rows("t", []) == {}
    assert await store.rows("u") == {}


async def test_a_dropped_row_is_gone_everywhere(store: Store, other: Store) -> None:
    await store.put("t", "a", b"1")
    assert await other.drop("t", "a")
    assert not await store.drop("t", "a")
    assert await store.get("t", "a") is None
    assert await store.page("t") == {}


async def test_ten_thousand_rows_are_imported_at_once_and_listed_by_pages(store: Store) -> None:
    rows: dict[str, bytes | None] = {f"key-{n:05}": b"%d" % n for n in range(10_000)}
    assert await store.put_many("t", rows, expected=dict.fromkeys(rows)) == []
    assert await store.put_many("t", rows, expected=dict.fromkeys(rows)) == list(rows)
    found: list[str] = []
    while page := await store.page("t", found[-1] if found else "", 3_000):
        assert len(page) <= 3_000
        found += page
    assert found == list(rows)
    assert await store.rows("t") == rows


async def test_pages_are_in_order(store: Store) -> None:
    names = ["ä", "a", "B", "aa", "b", "Z", "€", "😀", "a:1"]
    await store.put_many("t", dict.fromkeys(names, b""))
    assert list(await store.page("t")) == sorted(names, key=str.encode)
    assert list(await store.page("t", "a", 2)) == ["a:1", "aa"]


async def test_every_change_raises_the_version(store: Store) -> None:
    seen = [await store.version("t")]
    await store.put("t", "a", b"1")
    seen.append(await store.version("t"))
    await store.put_many("t", {"b": b"1"})
    seen.append(await store.version("t"))
    await store.drop("t", "a")
    seen.append(await store.version("t"))
    assert seen == sorted(set(seen))
    await store.drop("t", "a")
    await store.put("t", "b", b"2", expected=b"0")
    assert await store.version("t") == seen[-1]


@pytest.mark.parametrize("change", ["put", "put_many", "drop", "hold", "lift"])
async def test_watchers_are_notified_of_changes_by_others_within_a_second(
    store: Store, other: Store, change: str
) -> None:
    await other.put("t", "a", b"1")
    await other.hold("t", "b", 60)
    heard = asyncio.Event()
    stop = store.watch("t", heard.set)
    changes: dict[str, Callable[[], object]] = {
        "put": lambda: other.put("t", "a", b"2"),
        "put_many": lambda: other.put_many("t", {"a": None}),
        "drop": lambda: other.drop("t", "a"),
        "hold": lambda: other.hold("t", "c", 60),
        "lift": lambda: other.lift("t", "b"),
    }
    try:
        await asyncio.sleep(0.6)  # it may be called once, for earlier changes
        heard.clear()
        await changes[change]()  # type: ignore[misc]
        async with asyncio.timeout(60):
            await heard.wait()
    finally:
        stop()


async def test_watchers_do_not_miss_a_change_of_the_same_moment(store: Store, other: Store) -> None:
    seen: list[bytes | None] = []
    heard = asyncio.Event()
    stop = store.watch("t", heard.set)
    written = asyncio.create_task(other.put("t", "a", b"1"))
    try:
        async with asyncio.timeout(60):
            while b"1" not in seen:
                await heard.wait()
                heard.clear()
                seen.append(await store.get("t", "a"))
    finally:
        stop()
    assert await written


async def test_stopped_watchers_are_not_notified(store: Store) -> None:
    heard: list[int] = []
    reported = asyncio.Event()
    stop = store.watch("t", lambda: heard.append(1))
    stop()
    stop()
    keep = store.watch("t", reported.set)
    await store.put("t", "a", b"1")
    await reported.wait()
    keep()
    assert heard == []


async def test_a_failing_watcher_does_not_affect_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    heard = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    stops = [store.watch("t", fail), store.watch("t", heard.set)]
    for number in range(3):
        await store.put("t", "a", b"%d" % number)
        async with asyncio.timeout(60):
            await heard.wait()
        heard.clear()
    for stop in stops:
        stop()
