"""`Ledger`: usage records in a store, and their sums by day.

Theory of operation:

1. *Take.* A shim hands over each record; the ledger prices it, unless `Quota` has done so, and puts
   it into a queue. The caller never waits for the store.
2. *Gather.* Every 0.1 s the waiting records of each UTC day become one batch: their sums by
   principal, account, model, provider, key, session, tag and day are added up in this process.
3. *Write.* A batch is an addition to the sums of its day, and one entry in a log for each record.
   The log keeps the last `max_records` records, for `retention_seconds`; sums are kept for
   `sums_retention_seconds`. While the store is unavailable, batches wait and are retried.
4. *Once.* The addition carries the id of the batch, by which the store applies it once. Log entries
   carry no such id, because remembering each would cost more: before a batch is written again, the
   log is searched for those of its records that the first attempt has left there. An entry that
   was written twice nevertheless is recognized by its record's id within a page.

So sums are exact for as long as they are kept; single records are a window onto the latest ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from typing import Literal, Self

import msgspec

from asgi_aiproxy._retry_queue import RetryQueue
from asgi_aiproxy._slices import give_way, in_slices, taken, taken_items
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.prices import Pricing
from asgi_aiproxy.stores.base import Store, StoreUnavailableError, check_store
from asgi_aiproxy.stores.retention import trim_log
from asgi_aiproxy.usage.log_search import written_ids
from asgi_aiproxy.usage.pricing import cost_of, priced_record
from asgi_aiproxy.usage.record import UsageRecord
from asgi_aiproxy.usage.sums import By, DailySums, Totals, names_of_sums, sums_account

State = Literal["done", "cut", "failed", "refused", "estimated", "not_charged"]

_READ_ROWS = 200  # records that are read from the store together
_DAYS = 5  # of which sums of some names are read together
_DECODED = 10  # records that are decoded without giving way
_SECONDS_PER_DAY = 86400.0
_TRIM_SECONDS = 60.0  # between two searches for records that are too old
_decode = msgspec.json.Decoder(UsageRecord).decode
_encode = msgspec.json.Encoder().encode


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter of usage records: all given fields must match.

    `since` and `until` are Unix times that limit the start, `principals` the callers of which each
    matches, and `tag` is written `name=value`. `request` is the id of a request, or of its record.
    `state` is an outcome, or `estimated` or `not_charged`, which apply in addition to an outcome.
    """

    principal: str = ""
    account: str = ""
    group: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    state: State | Literal[""] = ""
    since: float | None = None
    until: float | None = None
    principals: tuple[str, ...] = ()
    session: str = ""
    tag: str = ""
    request: str = ""

    def matches(self, record: UsageRecord) -> bool:
        """Whether a record matches."""
        return (
            self.request in ("", record.request_id, record.id)
            and self.principal in ("", record.principal)
            and (not self.principals or record.principal in self.principals)
            and self.account in ("", record.account)
            and self.session in ("", record.session)
            and (not self.tag or self.tag in _tags(record))
            and self.group in ("", record.group)
            and self.provider in ("", record.provider)
            and self.model in ("", record.model, record.requested_model, record.upstream_model)
            and self.key in ("", record.key_id)
            and (not self.state or self.state in record_states(record))
            and (self.since is None or record.started >= self.since)
            and (self.until is None or record.started < self.until)
        )


EVERYTHING = Query()


class Page(msgspec.Struct, frozen=True):
    """Records, and `after`, the position of the next page: empty on the last page.

    `near` has a position for each record, which makes `find` quick.
    """

    records: list[UsageRecord]
    after: str = ""
    near: list[str] = []


class Ledger:
    """A sink that keeps usage records in a store: pass it to a shim as `record=`.

    The last `max_records` records are kept one by one, for `retention_seconds` (None: without a
    time limit), and sums by day for `sums_retention_seconds` after their last change. `prices` and
    `ratios` price records that no `Quota` has priced. Records are written in the background; while
    the store is unavailable they wait; in the sums each is counted once. Raises ConfigurationError
    if a limit is not positive.
    """

    def __init__(
        self,
        store: Store,
        *,
        prices: Pricing | None = None,
        ratios: Pricing | None = None,
        name: str = "ledger",
        max_records: int = 100_000,
        retention_seconds: float | None = None,
        sums_retention_seconds: float = 400 * _SECONDS_PER_DAY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_store(store, "Ledger")
        limits = (max_records, sums_retention_seconds, retention_seconds or 1)
        if min(limits) <= 0 or retention_seconds == 0:
            raise ConfigurationError(
                "Ledger: max_records, retention_seconds and sums_retention_seconds must be > 0."
            )
        self._store = store
        self._prices = prices
        self._ratios = ratios
        self._name = name
        self._max_records = max_records
        self._retention = retention_seconds
        self._sums_retention = sums_retention_seconds
        self._clock = clock
        self._sums = DailySums(name)
        self._trim_due = 0.0
        self._backlog: RetryQueue[_Batch] = RetryQueue(
            self._write, what="batches of usage records", max_items=10_000, batch_size=16
        )
        self._gathering: RetryQueue[UsageRecord] = RetryQueue(
            self._gather, what="usage records", batch_delay=0.1
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drain()

    @property
    def waiting(self) -> int:
        """The number of records, and of batches of them, that are not written yet."""
        return len(self._gathering) + len(self._backlog)

    async def __call__(self, record: UsageRecord) -> None:
        """Queue a record."""
        self._gathering.put(self._priced(record))

    async def drain(self, timeout: float = 3.0) -> None:
        """Wait until all records are written, or for `timeout` seconds."""
        await self._gathering.drain(timeout)
        await self._backlog.drain(timeout)

    # reading

    async def query(
        self,
        query: Query = EVERYTHING,
        *,
        after: str = "",
        limit: int = 100,
        scan: int | None = None,
    ) -> Page:
        """Matching records, newest first; `after` is the position from the previous page.

        With `scan`, about so many records are examined at most: then a page may have fewer than
        `limit` matches and still be followed by others. Raises StoreUnavailableError.
        """
        found: list[UsageRecord] = []
        near: list[str] = []
        oldest = self._oldest()
        seen: set[str] = set()
        examined = 0
        size = min(limit + 1, _READ_ROWS)  # often enough; others follow if it is not
        while True:
            before = after
            rows = await self._store.read(self._name, after, size, newest=True)
            async for some in in_slices(rows, _DECODED):
                for after, value in some:
                    record = _decode(value)
                    kept = record.started >= oldest and record.id not in seen
                    if kept and query.matches(record):
                        seen.add(record.id)
                        found.append(record)
                        near.append(before)
                        if len(found) >= limit:
                            return Page(found, after, near)
                    before = after
            examined += len(rows)
            if len(rows) < size:
                return Page(found, "", near)
            if scan is not None and examined >= scan:
                return Page(found, after, near)
            size = _READ_ROWS

    async def find(
        self, id: str, *, near: str = "", query: Query = EVERYTHING
    ) -> UsageRecord | None:
        """Return the record with this id or request id, None if the log does not have it any more.

        It must match `query`: callers choose request ids, so several records may have the same one.
        `near` is its position, from `Page.near`; without it, the log is searched from the newest
        record on. Raises StoreUnavailableError, and ValueError for an invalid position.
        """
        wanted, oldest = id.encode("utf-8", "replace"), self._oldest()
        while True:
            rows = await self._store.read(self._name, near, _READ_ROWS, newest=True)
            # (Searching all rows at once is much faster than decoding each.)
            if wanted in b"\n".join([value for _, value in rows]):
                for _, value in rows:
                    record = _decode(value) if wanted in value else None
                    if record is None or id not in (record.id, record.request_id):
                        continue
                    if record.started >= oldest and query.matches(record):
                        return record
            await give_way()
            if len(rows) < _READ_ROWS:
                return None
            near = rows[-1][0]

    async def total(self, query: Query = EVERYTHING) -> Totals:
        """Sum up the matching records that are kept one by one. Raises StoreUnavailableError."""
        totals = Totals()
        seen: set[str] = set()
        after = ""
        while True:
            page = await self.query(query, after=after, limit=_READ_ROWS)
            for record in page.records:
                if record.id not in seen:  # it may have been written twice
                    seen.add(record.id)
                    totals.add(record)
            after = page.after
            if not after:
                return totals

    async def totals(
        self,
        by: By,
        *,
        since: date,
        until: date,
        names: Iterable[str] | None = None,
    ) -> dict[str, Totals]:
        """Sums of the days (UTC) from `since` to `until`, both included, by the names of `by`.

        With `names`, only of those; the name of a key is `provider/key`. Exact for as long as sums
        are kept. Raises StoreUnavailableError.
        """
        if by == "day":
            sums = await self.daily(by, since=since, until=until)
            return {day.isoformat(): totals for day, totals in sums.items() if totals.requests}
        names = list(names) if names is not None else None
        found: dict[str, Totals] = {}
        for ranked in (True, False):
            await self._add_up(found, by, since, until, names, ranked=ranked)
        return found

    async def ranking(self, by: By, *, since: date, until: date) -> list[str]:
        """The names of `by` in the days (UTC) from `since` to `until`, both included, the most
        expensive first. Raises StoreUnavailableError.
        """
        found: dict[str, Totals] = {}
        await self._add_up(found, by, since, until, None, ranked=True)
        ranks = [
            sorted(((-t.cost, -t.units, -t.requests, name) for name, t in some), reverse=True)
            async for some in in_slices(taken_items(found))
        ]
        ranked = merge(*map(taken, ranks))
        return [rank[-1] async for some in in_slices(ranked) for rank in some]

    async def _add_up(
        self,
        found: dict[str, Totals],
        by: By,
        since: date,
        until: date,
        names: Iterable[str] | None,
        *,
        ranked: bool,
    ) -> None:
        """Add stored sums to those found, by name."""
        # Names are added up before they are taken apart, as most are of several days.
        added: dict[str, int] = {}
        async for _, amounts in self._stored(by, since, until, names, ranked=ranked):
            async for some in in_slices(amounts.items()):
                for full, amount in some:
                    added[full] = added.get(full, 0) + amount
        async for some in in_slices(taken_items(added)):
            for full, amount in some:
                field, _, name = full.partition("/")
                totals = found.get(name)
                if totals is None:
                    totals = found[name] = Totals()
                setattr(totals, field, amount)

    async def daily(
        self, by: By, *, since: date, until: date, names: Iterable[str] | None = None
    ) -> dict[date, Totals]:
        """Sums of `names` together for each day (UTC) from `since` to `until`, both included.

        Raises StoreUnavailableError.
        """
        wanted = [""] if by == "day" else list(names) if names is not None else None
        found: dict[date, Totals] = {}
        for ranked in (True, False):
            async for day, amounts in self._stored(by, since, until, wanted, ranked=ranked):
                totals = found.setdefault(day, Totals())
                async for some in in_slices(amounts.items()):
                    for full, amount in some:
                        field = full.partition("/")[0]
                        setattr(totals, field, getattr(totals, field) + amount)
        return found

    async def _stored(
        self, by: By, since: date, until: date, names: Iterable[str] | None, *, ranked: bool
    ) -> AsyncIterator[tuple[date, dict[str, int]]]:
        """Yield the stored sums of each day. All names of a day may be many, so they are read day
        by day; the sums of some names are read for several days together.
        """
        days = [since + timedelta(days=n) for n in range((until - since).days + 1)]
        wanted = names_of_sums(names, ranked=ranked) if names is not None else None
        size = _DAYS if wanted is not None else 1
        for start in range(0, len(days), size):
            some = days[start : start + size]
            accounts = [sums_account(self._name, str(day), by, ranked=ranked) for day in some]
            sums = await asyncio.gather(*(self._store.sums(each, wanted) for each in accounts))
            for found in zip(some, sums, strict=True):
                yield found

    # writing

    def _priced(self, record: UsageRecord) -> UsageRecord:
        if record.cost is None and self._prices is not None:
            record = priced_record(record, self._prices)
        units = record.units
        if units is None and self._ratios is not None:
            units = cost_of(record, self._ratios)
        if units == record.units:
            return record
        return msgspec.structs.replace(record, units=units)

    def _oldest(self) -> float:
        """The Unix time from which on records are kept one by one."""
        return self._clock() - self._retention if self._retention is not None else 0.0

    async def _gather(self, records: list[UsageRecord]) -> list[UsageRecord]:
        """Make one batch of the records of each day."""
        by_day: dict[str, list[UsageRecord]] = {}
        for record in records:
            started = record.started or self._clock()
            day = datetime.fromtimestamp(started, UTC).date().isoformat()
            by_day.setdefault(day, []).append(record)
        for day, some in by_day.items():
            self._backlog.put(_Batch(some[0].id, some, self._sums.add_up(day, some)))
        return []

    async def _write(self, batches: list[_Batch]) -> list[_Batch]:
        again = [record for batch in batches if batch.again for record in batch.records]
        try:
            present = await written_ids(self._store, self._name, again) if again else set()
        except StoreUnavailableError:
            return batches
        done = await asyncio.gather(*(self._write_one(batch, present) for batch in batches))
        await self._trim()
        return [
            msgspec.structs.replace(batch, again=True)
            for batch, written in zip(batches, done, strict=True)
            if not written
        ]

    async def _write_one(self, batch: _Batch, present: Collection[str]) -> bool:
        results = await asyncio.gather(
            *(
                self._store.add(account, sums, ttl=self._sums_retention, once=batch.id)
                for account, sums in batch.sums.items()
            ),
            *(
                # (Without an id: see "Once" above.)
                self._store.append(self._name, _encode(record), maxlen=self._max_records)
                for record in batch.records
                if record.id not in present
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, StoreUnavailableError):
                raise result
        return not any(isinstance(result, BaseException) for result in results)

    async def _trim(self) -> None:
        """Remove the records that are too old, at most once a minute."""
        now = self._clock()
        if self._retention is not None and now >= self._trim_due:
            self._trim_due = now + _TRIM_SECONDS
            oldest = self._oldest()
            with suppress(StoreUnavailableError):
                await trim_log(
                    self._store, self._name, lambda value: _decode(value).started < oldest
                )


class _Batch(msgspec.Struct, frozen=True):
    """Records of one day that are written together; `again`: an attempt has failed."""

    id: str
    records: list[UsageRecord]
    sums: dict[str, dict[str, int]]
    again: bool = False


def _tags(record: UsageRecord) -> list[str]:
    return [f"{name}={value}" for name, value in record.tags.items()]


def record_states(record: UsageRecord) -> frozenset[str]:
    """The states of a record that a `Query` may filter by."""
    more = {"estimated": record.estimated, "not_charged": record.not_charged}
    return frozenset({record.outcome.value, *(name for name, so in more.items() if so)})
