"""Watching over exchanges: one ends when its client has left, or when nothing moves for too long.

An answer that is at hand takes less time than a timer, a task and another timer would: so there is
one timer for all exchanges, and a client is only watched whose answer lets it wait.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

from asgi_aiproxy._asgi import Receive
from asgi_aiproxy._watch import ClientGoneError
from asgi_aiproxy.errors import AIProxyError, APIError, Kind

logger = logging.getLogger("asgi_aiproxy")

# Seconds between two rounds, and so much more for each exchange. Who leaves, or is silent for too
# long, is noticed so much later.
_ROUND, _EACH = 0.05, 0.00005


class Rounds:
    """Looks after all that is watched in one event loop, as long as there is any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.watched: set[Watch] = set()
        self.walking = False

    def begin(self) -> None:
        """There is something to look after."""
        self.walking = True
        self.loop.call_later(_ROUND + _EACH * len(self.watched), self._walk)

    def _walk(self) -> None:
        now = self.loop.time()
        self.walking = False
        if self.watched:
            self.begin()
        for watch in list(self.watched):
            watch.look(now)


class Watch:
    """Within the block, ends what its task waits for, and raises why.

    That is ClientGoneError when `receive` says that the client has left (from when it is given,
    nobody else may call it), and APIError of kind `timeout` when nothing `moved` for as long as
    `expect` said, or after `total` seconds. While `busy`, it is the client that is waited for: one
    that does not read for so long is as good as gone. While `handed`, the upstream has a piece of
    the request, and `idle` seconds to come for the next.
    """

    __slots__ = (
        "_cancelling",
        "_ends",
        "_idle",
        "_limit",
        "_message",
        "_reason",
        "_rounds",
        "_since",
        "_task",
        "_total",
        "_watcher",
        "busy",
        "handed",
        "moved",
        "receive",
    )

    def __init__(self, rounds: Rounds, *, total: float | None, idle: float | None) -> None:
        self._rounds = rounds
        self._idle = idle
        self._total = total
        self._ends: float | None = None
        self._limit: float | None = None
        self._message = ""
        self._reason: AIProxyError | None = None
        self._since = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._cancelling = 0
        self.receive: Receive | None = None
        self.busy = False
        self.handed = False
        self.moved = True

    def expect(self, seconds: float | None, message: str) -> None:
        """From now on something has to move within so many seconds (None: it need not)."""
        self._limit = seconds
        self._message = message
        self.moved = True

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._rounds.loop)
        assert task is not None  # noqa: S101 (coroutines run in tasks)
        self._task = task
        self._cancelling = task.cancelling()
        rounds = self._rounds
        rounds.watched.add(self)
        if not rounds.walking:
            rounds.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rounds.watched.discard(self)
        task, self._task = self._task, None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        reason, self._reason = self._reason, None
        if reason is None or task is None:
            return
        # As `asyncio.timeout` does it: a cancellation that comes from elsewhere stays one.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise reason from error

    def look(self, now: float) -> None:
        """See whether it is time to do something."""
        if self.moved:
            self.moved = False
            self._since = now
        if self._ends is None:  # it has only just begun
            self._ends = now + self._total if self._total is not None else _NEVER
            return
        if self._watcher is None and self.receive is not None:
            self._watcher = self._rounds.loop.create_task(self._watch(self.receive))
        if now >= self._ends:
            self._end(APIError(Kind.TIMEOUT, "It took too long."))
        elif self._limit is not None and now - self._since >= self._limit:
            if self.busy:
                self._end(ClientGoneError("The client stopped reading."))
            else:
                self._end(APIError(Kind.TIMEOUT, self._message))
        elif self.handed and self._idle is not None and now - self._since >= self._idle:
            self._end(APIError(Kind.TIMEOUT, "The upstream stopped reading the request."))

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
        self._end(ClientGoneError("The client left."))


_NEVER = float("inf")
