"""Counts exchanges in plain numbers, and adds them to the counters of Prometheus together.

Theory of operation. A call of prometheus-client takes some microseconds: it looks up the labels,
takes a lock, and checks its arguments. So the exchanges of one combination of labels are summed up
in a `Series`, times as the number of those in each bucket of a histogram, and added once a second,
or when the metrics are read. `Collector` is registered before all metrics of ours, so it is read
before them.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from asgi_aiproxy.usage.record import Attempt, Outcome, UsageRecord

# Upper bounds of the buckets of histograms, in seconds; a last bucket has what is above them.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKEN_TYPES = ("input", "output", "cache_read", "cache_write", "reasoning")
_FLUSH_SECONDS = 1.0

Key = tuple[str, str, str, str, str]  # face, operation, provider, model, outcome


class Times:
    """How many times are in each bucket, and their sum in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class Series:
    """What has been counted for one combination of labels since the last flush."""

    __slots__ = (
        "attempts",
        "cost",
        "count",
        "durations",
        "firsts",
        "gaps",
        "key",
        "priced",
        "refused",
        "tokens",
        "unpriced",
    )

    def __init__(self, key: Key) -> None:
        self.key = key
        self.clear()

    def clear(self) -> None:
        """Begin again."""
        self.count = self.cost = self.priced = self.unpriced = 0
        self.durations = Times()
        self.firsts = Times()
        self.gaps = Times()
        self.tokens = [0] * len(TOKEN_TYPES)
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[int] = Counter()

    def add(self, record: UsageRecord, cost: int | None) -> None:
        """Count one exchange."""
        self.count += 1
        self.durations.add(record.duration)
        if record.outcome is Outcome.REFUSED:
            self.refused[record.status] += 1
        if record.first_content is not None:
            self.firsts.add(record.first_content)
            self.gaps.add(record.longest_pause)
        if record.attempt_details:
            for attempt in record.attempt_details:
                self.attempts[attempt.provider or "none", result_of(attempt)] += 1
        elif record.attempts:  # the first one was the answer
            self.attempts[self.key[2], "200"] += 1
        usage = record.usage
        if usage is None:
            return
        tokens = self.tokens
        tokens[0] += max(usage.input, 0)
        tokens[1] += max(usage.output, 0)
        if usage.cache_read or usage.cache_write or usage.reasoning:
            for index in range(2, len(TOKEN_TYPES)):
                tokens[index] += max(getattr(usage, TOKEN_TYPES[index]), 0)
        if cost is None:
            self.unpriced += 1
        else:
            self.priced += 1
            self.cost += cost


def result_of(attempt: Attempt) -> str:
    """The value of the label `result`."""
    return str(attempt.status) if 100 <= attempt.status < 600 else "no_response"


class Collector:
    """Counts exchanges by their labels; `write` adds a series to the metrics, with `at_once` after
    each exchange: the files of several processes are read by others, and remain when one ends.

    Other threads may read the metrics.
    """

    def __init__(self, write: Callable[[Series], None], *, at_once: bool) -> None:
        self._write = write
        self._at_once = at_once
        self._loop: asyncio.AbstractEventLoop | None = None
        self._series: dict[Key, Series] = {}
        self._dirty: list[Series] = []
        self._lock = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, key: Key, record: UsageRecord, cost: int | None) -> None:
        """Count one exchange."""
        with self._lock:
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = Series(key)
            first = not series.count
            if first:
                self._dirty.append(series)
            series.add(record, cost)
        if first and not self._at_once:
            loop = asyncio.get_running_loop()
            if self._timer is None or self._loop is not loop:
                self._loop = loop
                self._timer = loop.call_later(_FLUSH_SECONDS, self._flush_later)
        elif self._at_once:
            self.flush()

    def _flush_later(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Add to the metrics what was counted."""
        with self._lock:
            while self._dirty:
                series = self._dirty.pop()
                try:
                    self._write(series)
                finally:  # what cannot be written does not stop the others
                    series.clear()

    # the interface of a collector of prometheus-client

    def describe(self) -> Iterable[Any]:
        """Return no metrics: there are none of its own."""
        return ()

    def collect(self) -> Iterable[Any]:
        """Add what was counted, before the metrics that follow are read."""
        self.flush()
        return ()
