"""Ending a request from outside: client disconnects and time limits. Theory of operation.

A request is handled by one task, which waits in turn for a key, a connection, the provider and the
client. Only three things may end such a wait early:

* The client disconnects: `receive()` returns `http.disconnect`. The task gets ClientGoneError.
* A time limit is reached. The task gets APIError with `ErrorKind.TIMEOUT`.
* The server or the host cancels the task. That stays a plain `asyncio.CancelledError`.

The first two work as `asyncio.timeout` does: a callback notes the reason and calls `task.cancel()`;
the wait unwinds with CancelledError, which closes sockets and frees keys on its way; the context
manager that owns the limit then takes the cancellation back (`task.uncancel()`) and raises the
reason instead. If the task was also cancelled by somebody else, `uncancel()` is still above the
count at entry, and the cancellation continues unchanged.

Two context managers do this. `Deadline` has a timer of its own and limits one block.
`RequestMonitor` covers a whole request: it watches for the disconnect, and for the *progress* that
other modules report with its methods. A write to the client that takes longer than the limit means
that the client no longer reads, which counts as a disconnect; anything else that takes longer is a
timeout of the provider.

Most responses arrive sooner than a timer could be set up and cancelled, so `RequestMonitor` has
none. One `SharedTimer` per event loop calls `tick` of every active request at short intervals, and
progress is a flag that the next tick reads. The disconnect is watched (one task that awaits
`receive`) only from the second tick on, or earlier on request. The price is accuracy: disconnects
and timeouts are detected at most two intervals late.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from asgi_aiproxy.errors import AIProxyError, APIError, ErrorKind

logger = logging.getLogger("asgi_aiproxy")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# The polling interval in seconds. Requests that are not new are polled less often the more of them
# there are: the second value is added for each.
_POLL_INTERVAL_SECONDS = 0.015
_POLL_SECONDS_PER_REQUEST = 0.00005
_NEVER = float("inf")


class ClientGoneError(AIProxyError):
    """The client disconnected before its response was complete."""


class Deadline:
    """Limits how long the task may stay within a block, in seconds.

    Raises APIError with `kind`, `message` and `status` when the time is up; `{:g}` in the message
    stands for the seconds.
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
            message = self._message.format(self._seconds)
            raise APIError(self._kind, message, status=self._status) from error

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()


class TimerRegistry:
    """The shared timers of an app, one for each event loop that its requests run in."""

    def __init__(self) -> None:
        self._timers: dict[asyncio.AbstractEventLoop, SharedTimer] = {}

    def for_running_loop(self) -> SharedTimer:
        """Return the timer of the running event loop."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(loop)
        if timer is None:
            # Timers of closed loops are dropped. Other threads may add theirs meanwhile, so this
            # works on a copy.
            timers = list(self._timers.items())
            self._timers = {known: its for known, its in timers if not known.is_closed()}
            timer = self._timers[loop] = SharedTimer(loop)
        return timer


class TimerClient(Protocol):
    """An object that a `SharedTimer` polls."""

    def tick(self, now: float) -> None:
        """Act if something is due. `now` is the event loop's time in seconds."""


class SharedTimer:
    """Polls its clients in one event loop, for as long as there are any.

    A new client is polled in the next two intervals, and after that together with all others, at
    an interval that grows with their number. `loop` is the event loop, kept because looking up the
    running one is a system call.
    """

    __slots__ = (
        "_added",
        "_added_before",
        "_clients",
        "_context",
        "_full_poll_due",
        "loop",
        "running",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.running = False
        self._clients: set[TimerClient] = set()
        self._added: list[TimerClient] = []  # since the last poll
        self._added_before: list[TimerClient] = []  # since the poll before that
        self._full_poll_due = 0.0
        # The timer belongs to no request, so it runs in an empty context; the tasks that a monitor
        # starts run in the context of its own request. (Two threads cannot be in one context.)
        self._context = contextvars.Context()

    def __len__(self) -> int:
        """The number of clients."""
        return len(self._clients)

    def add(self, client: TimerClient) -> None:
        """Poll `client` until it is removed."""
        self._clients.add(client)
        self._added.append(client)
        if not self.running:
            self.running = True
            self.loop.call_later(_POLL_INTERVAL_SECONDS, self._poll, context=self._context)

    def remove(self, client: TimerClient) -> None:
        """Stop polling `client`; it may have been removed before."""
        self._clients.discard(client)

    def _poll(self) -> None:
        now = self.loop.time()
        added, self._added = self._added, []
        due = [client for client in (*self._added_before, *added) if client in self._clients]
        self._added_before = added
        if now >= self._full_poll_due:
            due = list(self._clients)
            interval = _POLL_INTERVAL_SECONDS + _POLL_SECONDS_PER_REQUEST * len(due)
            self._full_poll_due = now + interval
        self.running = bool(self._clients)
        if self.running:
            self.loop.call_later(_POLL_INTERVAL_SECONDS, self._poll, context=self._context)
        else:
            self._added_before = []
        for client in due:
            client.tick(now)


@dataclass(slots=True, eq=False, repr=False)
class RequestMonitor:
    """Ends the wait of the task within the block when the client disconnects or time is up.

    Arguments:

    - `timer`: the shared timer of the running event loop.
    - `receive`: the ASGI `receive` to await `http.disconnect` from; no one else may call it
      afterwards. It may also be set later, as an attribute.
    - `total`: seconds the whole block may take (None: no limit).
    - `idle`: seconds the upstream may take for one piece of the request body (None: no limit).

    Raises ClientGoneError when the client disconnects or stops reading, and APIError of kind
    `TIMEOUT` when there was no progress for the seconds given to `set_timeout` or a `TimeoutScope`,
    or when `total` is reached. `longest_pause` is the longest time without progress in seconds, as
    far as the polling shows: up to two intervals too short. `writing_to_client` is whether a write
    to the client has started and not finished.
    """

    timer: SharedTimer
    receive: Receive | None = None
    total: float | None = None
    idle: float | None = None
    longest_pause: float = 0.0
    writing_to_client: bool = False
    _context: contextvars.Context = field(default_factory=contextvars.copy_context)
    _ends_at: float | None = None
    _timeout: float | None = None
    _message: str = ""
    _reason: AIProxyError | None = None
    _client_gone: bool = False
    _last_progress: float = 0.0
    _task: asyncio.Task[Any] | None = None
    _disconnect_watcher: asyncio.Task[None] | None = None
    _initial_cancellations: int = 0
    _writing_to_upstream: bool = False
    _progressed: bool = True

    # Progress, as reported by the code that reads and writes.

    def client_write_started(self) -> None:
        """A write to the client begins: until it is finished, the client is waited for."""
        self.writing_to_client = self._progressed = True

    def client_write_finished(self) -> None:
        """The client has taken what was written: from now on the provider is waited for."""
        self.writing_to_client = False
        self._progressed = True

    def upstream_write_started(self) -> None:
        """The upstream was given a piece of the request body; it has `idle` seconds to take it."""
        self._writing_to_upstream = self._progressed = True

    def upstream_write_finished(self) -> None:
        """The upstream has taken the piece, or no more pieces follow."""
        self._writing_to_upstream = False

    def upstream_progressed(self) -> None:
        """The provider has sent something."""
        self._progressed = True

    # Limits.

    def set_timeout(self, seconds: float | None, message: str) -> None:
        """From now on allow `seconds` without progress (None: no limit).

        `message` is that of the APIError.
        """
        self._timeout = seconds
        self._message = message
        self._progressed = True

    def shorten_timeout(self, seconds: float) -> None:
        """Allow no more than `seconds` without progress; a shorter limit stays as it is."""
        if self._timeout is None or seconds < self._timeout:
            self._timeout = seconds

    def watch_disconnect(self) -> None:
        """Watch for the disconnect from now on, instead of from the second tick on."""
        if self._disconnect_watcher is None and self.receive is not None:
            watching = self._await_disconnect(self.receive)
            self._disconnect_watcher = self.timer.loop.create_task(watching, context=self._context)

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task(self.timer.loop)
        assert task is not None  # noqa: S101 (coroutines run in tasks)
        self._initial_cancellations = task.cancelling()
        self.timer.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.timer.remove(self)
        task, self._task = self._task, None
        self.receive = None  # breaks a reference cycle
        if self._disconnect_watcher is not None:
            self._disconnect_watcher.cancel()
            self._disconnect_watcher = None
        reason, self._reason = self._reason, None
        if reason is None or task is None:
            return
        if task.uncancel() <= self._initial_cancellations and kind is asyncio.CancelledError:
            try:
                raise reason from error
            finally:
                del reason, error  # their traceback holds this frame: breaks a reference cycle

    def tick(self, now: float) -> None:
        """End the wait if a limit is reached; called by the shared timer."""
        if self._progressed:
            self._progressed = False
            self._last_progress = now
        if self._ends_at is None:  # the first tick
            self._ends_at = now + self.total if self.total is not None else _NEVER
            return
        if self._disconnect_watcher is None:
            self.watch_disconnect()
        silence = now - self._last_progress
        if silence > self.longest_pause:
            self.longest_pause = silence
        if now >= self._ends_at:
            self._end(APIError(ErrorKind.TIMEOUT, "The request took too long."))
        elif self._timeout is not None and silence >= self._timeout:
            if self.writing_to_client:
                self._end(ClientGoneError("The client stopped reading."))
            else:
                self._end(APIError(ErrorKind.TIMEOUT, self._message))
        elif self._writing_to_upstream and self.idle is not None and silence >= self.idle:
            self._end(APIError(ErrorKind.TIMEOUT, "The upstream stopped reading the request."))

    def raise_if_timed_out(self, error: BaseException | None) -> None:
        """Raise the APIError if a time limit ended the wait; the monitor can be used further."""
        task, reason = self._task, self._reason
        if task is None or not isinstance(reason, APIError):
            return
        if self._client_gone:  # at the same moment: the disconnect ends the whole block
            self._reason = ClientGoneError("The client disconnected.")
            return
        self._reason = None
        if task.uncancel() <= self._initial_cancellations:
            try:
                raise reason from error
            finally:
                del reason, error

    def _end(self, reason: AIProxyError) -> None:
        if self._task is not None and self._reason is None:
            self._reason = reason
            self._task.cancel()

    async def _await_disconnect(self, receive: Receive) -> None:
        try:
            message = await receive()
        except OSError:
            pass
        except Exception:
            logger.warning(
                "receive() failed: a disconnect of this client will not be noticed", exc_info=True
            )
            return
        else:
            if message["type"] != "http.disconnect":
                return  # this `receive` returns at once each time: awaiting it again would loop
        self._client_gone = True
        self._end(ClientGoneError("The client disconnected."))


class TimeoutScope(msgspec.Struct, frozen=True):
    """A block in which a monitor allows `seconds` without progress (None: no limit).

    It raises the APIError with `message` itself, at its end. `longest_pause` of the monitor is
    measured from its beginning on. After it, any time without progress is allowed.
    """

    monitor: RequestMonitor
    seconds: float | None
    message: str

    def __enter__(self) -> RequestMonitor:
        monitor = self.monitor
        monitor.longest_pause = 0.0
        monitor.set_timeout(self.seconds, self.message)
        return monitor

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.monitor.set_timeout(None, "")
        if isinstance(error, asyncio.CancelledError):
            self.monitor.raise_if_timed_out(error)
