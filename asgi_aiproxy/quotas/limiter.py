"""`Limiter`: what the admissions of all calls share: store, prices, outage policies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence, Set

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.prices import Prices, Pricing
from asgi_aiproxy.prices.price_list import list_installed
from asgi_aiproxy.principal import Limits
from asgi_aiproxy.quotas.alerts import OnThreshold, ThresholdWatch
from asgi_aiproxy.quotas.local_limits import LocalLimits
from asgi_aiproxy.quotas.settlement import SettlementQueue
from asgi_aiproxy.stores.base import BudgetReservation, Grant, OutagePolicy, Store

NO_TARIFF = {
    "usd": (
        "Budgets in dollars need prices: pip install 'asgi-aiproxy[prices]', or set your own with "
        "Quota(..., prices=Prices({'model': Price(input=1, output=2)}, listed=False))."
    ),
    "units": "Budgets in units need ratios: Quota(..., ratios=Ratios({'model': 1})).",
}


class Limiter:
    """What all admissions of one `Quota` share; its options are described there."""

    def __init__(
        self,
        store: Store,
        *,
        prices: Pricing | None = None,
        ratios: Pricing | None = None,
        default_output: int = 4096,
        limits_away: OutagePolicy = OutagePolicy.LOCAL_ESTIMATE,
        budgets_away: OutagePolicy = OutagePolicy.FAIL_CLOSED,
        thresholds: Sequence[float] = (),
        on_threshold: Sequence[OnThreshold] = (),
        ttl: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.clock = clock
        self.default_output = default_output
        self._limits_away = OutagePolicy(limits_away)
        self._budgets_away = OutagePolicy(budgets_away)
        self.local = LocalLimits(clock=clock)
        self._alerts: ThresholdWatch | None = None
        if thresholds and on_threshold:
            self._alerts = ThresholdWatch(store, thresholds, on_threshold, clock=clock)
        settled = self._alerts.settled if self._alerts is not None else None
        self.settler = SettlementQueue(store, ttl=ttl, settled=settled)
        self.settler_here = SettlementQueue(self.local.store)
        self.tariffs: dict[str, Pricing] = {}
        if prices is not None or list_installed():
            self.tariffs["usd"] = prices if prices is not None else Prices()
        if ratios is not None:
            self.tariffs["units"] = ratios
        given = {"usd": prices, "units": ratios}
        self.priced = frozenset(unit for unit, tariff in given.items() if tariff is not None)
        self.ready = not any(hasattr(tariff, "load") for tariff in self.tariffs.values())

    def check(self, limits: Limits) -> None:
        """Raise ConfigurationError if a budget is in a unit without prices."""
        for budget in limits.budgets:
            if budget.unit not in self.tariffs:
                raise ConfigurationError(NO_TARIFF[budget.unit])

    async def load(self, limits: Limits) -> None:
        """Load the price list if it is needed, in a thread."""
        units = self.units_of(limits)
        for unit in units:
            load = getattr(self.tariffs[unit], "load", None)
            if load is not None:
                await asyncio.to_thread(load)
        self.ready = units == self.tariffs.keys()

    def away(self, grant: Grant) -> OutagePolicy:
        """The policy for a grant while the store is unavailable."""
        return self._budgets_away if isinstance(grant, BudgetReservation) else self._limits_away

    def units_of(self, limits: Limits) -> Set[str]:
        """The units in which exchanges are priced."""
        if not limits.budgets:
            return self.priced
        return self.priced | ({budget.unit for budget in limits.budgets} & self.tariffs.keys())

    async def drain(self) -> None:
        """Settle what has ended, if the store is available."""
        await self.settler.drain()
        await self.settler_here.drain()
        if self._alerts is not None:
            await self._alerts.drain()
