"""Who calls, and how much of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, get_args

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.patterns import as_patterns, matches_any

# Where an ASGI scope carries its principal.
SCOPE_KEY = "asgi_aiproxy.principal"

Period = Literal["total", "day", "month"]
Unit = Literal["usd", "units"]
_BUDGET = re.compile(r"\$?([0-9][0-9_]{0,15}(?:\.[0-9]{1,6})?)( ?units?)?(?:/(total|day|month))?")


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much may be spent: `limit` micro-dollars, or quota units, in all or in each UTC day or
    month. A `shared` one is spent by all callers of an account together.

    Raises ConfigurationError if the limit is below zero.
    """

    limit: int
    per: Period = "total"
    unit: Unit = "usd"
    shared: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.limit < 2**53:  # what a Lua number holds whole
            raise ConfigurationError(f"A budget can not be {self.limit}.")
        for name, value, known in (
            ("per", self.per, get_args(Period)),
            ("unit", self.unit, get_args(Unit)),
        ):
            if value not in known:
                raise ConfigurationError(
                    f"Invalid value for {name} of a budget: {value!r}. "
                    f"Supported values are: {', '.join(map(repr, known))}."
                )

    @classmethod
    def parse(cls, text: str, *, shared: bool = False) -> Budget:
        """A budget as it is written everywhere: an amount in US dollars, and its period if it is
        not for all time, such as `25`, `5/day`, `100/month`; units are named: `5000 units/day`.

        Raises ConfigurationError.
        """
        found = _BUDGET.fullmatch(text.strip().lower())
        if found is None:
            raise ConfigurationError(
                f"{text!r} is not a budget: write an amount in US dollars and, unless it is for "
                f"all time, /day or /month (25, 5/day, 100/month); or quota units: 5000 units/day."
            )
        amount, unit = found[1].replace("_", ""), found[2]
        per = msgspec.convert(found[3] or "total", Period)
        if unit is None:
            return cls.usd(Decimal(amount), per, shared=shared)
        if "." in amount:
            raise ConfigurationError(f"{text!r} is not a budget: quota units are whole numbers.")
        return cls.units(int(amount), per, shared=shared)

    @classmethod
    def usd(
        cls, dollars: float | Decimal, per: Period = "total", *, shared: bool = False
    ) -> Budget:
        """A budget in dollars."""
        return cls(int(Decimal(str(dollars)) * 1_000_000), per, "usd", shared)

    @classmethod
    def units(cls, units: int, per: Period = "total", *, shared: bool = False) -> Budget:
        """A budget in quota units."""
        return cls(units, per, "units", shared)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller may use: requests and tokens a minute, requests at once, and budgets.

    None: as much as it likes. Raises ConfigurationError if a limit is below one.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    budgets: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "concurrency"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigurationError(f"{name} must be at least 1, or None: no limit.")
        if isinstance(self.budgets, Budget) or not all(
            isinstance(budget, Budget) for budget in self.budgets
        ):
            raise ConfigurationError(
                "Limits: budgets must be a list of budgets, as in budgets=[Budget.usd(25)]."
            )
        named = [(budget.per, budget.unit, budget.shared) for budget in self.budgets]
        if len(set(named)) < len(named):
            raise ConfigurationError("There are two budgets of the same unit and period.")


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as a token or the host application knows it.

    `models` are patterns of the model names it may use, as it writes them (none: all). `providers`
    and `keys` are patterns of the providers and keys that may serve it. `networks` are the ranges
    of addresses it may call from. `account` is whom it shares budgets with, `ratio` what it pays
    of a price. With `key_id` it is always served with that key; `may_choose_key` lets it name
    one itself.
    """

    id: str
    name: str = ""
    models: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict, hash=False)
    limits: Limits = NO_LIMITS
    account: str = ""
    group: str = ""
    price_ratio: float = 1.0
    providers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    key_id: str = ""
    may_choose_key: bool = True
    scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise ConfigurationError(f"A principal's id is a text, not {type(self.id).__name__}.")
        for name in ("models", "providers", "keys", "networks"):
            object.__setattr__(self, name, as_patterns(getattr(self, name)))
        check_networks(self.networks)
        if not 0 <= self.price_ratio < float("inf"):
            raise ConfigurationError(f"A ratio can not be {self.price_ratio}.")

    def may_use(self, model: str) -> bool:
        """Whether this caller may ask for `model`."""
        return not self.models or matches_any(self.models, model)

    def may_use_provider(self, provider: str) -> bool:
        """Whether `provider` may serve this caller."""
        return not self.providers or matches_any(self.providers, provider)


ANONYMOUS = Principal("")
