"""Queues of requests that wait for a key, first come, first served.

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
from collections import Counter
from collections.abc import Awaitable, Callable

from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError

_POLL_INTERVAL = 0.1  # seconds; releases in other processes are not signalled
_MIN_SLEEP = 0.001  # seconds


class FairQueue:
    """Requests that wait within one process. `take` lends a key or raises NoKeyError.

    `waiters` holds them in order of arrival.
    """

    def __init__(self, take: Callable[[KeyRequest], Lease]) -> None:
        self._take = take
        self.waiters: dict[_Waiter, None] = {}
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
        waiter = _Waiter(request)
        self.waiters[waiter] = None
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
            del self.waiters[waiter]
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

    __slots__ = ("kind", "lease", "request")

    def __init__(self, request: KeyRequest) -> None:
        self.request = request
        self.kind = request.kind
        self.lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()


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
            async with asyncio.timeout(seconds), entry.lock:
                while True:
                    try:
                        return await self._take(request)
                    except NoKeyError as error:
                        if not error.exists:
                            raise
                        failure = error
                    await self._sleep(failure.retry_after)
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
        self.lock = asyncio.Lock()
        self.waiting = 0
