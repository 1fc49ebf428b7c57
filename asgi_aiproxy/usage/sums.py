"""Sums of usage records by day, as the ledger keeps them in a store.

Theory of operation. The sums of one UTC day by one kind of name are counters of one account of the
store, named `field/name`: `cost/gpt-4o`. Each kind has an account of its own, because there may be
10,000 callers or sessions, and reading the sums of a few models must not take longer for that. What
names are ranked by (RANKED) is apart from the other sums, which are read for one page of names.
Names of sessions, tags and models come from callers: each process adds at most MAX_NAMES of a kind
to a day, and counts the others under OTHER, so callers cannot fill the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from asgi_aiproxy.usage.record import UsageRecord

By = Literal[
    "principal",
    "account",
    "model",
    "provider",
    "key",
    "day",
    "tag",
    "session",
    "account_model",
    "account_principal",
]

MAX_NAMES = 10_000  # sessions, tags or models that one process adds to the sums of a day
OTHER = "(other)"
_BOUNDED = frozenset({"tag", "session", "model", "account_model"})  # names come from callers


class Totals(msgspec.Struct, kw_only=True):
    """Sums over exchanges. Costs are in micro-dollars; `not_charged` is the cost no caller paid."""

    requests: int = 0
    failed: int = 0
    input: int = 0
    output: int = 0
    cost: int = 0
    not_charged: int = 0
    units: int = 0

    def add(self, record: UsageRecord) -> None:
        """Add one exchange."""
        for name, amount in _amounts(record).items():
            setattr(self, name, getattr(self, name) + amount)


RANKED = frozenset({"cost", "units", "requests"})  # fields by which names are ranked
OTHERS = frozenset(Totals.__struct_fields__) - RANKED


def sums_account(ledger: str, day: str, by: By, *, ranked: bool) -> str:
    """The account of the store that holds the sums of a day by one kind of name: those of the
    fields RANKED, or of OTHERS.
    """
    return f"{ledger}:{day}:{by}" if ranked else f"{ledger}:{day}:{by}:others"


def names_of_sums(names: Iterable[str], *, ranked: bool) -> list[str]:
    """The names of counters."""
    fields = RANKED if ranked else OTHERS
    return [f"{field}/{name}" for name in names for field in fields]


class DailySums:
    """Adds records up; one object for each process, which bounds the number of names."""

    def __init__(self, ledger: str, *, max_names: int = MAX_NAMES) -> None:
        self._ledger = ledger
        self._max_names = max_names
        self._known: dict[str, dict[str, set[str]]] = {}  # by day and kind

    def add_up(self, day: str, records: Iterable[UsageRecord]) -> dict[str, dict[str, int]]:
        """The sums of records of one day, by account of the store and counter."""
        found: dict[str, dict[str, int]] = {}
        for record in records:
            amounts = _amounts(record)
            for by, given in _places(record):
                name = self._bounded(day, by, given) if by in _BOUNDED else given
                for field, amount in amounts.items():
                    account = sums_account(self._ledger, day, by, ranked=field in RANKED)
                    sums = found.setdefault(account, {})
                    full = f"{field}/{name}"
                    sums[full] = sums.get(full, 0) + amount
        return found

    def _bounded(self, day: str, by: str, name: str) -> str:
        if day not in self._known and len(self._known) >= 2:
            del self._known[min(self._known)]
        known = self._known.setdefault(day, {}).setdefault(by, set())
        if name not in known:
            if len(known) >= self._max_names:
                return f"{name.partition('/')[0]}/{OTHER}" if by == "account_model" else OTHER
            known.add(name)
        return name


def _places(record: UsageRecord) -> Iterator[tuple[By, str]]:
    """The kinds and names under which a record is counted."""
    model = record.upstream_model or record.requested_model
    yield "day", ""
    if record.principal:
        yield "principal", record.principal
    if record.account:
        yield "account", record.account
        yield "account_principal", f"{record.account}/{record.principal}"
        if model:
            yield "account_model", f"{record.account}/{model}"
    if model:
        yield "model", model
    if record.provider:
        yield "provider", record.provider
    if record.key_id:
        yield "key", f"{record.provider}/{record.key_id}"
    if record.session:
        yield "session", record.session
    for name, value in record.tags.items():
        yield "tag", f"{name}={value}"


def _amounts(record: UsageRecord) -> Mapping[str, int]:
    """The amounts, other than 0, that a record adds to sums."""
    usage, cost = record.usage, record.cost or 0
    amounts = {
        "requests": 1,
        "failed": int(record.outcome.value == "failed"),
        "input": usage.input if usage is not None else 0,
        "output": usage.output if usage is not None else 0,
        "cost": 0 if record.not_charged else cost,
        "not_charged": cost if record.not_charged else 0,
        "units": 0 if record.not_charged else record.units or 0,
    }
    return {name: amount for name, amount in amounts.items() if amount}
