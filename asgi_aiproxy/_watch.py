"""Ending a wait from outside: when the client leaves, or when time is up.

Both cancel the task that waits and turn the cancellation, once it has unwound, into an exception of
their own, as `asyncio.timeout` does; a cancellation that comes from elsewhere stays one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self

from asgi_aiproxy.errors import AIProxyError, APIError, Kind

logger = logging.getLogger("asgi_aiproxy")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


# Seconds before a client's leaving is watched for. A task to do so costs more than many an answer
# takes that is at hand; who leaves earlier is noticed then.
_MOMENT = 0.005


class ClientGoneError(AIProxyError):
    """The client left before its answer was complete."""


class _Interrupt:
    """Within the block, `fire` ends what its task waits for and raises `self.error()` there."""

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (coroutines run in tasks)
        self._task: asyncio.Task[Any] | None = task
        self._cancelling = task.cancelling()
        self._fired = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if not self._fired or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self.error() from error

    def fire(self) -> None:
        """End the wait now."""
        if self._task is not None and not self._fired:
            self._fired = True
            self._task.cancel()

    def error(self) -> AIProxyError:
        """What is raised."""
        raise NotImplementedError


class Departure(_Interrupt):
    """Raises ClientGoneError when `receive` says that the client has left.

    Nobody else may call `receive` within the block. It is asked once the block has lasted for a
    moment: what is over by then need not be watched.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    def __enter__(self) -> Self:
        super().__enter__()
        self._watcher: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_MOMENT, self._begin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        watcher, self._watcher = self._watcher, None  # no cycle is left for the collector
        if watcher is not None:
            watcher.cancel()
        super().__exit__(kind, error, trace)

    def error(self) -> AIProxyError:
        """The client left."""
        return ClientGoneError("The client left.")

    def _begin(self) -> None:
        self._watcher = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            message = await self._receive()
        except OSError:
            pass
        except Exception:
            logger.warning("receive() failed: nobody is told if this client leaves", exc_info=True)
            return
        else:
            if message["type"] != "http.disconnect":
                return  # a `receive` that repeats itself: it would do so for ever
        self.fire()


class Deadline(_Interrupt):
    """Raises APIError of kind `timeout` when nothing has moved for so many seconds.

    Whoever waits sets `since` when something moved. While `busy`, it is the client that is waited
    for: then ClientGoneError is raised, for a client that does not read is as good as gone.
    """

    def __init__(self, seconds: float | None, message: str) -> None:
        self._seconds = seconds
        self._message = message
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.since = self.now()
        self.busy = False

    def __enter__(self) -> Self:
        super().__enter__()
        self._arm(self._seconds)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().__exit__(kind, error, trace)

    def shorten(self, seconds: float) -> None:
        """From now on, wait no longer than that."""
        if self._seconds is None or seconds < self._seconds:
            self._seconds = seconds
            if self._timer is not None:
                self._timer.cancel()
            self._arm(seconds)

    def error(self) -> AIProxyError:
        """Whose silence it was."""
        if self.busy:
            return ClientGoneError("The client stopped reading.")
        return APIError(Kind.TIMEOUT, self._message)

    def _arm(self, seconds: float | None) -> None:
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._check)

    def _check(self) -> None:
        left = self.since + (self._seconds or 0.0) - self.now()
        if left > 0:
            self._arm(left)
        else:
            self.fire()
