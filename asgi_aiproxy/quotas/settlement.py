"""Keep reservations alive while their calls run, and settle each exactly once.

A reservation in the store expires after `ttl` seconds, so that a process that dies holds nothing
for long. While a call runs, a background task renews its reservation every third of that time.
When it has ended, its settlement goes into a retry queue and is sent in batches; while the store is
unavailable, settlements wait. A settlement carries the id of its reservation, by which the store
applies it once however often it is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy._retry_queue import RetryQueue
from asgi_aiproxy.stores.base import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Grant,
    Settled,
    Store,
    StoreUnavailableError,
)

logger = logging.getLogger("asgi_aiproxy")


class Settlement(msgspec.Struct, frozen=True):
    """A reservation that has ended, and what was used of its grants."""

    admitted: Admitted
    actual: Mapping[Grant, int]


class SettlementQueue:
    """Settle reservations in the background.

    While the store is unavailable, at most `most` settlements wait. `settled` is called after each
    that was applied. Reservations last `ttl` seconds unless they are renewed.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl: float = 60.0,
        most: int = 100_000,
        settled: Callable[[Settled], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self.ttl = ttl
        self._settled = settled
        what = "settlements (what they had reserved stays charged)"
        self._backlog: RetryQueue[Settlement] = RetryQueue(self._settle, what=what, max_items=most)
        self._open: dict[str, Admitted] = {}
        self._known: set[str] = set()  # holders that were open at the last renewal
        self._renewal: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of settlements that wait."""
        return len(self._backlog)

    def keep(self, admitted: Admitted) -> None:
        """Renew an admission until it is settled."""
        if _held(admitted):
            self._open[admitted.holder] = admitted
            task, loop = self._renewal, asyncio.get_running_loop()
            if task is None or task.done() or task.get_loop() is not loop:
                what = "renewing admissions"
                self._renewal = start(repeat(self._renew, what=what), what=what)

    def put(self, admitted: Admitted, actual: Mapping[Grant, int]) -> None:
        """Queue a settlement; a grant that `actual` does not name used what was reserved."""
        self._open.pop(admitted.holder, None)
        if admitted.sure and not actual and not _held(admitted):
            return  # the counts in the store are right already
        self._backlog.put(Settlement(admitted, actual))

    async def drain(self, timeout: float = 3.0) -> None:
        """Wait until all is settled, at most `timeout` seconds; then renewal stops."""
        await self._backlog.drain(timeout)
        if self._renewal is not None and not self._open:
            self._renewal.cancel()

    async def _settle(self, batch: list[Settlement]) -> list[Settlement]:
        """Settle a batch; returns those to retry because the store is unavailable."""
        if len(batch) == 1:  # the usual case; needs no task
            return [] if await self._settle_one(batch[0]) else batch
        done = await asyncio.gather(*map(self._settle_one, batch))
        return [one for one, settled in zip(batch, done, strict=True) if not settled]

    async def _settle_one(self, one: Settlement) -> bool:
        try:
            settled = await self._store.settle(one.admitted, one.actual)
        except StoreUnavailableError:
            return False
        except Exception:
            logger.exception("a settlement failed; its reservation stays charged: %r", one)
            return True
        if self._settled is not None and settled.first:
            try:
                await self._settled(settled)
            except Exception:
                logger.exception("budget alerts failed")
        return True

    async def _renew(self) -> bool:
        await asyncio.sleep(self.ttl / 3)
        # Most calls end before their first renewal; only those open last time need one.
        due = [admitted for holder, admitted in self._open.items() if holder in self._known]
        self._known = set(self._open)
        results = await asyncio.gather(
            *(self._store.renew(admitted, self.ttl) for admitted in due),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, StoreUnavailableError):
                logger.error("an admission could not be renewed", exc_info=result)
        return bool(self._open)


def _held(admitted: Admitted) -> bool:
    """Whether a grant holds something that must be given back."""
    return any(isinstance(grant, ConcurrencySlot | BudgetReservation) for grant in admitted.grants)
