"""What a caller may read about itself: its limits and their current usage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from asgi_aiproxy.accounts import Tokens
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.services.budgets import BudgetOut, LimitUsage, read_limit_usage
from asgi_aiproxy.stores.base import Store

# The value that OpenAI's own API returns where there is no limit; clients show it as "unlimited".
_UNLIMITED = 100_000_000.0


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """A caller, its limits and their current usage. `expires` is Unix time."""

    id: str
    name: str
    models: tuple[str, ...]
    account: str
    group: str
    expires: float | None
    scopes: tuple[str, ...]
    limits: LimitUsage


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """The spending limit in US dollars, in the format of OpenAI's dashboard."""

    object: Literal["billing_subscription"] = "billing_subscription"
    has_payment_method: bool = True
    soft_limit_usd: float
    hard_limit_usd: float
    system_hard_limit_usd: float
    access_until: int


class TotalUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The amount spent, in hundredths of a US dollar, in the format of OpenAI's dashboard."""

    object: Literal["list"] = "list"
    total_usage: float


class Dates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The dates that clients send. They are ignored: the answer is for the budget's own period."""

    start_date: str = ""
    end_date: str = ""


class SelfService:
    """Reads the limits and the spending of callers. `units_per_usd` is the number of quota units
    per US dollar.
    """

    def __init__(
        self,
        store: Store,
        *,
        units_per_usd: int = 500_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._tokens = Tokens(store)
        self._units_per_usd = units_per_usd
        self._clock = clock

    async def me(self, caller: Principal) -> Me:
        """Return the caller, its limits and their usage."""
        return Me(
            id=caller.id,
            name=caller.name,
            models=caller.models,
            account=caller.account,
            group=caller.group,
            expires=await self._expires(caller),
            scopes=tuple(caller.scopes),
            limits=await self._limit_usage(caller),
        )

    async def subscription(self, caller: Principal) -> Subscription:
        """Return the limit of the budget that has the least left."""
        tightest = self._lowest_budget(await self._limit_usage(caller))
        limit = tightest[0] if tightest is not None else _UNLIMITED
        return Subscription(
            soft_limit_usd=limit,
            hard_limit_usd=limit,
            system_hard_limit_usd=limit,
            access_until=int(await self._expires(caller) or 0),
        )

    async def usage(self, caller: Principal) -> TotalUsage:
        """Return the amount spent of the budget that has the least left."""
        tightest = self._lowest_budget(await self._limit_usage(caller))
        return TotalUsage(total_usage=round(tightest[1] * 100, 6) if tightest is not None else 0.0)

    async def _limit_usage(self, caller: Principal) -> LimitUsage:
        return (await read_limit_usage(self._store, [caller], self._clock()))[0]

    async def _expires(self, caller: Principal) -> float | None:
        row = await self._tokens.table.find(caller.id) if caller.id else None
        return row.expires if row is not None else None

    def _lowest_budget(self, standing: LimitUsage) -> tuple[float, float] | None:
        """Return the limit and the spending of the budget that has the least left, in dollars."""
        amounts = [self._dollars(budget) for budget in standing.budgets]
        return min(amounts, key=lambda pair: pair[0] - pair[1], default=None)

    def _dollars(self, budget: BudgetOut) -> tuple[float, float]:
        worth = 1 if budget.unit == "usd" else self._units_per_usd
        return budget.limit / worth, (budget.spent + budget.held) / worth
