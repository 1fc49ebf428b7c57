"""What was used, told once for every exchange, however it ended."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec

from asgi_aiproxy.messages import Usage

logger = logging.getLogger("asgi_aiproxy")


class Outcome(StrEnum):
    """How an exchange ended."""

    DONE = "done"
    CUT = "cut"  # the client left
    FAILED = "failed"  # no target answered, or the answer broke
    REFUSED = "refused"  # the request itself was at fault, or not allowed


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One exchange. Times are in seconds, `started` is Unix time.

    `provider`, `model` and `key_id` are those of the last attempt, `model_sent` is the model it
    was asked for; `first_byte` is None if nothing was sent; `usage` holds what is known, None if
    the provider told nothing. `cost` is in micro-dollars, `units` in quota units, None if there is
    no price. `estimated`: part of the usage was not told but guessed. `absorbed`: the caller is
    not charged.
    """

    id: str
    principal: str = ""
    face: str = ""
    operation: str = ""
    provider: str = ""
    model_asked: str = ""
    model_sent: str = ""
    model: str = ""
    key_id: str = ""
    usage: Usage | None = None
    outcome: Outcome = Outcome.DONE
    status: int = 0
    error: str = ""
    attempts: int = 0
    started: float = 0.0
    first_byte: float | None = None
    duration: float = 0.0
    account: str = ""
    group: str = ""
    cost: int | None = None
    units: int | None = None
    estimated: bool = False
    absorbed: bool = False


# One that has a method `drain` is asked to finish when the app that feeds it closes.
UsageSink = Callable[[UsageRecord], Awaitable[None]]


async def ignore(record: UsageRecord) -> None:
    """A sink that keeps nothing."""


async def log_usage(record: UsageRecord) -> None:
    """A sink that writes one line to the log `asgi_aiproxy.usage`."""
    used = record.usage or Usage()
    logging.getLogger("asgi_aiproxy.usage").info(
        "%s %s principal=%s model=%s provider=%s key=%s input=%d output=%d cost=%s status=%d %.3fs",
        record.outcome.value,
        record.operation,
        _word(record.principal) or "-",
        _word(record.model or record.model_asked),
        record.provider or "-",
        record.key_id or "-",
        used.input,
        used.output,
        "-" if record.cost is None else f"${record.cost / 1_000_000:.6f}",
        record.status,
        record.duration,
    )


def _word(text: str) -> str:
    """What callers made up as one word of a line, so that it can not look like more."""
    plain = text.isprintable() and len(text) <= _LONG and " " not in text
    return text if plain else ascii(text[:_LONG])


_LONG = 200


def tee(*sinks: UsageSink) -> UsageSink:
    """A sink that passes records to all of `sinks`, one after the other."""

    return _Tee(sinks)


class _Tee:
    def __init__(self, sinks: tuple[UsageSink, ...]) -> None:
        self._sinks = sinks

    async def __call__(self, record: UsageRecord) -> None:
        for sink in self._sinks:
            await sink(record)

    async def drain(self) -> None:
        for sink in self._sinks:
            await _finish(sink)


async def _finish(sink: UsageSink) -> None:
    drain = getattr(sink, "drain", None)
    if drain is not None:
        await drain()


_GATHER = 0.01  # seconds


class Recorder:
    """Hands records to a sink without making anybody wait.

    Records are handed over a few at a time, some milliseconds later, by a task that lives only as
    long as there are any; `drain` waits for it. A sink that raises loses its record, and the log
    says so.
    """

    def __init__(self, sink: UsageSink) -> None:
        self._sink = sink
        self._waiting: deque[UsageRecord] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, record: UsageRecord, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Take a record over. Who knows the running loop may name it."""
        if self._sink is ignore:
            return
        self._waiting.append(record)
        loop = loop if loop is not None else asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:
            self._loop, self._task = loop, None  # what another loop had begun, it will not end
            self._timer = loop.call_later(_GATHER, self._start)

    async def drain(self) -> None:
        """Wait until all records are handed over, and the sink has done with them."""
        while self._waiting or self._task is not None:
            self._start()
            if self._task is not None:
                await asyncio.wait((self._task,))
        await _finish(self._sink)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting:
                record = self._waiting.popleft()
                try:
                    told = self._sink(record)
                    if hasattr(told, "__await__"):  # a plain function is taken, too
                        await told
                except Exception:
                    logger.exception("a usage sink failed; its record is lost: %r", record)
        finally:
            self._task = None
