"""`AfterRuns`: runs the `after` of hooks when an exchange has ended, a limited number at a time.

Theory of operation. `after` may await something slow, such as a database, so each exchange gets a
task of its own, in the context of its request. At most `MAX_RUNNING` of these run at the same time.
Others wait in a queue, which is bounded by their number and by the bytes of the requests that they
hold: when it is full, the oldest are dropped. That is logged when it begins and when it is over.
So hooks that hang cost a limited amount of memory, and no time of any call.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.hooks.base import Call
from asgi_aiproxy.usage.record import UsageRecord

logger = logging.getLogger("asgi_aiproxy")

MAX_RUNNING = 100
MAX_WAITING = 1_000
MAX_BYTES = 64 * 1024 * 1024  # of the requests that wait


class _Ended(NamedTuple):
    context: contextvars.Context
    call: Call
    record: UsageRecord


class AfterRuns:
    """Runs `run` for each exchange; `seconds` is the longest time that one takes."""

    def __init__(
        self, run: Callable[[Call, UsageRecord], Coroutine[Any, Any, None]], *, seconds: float
    ) -> None:
        self._run = run
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Ended] = deque()
        self._bytes = 0
        self._overflow = 0  # dropped since the queue became full
        self.lost = 0

    def put(self, call: Call, record: UsageRecord) -> None:
        """Run it in the background."""
        if len(self._tasks) < MAX_RUNNING:
            self._start(call, record)
            return
        self._waiting.append(_Ended(contextvars.copy_context(), call, record))
        self._bytes += len(call.body)
        while len(self._waiting) > MAX_WAITING or self._bytes > MAX_BYTES:
            self._bytes -= len(self._waiting.popleft().call.body)
            self.lost += 1
            self._overflow += 1
            if self._overflow == 1:
                logger.error(
                    "%d calls wait for hooks that run after them, which take too long: the oldest "
                    "are not seen by them from now on",
                    len(self._waiting),
                )

    def _start(self, call: Call, record: UsageRecord) -> None:
        task = start(self._run(call, record), what="hooks after an exchange")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return  # its event loop ends, in which another task would not
        if self._waiting:
            ended = self._waiting.popleft()
            self._bytes -= len(ended.call.body)
            ended.context.run(self._start, ended.call, ended.record)
        else:
            self._report_overflow()

    def _report_overflow(self) -> None:
        if self._overflow:
            logger.error("hooks did not see the end of %d calls in all", self._overflow)
            self._overflow = 0

    async def drain(self) -> None:
        """Wait for those that run, and for those that wait as long as one may take."""
        end = asyncio.get_running_loop().time() + self._seconds
        while self._tasks and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(
                tuple(self._tasks), timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
        if self._waiting:
            self.lost += len(self._waiting)
            self._overflow += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        self._report_overflow()
        if self._tasks:  # began a moment ago, with the same limit
            await asyncio.wait(tuple(self._tasks), timeout=self._seconds)
