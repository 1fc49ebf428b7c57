"""The caller of a request (`Principal`), with its limits and budgets."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Literal, get_args

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.patterns import as_patterns, matches_any

# Tags become names of sums in the ledger.
MAX_TAGS, MAX_TAG_LENGTH = 16, 128

# The key of the principal in an ASGI scope.
SCOPE_KEY = "asgi_aiproxy.principal"
# The key of the caller that the host's own code has named for a call within the process.
IN_PROCESS_KEY = "asgi_aiproxy.in_process_principal"

# A period of a budget: one of PERIODS, or two days such as `2026-12-01..2026-12-31`.
Period = str
PeriodName = Literal["total", "hour", "day", "week", "month"]
PERIODS: tuple[str, ...] = get_args(PeriodName)
Unit = Literal["usd", "units"]
_DATES = r"\d{4}-\d\d-\d\d\.\.\d{4}-\d\d-\d\d"
_BUDGET = re.compile(
    r"\$?([0-9][0-9_]{0,15}(?:\.[0-9]{1,6})?)( ?units?)?"
    rf"(?:/({'|'.join(PERIODS)}|{_DATES}))?"
)


def dates_of(per: Period) -> tuple[date, date] | None:
    """The first and the last day of a period that is given by two days; None for others.

    Raises ConfigurationError if a day does not exist, or the last one is before the first.
    """
    if ".." not in per:
        return None
    try:
        first, last = map(date.fromisoformat, per.split(".."))
        if re.fullmatch(_DATES, per) and first <= last < date(9999, 12, 31):
            return first, last
    except ValueError:
        pass
    raise ConfigurationError(
        f"{per!r} is not a period: write the first and the last day, as 2026-12-01..2026-12-31."
    )


class TemporaryRaise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a budget has in addition until a Unix time: `amount` is in the unit of the budget."""

    amount: int
    until: float


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much may be spent.

    Arguments:

    - `limit`: in micro-dollars (`unit="usd"`), or in quota units.
    - `per`: in all (`"total"`); in each `"hour"`, `"day"`, `"week"` or `"month"` (UTC); or from one
      day to another, both included, as `"2026-12-01..2026-12-31"`: before and after, nothing can be
      spent.
    - `unit`: `"usd"` or `"units"`.
    - `shared`: spent by all callers of an account together.
    - `raises`: what it has in addition for some time.

    Raises ConfigurationError if `limit` is negative, or another argument is invalid.
    """

    limit: int
    per: Period = "total"
    unit: Unit = "usd"
    shared: bool = False
    raises: tuple[TemporaryRaise, ...] = ()

    def __post_init__(self) -> None:
        highest = self.limit + sum(more.amount for more in self.raises)
        if not 0 <= self.limit <= highest < 2**53:  # the integers that a Lua number can hold
            raise ConfigurationError(
                f"A budget cannot be {self.limit}: it must be >= 0 and < 2**53."
            )
        if self.unit not in get_args(Unit):
            raise ConfigurationError(
                f"Invalid value for unit of a budget: {self.unit!r}. "
                "Supported values are: 'usd', 'units'."
            )
        if self.per not in PERIODS and dates_of(self.per) is None:
            raise ConfigurationError(
                f"Invalid value for per of a budget: {self.per!r}. Supported values are: "
                f"{', '.join(map(repr, PERIODS))}, or two days: '2026-12-01..2026-12-31'."
            )

    def limit_at(self, now: float) -> int:
        """The limit at a Unix time, with the temporary raises that have not ended."""
        if not self.raises:
            return self.limit
        return self.limit + sum(more.amount for more in self.raises if more.until > now)

    @classmethod
    def parse(cls, text: str, *, shared: bool = False) -> Budget:
        """Parse a budget as written in settings: `25`, `5/day`, `100/month`, `5000 units/day`,
        `500/2026-12-01..2026-12-31`.

        The amount is in US dollars unless `units` follows; without a period it is for all time.
        Raises ConfigurationError.
        """
        found = _BUDGET.fullmatch(text.strip().lower())
        if found is None:
            raise ConfigurationError(
                f"{text!r} is not a budget: write an amount in US dollars and, unless it is for "
                f"all time, /hour, /day, /week or /month (25, 5/day, 100/month), or two days "
                f"(500/2026-12-01..2026-12-31); or quota units: 5000 units/day."
            )
        amount, unit = found[1].replace("_", ""), found[2]
        per = found[3] or "total"
        if unit is None:
            return cls.usd(Decimal(amount), per, shared=shared)
        if "." in amount:
            raise ConfigurationError(f"{text!r} is not a budget: quota units are integers.")
        return cls.units(int(amount), per, shared=shared)

    @classmethod
    def usd(
        cls, dollars: float | Decimal, per: Period = "total", *, shared: bool = False
    ) -> Budget:
        """Make a budget in US dollars."""
        return cls(int(Decimal(str(dollars)) * 1_000_000), per, "usd", shared)

    @classmethod
    def units(cls, units: int, per: Period = "total", *, shared: bool = False) -> Budget:
        """Make a budget in quota units."""
        return cls(units, per, "units", shared)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a caller may use.

    `rpm` and `tpm` are requests and tokens per minute, `concurrency` is concurrent requests (None:
    no limit), and `budgets` limit the cost. Raises ConfigurationError if a limit is below 1, or two
    budgets have the same period and unit.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    budgets: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "concurrency"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigurationError(f"{name} must be at least 1, or None for no limit.")
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


def tag_error(text: str) -> str:
    """Return why a text cannot be the name of a tag; empty if it can."""
    if not 0 < len(text) <= MAX_TAG_LENGTH:
        return f"it must have 1 to {MAX_TAG_LENGTH} characters"
    if "=" in text or not text.isprintable() or text != text.strip():
        return "it must not contain '=', control characters, or spaces at its ends"
    return ""


def check_tags(tags: dict[str, str]) -> None:
    """Raise ConfigurationError if tags are invalid, or too many."""
    if not tags:
        return
    if len(tags) > MAX_TAGS:
        raise ConfigurationError(f"There can be {MAX_TAGS} tags at most, not {len(tags)}.")
    for name, value in tags.items():
        error = tag_error(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TAG_LENGTH:
            error = error or f"its value must be a string of 1 to {MAX_TAG_LENGTH} characters"
        elif not value.isprintable():
            error = error or "its value must not contain control characters"
        if error:
            raise ConfigurationError(f"The tag {name!r} is invalid: {error}.")


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, identified by a token or by the host application.

    Arguments:

    - `id`, `name`: its id, unique in the app, and a name for people.
    - `models`: patterns of the model names it may request (empty: all).
    - `attributes`: any values of the host application.
    - `limits`: its rate limits and budgets.
    - `account`: the account whose shared budgets it spends.
    - `group`: the name of its group.
    - `price_ratio`: its price as a multiple of the list price.
    - `providers`, `keys`: patterns of the providers and of the ids of keys that may serve it.
    - `networks`: IP address ranges it may connect from.
    - `key_id`: the id of the key that always serves it.
    - `may_choose_key`: whether it may name a key in its requests.
    - `scopes`: the scopes of its token.
    - `tags`: names with values that its usage is summed up by, such as `{"team": "search"}`.

    Raises ConfigurationError if an argument is invalid.
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
    tags: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_tags(self.tags)
        if not isinstance(self.id, str):
            raise ConfigurationError(
                f"The id of a principal must be a string, not {type(self.id).__name__}."
            )
        for name in ("models", "providers", "keys", "networks"):
            object.__setattr__(self, name, as_patterns(getattr(self, name)))
        check_networks(self.networks)
        if not 0 <= self.price_ratio < float("inf"):
            raise ConfigurationError(
                f"price_ratio must be a finite number >= 0, got {self.price_ratio}."
            )

    @property
    def tenant(self) -> str:
        """A digest of the account, or of the id, to whose callers an item belongs."""
        account = f"account:{self.account}" if self.account else f"id:{self.id}"
        return hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def may_use(self, model: str) -> bool:
        """Return whether this caller may use `model`."""
        return not self.models or matches_any(self.models, model)

    def may_use_provider(self, provider: str) -> bool:
        """Return whether `provider` may serve this caller."""
        return not self.providers or matches_any(self.providers, provider)


ANONYMOUS = Principal("")

_USER_ACCOUNT = re.compile(r"user-([1-9][0-9]{0,17})")


def user_number(account: str) -> int | None:
    """Return N of `user-N`, the id of the account of a user of the gateway; None for others."""
    found = _USER_ACCOUNT.fullmatch(account)
    return int(found[1]) if found is not None else None
