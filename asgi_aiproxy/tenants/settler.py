"""What was admitted is kept alive while it is used, and settled when it has ended: surely, once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from asgi_aiproxy.stores.base import (
    Admitted,
    Grant,
    Reserve,
    Settled,
    Slot,
    Store,
    StoreUnavailableError,
)

logger = logging.getLogger("asgi_aiproxy")

_AT_ONCE = 256
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0  # seconds


class Settlement(msgspec.Struct, frozen=True):
    """An admission that has ended, and what was used of it."""

    admitted: Admitted
    actual: Mapping[Grant, int]


class Settler:
    """Settles in the background. While the store is away settlements wait, at most `most` of them;
    the store books each once, however often it is tried.

    `settled` hears of each that was booked. Admissions last `ttl` seconds unless they are renewed:
    those of a process that dies end by themselves.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl: float = 60.0,
        most: int = 100_000,
        settled: Callable[[Settlement, Settled], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self.ttl = ttl
        self._most = most
        self._settled = settled
        self._waiting: deque[Settlement] = deque()
        self._open: dict[str, Admitted] = {}
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._lost = 0

    def __len__(self) -> int:
        """How many settlements wait."""
        return len(self._waiting)

    def keep(self, admitted: Admitted) -> None:
        """Renew an admission until it is settled."""
        if any(isinstance(grant, Slot | Reserve) for grant in admitted.grants):
            self._open[admitted.holder] = admitted
            self._renewal = _running(self._renewal, self._renew)

    def put(self, admitted: Admitted, actual: Mapping[Grant, int]) -> None:
        """Settle an admission soon; a grant that `actual` does not name used what it asked for."""
        self._open.pop(admitted.holder, None)
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            if not self._lost:
                logger.error("too many settlements wait for the store: the oldest are lost")
            self._lost += 1
        self._waiting.append(Settlement(admitted, actual))
        self._task = _running(self._task, self._work)

    async def drain(self, timeout: float = 5.0) -> None:
        """Wait until all is settled, or for `timeout` seconds: the log says what was left."""
        if self._waiting or self._task is not None:
            self._task = _running(self._task, self._work)
            await asyncio.wait((self._task,), timeout=timeout)
        if self._renewal is not None and not self._open:
            self._renewal.cancel()
        if self._waiting:
            logger.error(
                "the store is away: %d settlements are lost, their reservations stay charged",
                len(self._waiting),
            )
            if self._task is not None:
                self._task.cancel()

    async def _work(self) -> None:
        pause = _FIRST_PAUSE
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            away: list[Settlement] = []
            try:
                done = await asyncio.gather(*map(self._settle, batch))
                away = [one for one, settled in zip(batch, done, strict=True) if not settled]
            except asyncio.CancelledError:
                away = batch
                raise
            finally:
                self._waiting.extendleft(reversed(away))
            if away:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE)
            else:
                pause = _FIRST_PAUSE

    async def _settle(self, one: Settlement) -> bool:
        """Settle one; False if the store is away."""
        try:
            settled = await self._store.settle(one.admitted, one.actual)
        except StoreUnavailableError:
            return False
        except Exception:
            logger.exception("a settlement failed, its reservation stays charged: %r", one)
            return True
        if self._settled is not None and settled.first:
            try:
                await self._settled(one, settled)
            except Exception:
                logger.exception("a hook for settlements failed")
        return True

    async def _renew(self) -> None:
        known: set[str] = set()
        while self._open:
            await asyncio.sleep(self.ttl / 3)
            # Most have ended before their first renewal; only what was there last time needs one.
            due = [admitted for holder, admitted in self._open.items() if holder in known]
            known = set(self._open)
            results = await asyncio.gather(
                *(self._store.renew(admitted, self.ttl) for admitted in due),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, Exception) and not isinstance(result, StoreUnavailableError):
                    logger.error("an admission could not be renewed", exc_info=result)


def _running(
    task: asyncio.Task[None] | None, work: Callable[[], Awaitable[None]]
) -> asyncio.Task[None]:
    """The task that does some work: the one there is, if it lives in this loop."""
    loop = asyncio.get_running_loop()
    if task is not None and not task.done() and task.get_loop() is loop:
        return task

    async def run() -> None:
        await work()

    return loop.create_task(run())
