"""Ending a wait from outside: when the client leaves, or when time is up.

All cancel the task that waits and turn the cancellation, once it has unwound, into an exception of
their own, as `asyncio.timeout` does; a cancellation that comes from elsewhere stays one.

An answer that is at hand takes less time than a timer, a task and another timer would: so there is
one timer for all exchanges, and a client is only watched whose answer lets it wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Protocol, Self

from asgi_aiproxy.errors import AIProxyError, APIError, ErrorKind

logger = logging.getLogger("asgi_aiproxy")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Seconds between two rounds, and so much more for each exchange. Who leaves right after asking is
# noticed a round or two later, and who is silent for too long.
_ROUND, _EACH = 0.015, 0.00005
_NEVER = float("inf")
# The rounds are nobody's request: what they begin runs in the context of the one it is for.
_NOBODY = contextvars.Context()


class ClientGoneError(AIProxyError):
    """The client left before its answer was complete."""


class Deadline:
    """Within the block, ends what its task waits for after so many seconds.

    Raises APIError of this `kind` and `status` then.
    """

    def __init__(
        self,
        seconds: float,
        message: str,
        kind: ErrorKind = ErrorKind.TIMEOUT,
        status: int | None = None,
    ) -> None:
        self._seconds = seconds
        self._message = message
        self._kind = kind
        self._status = status
        self._fired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (coroutines run in tasks)
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._fire)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if not self._fired:
            return
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise APIError(self._kind, self._message, status=self._status) from error

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()


class TimerRegistry:
    """The rounds of the event loops that an app's requests run in."""

    def __init__(self) -> None:
        self._known: dict[asyncio.AbstractEventLoop, SharedTimer] = {}

    def for_running_loop(self) -> SharedTimer:
        """Those of the running loop."""
        loop = asyncio.get_running_loop()
        rounds = self._known.get(loop)
        if rounds is None:
            # What is left of loops that are closed is forgotten.
            known = list(self._known.items())  # other threads may have loops, too
            self._known = {one: its for one, its in known if not one.is_closed()}
            rounds = self._known[loop] = SharedTimer(loop)
        return rounds


class TimerClient(Protocol):
    """What is looked after."""

    def tick(self, now: float) -> None:
        """See whether it is time to do something. `now` is the event loop's time."""


class SharedTimer:
    """Looks after all that is `watched` in one event loop, as long as there is any.

    What is new is looked at twice, soon; all else in rounds that are the fewer the more there is.
    `loop` is the event loop: to ask for the running one is a system call.
    """

    __slots__ = ("_again", "_due", "_new", "loop", "walking", "watched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.watched: set[TimerClient] = set()
        self._new: list[TimerClient] = []
        self._again: list[TimerClient] = []
        self._due = 0.0
        self.walking = False

    def add(self, watched: TimerClient) -> None:
        """Look after one more."""
        self.watched.add(watched)
        self._new.append(watched)
        if not self.walking:
            self.walking = True
            self.loop.call_later(_ROUND, self._walk, context=_NOBODY)

    def _walk(self) -> None:
        now = self.loop.time()
        new, self._new = self._new, []
        some = [one for one in (*self._again, *new) if one in self.watched]
        self._again = new
        if now >= self._due:
            some = list(self.watched)
            self._due = now + _ROUND + _EACH * len(some)
        self.walking = bool(self.watched)
        if self.walking:
            self.loop.call_later(_ROUND, self._walk, context=_NOBODY)
        else:
            self._again = []
        for watched in some:
            watched.tick(now)


class RequestMonitor:
    """Within the block, ends what its task waits for, and raises why.

    That is ClientGoneError when `receive` says that the client has left (from when it is given,
    nobody else may call it), and APIError of kind `timeout` when nothing `moved` for as long as
    `expect` said, or after `total` seconds. While `busy`, it is the client that is waited for: one
    that does not read for so long is as good as gone. While `handed`, the upstream has a piece of
    the request, and `idle` seconds to come for the next.
    """

    __slots__ = (
        "_cancelling",
        "_context",
        "_ends",
        "_gone",
        "_idle",
        "_limit",
        "_message",
        "_reason",
        "_since",
        "_task",
        "_total",
        "_watcher",
        "busy",
        "handed",
        "moved",
        "receive",
        "rounds",
    )

    def __init__(
        self,
        rounds: SharedTimer,
        receive: Receive | None = None,
        *,
        total: float | None = None,
        idle: float | None = None,
    ) -> None:
        self.rounds = rounds
        self.receive = receive
        self._context = contextvars.copy_context()
        self._idle = idle
        self._total = total
        self._ends: float | None = None
        self._limit: float | None = None
        self._message = ""
        self._reason: AIProxyError | None = None
        self._gone = False
        self._since = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._cancelling = 0
        self.busy = False
        self.handed = False
        self.moved = True

    def set_timeout(self, seconds: float | None, message: str) -> None:
        """From now on something has to move within so many seconds (None: it need not)."""
        self._limit = seconds
        self._message = message
        self.moved = True

    def timeout(self, seconds: float | None, message: str) -> TimeoutScope:
        """The same for the length of a block, which raises the APIError itself."""
        self._limit = seconds
        self._message = message
        self.moved = True
        return TimeoutScope(self)

    def shorten_timeout(self, seconds: float) -> None:
        """From now on, wait no longer than that."""
        if self._limit is None or seconds < self._limit:
            self._limit = seconds

    def watch_disconnect(self) -> None:
        """Watch the client from now on, not only when it has waited."""
        if self._watcher is None and self.receive is not None:
            watching = self._watch(self.receive)
            self._watcher = self.rounds.loop.create_task(watching, context=self._context)

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task(self.rounds.loop)
        assert task is not None  # noqa: S101 (coroutines run in tasks)
        self._cancelling = task.cancelling()
        self.rounds.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rounds.watched.discard(self)
        task, self._task = self._task, None
        self.receive = None  # no cycle is left for the collector
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        reason, self._reason = self._reason, None
        if reason is None or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            try:
                raise reason from error
            finally:
                del reason, error  # their traceback holds this frame: no cycle is left

    def tick(self, now: float) -> None:
        """See whether it is time to do something."""
        if self.moved:
            self.moved = False
            self._since = now
        if self._ends is None:  # it has only just begun
            self._ends = now + self._total if self._total is not None else _NEVER
            return
        if self._watcher is None:
            self.watch_disconnect()
        if now >= self._ends:
            self._end(APIError(ErrorKind.TIMEOUT, "It took too long."))
        elif self._limit is not None and now - self._since >= self._limit:
            if self.busy:
                self._end(ClientGoneError("The client stopped reading."))
            else:
                self._end(APIError(ErrorKind.TIMEOUT, self._message))
        elif self.handed and self._idle is not None and now - self._since >= self._idle:
            self._end(APIError(ErrorKind.TIMEOUT, "The upstream stopped reading the request."))

    def raise_if_timed_out(self, error: BaseException | None) -> None:
        """Raise the APIError that ended a wait, if one did; others may follow."""
        task, reason = self._task, self._reason
        if task is None or not isinstance(reason, APIError):
            return
        if self._gone:  # at the same moment: then nobody waits any more
            self._reason = ClientGoneError("The client left.")
            return
        self._reason = None
        if task.uncancel() <= self._cancelling:
            try:
                raise reason from error
            finally:
                del reason, error

    def _end(self, reason: AIProxyError) -> None:
        if self._task is not None and self._reason is None:
            self._reason = reason
            self._task.cancel()

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
        self._gone = True
        self._end(ClientGoneError("The client left."))


class TimeoutScope:
    """A limit for the length of a block."""

    __slots__ = ("_watch",)

    def __init__(self, watch: RequestMonitor) -> None:
        self._watch = watch

    def __enter__(self) -> RequestMonitor:
        return self._watch

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.set_timeout(None, "")
        if kind is asyncio.CancelledError:
            self._watch.raise_if_timed_out(error)
