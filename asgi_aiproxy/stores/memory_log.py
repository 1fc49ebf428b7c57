"""A log in MemoryStore: records with numbers that follow each other without a gap."""

from __future__ import annotations

from collections.abc import Iterable

Numbered = tuple[int, bytes]


class MemoryLog:
    """Records in order of arrival. `records` have numbers that follow each other.

    Records are in a list, of which the first `_start` places are empty: they are removed together
    when they are half of it, so that reading and removing take constant time for each record.
    """

    def __init__(self, records: Iterable[Numbered] = ()) -> None:
        numbered = list(records)
        self._places: list[bytes] = [record for _, record in numbered]
        self._start = 0
        self._first = numbered[0][0] if numbered else 1  # the number of the record at `_start`

    def append(self, record: bytes, maxlen: int | None) -> None:
        """Append a record; the last `maxlen` are kept."""
        self._places.append(record)
        if maxlen is not None:
            self._remove(len(self._places) - self._start - maxlen)

    def read(self, after: str, limit: int, *, newest: bool) -> list[tuple[str, bytes]]:
        """Records with their ids, after (with `newest`: before) the id `after`."""
        first, end = self._first, self._end
        if newest:
            end = min(int(after), end) if after else end
            begin = max(end - limit, first)
        else:
            begin = max(int(after) + 1, first) if after else first
            end = min(begin + limit, end)
        found = [(str(number), record) for number, record in self._between(begin, end)]
        return found[::-1] if newest else found

    def trim(self, until: int) -> None:
        """Remove the records up to a number."""
        self._remove(min(until + 1, self._end) - self._first)

    def last(self, count: int) -> list[Numbered]:
        """The last `count` records."""
        return self._between(max(self._end - count, self._first), self._end)

    @property
    def _end(self) -> int:
        """The number of the next record."""
        return self._first + len(self._places) - self._start

    def _between(self, begin: int, end: int) -> list[Numbered]:
        """The records from the number `begin` on, before `end`; none if that is not before it."""
        if begin >= end:
            return []
        moved = self._start - self._first
        return list(enumerate(self._places[begin + moved : end + moved], begin))

    def _remove(self, count: int) -> None:
        """Remove the first `count` records."""
        for place in range(self._start, self._start + count):
            self._places[place] = b""
            self._first += 1
            self._start += 1
        if self._start * 2 > len(self._places):
            del self._places[: self._start]
            self._start = 0
