"""Queues of requests that wait for a key, first come, first served among the requests of a caller.

Callers take turns: a request waits for the turn after the last one of its caller, or for the
current turn if its caller has none waiting, and requests of one turn are served in the order of
their arrival (start-time fair queuing). So a caller with a thousand requests delays one with a
single request by one request, not by a thousand.

Requests of the same *kind* (same model, key id, exclusions) can be served by the same keys, so only
the first of each kind has to be tried: if it gets none, the others of its kind do not either.

`FairQueue` is for pools within one process. Every release or change calls `serve`, which hands
leases to the waiting futures in order; a timer calls it when the first cooldown ends.

`SharedWaitQueue` is for pools in a store, where taking a key is a call that can be refused because
of another process. The first request of each kind holds a lock and tries, sleeps until something
changed here or, for what other processes release, a poll interval has passed, and tries again.
"""

from __future__ import annotations

import asyncio
import random
from bisect import insort
from collections import Counter
from collections.abc import Awaitable, Callable

from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError

_POLL_INTERVAL = 0.1  # seconds; releases in other processes are not signalled
_MIN_SLEEP = 0.001  # seconds


class FairQueue:
    """Requests that wait within one process. `take` lends a key or raises NoKeyError.

    `waiters` holds them in the order in which they are served.
    """

    def __init__(self, take: Callable[[KeyRequest], Lease]) -> None:
        self._take = take
        self.waiters: list[_Waiter] = []
        self._turns = Turns()
        self._kinds: Counter[object] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and no timer is set."""
        return not self.waiters and not self._kinds and self._timer is None

    def has_waiter(self, request: KeyRequest) -> bool:
        """Whether a request of the same kind is waiting."""
        return bool(self.waiters) and request.kind in self._kinds

    async def wait(self, request: KeyRequest, seconds: float) -> Lease:
        """Wait at most `seconds` for a key. Raises NoKeyError."""
        waiter = _Waiter(request, self._turns.next(request.caller))
        insort(self.waiters, waiter, key=_Waiter.order)
        self._kinds[waiter.kind] += 1
        lease = waiter.lease
        try:
            self.serve()
            await asyncio.wait((lease,), timeout=seconds)
            return lease.result() if lease.done() else self._take(request)
        except asyncio.CancelledError:
            if lease.done() and lease.exception() is None:
                lease.result().release()  # it was lent to a request that is cancelled
            raise
        finally:
            self.waiters.remove(waiter)
            self._turns.leave(request.caller, waiter.turn)
            self._kinds[waiter.kind] -= 1
            self._kinds += Counter()  # drops counts of zero
            if not self.waiters:
                self._serve_after(None)

    def serve(self) -> None:
        """Lend keys to waiting requests in their order, as far as keys are usable now."""
        failures: dict[object, NoKeyError] = {}  # by kind
        for waiter in self.waiters:
            if waiter.lease.done():
                continue
            failure = failures.get(waiter.kind)
            if failure is None:
                try:
                    waiter.lease.set_result(self._take(waiter.request))
                    self._turns.served(waiter.turn)
                    continue
                except NoKeyError as error:
                    failure = failures[waiter.kind] = error
            if not failure.exists:
                waiter.lease.set_exception(failure)
            elif len(failures) == len(self._kinds):
                break  # no waiting request can be served
        waits = [error.retry_after for error in failures.values() if error.retry_after is not None]
        self._serve_after(min(waits, default=None))

    def _serve_after(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(seconds, _MIN_SLEEP), self.serve)


class _Waiter:
    """One waiting request and the future that receives its lease."""

    __slots__ = ("kind", "lease", "request", "turn")

    def __init__(self, request: KeyRequest, turn: int) -> None:
        self.request = request
        self.turn = turn
        self.kind = request.kind
        self.lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

    def order(self) -> int:
        """The turn in which it is served."""
        return self.turn


class Turns:
    """The turns of callers in a queue."""

    def __init__(self) -> None:
        self._current = 0
        self._last: dict[str, tuple[int, int]] = {}  # by caller: its last turn, and how many wait

    def next(self, caller: str) -> int:
        """The turn of one more request of a caller."""
        last, waiting = self._last.get(caller, (self._current - 1, 0))
        turn = max(last + 1, self._current)
        self._last[caller] = turn, waiting + 1
        return turn

    def served(self, turn: int) -> None:
        """A request of this turn was served."""
        self._current = max(self._current, turn)

    def leave(self, caller: str, turn: int) -> None:
        """A request of a caller waits no longer."""
        last, waiting = self._last[caller]
        if waiting > 1:
            self._last[caller] = last, waiting - 1
        else:
            del self._last[caller]


class FairLock:
    """A lock that callers get in turns."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._locked = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    async def acquire(self, caller: str) -> None:
        """Wait for the lock."""
        if not self._locked:
            self._locked = True
            return
        turn = self._turns.next(caller)
        self._count += 1
        entry = (turn, self._count, asyncio.get_running_loop().create_future())
        insort(self._waiting, entry, key=lambda waiting: waiting[:2])
        try:
            await entry[2]
            self._turns.served(turn)
        except asyncio.CancelledError:
            if entry[2].done() and not entry[2].cancelled():
                self.release()  # it was given the lock
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
            self._turns.leave(caller, turn)

    def release(self) -> None:
        """Give the lock to the next caller."""
        while self._waiting:
            _, _, future = self._waiting.pop(0)
            if not future.done():
                future.set_result(None)
                return
        self._locked = False


class SharedWaitQueue:
    """Requests that wait for keys of a store. `take` lends a key or raises NoKeyError."""

    def __init__(
        self, take: Callable[[KeyRequest], Awaitable[Lease]], random: random.Random
    ) -> None:
        self._take = take
        self._random = random
        self._entries: dict[object, _QueueEntry] = {}  # by kind
        self._sleeping: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return sum(entry.waiting for entry in self._entries.values())

    def has_waiter(self, request: KeyRequest) -> bool:
        """Whether a request of the same kind is waiting."""
        return bool(self._entries) and request.kind in self._entries

    def notify(self) -> None:
        """Wake sleeping requests: a key may have become usable."""
        for sleeper in self._sleeping:
            if not sleeper.done():
                sleeper.set_result(None)

    async def wait(self, request: KeyRequest, seconds: float) -> Lease:
        """Wait at most `seconds` for a key. Raises NoKeyError."""
        failure = NoKeyError("No key became free in time.")
        entry = self._entries.setdefault(request.kind, _QueueEntry())
        entry.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await entry.lock.acquire(request.caller)
                try:
                    while True:
                        try:
                            return await self._take(request)
                        except NoKeyError as error:
                            if not error.exists:
                                raise
                            failure = error
                        await self._sleep(failure.retry_after)
                finally:
                    entry.lock.release()
        except TimeoutError:
            raise failure from None
        finally:
            entry.waiting -= 1
            if not entry.waiting:
                del self._entries[request.kind]

    async def _sleep(self, seconds: float | None) -> None:
        """Sleep until `notify`, at most `seconds` and one poll interval."""
        pause = _POLL_INTERVAL * self._random.uniform(0.5, 1.0)
        if seconds is not None:
            pause = min(pause, max(seconds, _MIN_SLEEP))
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeping.add(sleeper)
        try:
            await asyncio.wait((sleeper,), timeout=pause)
        finally:
            self._sleeping.discard(sleeper)


class _QueueEntry:
    """The waiting requests of one kind; the holder of the lock tries."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = FairLock()
        self.waiting = 0
