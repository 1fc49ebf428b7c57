"""Alerts when the spending of a budget reaches a fraction of it, once a period over all workers.

Theory of operation. The store returns what is spent of a budget with each settlement. A worker that
sees a threshold reached adds 1 to a counter in the store, which is named after the period, the
limit and the threshold: the worker that gets 1 reports it, all others do not. What a worker has
seen is remembered, so a budget beyond its threshold costs nothing more. The counter belongs to the
limit, too: after a raise, the thresholds of the higher limit are reported. If the store does not
answer, the next settlement tries again, under a name by which the store adds only once.

Callbacks run in tasks of their own with a time limit: settlements do not wait for them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import getrandbits

import msgspec

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.quotas.periods import period_kind
from asgi_aiproxy.stores.base import BudgetReservation, Settled, Store, StoreUnavailableError

logger = logging.getLogger("asgi_aiproxy.budgets")

_MAX_SEEN = 100_000
_CALLBACK_SECONDS = 30.0


class BudgetAlert(msgspec.Struct, frozen=True, kw_only=True):
    """A budget of which a fraction (`threshold`) is spent.

    `account` is the account, or the caller without one; `caller` is the owner of the budget, empty
    if the account shares it. `per` and `period` are the kind and the name of the period (`month`,
    `2026-11`). `limit` and `spent` are in micro-dollars (`unit` is `usd`) or quota units; `at` is
    Unix time.
    """

    account: str
    caller: str
    unit: str
    per: str
    period: str
    threshold: float
    limit: int
    spent: int
    at: float

    @property
    def left(self) -> int:
        """What is left; it may be negative."""
        return self.limit - self.spent


OnThreshold = Callable[[BudgetAlert], Awaitable[None] | None]


def log_alert(alert: BudgetAlert) -> None:
    """Write an alert to the log `asgi_aiproxy.budgets`."""
    logger.warning(
        "%.0f %% of a budget are spent: account=%s caller=%s per=%s period=%s spent=%d limit=%d %s",
        alert.threshold * 100,
        *(alert.account, alert.caller or "-", alert.per, alert.period, alert.spent, alert.limit),
        "micro-dollars" if alert.unit == "usd" else "units",
        extra={"alert": alert},
    )


class ThresholdWatch:
    """Reports thresholds of budgets to callbacks. `thresholds` are fractions, from 0 to 1."""

    def __init__(
        self,
        store: Store,
        thresholds: Sequence[float],
        callbacks: Sequence[OnThreshold],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._thresholds = tuple(sorted(thresholds))
        self._callbacks = tuple(callbacks)
        self._clock = clock
        self._id = f"{getrandbits(64):016x}"  # of this process
        self._seen: dict[tuple[str, str, int, float], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def settled(self, settled: Settled) -> None:
        """Report the thresholds that a settlement has reached."""
        for grant, spent in settled.spent.items():
            for threshold in self._thresholds:
                if grant.cap and spent >= grant.cap * threshold:
                    await self._reached(grant, grant.cap, spent, threshold)

    async def drain(self) -> None:
        """Wait for the callbacks, and for what they still have to deliver."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        for callback in self._callbacks:
            drain = getattr(callback, "drain", None)
            if drain is not None:
                await drain()

    async def _reached(
        self, grant: BudgetReservation, cap: int, spent: int, threshold: float
    ) -> None:
        key = grant.account, grant.name, cap, threshold
        if key in self._seen:
            return
        if len(self._seen) >= _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = None  # other settlements of this worker do not count, too
        name = f"{cap}:{threshold}"
        try:
            counts = await self._store.add(
                f"alerts:{grant.account}:{grant.name}",
                {name: 1},
                ttl=grant.keep,
                once=f"{self._id}:{name}",
            )
        except StoreUnavailableError:
            self._seen.pop(key, None)
            return
        if counts[name] != 1:
            return
        caller, unit, period = _parts(grant.name)
        alert = BudgetAlert(
            account=grant.account.removeprefix("caller:"),
            caller=caller,
            unit=unit,
            per=period_kind(period),
            period=period,
            threshold=threshold,
            limit=cap,
            spent=spent,
            at=self._clock(),
        )
        for callback in self._callbacks:
            task = start(_call(callback, alert), what="budget alerts")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _parts(name: str) -> tuple[str, str, str]:
    """Caller, unit and period of a budget, by its name in the store."""
    *caller, unit, period = name.rsplit(":", 2)
    return "".join(caller), unit, period


async def _call(callback: OnThreshold, alert: BudgetAlert) -> None:
    try:
        async with asyncio.timeout(_CALLBACK_SECONDS):
            answer = callback(alert)
            if inspect.isawaitable(answer):
                await answer
    except Exception:
        logger.exception("a callback for budget alerts failed: %r", alert)
