"""Counts exchanges in plain numbers, and adds them to the counters of Prometheus together.

Theory of operation. A call of prometheus-client takes some microseconds: it looks up the labels,
takes a lock, and checks its arguments. So an exchange that ends only appends its usage record to a
queue. Records are counted some dozens at a time: the exchanges of one combination of labels are
summed up in a `Series`, times as the number of those in each bucket of a histogram. Series are
added to the metrics once a second, and when these are read, so that a reader sees each exchange
that has ended. `Collector` is registered before all metrics of ours, so it is read before them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from asgi_aiproxy.usage.record import Attempt, Outcome, UsageRecord

logger = logging.getLogger("asgi_aiproxy")

# Upper bounds of the buckets of histograms, in seconds; a last bucket has what is above them.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKEN_TYPES = ("input", "output", "cache_read", "cache_write", "reasoning")
_FLUSH_SECONDS = 1.0
_COUNTED_TOGETHER = 50  # records
_WRITTEN_TOGETHER = 20  # series
_PAUSE_SECONDS = 0.005  # between these

Key = tuple[str, str, str, str, str]  # face, operation, provider, model, outcome


class Times:
    """How many times are in each bucket, and their sum in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0


class Series:
    """What has been counted for one combination of labels since the last flush."""

    __slots__ = (
        *("key", "count", "refused", "attempts", "first_attempts", "durations", "firsts", "gaps"),
        *(*TOKEN_TYPES, "cost", "priced", "unpriced"),
    )

    def __init__(self, key: Key) -> None:
        self.key = key
        self.clear()

    def clear(self) -> None:
        """Begin again."""
        self.count = self.cost = self.priced = self.unpriced = 0
        self.input = self.output = self.cache_read = self.cache_write = self.reasoning = 0
        self.durations = Times()
        self.firsts = Times()
        self.gaps = Times()
        self.first_attempts = 0  # that were the answer
        self.attempts: Counter[tuple[str, str]] = Counter()  # the other ones
        self.refused: Counter[int] = Counter()

    def add(self, record: UsageRecord, cost: int | None) -> None:
        """Count one exchange."""
        self.count += 1
        times = self.durations
        times.counts[bisect_left(SECONDS, record.duration)] += 1
        times.total += record.duration
        if record.outcome is Outcome.REFUSED:
            self.refused[record.status] += 1
        if record.first_content is not None:
            times = self.firsts
            times.counts[bisect_left(SECONDS, record.first_content)] += 1
            times.total += record.first_content
            times = self.gaps
            times.counts[bisect_left(SECONDS, record.longest_pause)] += 1
            times.total += record.longest_pause
        if record.attempt_details:
            for attempt in record.attempt_details:
                self.attempts[attempt.provider or "none", result_of(attempt)] += 1
        elif record.attempts:
            self.first_attempts += 1
        usage = record.usage
        if usage is None:
            return
        self.input += usage.input
        self.output += usage.output
        if usage.cache_read or usage.cache_write or usage.reasoning:
            self.cache_read += max(usage.cache_read, 0)
            self.cache_write += max(usage.cache_write, 0)
            self.reasoning += max(usage.reasoning, 0)
        if cost is None:
            self.unpriced += 1
        else:
            self.priced += 1
            self.cost += cost


def result_of(attempt: Attempt) -> str:
    """The value of the label `result`."""
    return str(attempt.status) if 100 <= attempt.status < 600 else "no_response"


class Collector:
    """Counts exchanges by their labels: a usage sink, and a collector of prometheus-client.

    `key_of` returns the labels of an exchange, `cost_of` its cost in micro-dollars; `write` adds a
    series to the metrics. With `at_once` that happens as soon as the event loop is free: the files
    of several processes are read by others, and remain when one ends.

    Other threads may read the metrics.
    """

    def __init__(
        self,
        key_of: Callable[[UsageRecord], Key],
        cost_of: Callable[[UsageRecord], int | None],
        write: Callable[[Series], None],
        *,
        at_once: bool,
    ) -> None:
        self._key_of = key_of
        self._cost_of = cost_of
        self._write = write
        self._delay = 0.0 if at_once else _FLUSH_SECONDS
        self._waiting: deque[UsageRecord] = deque()
        self._series: dict[Key, Series] = {}
        self._dirty: list[Series] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    # the interface of a usage sink

    def queue_record(self, record: UsageRecord, loop: asyncio.AbstractEventLoop) -> None:
        """Queue an exchange, to be counted with others."""
        self._waiting.append(record)
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(self._delay, self._flush_later)
        elif len(self._waiting) >= _COUNTED_TOGETHER:
            with self._lock:
                self._count()

    async def __call__(self, record: UsageRecord) -> None:
        """Queue an exchange."""
        self.queue_record(record, asyncio.get_running_loop())

    def drain(self) -> None:
        """Add to the metrics what was counted."""
        self.flush()

    # the interface of a collector of prometheus-client

    def describe(self) -> Iterable[Any]:
        """Return no metrics: there are none of its own."""
        return ()

    def collect(self) -> Iterable[Any]:
        """Add what was counted, before the metrics that follow are read."""
        self.flush()
        return ()

    def flush(self) -> None:
        """Add to the metrics what was counted."""
        with self._lock:
            self._count()
            self._write_some(len(self._dirty))

    def _flush_later(self) -> None:
        """Add to the metrics what was counted, a few series at a time."""
        self._timer = None
        with self._lock:
            self._count()
            self._write_some(_WRITTEN_TOGETHER)
            if self._dirty and self._loop is not None:
                self._timer = self._loop.call_later(_PAUSE_SECONDS, self._flush_later)

    def _count(self) -> None:
        while self._waiting:
            record = self._waiting.popleft()
            try:
                key, cost = self._key_of(record), self._cost_of(record)
            except Exception:  # of a pricing that was given
                logger.exception("an exchange is missing in the metrics: %r", record)
                continue
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = Series(key)
            if not series.count:
                self._dirty.append(series)
            series.add(record, cost)

    def _write_some(self, count: int) -> None:
        for _ in range(min(count, len(self._dirty))):
            series = self._dirty.pop()
            try:
                self._write(series)
            except Exception:  # what cannot be written does not stop the others
                logger.exception("metrics of %s are lost", series.key)
            finally:
                series.clear()
