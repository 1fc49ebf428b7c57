"""Work that is done in the background, in batches, and tried again until it is done."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

logger = logging.getLogger("asgi_aiproxy")

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0  # seconds


class Backlog(Generic[T]):
    """Hands items to `handle`, in batches of at most `at_once`, in the order they were put.

    `handle` returns those that are to be tried again, after a pause. At most `most` wait: then the
    oldest are lost, and the log says so, calling them `what`. `gather` is how many seconds the
    first of a batch waits for more. The task that does all this lives only while it is needed.
    """

    def __init__(
        self,
        handle: Callable[[list[T]], Awaitable[Sequence[T]]],
        *,
        what: str,
        most: int = 100_000,
        at_once: int = 256,
        gather: float = 0.0,
    ) -> None:
        self._handle = handle
        self._what = what
        self._most = most
        self._at_once = at_once
        self._gather = gather
        self._waiting: deque[T] = deque()
        self._busy = 0
        self._task: asyncio.Task[None] | None = None
        self._hurry: asyncio.Event | None = None
        self._lost = 0

    def __len__(self) -> int:
        """How many items are not done."""
        return len(self._waiting) + self._busy

    def put(self, item: T) -> None:
        """Take an item over."""
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            if not self._lost:
                logger.error("too many %s wait: the oldest are lost", self._what)
            self._lost += 1
        self._waiting.append(item)
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
            logger.error("%d %s are lost: there was no time left", len(self), self._what)
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._waiting.clear()

    def _start(self) -> None:
        task, loop = self._task, asyncio.get_running_loop()
        # What another loop had begun, it will not end.
        if task is None or task.done() or task.get_loop() is not loop:
            self._hurry = asyncio.Event()
            self._task = loop.create_task(self._work(self._hurry))

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
                logger.exception("%d %s are lost", len(batch), self._what)
                again = []
            finally:
                self._busy = 0
                self._waiting.extendleft(reversed(again))
            if again:
                await asyncio.sleep(self._pause(tries))
            tries = tries + 1 if again else 0

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
