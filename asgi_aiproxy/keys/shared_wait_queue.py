"""The queue before keys that a store lends: who came first tries first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError

_POLL = 0.1  # seconds; of what other processes give back nobody is told


class SharedWaitQueue:
    """Calls that wait. Of each kind the first tries, whenever something may have changed."""

    def __init__(
        self, draw: Callable[[KeyRequest], Awaitable[Lease]], random: random.Random
    ) -> None:
        self._draw = draw
        self._random = random
        self._turns: dict[object, _QueueEntry] = {}
        self._asleep: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return sum(turn.waiting for turn in self._turns.values())

    def has_waiter(self, want: KeyRequest) -> bool:
        """Whether somebody waits for what would do for `want`."""
        return bool(self._turns) and want.kind in self._turns

    def notify(self) -> None:
        """Something has changed: try again."""
        for sleeper in self._asleep:
            if not sleeper.done():
                sleeper.set_result(None)

    async def wait(self, want: KeyRequest, seconds: float) -> Lease:
        """Stand in line, at most so long. Raises NoKeyError."""
        failure = NoKeyError("none became free in time.")
        turn = self._turns.setdefault(want.kind, _QueueEntry())
        turn.waiting += 1
        try:
            async with asyncio.timeout(seconds), turn.lock:
                while True:
                    try:
                        return await self._draw(want)
                    except NoKeyError as error:
                        if not error.exists:
                            raise
                        failure = error
                    await self._sleep(failure.retry_after)
        except TimeoutError:
            raise failure from None
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[want.kind]

    async def _sleep(self, seconds: float | None) -> None:
        pause = _POLL * self._random.uniform(0.5, 1.0)
        if seconds is not None:
            pause = min(pause, max(seconds, 0.001))
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asleep.add(sleeper)
        try:
            await asyncio.wait((sleeper,), timeout=pause)
        finally:
            self._asleep.discard(sleeper)


class _QueueEntry:
    """The calls of one kind; whoever has the lock tries."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
