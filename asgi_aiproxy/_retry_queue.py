"""A queue of items that are handled in the background, in batches, and retried until done."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from asgi_aiproxy._background_tasks import FailureLog, start

T = TypeVar("T")

logger = logging.getLogger("asgi_aiproxy")

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0  # seconds


class RetryQueue(Generic[T]):
    """Passes items to `handle`, in batches of at most `batch_size`, in the order of `put`.

    `handle` returns the items to retry, after a pause of up to 2 seconds; `failure_reason` is then
    called for the log. At most `max_items` are kept, including those being handled: then the oldest
    are dropped, which is logged with their name, `what`, and counted in `lost`. `batch_delay` is
    the number of seconds for which the first item of a batch waits for more. The background task
    exists only while there are items.
    """

    def __init__(
        self,
        handle: Callable[[list[T]], Awaitable[Sequence[T]]],
        *,
        what: str,
        max_items: int = 100_000,
        batch_size: int = 256,
        batch_delay: float = 0.0,
        failure_reason: Callable[[], str] = lambda: "they are not accepted now",
    ) -> None:
        self._handle = handle
        self._what = what
        self._max_items = max_items
        self._batch_size = batch_size
        self._batch_delay = batch_delay
        self._failure_reason = failure_reason
        self._waiting: deque[T] = deque()
        self._busy = 0
        self._task: asyncio.Task[None] | None = None
        self._drain_requested: asyncio.Event | None = None
        self._log = FailureLog(what)
        self._overflow = 0  # items lost since the queue became full
        self.lost = 0

    def __len__(self) -> int:
        """The number of items that are not done."""
        return len(self._waiting) + self._busy

    def put(self, item: T) -> None:
        """Add an item."""
        self._waiting.append(item)
        self._keep_bound()
        self._start()

    async def drain(self, timeout: float = 3.0) -> None:
        """Wait until all items are done, at most `timeout` seconds; those left then are dropped."""
        if not len(self):
            return
        self._start()
        assert self._task is not None  # noqa: S101 (it was started)
        if self._drain_requested is not None:
            self._drain_requested.set()
        await asyncio.wait((self._task,), timeout=timeout)
        if not self._task.done():
            self.lost += len(self)
            logger.error("%d %s are lost: there was no time left", len(self), self._what)
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=1.0)
            self._waiting.clear()

    def _keep_bound(self) -> None:
        """Drop the oldest waiting items if there are too many."""
        excess = min(len(self) - self._max_items, len(self._waiting))
        if excess <= 0:
            return
        if not self._overflow:
            logger.error("too many %s are waiting: the oldest are lost", self._what)
        self._overflow += excess
        self.lost += excess
        for _ in range(excess):
            self._waiting.popleft()

    def _start(self) -> None:
        task, loop = self._task, asyncio.get_running_loop()
        # A task of another loop will not finish.
        if task is None or task.done() or task.get_loop() is not loop:
            self._drain_requested = asyncio.Event()
            self._busy = 0
            self._task = start(self._work(self._drain_requested), what=self._what)

    async def _work(self, drain_requested: asyncio.Event) -> None:
        failures = 0
        if self._batch_delay:
            await _wait_at_most(drain_requested, self._batch_delay)
        while self._waiting:
            count = min(self._batch_size, len(self._waiting))
            batch = retry = [self._waiting.popleft() for _ in range(count)]
            self._busy = len(batch)
            try:
                retry = list(await self._handle(batch))
            except Exception:
                self.lost += len(batch)
                logger.exception("%d %s are lost", len(batch), self._what)
                retry = []
            finally:
                self._busy = 0
                self._waiting.extendleft(reversed(retry))
            if retry:
                self._keep_bound()
                self._log.log_failure(self._failure_reason())
                await asyncio.sleep(self._pause(failures))
            else:
                self._log.log_recovery()
                self._caught_up()
            failures = failures + 1 if retry else 0

    def _caught_up(self) -> None:
        if self._overflow:
            logger.error(
                "%d %s were lost in total, because too many were waiting",
                self._overflow,
                self._what,
            )
            self._overflow = 0

    def _pause(self, failures: int) -> float:
        return min(_FIRST_PAUSE * 2.0**failures, _LAST_PAUSE)


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most `seconds`."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
