"""`BatchHistogram`: a Prometheus histogram to which many observations are added together."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Histogram


class BatchHistogram(Histogram):
    """A histogram whose observations were counted elsewhere."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add observations: how many are in each bucket, the last one without an upper bound, and
        the sum of their values.
        """
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
