"""Ending a wait from outside: when the client leaves, or when time is up.

Both cancel the task that waits and turn the cancellation, once it has unwound, into an exception of
their own, as `asyncio.timeout` does; a cancellation that comes from elsewhere stays one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Protocol, Self

from asgi_aiproxy.errors import AIProxyError, APIError, Kind

logger = logging.getLogger("asgi_aiproxy")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


# Seconds after which a wait is looked after. A task to see a client leave, or a timer, costs more
# than many an answer takes that is at hand; who leaves earlier is noticed then.
_MOMENT = 0.005
_SOON = 0.05  # a limit so short is set at once


class ClientGoneError(AIProxyError):
    """The client left before its answer was complete."""


class Wait(Protocol):
    """What may have to be looked after, if it lasts."""

    def begin(self) -> None:
        """Look after it from now on, unless it is over."""


class Lookouts:
    """The lookouts of the event loops that an app's requests run in."""

    def __init__(self) -> None:
        self._known: dict[asyncio.AbstractEventLoop, Lookout] = {}

    def here(self) -> Lookout:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        lookout = self._known.get(loop)
        if lookout is None:
            # What is left of loops that are closed is forgotten.
            self._known = {one: out for one, out in self._known.items() if not one.is_closed()}
            lookout = self._known[loop] = Lookout(loop)
        return lookout


class Lookout:
    """Calls `begin` of waits that last, one or two moments after they were added.

    One timer does so for all of them. `loop` is the event loop: asking for it costs a system call.
    """

    __slots__ = ("_new", "_old", "_timer", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._new: list[Wait] = []
        self._old: list[Wait] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wait: Wait) -> None:
        """Look after a wait, should it last."""
        self._new.append(wait)
        if self._timer is None:
            self._timer = self.loop.call_later(_MOMENT, self._tick)

    def _tick(self) -> None:
        old, self._old, self._new = self._old, self._new, []
        self._timer = self.loop.call_later(_MOMENT, self._tick) if self._old else None
        for wait in old:
            wait.begin()


class _Interrupt:
    """Within the block, `fire` ends what its task waits for and raises `self.error()` there.

    Without a `lookout` it begins at once.
    """

    __slots__ = ("_cancelling", "_fired", "_lookout", "_loop", "task")

    def __init__(self, lookout: Lookout | None) -> None:
        self._lookout = lookout
        self._loop = lookout.loop if lookout is not None else asyncio.get_running_loop()
        self._fired = False
        self.task: asyncio.Task[Any] | None = None  # within the block

    def __enter__(self) -> Self:
        task = self.task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 (coroutines run in tasks)
        self._cancelling = task.cancelling()
        if self._lookout is not None:
            self._lookout.add(self)
        else:
            self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self.task = self.task, None
        self.end()
        if not self._fired or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self.error() from error

    def begin(self) -> None:
        """Look after this wait from now on, unless it is over."""
        raise NotImplementedError

    def end(self) -> None:
        """Look after it no more."""
        raise NotImplementedError

    def fire(self) -> None:
        """End the wait now."""
        if self.task is not None and not self._fired:
            self._fired = True
            self.task.cancel()

    def error(self) -> AIProxyError:
        """What is raised."""
        raise NotImplementedError


class Departure(_Interrupt):
    """Raises ClientGoneError when `receive` says that the client has left.

    Nobody else may call `receive` within the block. With a `lookout` it is asked once the block has
    lasted for a moment: what is over by then need not be watched.
    """

    __slots__ = ("_receive", "_watcher")

    def __init__(self, receive: Receive, lookout: Lookout | None = None) -> None:
        super().__init__(lookout)
        self._receive: Receive | None = receive
        self._watcher: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Listen for the client."""
        if self._receive is not None:
            self._watcher = self._loop.create_task(self._watch(self._receive))

    def end(self) -> None:
        """Listen no more."""
        self._receive = None  # no cycle is left for the collector
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def error(self) -> AIProxyError:
        """The client left."""
        return ClientGoneError("The client left.")

    async def _watch(self, receive: Receive) -> None:
        try:
            message = await receive()
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

    __slots__ = ("_begun", "_message", "_seconds", "_timer", "busy", "now", "since")

    def __init__(self, seconds: float | None, message: str, lookout: Lookout | None = None) -> None:
        super().__init__(lookout)
        if seconds is not None and seconds < _SOON:
            self._lookout = None
        self._seconds = seconds
        self._message = message
        self._timer: asyncio.TimerHandle | None = None
        self._begun = False
        self.now = self._loop.time
        self.since = self.now()
        self.busy = False

    def begin(self) -> None:
        """Set the timer."""
        self._begun = True
        if self._seconds is not None and self.task is not None:
            left = self.since + self._seconds - self.now()
            self._timer = self._loop.call_later(max(left, 0.0), self._check)

    def end(self) -> None:
        """Set it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shorten(self, seconds: float) -> None:
        """From now on, wait no longer than that."""
        if self._seconds is None or seconds < self._seconds:
            self._seconds = seconds
            self.end()
            if self._begun:
                self.begin()

    def error(self) -> AIProxyError:
        """Whose silence it was."""
        if self.busy:
            return ClientGoneError("The client stopped reading.")
        return APIError(Kind.TIMEOUT, self._message)

    def _check(self) -> None:
        if self.since + (self._seconds or 0.0) > self.now():
            self.begin()
        else:
            self.fire()
