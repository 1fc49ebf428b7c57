"""`Recorder`: hands usage records to sinks, in the background.

Theory of operation. An exchange that ends calls `put`, which only appends the record to a queue of
each sink; what sinks do with it is not on the path of a call. A sink that is an async function has
a `_SinkQueue`: records are handed over a few at a time, some milliseconds later, by a task that
lives only as long as there are any. Sinks do not wait for each other, so one that fails or hangs
keeps nothing from the others. A sink that has a queue of its own, such as that of `Metrics`, says
so by a method `queue_record(record, loop)`, which is called by `put` directly: it must not raise,
and do its work later.

Queues are bounded: at most `max_waiting` records wait for a sink; then the oldest are lost. A sink
that raises, or takes more than about `sink_timeout` seconds for a record, loses that record. Every
loss is logged, and counted in `lost`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, runtime_checkable

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.usage.record import UsageRecord, storable

logger = logging.getLogger("asgi_aiproxy")

# If a sink has a method `drain`, it is called when the app that feeds the sink closes.
UsageSink = Callable[[UsageRecord], Awaitable[None]]

_GATHER_SECONDS = 0.01
_MIN_FINISH_SECONDS = 0.5  # for a sink to finish, even after the timeout


async def discard(record: UsageRecord) -> None:
    """A sink that keeps nothing."""


@runtime_checkable
class QueueingSink(Protocol):
    """A sink that queues records by itself."""

    def queue_record(self, record: UsageRecord, loop: asyncio.AbstractEventLoop) -> None:
        """Queue a record; `loop` is the running event loop."""


def tee(*sinks: UsageSink) -> UsageSink:
    """A sink that passes records to all of `sinks`. One that fails or hangs does not keep them from
    the others."""

    return _Tee(sinks)


class _Tee:
    """Several sinks as one: a `Recorder` has a queue for each."""

    def __init__(self, sinks: tuple[UsageSink, ...]) -> None:
        self.sinks = sinks
        self._recorder = Recorder(self)

    async def __call__(self, record: UsageRecord) -> None:
        self._recorder.put(record)

    async def drain(self, timeout: float = 5.0) -> None:
        await self._recorder.drain(timeout)


class Recorder:
    """Hand records to a sink in the background: no request waits for it.

    At most `max_waiting` records wait for each sink, and it has about `sink_timeout` seconds for
    each record. `records` is whether anything is done with them. Raises ConfigurationError for what
    is not a sink.
    """

    def __init__(
        self, sink: UsageSink, *, max_waiting: int = 50_000, sink_timeout: float = 30.0
    ) -> None:
        self.records = sink is not discard
        self._queues: list[QueueingSink] = [
            each if isinstance(each, QueueingSink) else _SinkQueue(each, max_waiting, sink_timeout)
            for each in _flat(sink)
            if each is not discard
        ]

    @property
    def lost(self) -> int:
        """How many records sinks have lost."""
        return sum(queue.lost for queue in self._queues if isinstance(queue, _SinkQueue))

    def put(self, record: UsageRecord, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Queue a record. `loop` is the running event loop, if the caller has it at hand."""
        if not self.records:
            return
        loop = loop if loop is not None else asyncio.get_running_loop()
        record = storable(record)
        for queue in self._queues:
            queue.queue_record(record, loop)

    async def drain(self, timeout: float = 5.0) -> None:
        """Wait until all records are handed over and the sinks have finished, for at most about
        `timeout` seconds. What is left then is lost, and the log says how much."""
        await asyncio.gather(*(_drain(queue, timeout) for queue in self._queues))


def _flat(sink: UsageSink) -> Iterator[UsageSink]:
    """The sinks of a tee, also of those in it, or the sink itself."""
    if isinstance(sink, _Tee):
        for each in sink.sinks:
            yield from _flat(each)
        return
    plain = inspect.isfunction(sink) and not inspect.iscoroutinefunction(sink)
    if plain or not callable(sink):
        what = "a plain function" if plain else repr(sink)
        raise ConfigurationError(
            f"A usage sink must be an async function that takes a UsageRecord, not {what}. "
            "Leave record= out to keep no records."
        )
    yield sink


class _SinkQueue:
    """The records that wait for one sink, and the task that hands them over."""

    def __init__(self, sink: UsageSink, max_waiting: int, sink_timeout: float) -> None:
        self._sink = sink
        self._max_waiting = max_waiting
        self._sink_timeout = sink_timeout
        self._waiting: deque[UsageRecord] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._overflow = 0  # records lost since the queue became full
        self._handed = 0  # counts records given to the sink
        self._checked = 0  # what that was when the watchdog looked last
        self._expired = False
        self.lost = 0

    def queue_record(self, record: UsageRecord, loop: asyncio.AbstractEventLoop) -> None:
        """Queue a record; `loop` is the running event loop."""
        if len(self._waiting) >= self._max_waiting:
            self._drop_oldest()
        self._waiting.append(record)
        if self._loop is not loop:
            self._forget(loop)
        if self._timer is None and self._task is None:
            self._timer = loop.call_later(_GATHER_SECONDS, self._start)

    async def drain(self, timeout: float) -> None:
        """Wait until all records are handed over and the sink has finished, for at most about
        `timeout` seconds. What is left then is lost, and the log says how much."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._forget(loop)
        end = loop.time() + timeout
        while self._waiting or self._task is not None:
            self._start()
            if self._task is None:
                break
            task = self._task
            await asyncio.wait((task,), timeout=max(end - loop.time(), 0.0))
            if not task.done():
                self._give_up(task, timeout)
                break
        await _drain(self._sink, max(end - loop.time(), _MIN_FINISH_SECONDS))

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop tasks and timers of another event loop: they do not run any more."""
        self._loop = loop
        self._task = self._timer = self._watchdog = None

    def _give_up(self, task: asyncio.Task[None], timeout: float) -> None:
        self._task = None
        task.cancel()
        self._stop_watching()
        count = len(self._waiting) + 1  # and the one that the sink has
        self._waiting.clear()
        self.lost += count
        logger.error(
            "%d usage records are lost: the usage sink %r did not take them within %g s at "
            "shutdown",
            *(count, self._sink, timeout),
        )

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self.lost += 1
        self._overflow += 1
        if self._overflow == 1:
            logger.error(
                "%d usage records wait for the usage sink %r, which does not take them: the "
                "oldest are lost from now on",
                *(self._max_waiting, self._sink),
            )

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and self._waiting:
            self._task = start(self._work(), what="handing usage records over")
            self._watch(self._task)

    async def _work(self) -> None:
        me = asyncio.current_task()
        try:
            while self._waiting:
                record = self._waiting.popleft()
                self._handed += 1
                try:
                    result = self._sink(record)
                    if hasattr(result, "__await__"):  # a callable object may be synchronous
                        await result
                except Exception:
                    self.lost += 1
                    logger.exception("a usage sink failed; its record is lost: %r", record)
                except asyncio.CancelledError:
                    if not self._expired or me is None or me.uncancel() > 0:
                        raise
                    self._expired = False
                    self.lost += 1
                    logger.error(
                        "the usage sink %r took more than %g s; its record is lost: %r",
                        *(self._sink, self._sink_timeout, record),
                    )
            if self._overflow:
                logger.error("%d usage records were lost in all", self._overflow)
                self._overflow = 0
        finally:
            if self._task is me:
                self._task = None
                self._stop_watching()

    def _watch(self, task: asyncio.Task[None]) -> None:
        """Check regularly whether the sink is still busy with the same record as last time."""
        self._stop_watching()
        self._checked = self._handed + 1  # the first one is just being handed over
        loop = task.get_loop()

        def look() -> None:
            self._watchdog = loop.call_later(self._sink_timeout, look)
            if self._checked == self._handed and not task.done():
                self._expired = True
                task.cancel()
            self._checked = self._handed

        self._watchdog = loop.call_later(self._sink_timeout, look)

    def _stop_watching(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None


async def _drain(sink: UsageSink | QueueingSink, timeout: float) -> None:
    """Call `drain` of a sink that has it; one that fails or hangs is logged and abandoned."""
    drain = getattr(sink, "drain", None)
    if drain is None:
        return
    if isinstance(sink, _SinkQueue):  # whose sink has the same limit
        await sink.drain(timeout)
        return
    work = drain()
    if not hasattr(work, "__await__"):
        return
    task = asyncio.ensure_future(work)
    await asyncio.wait((task,), timeout=timeout)
    if not task.done():
        task.cancel()
        logger.error("the usage sink %r did not finish within %g s", sink, timeout)
    elif not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the usage sink %r failed in drain()", sink, exc_info=error)
