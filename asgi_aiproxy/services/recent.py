"""What happens now, in all workers: the last minutes of the log, summed up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from asgi_aiproxy._slices import in_slices
from asgi_aiproxy.services.shared import SharedResults
from asgi_aiproxy.services.usage import RecordOut, to_record_out
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.usage.ledger import Ledger, Query
from asgi_aiproxy.usage.record import Outcome, UsageRecord

_MAX_RECORDS = 2000  # that are examined
_READ_TOGETHER = 100
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
        sums = _Sums(oldest=since)
        after: str | None = ""
        left = _MAX_RECORDS
        while after is not None and left > 0:
            page = await self._ledger.query(
                Query(since=since), after=after, limit=_READ_TOGETHER, scan=_READ_TOGETHER
            )
            async for some in in_slices(zip(page.records, page.near, strict=True), 20):
                for record, near in some:
                    sums.add(record, near)
            after = page.after or None
            left -= _READ_TOGETHER
        full = sums.requests >= _MAX_RECORDS
        seconds = max(self._clock() - sums.oldest, 1.0) if full else query.minutes * 60
        first = sorted(sums.first_bytes)
        return RecentOut(
            minutes=query.minutes,
            requests=sums.requests,
            failed=sums.failed,
            refused=sums.refused,
            per_minute=round(sums.requests / seconds * 60, 1),
            first_byte_p50=_quantile(first, 0.5),
            first_byte_p95=_quantile(first, 0.95),
            usd=sums.cost / 1_000_000,
            complete=not full,
            providers=[
                ProviderShare(name, *counts) for name, counts in sorted(sums.providers.items())
            ],
            failures=[to_record_out(*each) for each in sums.failures],
        )


class _Sums(msgspec.Struct, kw_only=True):
    """Sums of records, which are added newest first. `oldest` is the earliest start."""

    oldest: float
    requests: int = 0
    failed: int = 0
    refused: int = 0
    cost: int = 0
    first_bytes: list[float] = []
    providers: dict[str, tuple[int, int]] = {}  # requests and failures
    failures: list[tuple[UsageRecord, str]] = []  # the latest, each with its position

    def add(self, record: UsageRecord, near: str) -> None:
        """Add one record."""
        failed = record.outcome is Outcome.FAILED
        self.requests += 1
        self.failed += failed
        self.refused += record.outcome is Outcome.REFUSED
        self.cost += record.cost or 0
        self.oldest = min(self.oldest, record.started) if self.requests > 1 else record.started
        if record.first_byte is not None:
            self.first_bytes.append(record.first_byte)
        if record.provider:
            requests, failures = self.providers.get(record.provider, (0, 0))
            self.providers[record.provider] = requests + 1, failures + failed
        if failed and len(self.failures) < _SHOWN_FAILURES:
            self.failures.append((record, near))


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(int(len(values) * share), len(values) - 1)] if values else None
