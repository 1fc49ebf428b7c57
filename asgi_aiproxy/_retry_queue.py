"""Work that is done in the background, in batches, and tried again until it is done."""

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
    """Hands items to `handle`, in batches of at most `at_once`, in the order they were put.

    `handle` returns those that are to be tried again, after a pause; then `why` says in the log
    what hinders it. At most `most` items wait, those that are being handled among them: then the
    oldest are lost, and the log says so, calling them `what`. `lost` counts them. `gather` is how
    many seconds the first of a batch waits for more. The task that does all this lives only while
    it is needed.
    """

    def __init__(
        self,
        handle: Callable[[list[T]], Awaitable[Sequence[T]]],
        *,
        what: str,
        most: int = 100_000,
        at_once: int = 256,
        gather: float = 0.0,
        why: Callable[[], str] = lambda: "they wait",
    ) -> None:
        self._handle = handle
        self._what = what
        self._most = most
        self._at_once = at_once
        self._gather = gather
        self._why = why
        self._waiting: deque[T] = deque()
        self._busy = 0
        self._task: asyncio.Task[None] | None = None
        self._hurry: asyncio.Event | None = None
        self._log = FailureLog(what)
        self._overflow = 0  # items lost since the queue became full
        self.lost = 0

    def __len__(self) -> int:
        """How many items are not done."""
        return len(self._waiting) + self._busy

    def put(self, item: T) -> None:
        """Take an item over."""
        self._waiting.append(item)
        self._keep_bound()
        self._start()

    async def drain(self, timeout: float = 3.0) -> None:
        """Wait until all is done, for at most `timeout` seconds; what is left then is given up."""
        if not len(self):
            return
        self._start()
        assert self._task is not None  # noqa: S101 (it was started)
        if self._hurry is not None:
            self._hurry.set()
        await asyncio.wait((self._task,), timeout=timeout)
        if not self._task.done():
            self.lost += len(self)
            logger.error("%d %s are lost: there was no time left", len(self), self._what)
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=1.0)
            self._waiting.clear()

    def _keep_bound(self) -> None:
        """Drop the oldest of what waits, should there be too many."""
        excess = min(len(self) - self._most, len(self._waiting))
        if excess <= 0:
            return
        if not self._overflow:
            logger.error("too many %s wait: the oldest are lost", self._what)
        self._overflow += excess
        self.lost += excess
        for _ in range(excess):
            self._waiting.popleft()

    def _start(self) -> None:
        task, loop = self._task, asyncio.get_running_loop()
        # What another loop had begun, it will not end.
        if task is None or task.done() or task.get_loop() is not loop:
            self._hurry = asyncio.Event()
            self._busy = 0
            self._task = start(self._work(self._hurry), what=self._what)

    async def _work(self, hurry: asyncio.Event) -> None:
        tries = 0
        if self._gather:
            await _at_most(hurry, self._gather)
        while self._waiting:
            count = min(self._at_once, len(self._waiting))
            batch = again = [self._waiting.popleft() for _ in range(count)]
            self._busy = len(batch)
            try:
                again = list(await self._handle(batch))
            except Exception:
                self.lost += len(batch)
                logger.exception("%d %s are lost", len(batch), self._what)
                again = []
            finally:
                self._busy = 0
                self._waiting.extendleft(reversed(again))
            if again:
                self._keep_bound()
                self._log.log_failure(self._why())
                await asyncio.sleep(self._pause(tries))
            else:
                self._log.log_recovery()
                self._caught_up()
            tries = tries + 1 if again else 0

    def _caught_up(self) -> None:
        if self._overflow:
            logger.error("%d %s were lost in all, for too many waited", self._overflow, self._what)
            self._overflow = 0

    def _pause(self, tries: int) -> float:
        return min(_FIRST_PAUSE * 2.0**tries, _LAST_PAUSE)


async def _at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not for long."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
