"""Limits and budgets in the format of the admin API, and their current usage."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy._slices import in_slices
from asgi_aiproxy.errors import ConfigurationError, invalid
from asgi_aiproxy.principal import PERIODS, Budget, Limits, Period, Principal
from asgi_aiproxy.quotas import grants as by
from asgi_aiproxy.quotas.periods import is_within, seconds_to_end
from asgi_aiproxy.stores.base import BudgetReservation, ConcurrencySlot, Grant, RateLimit, Store

MICRO = 1_000_000
_MOST_USD = 1_000_000_000

Positive = Annotated[int, Meta(ge=1, lt=2**53)]


class BudgetIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A budget in US dollars or in quota units: in total, for each UTC hour, day, week or month, or
    for two days and all between them (`2026-12-01..2026-12-31`).

    As a string it is written as in the settings: `25/month`, `5000 units/day`.
    """

    usd: Annotated[float, Meta(ge=0, le=_MOST_USD)] | UnsetType = UNSET
    units: Annotated[int, Meta(ge=0, lt=2**53)] | UnsetType = UNSET
    per: Period = "total"

    def __post_init__(self) -> None:
        if isinstance(self.usd, UnsetType) is isinstance(self.units, UnsetType):
            raise invalid("budgets: each must be either in usd or in units.", "budgets")


class BudgetOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """A budget, the amount spent, and the amount reserved for requests in flight.

    `limit`, `spent`, `held` and `left` are in US dollars or in units; `left` may be negative.
    `resets` is the Unix time at which the period ends (or begins, if it is still to come). `raised`
    is the part of the limit that is temporary, until `raised_until` or later.
    """

    unit: str
    per: Period
    limit: float
    spent: float
    held: float
    left: float
    shared: bool = False
    resets: int | None = None
    raised: float = 0
    raised_until: float | None = None


class Rate(msgspec.Struct, frozen=True):
    """A rate limit and its current usage."""

    limit: int
    used: int


class LimitUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a caller and their current usage."""

    rpm: Rate | None = None
    tpm: Rate | None = None
    concurrency: Rate | None = None
    budgets: tuple[BudgetOut, ...] = ()

    @property
    def exhausted(self) -> bool:
        """Whether one of the budgets is used up."""
        return any(budget.left <= 0 for budget in self.budgets)


def to_budgets(given: Sequence[BudgetIn | str], *, shared: bool = False) -> tuple[Budget, ...]:
    """Parse budgets. Raises APIError if one is invalid, or two are for the same unit and period."""
    made = []
    for number, item in enumerate(given):
        if isinstance(item, str):
            try:
                made.append(Budget.parse(item, shared=shared))
            except ConfigurationError as error:
                raise invalid(f"budgets: {error}", "budgets") from error
            continue
        try:
            if isinstance(item.units, int):
                made.append(Budget.units(item.units, item.per, shared=shared))
            elif isinstance(item.usd, int | float):
                made.append(Budget.usd(item.usd, item.per, shared=shared))
        except ConfigurationError as error:
            field = f"budgets[{number}].per"
            message = (
                f"{field}: invalid period {item.per!r}; it must be one of {', '.join(PERIODS)}, or "
                "two days: 2026-12-01..2026-12-31."
            )
            raise invalid(message, field) from error
    if len({(budget.unit, budget.per) for budget in made}) < len(made):
        raise invalid("budgets: two have the same unit and period.", "budgets")
    return tuple(made)


def parse_amount(budget: Budget, value: int) -> float:
    """Convert an amount of the store to the unit that is shown."""
    return float(Decimal(value) / MICRO) if budget.unit == "usd" else value


def _grants(principal: Principal, now: float) -> list[Grant]:
    limits = principal.limits
    grants: list[Grant] = [*by.request_grants(principal, limits)]
    grants += by.token_grants(principal, limits, 0, lambda budget: 0, now)
    return grants


async def read_limit_usage(
    store: Store, principals: Sequence[Principal], now: float
) -> list[LimitUsage]:
    """Read the usage of several callers, with a request to the store for every ten of them. Raises
    StoreUnavailableError.
    """
    return [
        usage
        async for some in in_slices(principals, 10)
        for usage in await _read_together(store, some, now)
    ]


async def _read_together(
    store: Store, principals: Sequence[Principal], now: float
) -> list[LimitUsage]:
    grants = [_grants(principal, now) for principal in principals]
    levels = iter(await store.peek([grant for own in grants for grant in own]))
    found = []
    for principal, own in zip(principals, grants, strict=True):
        rates: dict[str, Rate] = {}
        left = list(principal.limits.budgets)
        budgets = []
        for grant in own:
            level = next(levels)
            match grant:
                case BudgetReservation():
                    budgets.append(_budget(left.pop(0), level.used, level.held, now))
                case ConcurrencySlot():
                    rates["concurrency"] = Rate(grant.limit or 0, level.used)
                case RateLimit():
                    rates[grant.name.rpartition(":")[2]] = Rate(grant.limit or 0, level.used)
        found.append(LimitUsage(**rates, budgets=tuple(budgets)))
    return found


def _budget(budget: Budget, spent: int, held: int, now: float) -> BudgetOut:
    ends = seconds_to_end(budget.per, now)
    limit = budget.limit_at(now)
    left = limit - spent - held if is_within(budget.per, now) else 0
    raised = [more.until for more in budget.raises if more.until > now]
    return BudgetOut(
        unit=budget.unit,
        per=budget.per,
        limit=parse_amount(budget, limit),
        spent=parse_amount(budget, spent),
        held=parse_amount(budget, held),
        left=parse_amount(budget, left),
        shared=budget.shared,
        resets=round(now + ends) if ends is not None else None,
        raised=parse_amount(budget, limit - budget.limit) if raised else 0,
        raised_until=min(raised, default=None),
    )


def to_limits(
    rpm: int | None, tpm: int | None, concurrency: int | None, budgets: Sequence[BudgetIn | str]
) -> Limits:
    """Build `Limits` from validated fields."""
    return Limits(rpm, tpm, concurrency, to_budgets(budgets))
