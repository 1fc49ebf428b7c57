"""The number of calls in flight, in all workers.

Theory of operation. Each worker counts the keys that its pools have lent. While `AdminApp` is open
(`lifespan`), the worker looks at these numbers twice a second and writes them to the store when
they have changed, and every two seconds anyway, as a hold that expires after five: a worker that
dies disappears by itself. A reader adds its own worker's numbers of this moment to those of the
others. Providers without keys are not counted.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterable
from time import monotonic

import msgspec

from asgi_aiproxy.keys import KeyPool
from asgi_aiproxy.stores.base import Store

_ACCOUNT = "workers"
_LOOK_SECONDS = 0.5
_WRITE_SECONDS = 2.0
_KEEP_SECONDS = 5.0


class WorkerOut(msgspec.Struct, frozen=True):
    """A worker process: where it runs, and its calls in flight by provider."""

    host: str
    pid: int
    in_flight: dict[str, int]


class InFlightOut(msgspec.Struct, frozen=True):
    """The calls in flight: in total, by provider, and by worker."""

    total: int
    providers: dict[str, int]
    workers: list[WorkerOut]


class InFlightService:
    """Counts the calls in flight of `pools` in all workers that share `store`."""

    def __init__(self, store: Store, pools: Iterable[KeyPool]) -> None:
        self._store = store
        self._pools = list(pools)
        self._id = secrets.token_hex(8)
        self._written: WorkerOut | None = None
        self._due = 0.0

    async def now(self) -> InFlightOut:
        """Return the numbers of all workers. Raises StoreUnavailableError."""
        workers = [self._own()]
        for id, hold in sorted((await self._store.holds(_ACCOUNT)).items()):
            if id != self._id:
                workers.append(msgspec.json.decode(hold.value, type=WorkerOut))
        providers: dict[str, int] = {}
        for worker in workers:
            for name, count in worker.in_flight.items():
                providers[name] = providers.get(name, 0) + count
        return InFlightOut(sum(providers.values()), providers, workers)

    async def publish(self) -> None:
        """Write the numbers of this worker, if they have changed or are about to expire."""
        await asyncio.sleep(_LOOK_SECONDS)
        own, now = self._own(), monotonic()
        if own != self._written or now >= self._due:
            value = msgspec.json.encode(own)
            await self._store.hold(_ACCOUNT, self._id, _KEEP_SECONDS, value)
            self._written, self._due = own, now + _WRITE_SECONDS

    async def withdraw(self) -> None:
        """Remove the numbers of this worker. Raises StoreUnavailableError."""
        if self._written is not None:
            await self._store.lift(_ACCOUNT, self._id)

    def _own(self) -> WorkerOut:
        counts = {pool.name: pool.in_flight for pool in self._pools}
        return WorkerOut(socket.gethostname(), os.getpid(), counts)
