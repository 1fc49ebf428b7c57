"""The keys of MemoryStore's tables in their order: a page takes as long in a large table."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Mapping


class SortedKeys:
    """Keys by table. Those of a table are sorted when its first page is read, and follow its
    changes from then on.
    """

    def __init__(self) -> None:
        self._keys: dict[str, list[str]] = {}

    def page(self, table: str, held: Collection[str], after: str, limit: int) -> list[str]:
        """At most `limit` keys that come after `after`, of a table that has the keys `held`."""
        keys = self._keys.get(table)
        if keys is None:
            keys = self._keys[table] = sorted(held)
        start = bisect_right(keys, after)
        return keys[start : start + limit]

    def follow(
        self, table: str, held: Collection[str], changes: Mapping[str, bytes | None]
    ) -> None:
        """Take changes (None: removed) of a table that has the keys `held` until then."""
        keys = self._keys.get(table)
        if keys is None:
            return
        for key, value in changes.items():
            if value is None and key in held:
                del keys[bisect_left(keys, key)]
            elif value is not None and key not in held:
                insort(keys, key)
