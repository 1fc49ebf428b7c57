"""Raise a budget for some time: the raise ends by itself."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy.errors import ConfigurationError, invalid
from asgi_aiproxy.principal import Budget, Period, TemporaryRaise

_MAX_RAISES = 20  # of one budget at the same time
_MAX_SECONDS = 10 * 366 * 86400


class BudgetRaise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a budget gets in addition, in US dollars or units, and until when: a Unix time, or
    for a number of `seconds`. `per` is the period of the budget.
    """

    usd: Annotated[float, Meta(gt=0, le=1_000_000_000)] | UnsetType = UNSET
    units: Annotated[int, Meta(ge=1, lt=2**53)] | UnsetType = UNSET
    per: Period = "total"
    until: float | UnsetType = UNSET
    seconds: Annotated[float, Meta(gt=0, le=_MAX_SECONDS)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if isinstance(self.usd, UnsetType) is isinstance(self.units, UnsetType):
            raise invalid("usd: a raise must be either in usd or in units.", "usd")
        if isinstance(self.until, UnsetType) is isinstance(self.seconds, UnsetType):
            raise invalid("until: a raise must have either until or seconds.", "until")

    def applied(self, budgets: tuple[Budget, ...], now: float) -> tuple[Budget, ...]:
        """Return the budgets with the raise, and without raises that have ended.

        Raises APIError if none of them has this unit and period, or the raise ends in the past or
        in more than ten years.
        """
        until = self.until if isinstance(self.until, float | int) else None
        if isinstance(self.seconds, float | int):
            until = now + self.seconds
        if until is None or not now < until <= now + _MAX_SECONDS:
            message = "until: must be a Unix time in seconds, in the next ten years."
            raise invalid(message, "until")
        unit = "units" if isinstance(self.units, int) else "usd"
        amount = self.units if isinstance(self.units, int) else 0
        if isinstance(self.usd, float | int):
            amount = Budget.usd(self.usd).limit
        made = []
        for budget in budgets:
            kept = tuple(more for more in budget.raises if more.until > now)
            if (budget.unit, budget.per) == (unit, self.per):
                kept = (*kept, TemporaryRaise(amount, until))
            if len(kept) > _MAX_RAISES:
                raise invalid(f"A budget has at most {_MAX_RAISES} raises at the same time.")
            try:
                made.append(msgspec.structs.replace(budget, raises=kept))
            except ConfigurationError as error:
                raise invalid(str(error)) from error
        if all((budget.unit, budget.per) != (unit, self.per) for budget in budgets):
            per = "for all time" if self.per == "total" else f"per {self.per}"
            raise invalid(f"per: there is no budget in {unit} {per} to raise.", "per")
        return tuple(made)
