"""Read the usage ledger: records one by one, and sums."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from asgi_aiproxy._slices import give_way, in_slices
from asgi_aiproxy.accounts import Tokens
from asgi_aiproxy.accounts.tokens import TOKENS
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.services.base import MAX_PAGE_ROWS, LogId, Page
from asgi_aiproxy.services.budgets import MICRO
from asgi_aiproxy.services.csv_export import Cell, csv_lines, csv_time
from asgi_aiproxy.services.shared import SharedResults
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.usage.ledger import EVERYTHING, Ledger, Query, State
from asgi_aiproxy.usage.record import UsageRecord
from asgi_aiproxy.usage.sums import By, Totals

GROUPINGS: tuple[str, ...] = get_args(By)  # by which there are sums
_MAX_SEARCHES = 4  # through the whole log at the same time
_MAX_DAYS = 400  # days
_SLICE_RECORDS = 10  # that are converted without giving way
_EXPORTED_TOGETHER = 100
_NAMES_TOGETHER = 100
_DEFAULT_DAYS = 30
_EARLIEST = date(1970, 1, 1)

Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE_ROWS)]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter of exchanges: all given fields must match. `since` and `until` are Unix times, `tag`
    is written `name=value`.

    With `scan`, about that many records are examined for one page, which may then have fewer than
    `limit` although others follow.
    """

    principal: str = ""
    account: str = ""
    group: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    session: str = ""
    tag: str = ""
    state: State | None = None
    since: float | None = None
    until: float | None = None
    after: LogId = ""
    limit: Limit = 100
    scan: Annotated[int, Meta(ge=1)] | None = None

    def query(self) -> Query:
        """Return the ledger's filter."""
        fields = msgspec.structs.asdict(self)
        del fields["after"], fields["limit"], fields["scan"]
        return Query(**{**fields, "state": self.state or ""})


class SumQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums of the UTC days from `since` to `until`, both included; by default the last 30 days."""

    by: By = "day"
    since: date | None = None
    until: date | None = None
    name: str | None = None
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Limit = 100


class DailyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The UTC days from `since` to `until`, both included; by default the last 30 days. With `name`
    only the exchanges of this principal, account, model, provider or key.
    """

    by: By = "day"
    name: str | None = None
    since: date | None = None
    until: date | None = None


class NearQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where in the log a record is, see `RecordOut.near`; the search is slow without it."""

    near: LogId = ""


class RecordOut(UsageRecord, frozen=True, kw_only=True):
    """A usage record; `usd` is its cost in US dollars, `cost` the same in micro-dollars. `near` is
    its position in the log, to find it again. In lists `label` is the name of the caller's token.
    """

    usd: float | None = None
    near: str = ""
    label: str = ""


class SumOut(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of some exchanges. `label` is the name of the token with this id; `not_charged_usd`
    is the cost that no caller was charged.
    """

    name: str
    label: str = ""
    requests: int
    failed: int
    input: int
    output: int
    usd: float
    not_charged_usd: float
    units: int


class ComparedSum(msgspec.Struct, frozen=True):
    """A sum, and that of the same name (for `day`: of the day at the same place) in the period of
    the same length before.
    """

    now: SumOut
    before: SumOut


class UsageService:
    """Reads the ledger of a store. Methods raise APIError, which names the field, and
    StoreUnavailableError.
    """

    def __init__(
        self, store: Store, ledger: str = "ledger", *, clock: Callable[[], float] = time.time
    ) -> None:
        self.ledger = Ledger(store, name=ledger)
        self._store = store
        self._tokens = Tokens(store)
        self._clock = clock
        self._searches = asyncio.Semaphore(_MAX_SEARCHES)
        self._rankings: SharedResults[list[str]] = SharedResults()

    async def page(self, query: UsageQuery) -> Page[RecordOut]:
        """Return usage records, newest first."""
        query = await self._resolved(query)
        page = await self.matching(query.query(), query)
        names = await self._names({record.principal for record in page.data})
        labelled = [
            msgspec.structs.replace(record, label=names.get(record.principal, record.principal))
            async for some in in_slices(page.data, _SLICE_RECORDS)
            for record in some
        ]
        return Page(labelled, page.next)

    async def matching(self, filter_: Query, query: UsageQuery) -> Page[RecordOut]:
        """Return the records that match a filter of the ledger; the page is that of `query`."""
        try:
            found = await self.ledger.query(
                filter_, after=query.after, limit=query.limit, scan=query.scan
            )
        except ValueError as error:
            raise invalid_cursor_error(query.after) from error
        records = []
        async for some in in_slices(zip(found.records, found.near, strict=True), _SLICE_RECORDS):
            records += [to_record_out(record, near) for record, near in some]
        return Page(records, found.after or None)

    async def get(self, id: str, query: NearQuery, filter_: Query = EVERYTHING) -> RecordOut:
        """Return one usage record by its id or request id, if it matches a filter.

        Raises APIError (404) if the log does not have it any more.
        """
        try:
            async with self._searches:
                record = await self.ledger.find(id, near=query.near, query=filter_)
        except ValueError as error:
            raise invalid(f"near: the record {query.near!r} does not exist.", "near") from error
        if record is None:
            message = f"The log has no exchange {id!r}: it keeps the latest ones only."
            raise APIError(ErrorKind.NOT_FOUND, message, code="not_found")
        return to_record_out(record, query.near)

    async def export(self, query: UsageQuery, *, at_most: int | None = None) -> AsyncIterator[str]:
        """Yield all matching records as CSV, in pieces, newest first; `at_most` is a number."""
        yield csv_lines([CSV_COLUMNS])
        after: str | None = query.after
        left = at_most
        while after is not None and left != 0:
            limit = min(left or _EXPORTED_TOGETHER, _EXPORTED_TOGETHER)
            page = await self.page(
                msgspec.structs.replace(query, after=after, limit=limit, scan=None)
            )
            lines = [
                csv_lines(map(_csv_row, some))
                async for some in in_slices(page.data, _SLICE_RECORDS)
            ]
            yield "".join(lines)
            after, left = page.next, left - len(page.data) if left is not None else None

    async def export_sums(self, query: SumQuery) -> str:
        """Return all sums as CSV."""
        wanted = msgspec.structs.replace(query, after=0, limit=MAX_PAGE_ROWS)
        text = csv_lines([SumOut.__struct_fields__])
        after: str | None = "0"
        while after is not None:
            page = await self.sums(msgspec.structs.replace(wanted, after=int(after)))
            async for some in in_slices(page.data, _SLICE_RECORDS):
                text += csv_lines(map(msgspec.structs.astuple, some))
            after = page.next
        return text

    async def total(self, query: UsageQuery) -> SumOut:
        """Sum up the matching records of the log."""
        query = await self._resolved(query)
        return _sum("total", await self.ledger.total(query.query()))

    async def sums(self, query: SumQuery) -> Page[SumOut]:
        """Return sums, the most expensive first; days in their order."""
        since, until = self._days(query.since, query.until)
        end = query.after + query.limit
        order: Sequence[str]
        if query.by == "day":
            found = await self.ledger.totals("day", since=since, until=until)
            order = sorted(found)
        else:
            order = await self._ranked(query, since, until)
            names = order[query.after : end]
            found = await self.ledger.totals(query.by, since=since, until=until, names=names)
        shown = [name for name in order[query.after : end] if name in found]
        page = [_sum(name, found[name]) for name in shown]
        if query.by == "principal":
            page = await self._labelled(page)
        return Page(page, str(end) if end < len(order) else None)

    async def compare(self, query: SumQuery) -> Page[ComparedSum]:
        """Return sums as `sums` does, each with that of as many days before."""
        since, until = self._days(query.since, query.until)
        page = await self.sums(query)
        first = since - (until - since) - timedelta(days=1)
        names = [row.name for row in page.data]
        if query.by == "day":  # the day of the period before that is at the same place
            names = [(date.fromisoformat(name) - (since - first)).isoformat() for name in names]
        before = await self.ledger.totals(
            query.by, since=first, until=since - timedelta(days=1), names=names
        )
        rows = [
            ComparedSum(row, _sum(name, before.get(name, Totals())))
            for row, name in zip(page.data, names, strict=True)
        ]
        return Page(rows, page.next)

    async def _ranked(self, query: SumQuery, since: date, until: date) -> Sequence[str]:
        """Return the names of sums in their order; at most a second old."""
        if query.name is None:
            key = (query.by, since, until)
            return await self._rankings.get(
                key, lambda: self.ledger.ranking(query.by, since=since, until=until)
            )
        wanted = query.by == "principal" and query.name
        return [await self.principal(query.name) if wanted else query.name]

    async def daily(self, query: DailyQuery) -> Page[SumOut]:
        """Return sums of each day, in their order; `name` of a sum is the day."""
        names = None if query.name is None else [query.name]
        if query.by == "principal" and query.name:
            names = [await self.principal(query.name)]
        return await self.days_of(query.by, names, query.since, query.until)

    async def days_of(
        self, by: By, names: list[str] | None, since: date | None, until: date | None
    ) -> Page[SumOut]:
        """Return sums of each day, of the exchanges of all `names` together."""
        since, until = self._days(since, until)
        found = await self.ledger.daily(by, since=since, until=until, names=names)
        return Page([_sum(day.isoformat(), totals) for day, totals in found.items()])

    def _days(self, since: date | None, until: date | None) -> tuple[date, date]:
        """Return a valid period; raises APIError if it is too long, or ends before it begins."""
        until = until or datetime.fromtimestamp(self._clock(), UTC).date()
        if until < _EARLIEST:
            raise invalid(f"until: must be {_EARLIEST} or later.", "until")
        since = since or until - timedelta(days=_DEFAULT_DAYS - 1)
        if not 0 <= (until - since).days < _MAX_DAYS:
            raise invalid(
                f"since: must be a day from {_MAX_DAYS} days before until, to until.", "since"
            )
        return since, until

    async def principal(self, id_or_name: str) -> str:
        """Return the id of the token with this id or name.

        A name that no token has is returned unchanged, because it may be the name of a caller of
        the configuration. Raises APIError if several tokens have the name.
        """
        if not id_or_name or await self._tokens.table.find(id_or_name) is not None:
            return id_or_name
        found: list[str] = []
        after = ""
        while rows := await self._store.page(TOKENS, after, _NAMES_TOGETHER):
            found += [id for id, row in rows.items() if _decode_name(row).name == id_or_name]
            after = list(rows)[-1]
            await give_way()
        if len(found) > 1:
            ids = ", ".join(found[:5])
            raise invalid(
                f"principal: {len(found)} tokens are named {id_or_name!r}: {ids}.", "principal"
            )
        return found[0] if found else id_or_name

    async def _resolved(self, query: UsageQuery) -> UsageQuery:
        principal = await self.principal(query.principal)
        return msgspec.structs.replace(query, principal=principal)

    async def _names(self, ids: Collection[str]) -> dict[str, str]:
        """Return the names of the tokens that exist."""
        rows = await self._store.rows(TOKENS, ids)
        return {id: _decode_name(row).name for id, row in rows.items()}

    async def _labelled(self, sums: list[SumOut]) -> list[SumOut]:
        """Return sums by caller, labelled with the names of tokens that exist."""
        names = await self._names([item.name for item in sums])
        return [
            msgspec.structs.replace(item, label=names.get(item.name, item.name)) for item in sums
        ]


class _Named(msgspec.Struct):
    """The name of a token."""

    name: str = ""


_decode_name = msgspec.json.Decoder(_Named).decode

# Of the members of usage records; times are in UTC, tokens in columns of their own.
_TOKENS = ("input", "output", "cache_read", "cache_write", "reasoning")
_AFTER_TOKENS = ("usd", "units", "estimated", "not_charged", "first_content", "longest_pause")
_BEFORE_TOKENS = (
    *("request_id", "principal", "account", "group", "face", "operation", "requested_model"),
    *("upstream_model", "provider", "key_id", "outcome", "status", "error", "attempts"),
    *("session",),
)
CSV_COLUMNS = ("started", *_BEFORE_TOKENS, "tags", *_TOKENS, *_AFTER_TOKENS, "duration")


def _csv_row(record: RecordOut) -> Sequence[Cell]:
    usage = record.usage
    tags = "; ".join(f"{name}={value}" for name, value in sorted(record.tags.items()))
    return (
        csv_time(record.started),
        *(_plain(getattr(record, name)) for name in _BEFORE_TOKENS),
        tags,
        *(getattr(usage, name) if usage is not None else None for name in _TOKENS),
        *(getattr(record, name) for name in _AFTER_TOKENS),
        round(record.duration, 3),
    )


def _plain(value: Any) -> Cell:
    return value.value if isinstance(value, Enum) else value  # type: ignore[no-any-return]


def invalid_cursor_error(after: str) -> APIError:
    """Return the error for a position that the log does not have."""
    return invalid(f"after: the record {after!r} does not exist.", "after")


def to_record_out(record: UsageRecord, near: str = "") -> RecordOut:
    """Convert a record, with its cost in dollars and its position in the log."""
    fields: dict[str, Any] = msgspec.structs.asdict(record)
    usd = record.cost / MICRO if record.cost is not None else None
    return RecordOut(**fields, usd=usd, near=near)


def _sum(name: str, totals: Totals) -> SumOut:
    return SumOut(name=name, **sum_members(totals))


def sum_members(totals: Totals) -> dict[str, Any]:
    """The members that all sums of exchanges have, with amounts in dollars."""
    return {
        "requests": totals.requests,
        "failed": totals.failed,
        "input": totals.input,
        "output": totals.output,
        "usd": totals.cost / MICRO,
        "not_charged_usd": totals.not_charged / MICRO,
        "units": totals.units,
    }
