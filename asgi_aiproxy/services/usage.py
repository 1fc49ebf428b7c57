"""The books: exchanges one by one, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from asgi_aiproxy.accounts import Token, Tokens
from asgi_aiproxy.accounts.tokens import TOKENS
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.services.base import MAX_PAGE_ROWS, Page
from asgi_aiproxy.services.budgets import MICRO
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.usage.ledger import By, Ledger, Query, State, Totals
from asgi_aiproxy.usage.record import UsageRecord

_LONGEST = 400  # days
_USUAL = 30

Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE_ROWS)]
# Where a log goes on: the ids of both stores look like this.
LogId = Annotated[str, Meta(pattern=r"^(\d{1,15}(-\d{1,15})?)?\Z")]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which exchanges: those of which all is true. `since` and `until` are Unix times."""

    principal: str = ""
    account: str = ""
    group: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    state: State | None = None
    since: float | None = None
    until: float | None = None
    after: LogId = ""
    limit: Limit = 100

    def query(self) -> Query:
        """What the ledger is asked."""
        fields = msgspec.structs.asdict(self)
        del fields["after"], fields["limit"]
        return Query(**{**fields, "state": self.state or ""})


class SumQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums of the UTC days from `since` to `until`, by default the last 30."""

    by: By = "day"
    since: date | None = None
    until: date | None = None
    name: str | None = None
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Limit = 100


class RecordOut(UsageRecord, frozen=True, kw_only=True):
    """An exchange; `usd` is its cost in US dollars, `cost` the same in micro-dollars."""

    usd: float | None = None


class SumOut(msgspec.Struct, frozen=True, kw_only=True):
    """What some exchanges come to. `label` is what a token of this id is called; what is
    `absorbed_usd` nobody paid."""

    name: str
    label: str = ""
    requests: int
    failed: int
    input: int
    output: int
    usd: float
    not_charged_usd: float
    units: int


class UsageService:
    """What can be read in the ledger of a store. Raises APIError, which names the field, and
    StoreUnavailableError."""

    def __init__(
        self, store: Store, ledger: str = "ledger", *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = Ledger(store, name=ledger)
        self._store = store
        self._tokens = Tokens(store)
        self._clock = clock

    async def page(self, query: UsageQuery) -> Page[RecordOut]:
        """Exchanges, the newest first."""
        query = await self._resolved(query)
        try:
            found = await self._ledger.query(query.query(), after=query.after, limit=query.limit)
        except ValueError as error:
            raise invalid_cursor_error(query.after) from error
        return Page([to_record_out(record) for record in found.records], found.after or None)

    async def total(self, query: UsageQuery) -> SumOut:
        """What the exchanges come to that are kept one by one."""
        query = await self._resolved(query)
        return _sum("total", await self._ledger.total(query.query()))

    async def sums(self, query: SumQuery) -> Page[SumOut]:
        """Sums, the dearest first, days in their order."""
        until = query.until or datetime.fromtimestamp(self._clock(), UTC).date()
        since = query.since or until - timedelta(days=_USUAL - 1)
        if not 0 <= (until - since).days < _LONGEST:
            raise invalid(f"since: it goes from {_LONGEST} days before until, to until.", "since")
        names = None if query.name is None else [query.name]
        if query.by == "principal" and query.name:
            names = [await self.principal(query.name)]
        found = await self._ledger.totals(query.by, since=since, until=until, names=names)
        sums = [_sum(name, totals) for name, totals in found.items()]
        if query.by == "day":
            sums.sort(key=lambda one: one.name)
        else:
            sums.sort(key=lambda one: (-one.usd, -one.units, -one.requests, one.name))
        end = query.after + query.limit
        some = sums[query.after : end]
        if query.by == "principal":
            some = await self._labelled(some)
        return Page(some, str(end) if end < len(sums) else None)

    async def principal(self, wanted: str) -> str:
        """The id of the token of this id or name; a name that no token has stays as it is, for it
        may be that of a caller of the configuration. Raises APIError if several tokens have it."""
        if not wanted or await self._tokens.table.find(wanted) is not None:
            return wanted
        found: list[str] = []
        after = ""
        while rows := await self._tokens.page(after, MAX_PAGE_ROWS):
            found += [row.id for row in rows if row.name == wanted]
            after = rows[-1].id
        if len(found) > 1:
            some = ", ".join(found[:5])
            raise invalid(
                f"principal: {len(found)} tokens are named {wanted!r}: {some}.", "principal"
            )
        return found[0] if found else wanted

    async def _resolved(self, query: UsageQuery) -> UsageQuery:
        principal = await self.principal(query.principal)
        return msgspec.structs.replace(query, principal=principal)

    async def _labelled(self, sums: list[SumOut]) -> list[SumOut]:
        """Sums by caller with the names of the tokens that there still are."""
        rows = await self._store.rows(TOKENS, [one.name for one in sums])
        names = {id: msgspec.json.decode(row, type=Token).name for id, row in rows.items()}
        return [msgspec.structs.replace(one, label=names.get(one.name, one.name)) for one in sums]


def invalid_cursor_error(after: str) -> APIError:
    """A log has no such place."""
    return invalid(f"after: there is no record {after!r}.", "after")


def to_record_out(record: UsageRecord) -> RecordOut:
    """A record with its cost in dollars."""
    fields: dict[str, Any] = msgspec.structs.asdict(record)
    usd = record.cost / MICRO if record.cost is not None else None
    return RecordOut(**fields, usd=usd)


def _sum(name: str, totals: Totals) -> SumOut:
    return SumOut(
        name=name,
        requests=totals.requests,
        failed=totals.failed,
        input=totals.input,
        output=totals.output,
        usd=totals.cost / MICRO,
        not_charged_usd=totals.not_charged / MICRO,
        units=totals.units,
    )
