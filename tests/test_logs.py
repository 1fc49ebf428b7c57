"""Lines of the log are written together, in order, and none is lost."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from asgi_aiproxy import UsageRecord, log_usage
from asgi_aiproxy.logs import BatchHandler, LogFormat
from tests.support import waiting

pytestmark = pytest.mark.anyio

USAGE = "asgi_aiproxy.usage"


class Stream(io.StringIO):
    """A stream that counts what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def stream() -> Iterator[Stream]:
    """What a handler of JSON lines writes, which is the only one of the logger."""
    written = Stream()
    yield from handled(BatchHandler(written, format="json"), written)


def handled(handler: logging.Handler, written: Stream) -> Iterator[Stream]:
    logger = logging.getLogger(USAGE)
    level, logger.propagate = logger.level, False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield written
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(level)
        handler.close()


async def logged(record: UsageRecord) -> None:
    await log_usage(record)


async def test_lines_of_an_event_loop_are_written_together(stream: Stream) -> None:
    for number in range(50):
        await log_usage(UsageRecord(id=str(number)))
    assert stream.writes == 0
    await waiting.until(lambda: len(stream.lines) == 50)
    assert stream.writes == 1
    assert [line["usage"]["id"] for line in stream.lines] == [str(n) for n in range(50)]


@pytest.mark.parametrize("level", ["info", "warning"])
async def test_other_lines_are_written_at_once_after_all_lines_before_them(
    stream: Stream, level: str
) -> None:
    await log_usage(UsageRecord(id="1"))
    getattr(logging.getLogger(USAGE), level)("it ends")
    assert [line["level"] for line in stream.lines] == ["info", level]
    assert "usage" in stream.lines[0]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("format", ["json", "text"])
def test_a_process_that_ends_by_its_signal_has_written_all_lines(format: LogFormat) -> None:
    """As uvicorn ends, after it has stopped in good order."""
    code = f"""
import asyncio, logging, signal
from asgi_aiproxy import UsageRecord, log_usage
from asgi_aiproxy.logs import configure

async def main():
    configure(format={format!r})
    await log_usage(UsageRecord(id="1", request_id="of-the-last-call"))
    logging.getLogger("asgi_aiproxy").info("finished")
    signal.raise_signal(signal.SIGTERM)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGTERM
    assert "of-the-last-call" in done.stderr
    assert "finished" in done.stderr


async def test_the_number_of_lines_that_wait_is_limited(stream: Stream) -> None:
    for number in range(1_000):
        await log_usage(UsageRecord(id=str(number)))
    assert len(stream.lines) == 1_000


def test_without_an_event_loop_each_line_is_written_at_once(stream: Stream) -> None:
    logging.getLogger(USAGE).info("starting")
    assert stream.lines[0]["message"] == "starting"


def test_lines_of_an_event_loop_that_has_ended_are_written_with_the_next_ones(
    stream: Stream,
) -> None:
    asyncio.run(logged(UsageRecord(id="1")))
    asyncio.run(logged(UsageRecord(id="2")))
    logging.getLogger(USAGE).info("ending")
    assert [line.get("usage", {}).get("id") for line in stream.lines] == ["1", "2", None]


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_process_that_ends_has_written_all_lines_in_order(format: LogFormat) -> None:
    code = f"""
import asyncio, logging
from asgi_aiproxy import UsageRecord, log_usage
from asgi_aiproxy.logs import configure

async def main():
    configure(format={format!r})
    for number in range(450):
        await log_usage(UsageRecord(id=str(number), request_id=f"id-{{number}}."))
    logging.getLogger("asgi_aiproxy").info("id-450.")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 451
    assert all(f"id-{number}." in line for number, line in enumerate(lines))


@pytest.mark.parametrize(
    "record",
    [
        UsageRecord(id="1", model="m", tags={"team": "a"}, attempts=2, cost=7),
        UsageRecord(id="2", model="模型\n😀", error="é"),
        UsageRecord(id="3", model="x\ud800"),
    ],
    ids=["ascii", "unicode", "no unicode"],
)
def test_a_usage_line_is_the_same_however_it_is_made(stream: Stream, record: UsageRecord) -> None:
    asyncio.run(logged(record))
    other = logging.StreamHandler(second := Stream())
    other.setFormatter(BatchHandler(format="json").formatter)
    logging.getLogger(USAGE).addHandler(other)  # so there are two, which are given a LogRecord
    asyncio.run(logged(record))
    logging.getLogger(USAGE).removeHandler(other)
    logging.getLogger(USAGE).warning("end")
    direct, general, _ = stream.lines
    (standard,) = second.lines
    assert len({len(line.pop("time")) for line in (direct, general, standard)}) == 1
    assert direct == general == standard
    assert stream.getvalue().isascii()


async def test_filters_and_levels_of_a_handler_hold_for_usage_lines() -> None:
    handler = BatchHandler(written := Stream(), format="json")
    handler.addFilter(lambda found: getattr(found, "usage").id != "1")  # noqa: B009
    for _ in handled(handler, written):
        await log_usage(UsageRecord(id="1"))
        await log_usage(UsageRecord(id="2"))
        handler.flush()
        assert [line["usage"]["id"] for line in written.lines] == ["2"]
        handler.setLevel(logging.WARNING)
        handler.removeFilter(handler.filters[0])
        await log_usage(UsageRecord(id="3"))
        handler.flush()
        assert len(written.lines) == 1


async def test_a_stream_that_fails_does_not_stop_the_log(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(text: str) -> int:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(stream, "write", full)
        await log_usage(UsageRecord(id="1"))
        await waiting.until(lambda: "No space left" in capsys.readouterr().err)
    await log_usage(UsageRecord(id="2"))
    await waiting.until(lambda: stream.lines)
    assert stream.lines[0]["usage"]["id"] == "2"


def test_a_line_that_cannot_be_encoded_costs_none_of_the_others() -> None:
    raw = io.BytesIO()
    handler = BatchHandler(io.TextIOWrapper(raw, encoding="utf-8"))
    handler.setFormatter(logging.Formatter("%(message)s"))

    async def logged_together() -> None:
        for text in ("first", "a lone \ud800", "last \u00e9"):
            handler.handle(logging.makeLogRecord({"msg": text, "usage": None}))

    asyncio.run(logged_together())
    handler.close()
    assert raw.getvalue().decode().splitlines() == ["first", "a lone \\ud800", "last \u00e9"]
