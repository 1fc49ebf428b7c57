"""A log in MemoryStore: records with numbers that follow each other without a gap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

Numbered = tuple[int, bytes]


class MemoryLog:
    """Records in order of arrival. The first number after `records` is one more than the last."""

    def __init__(self, records: Iterable[Numbered] = ()) -> None:
        self._records = deque(records)
        self._number = self._records[-1][0] if self._records else 0

    def append(self, record: bytes, maxlen: int | None) -> None:
        """Append a record; the last `maxlen` are kept."""
        self._number += 1
        self._records.append((self._number, record))
        while maxlen is not None and len(self._records) > maxlen:
            self._records.popleft()

    def read(self, after: str, limit: int, *, newest: bool) -> list[tuple[str, bytes]]:
        """Records with their ids, after (with `newest`: before) the id `after`."""
        records = self._records
        if not records:
            return []
        first, last = records[0][0], records[-1][0]
        if newest:
            end = min(int(after), last + 1) if after else last + 1
            found = self._between(max(end - limit, first), end)[::-1]
        else:
            begin = max(int(after) + 1, first) if after else first
            found = self._between(begin, min(begin + limit, last + 1))
        return [(str(number), record) for number, record in found]

    def _between(self, begin: int, end: int) -> list[Numbered]:
        """The records from the number `begin` on, before `end`. Walks from the nearer end."""
        records = self._records
        if begin >= end:
            return []
        low, high = begin - records[0][0], end - records[0][0]
        if low + high < len(records):
            return list(islice(records, low, high))
        size = len(records)
        return list(islice(reversed(records), size - high, size - low))[::-1]

    def trim(self, until: int) -> None:
        """Remove the records up to a number."""
        while self._records and self._records[0][0] <= until:
            self._records.popleft()

    def last(self, count: int) -> list[Numbered]:
        """The last `count` records."""
        return list(islice(self._records, max(len(self._records) - count, 0), None))
