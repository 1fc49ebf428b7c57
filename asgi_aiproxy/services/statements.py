"""Monthly statements of accounts, from the sums of the ledger."""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from asgi_aiproxy.accounts import Account, Tokens
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.services.csv_export import Cell, csv_lines
from asgi_aiproxy.services.usage import sum_members
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.sums import By, Totals

_AMOUNTS = ("requests", "failed", "input", "output", "usd", "not_charged_usd", "units")


class StatementQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The month of a statement, as `2026-11`; by default the current one (UTC)."""

    month: Annotated[str, Meta(pattern=r"^([1-9][0-9]{3}-(0[1-9]|1[0-2]))?\Z")] = ""


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of the exchanges of one day, model or token. `usd` is what was charged."""

    name: str
    label: str = ""
    requests: int
    failed: int
    input: int
    output: int
    usd: float
    not_charged_usd: float
    units: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What an account used in a month: in total, by day, by model and by token.

    `complete` is False while the month has not ended. Exact for as long as sums are kept.
    """

    account: str
    name: str
    month: str
    complete: bool
    total: StatementLine
    days: list[StatementLine]
    models: list[StatementLine]
    tokens: list[StatementLine]


class StatementService:
    """Makes statements of accounts. Methods raise NoSuchRowError and StoreUnavailableError."""

    def __init__(
        self, store: Store, ledger: str = "ledger", *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = Ledger(store, name=ledger)
        self._tokens = Tokens(store)
        self._clock = clock

    async def get(self, account: str, query: StatementQuery) -> Statement:
        """Return the statement of an account for a month."""
        row: Account = await self._tokens.accounts.get(account)
        today = datetime.fromtimestamp(self._clock(), UTC).date()
        month = query.month or f"{today:%Y-%m}"
        first = date.fromisoformat(f"{month}-01")
        if first > today:
            raise invalid("month: is in the future.", "month")
        last = first.replace(day=calendar.monthrange(first.year, first.month)[1])
        until = min(last, today)
        daily = await self._ledger.daily("account", since=first, until=until, names=[account])
        total = Totals()
        for totals in daily.values():
            for field in Totals.__struct_fields__:
                setattr(total, field, getattr(total, field) + getattr(totals, field))
        tokens = await self._lines("account_principal", account, first, until)
        return Statement(
            account=account,
            name=row.name,
            month=month,
            complete=last < today,
            total=_line("total", total),
            days=[_line(day.isoformat(), totals) for day, totals in daily.items()],
            models=await self._lines("account_model", account, first, until),
            tokens=[await self._labelled(line) for line in tokens],
        )

    async def export(self, account: str, query: StatementQuery) -> str:
        """Return the statement as CSV, one line for each day, model and token."""
        found = await self.get(account, query)
        rows: list[Sequence[Cell]] = [("account", "month", "kind", "name", "label", *_AMOUNTS)]
        for kind, lines in (
            ("total", [found.total]),
            ("day", found.days),
            ("model", found.models),
            ("token", found.tokens),
        ):
            rows += [(account, found.month, kind, *msgspec.structs.astuple(line)) for line in lines]
        return csv_lines(rows)

    async def _lines(self, by: By, account: str, since: date, until: date) -> list[StatementLine]:
        """The sums of an account by the second part of their names, the most expensive first."""
        found = await self._ledger.totals(by, since=since, until=until)
        lines = [
            _line(name.partition("/")[2], totals)
            for name, totals in found.items()
            if name.partition("/")[0] == account
        ]
        return sorted(lines, key=lambda line: (-line.usd, -line.units, line.name))

    async def _labelled(self, line: StatementLine) -> StatementLine:
        token = await self._tokens.table.find(line.name) if line.name else None
        return line if token is None else msgspec.structs.replace(line, label=token.name)


def _line(name: str, totals: Totals) -> StatementLine:
    return StatementLine(name=name, **sum_members(totals))
