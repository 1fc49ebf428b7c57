from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    MemoryStore,
    RateLimit,
    StoreUnavailableError,
    UsageLevel,
    file as stores_file,
)
from tests.stores.conftest import Clock

pytestmark = pytest.mark.anyio

GRANTS = [
    ConcurrencySlot("team", "calls", 2),
    RateLimit("team", "rpm", 3, window=3600),
    BudgetReservation("team", "usd", 10, 25),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_a_store_file_survives_a_restart(file: Path, clock: Clock) -> None:
    async with MemoryStore(file=file, clock=clock) as store:
        await store.put_many("tokens", {"a": b"\x00\xff", "b": b""})
        done = await store.admit("done", GRANTS)
        open_ = await store.admit("open", GRANTS, ttl=60)
        assert isinstance(done, Admitted)
        assert isinstance(open_, Admitted)
        await store.settle(done, {GRANTS[2]: 3})
        await store.add("day", {"n": 1}, once="x")
        await store.hold("pool", "k", 60, b"429")
        for number in range(3):
            await store.append("log", b"%d" % number)
        ids = [number for number, _ in await store.read("log")]
        version = await store.version("tokens")

    async with MemoryStore(file=file, clock=clock) as store:
        assert await store.rows("tokens") == {"a": b"\x00\xff", "b": b""}
        assert await store.version("tokens") == version
        assert await store.peek(GRANTS) == [UsageLevel(0), UsageLevel(2), UsageLevel(3, 10)]
        assert await store.add("day", {"n": 1}, once="x") == {"n": 1}
        assert (await store.holds("pool"))["k"].value == b"429"
        assert await store.read("log") == [(ids[n], b"%d" % n) for n in range(3)]
        await store.append("log", b"3")
        assert (await store.read("log"))[-1][0] not in ids
        clock.now += 61  # the worker that held it is gone
        assert await store.peek(GRANTS[2:]) == [UsageLevel(13, 0)]
        assert (await store.settle(open_, {GRANTS[2]: 1})).spent == {GRANTS[2]: 4}


async def test_a_row_is_on_disk_when_put_returns(file: Path) -> None:
    """A process that is killed right after loses nothing."""
    code = f"""
import asyncio, os
from asgi_aiproxy.stores import MemoryStore
async def main():
    store = MemoryStore(file={str(file)!r})
    await store.put("t", "put", b"1")
    await store.put_many("t", {{"many": b"1", "dropped": b"1"}})
    await store.drop("t", "dropped")
    os._exit(9)
asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], timeout=240)
    assert done.returncode == 9
    async with MemoryStore(file=file) as store:
        assert await store.rows("t") == {"put": b"1", "many": b"1"}


async def test_changes_by_requests_are_on_disk_soon(file: Path) -> None:
    store = MemoryStore(file=file)
    for _ in range(100):
        await store.add("day", {"n": 1})
    assert not file.exists()
    async with asyncio.timeout(60):
        while not file.exists():
            await asyncio.sleep(0.05)
    assert MemoryStore(file=copied(file))._accounts["day"].sums == {"n": 100}
    await store.aclose()


def copied(file: Path) -> Path:
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    return copy


@pytest.mark.parametrize("content", [b"", b"{}", b"\x81", b"\xff" * 100])
async def test_a_foreign_file_is_reported_and_not_changed(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="state"):
        MemoryStore(file=file)
    assert file.read_bytes() == content


async def test_a_truncated_file_is_refused(file: Path) -> None:
    async with MemoryStore(file=file) as store:
        await store.put("t", "k", b"1" * 1000)
    whole = file.read_bytes()
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        with pytest.raises(ConfigurationError):
            MemoryStore(file=file)


async def test_a_missing_folder_of_the_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        MemoryStore(file=tmp_path / "nowhere" / "state")


async def test_a_file_serves_one_process(file: Path) -> None:
    async with MemoryStore(file=file) as store:
        await store.put("t", "k", b"1")
        code = f"from asgi_aiproxy.stores import MemoryStore; MemoryStore(file={str(file)!r})"
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=240
        )
        assert b"in use by another process" in done.stderr
        await store.put("t", "k", b"2")
    async with MemoryStore(file=file) as store:
        assert await store.get("t", "k") == b"2"


def blocked(file: Path) -> None:
    """From now on the file cannot be replaced."""
    file.unlink(missing_ok=True)
    (file / "in the way").mkdir(parents=True)


def unblocked(file: Path) -> None:
    (file / "in the way").rmdir()
    file.rmdir()


async def test_a_change_that_cannot_be_written_is_not_made_in_memory_either(file: Path) -> None:
    async with MemoryStore(file=file) as store:
        await store.put_many("t", {"k": b"1", "dropped": b"1"})
        blocked(file)
        for failing in (
            store.put("t", "k", b"2"),
            store.put("t", "new", b"2", expected=None),
            store.put_many("t", {"k": b"2", "new": b"2", "dropped": None}),
            store.drop("t", "dropped"),
        ):
            with pytest.raises(StoreUnavailableError, match="not written"):
                await failing
            assert await store.rows("t") == {"k": b"1", "dropped": b"1"}
        unblocked(file)
        await store.put("t", "other", b"3")
        assert sorted(path.name for path in file.parent.iterdir()) == ["state", "state.lock"]
    async with MemoryStore(file=file) as store:
        assert await store.rows("t") == {"k": b"1", "dropped": b"1", "other": b"3"}


async def test_changes_made_on_top_of_one_that_fails_fail_with_it(file: Path) -> None:
    async with MemoryStore(file=file) as store:
        await store.put("t", "k", b"0")
        blocked(file)
        first = asyncio.ensure_future(store.put("t", "k", b"1", expected=b"0"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(store.put("t", "k", b"2", expected=b"1"))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailableError] * 2
        assert await store.get("t", "k") == b"0"
        unblocked(file)


async def test_watchers_of_a_table_are_notified_that_a_change_was_undone(file: Path) -> None:
    async with MemoryStore(file=file) as store:
        await store.put("t", "k", b"1")
        seen: list[bytes | None] = []
        reported = asyncio.Event()

        def changed() -> None:
            seen.append(store._tables["t"].get("k"))
            reported.set()

        stop = store.watch("t", changed)
        blocked(file)
        with pytest.raises(StoreUnavailableError):
            await store.put("t", "k", b"2")
        async with asyncio.timeout(60):
            while not seen or seen[-1] != b"1":
                reported.clear()
                await reported.wait()
        stop()
        unblocked(file)


async def test_changes_by_requests_are_written_as_soon_as_the_disk_has_room(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_file, "_WRITE_DELAY", 0.02)
    store = MemoryStore(file=file)
    await store.put("t", "k", b"1")
    blocked(file)
    await store.add("day", {"n": 7})
    async with asyncio.timeout(60):
        while store._file is not None and store._file._log.failures < 3:
            await asyncio.sleep(0.02)
    unblocked(file)
    async with asyncio.timeout(60):
        while not file.is_file():
            await asyncio.sleep(0.02)
    assert caplog.text.count("cannot be written: Is a directory") == 1
    async with asyncio.timeout(60):
        while "working again" not in caplog.text:
            await asyncio.sleep(0.02)
    assert MemoryStore(file=copied(file))._accounts["day"].sums == {"n": 7}
    await store.aclose()


async def test_a_log_is_read_from_any_place_without_looking_at_the_rest() -> None:
    """Pages forwards and backwards equal those of a plain list, whatever was dropped before."""
    store = MemoryStore()
    for number in range(1, 41):
        await store.append("log", b"%d" % number, maxlen=30)
    kept = [(str(number), b"%d" % number) for number in range(11, 41)]
    for after in ("", *map(str, range(45))):
        start = int(after) if after else None
        for limit in (1, 7, 100):
            forwards = [row for row in kept if start is None or int(row[0]) > start]
            backwards = [row for row in kept[::-1] if start is None or int(row[0]) < start]
            assert await store.read("log", after, limit) == forwards[:limit]
            assert await store.read("log", after, limit, newest=True) == backwards[:limit]


async def test_many_writers_share_a_few_writes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(file=file)
    assert store._file is not None
    writes = 0
    replace = store._file._replace

    def counted(data: bytes) -> None:
        nonlocal writes
        writes += 1
        replace(data)

    monkeypatch.setattr(store._file, "_replace", counted)
    await asyncio.gather(*(store.put("t", f"{n}", b"") for n in range(200)))
    assert writes <= 3
    await store.aclose()
    async with MemoryStore(file=file) as again:
        assert len(await again.rows("t")) == 200
