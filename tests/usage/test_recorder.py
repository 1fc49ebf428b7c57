"""Usage records are handed to any sink; losses are logged and counted."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest

from asgi_aiproxy import _retry_queue
from asgi_aiproxy.usage.record import UsageRecord
from asgi_aiproxy.usage.recorder import Recorder, UsageSink, tee
from asgi_aiproxy.usage.sinks import JSONLinesSink
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


def record(number: int) -> UsageRecord:
    return UsageRecord(id=str(number))


async def hangs(record: UsageRecord) -> None:
    await asyncio.Event().wait()


class Stubborn:
    """A sink that cannot be cancelled."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, record: UsageRecord) -> None:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                continue

    async def drain(self) -> None:
        await self(record(0))


async def test_a_hanging_sink_does_not_delay_shutdown_and_every_loss_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder(hangs)
    for number in range(7):
        recorder.put(record(number))
    async with asyncio.timeout(20):
        await recorder.drain(0.1)
    assert recorder.lost == 7
    assert caplog.text.count("7 usage records are lost") == 1


async def test_a_sink_that_ignores_cancellation_does_not_delay_shutdown_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Stubborn()
    recorder = Recorder(sink)
    recorder.put(record(1))
    async with asyncio.timeout(20):
        await recorder.drain(0.1)
    assert recorder.lost == 1
    assert "did not finish within" in caplog.text
    sink.released.set()


async def test_the_number_of_waiting_records_is_limited_and_the_oldest_are_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken: list[str] = []
    free = asyncio.Event()

    async def slow(record: UsageRecord) -> None:
        await free.wait()
        taken.append(record.id)

    recorder = Recorder(slow, max_waiting=10)
    for number in range(100):
        recorder.put(record(number))
    assert caplog.text.count("the oldest are lost from now on") == 1
    free.set()
    await recorder.drain()
    assert taken == [str(number) for number in range(90, 100)]
    assert recorder.lost == 90
    assert caplog.text.count("90 usage records were lost in all") == 1


async def test_a_sink_that_hangs_on_one_record_loses_only_that_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken: list[str] = []

    async def sink(record: UsageRecord) -> None:
        if record.id == "1":
            await hangs(record)
        taken.append(record.id)

    recorder = Recorder(sink, sink_timeout=0.05)
    for number in range(4):
        recorder.put(record(number))
    await until(lambda: len(taken) == 3)
    await recorder.drain()
    assert taken == ["0", "2", "3"]
    assert recorder.lost == 1
    assert caplog.text.count("took more than 0.05 s; its record is lost") == 1


async def test_a_slow_sink_that_moves_on_loses_nothing() -> None:
    taken: list[str] = []

    async def sink(record: UsageRecord) -> None:
        await asyncio.sleep(0.02)
        taken.append(record.id)

    recorder = Recorder(sink, sink_timeout=2)
    for number in range(20):
        recorder.put(record(number))
    await recorder.drain(60)
    assert len(taken) == 20
    assert recorder.lost == 0


async def test_a_record_is_handed_over_once_and_in_order_while_more_come() -> None:
    taken: list[str] = []

    async def sink(record: UsageRecord) -> None:
        await asyncio.sleep(0)
        taken.append(record.id)

    recorder = Recorder(sink)
    for number in range(200):
        recorder.put(record(number))
        if number % 7 == 0:
            await asyncio.sleep(0.003)
    await recorder.drain()
    assert taken == [str(number) for number in range(200)]


def test_it_continues_in_another_event_loop() -> None:
    taken: list[str] = []

    async def sink(record: UsageRecord) -> None:
        taken.append(record.id)

    recorder = Recorder(sink)

    async def put(number: int, *, drain: bool) -> None:
        recorder.put(record(number))
        if drain:
            await recorder.drain()

    asyncio.run(put(1, drain=False))
    asyncio.run(put(2, drain=True))
    assert taken == ["1", "2"]


async def failing(record: UsageRecord) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class BadEnd:
    """A sink whose `drain` fails."""

    async def __call__(self, record: UsageRecord) -> None:
        return None

    async def drain(self) -> None:
        raise RuntimeError("no end")


@pytest.mark.parametrize("other", [failing, hangs, BadEnd()], ids=["fails", "hangs", "bad end"])
@pytest.mark.parametrize("first", [True, False])
async def test_a_failing_or_hanging_sink_does_not_affect_the_other_sinks(
    other: UsageSink, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []

    async def sink(record: UsageRecord) -> None:
        taken.append(record.id)

    recorder = Recorder(tee(other, sink) if first else tee(sink, other))
    for number in range(5):
        recorder.put(record(number))
    async with asyncio.timeout(20):
        await recorder.drain(0.3)
    assert taken == [str(number) for number in range(5)]
    assert "usage sink" in caplog.text


# ── JSON lines ───────────────────────────────────────────────────────────────


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retry_queue, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(_retry_queue, "_LAST_PAUSE", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
async def test_on_a_full_disk_lines_are_bounded_and_the_loss_is_logged_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = JSONLinesSink("/dev/full", max_waiting=100)
    for number in range(1000):
        await sink(record(number))
        if number % 50 == 0:
            await until(lambda: sink._backlog._log.failures)
            await asyncio.sleep(0.02)
        assert len(sink._backlog) <= 100
    assert caplog.text.count("No space left on device; retrying") == 1
    assert caplog.text.count("the oldest are lost") == 1
    await sink.drain(0.1)
    assert "100 usage lines for '/dev/full' are lost" in caplog.text
    assert sink.lost == 1000


@pytest.mark.usefixtures("quick")
async def test_lines_that_cannot_be_written_wait_for_their_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "usage.jsonl"
    sink = JSONLinesSink(path)
    path.mkdir()
    for number in range(300):
        await sink(record(number))
    await until(lambda: sink._backlog._log.failures > 2)
    assert caplog.text.count("they cannot be written: Is a directory; retrying") == 1
    path.rmdir()
    await sink.drain()
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == [
        str(number) for number in range(300)
    ]
    assert caplog.text.count("working again") == 1
    assert sink.lost == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("room", [1, 50, 301, 302, 4097])
async def test_a_disk_that_fills_up_within_a_line_leaves_each_line_whole_and_once(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usage.jsonl"
    left = room
    write = os.write

    def scarce(file: int, data: memoryview) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(file, data[:left])
        left -= done
        return done

    sink = JSONLinesSink(path)
    monkeypatch.setattr(os, "write", scarce)
    for number in range(100):
        await sink(UsageRecord(id=str(number), error="x" * 100))
    await until(lambda: sink._backlog._log.failures > 1)
    found = path.read_bytes()
    assert not found or found.endswith(b"\n")
    left = 1 << 30
    await sink.drain()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["id"] for line in lines] == [str(number) for number in range(100)]
