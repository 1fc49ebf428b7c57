"""What happens now, in all workers: the last minutes of the log, summed up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from asgi_aiproxy.services.shared import SharedResults
from asgi_aiproxy.services.usage import RecordOut, to_record_out
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.usage.ledger import Ledger, Query
from asgi_aiproxy.usage.record import Outcome, UsageRecord

_MAX_RECORDS = 2000  # that are examined
_SHOWN_FAILURES = 5


class RecentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of the last minutes to sum up."""

    minutes: Annotated[float, Meta(gt=0, le=60)] = 5.0


class ProviderShare(msgspec.Struct, frozen=True):
    """The exchanges that a provider answered, and how many of them failed."""

    provider: str
    requests: int
    failed: int


class RecentOut(msgspec.Struct, frozen=True, kw_only=True):
    """The exchanges that ended in the last `minutes`, in all workers.

    `complete` is False if there were more than are examined; then the figures are those of the
    latest ones. `first_byte_p50` and `first_byte_p95` are seconds until the first content.
    """

    minutes: float
    requests: int
    failed: int
    refused: int
    per_minute: float
    first_byte_p50: float | None
    first_byte_p95: float | None
    usd: float
    complete: bool
    providers: list[ProviderShare]
    failures: list[RecordOut]


class RecentService:
    """Sums up the latest records of the ledger `ledger` in `store`. Raises StoreUnavailableError.

    `clock` returns Unix time.
    """

    def __init__(
        self, store: Store, ledger: str = "ledger", *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = Ledger(store, name=ledger)
        self._clock = clock
        self._results: SharedResults[RecentOut] = SharedResults()

    async def recent(self, query: RecentQuery) -> RecentOut:
        """Return the sums of the last minutes, at most a second old."""
        return await self._results.get(query, lambda: self._recent(query))

    async def _recent(self, query: RecentQuery) -> RecentOut:
        since = self._clock() - query.minutes * 60
        page = await self._ledger.query(Query(since=since), limit=_MAX_RECORDS, scan=_MAX_RECORDS)
        records = page.records
        oldest = min((record.started for record in records), default=since)
        full = len(records) >= _MAX_RECORDS
        seconds = max(self._clock() - oldest, 1.0) if full else query.minutes * 60
        first = sorted(each.first_byte for each in records if each.first_byte is not None)
        failures = [
            (record, near)
            for record, near in zip(records, page.near, strict=True)
            if record.outcome is Outcome.FAILED
        ]
        return RecentOut(
            minutes=query.minutes,
            requests=len(records),
            failed=len(failures),
            refused=sum(record.outcome is Outcome.REFUSED for record in records),
            per_minute=round(len(records) / seconds * 60, 1),
            first_byte_p50=_quantile(first, 0.5),
            first_byte_p95=_quantile(first, 0.95),
            usd=sum(record.cost or 0 for record in records) / 1_000_000,
            complete=not full,
            providers=_shares(records),
            failures=[to_record_out(*each) for each in failures[:_SHOWN_FAILURES]],
        )


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(int(len(values) * share), len(values) - 1)] if values else None


def _shares(records: Sequence[UsageRecord]) -> list[ProviderShare]:
    counts: dict[str, tuple[int, int]] = {}
    for record in records:
        if record.provider:
            requests, failed = counts.get(record.provider, (0, 0))
            failed += record.outcome is Outcome.FAILED
            counts[record.provider] = requests + 1, failed
    return [ProviderShare(name, *counts[name]) for name in sorted(counts)]
