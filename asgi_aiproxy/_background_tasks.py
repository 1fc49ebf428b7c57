"""Background tasks that survive exceptions and log every failure.

The worst fault of a background loop is that an unexpected exception ends it: its task is not
awaited, and from then on the process works with stale data. So all loops of this package are
created here. `repeat` runs one step repeatedly; a step that raises is logged, and the next one
follows after a pause. `start` runs a coroutine as a task and logs the exception that ends it. A
failure that repeats is logged when it begins and when it ends, not each time (`FailureLog`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

logger = logging.getLogger("asgi_aiproxy")

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0  # seconds


class FailureLog:
    """Logs once when something begins to fail, and once when it works again.

    `what` begins the message, such as "usage file /var/log/usage.jsonl".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.failures = 0  # in a row

    def log_failure(self, why: BaseException | str, *, unexpected: bool = False) -> None:
        """Log a failure if it is the first in a row; with `unexpected`, with its traceback."""
        self.failures += 1
        if self.failures == 1:
            error = why if isinstance(why, BaseException) and unexpected else None
            logger.error("%s: %s; retrying", self._what, _text(why), exc_info=error)

    def log_recovery(self) -> None:
        """Log a success after failures."""
        if self.failures:
            logger.warning("%s: working again after %d failures", self._what, self.failures)
            self.failures = 0


async def repeat(step: Callable[[], Awaitable[bool | None]], *, what: str) -> None:
    """Run `step` repeatedly until it returns False or the task is cancelled.

    A step that raises is logged under the name `what`, and the next one follows after a pause,
    which doubles up to 5 seconds. A step must wait for something, otherwise the loop is busy.
    """
    log = FailureLog(what)
    while True:
        try:
            if await step() is False:
                return
        except Exception as error:
            log.log_failure(error, unexpected=True)
            await asyncio.sleep(min(_FIRST_PAUSE * 2.0 ** min(log.failures - 1, 10), _LAST_PAUSE))
        else:
            log.log_recovery()


def start(work: Coroutine[Any, Any, None], *, what: str) -> asyncio.Task[None]:
    """Run `work` as a task of the running loop. An exception that ends it is logged."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: ended by an error", what, exc_info=error)

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(ended)
    return task


def _text(why: BaseException | str) -> str:
    if isinstance(why, str):
        return why
    return str(why) or type(why).__name__
