"""Entries in the memory of one process: values that expire, each under a name of its own."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable

# What the values of one store may hold together, in bytes. Above it the oldest are dropped.
MAX_TOTAL_BYTES = 256 * 1024 * 1024


class ExpiringEntries:
    """Values by name, until they expire or there are too many bytes of them.

    `max_bytes` limits names and values together. Times are in seconds.
    """

    def __init__(self, max_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # oldest first
        self._ends: list[tuple[float, str]] = []  # a heap; those of replaced entries remain in it

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, name: str, value: bytes, ends: float, now: float) -> None:
        """Set an entry, replacing one of this name, until the time `ends`."""
        self.delete(name, now)
        self._entries[name] = ends, value
        self._bytes += len(name) + len(value)
        heapq.heappush(self._ends, (ends, name))
        self._drop_expired(now)
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
        if len(self._ends) > 2 * len(self._entries) + 64:
            self._ends = [(until, known) for known, (until, _) in self._entries.items()]
            heapq.heapify(self._ends)

    def get(self, name: str, now: float) -> bytes | None:
        """The value of an entry that has not expired, or None."""
        ends, value = self._entries.get(name, (0.0, b""))
        return value if ends > now else None

    def delete(self, name: str, now: float) -> bool:
        """Remove an entry; returns whether there was one."""
        existed = self.get(name, now) is not None
        if name in self._entries:
            self._remove(name)
        return existed

    def _remove(self, name: str) -> None:
        _, value = self._entries.pop(name)
        self._bytes -= len(name) + len(value)

    def _drop_expired(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            ends, name = heapq.heappop(self._ends)
            if name in self._entries and self._entries[name][0] <= ends:
                self._remove(name)


class MemoryEntries:
    """The entries of a store in memory. `clock` is the time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._entries = ExpiringEntries()
        self._entry_clock = clock

    async def set_entry(self, name: str, value: bytes, *, seconds: float) -> None:
        """Set an entry for `seconds`, replacing one of this name."""
        now = self._entry_clock()
        self._entries.set(name, value, now + seconds, now)

    async def get_entry(self, name: str) -> bytes | None:
        """The value of an entry; None if there is none, or it has expired."""
        return self._entries.get(name, self._entry_clock())

    async def delete_entry(self, name: str) -> bool:
        """Remove an entry; returns whether there was one."""
        return self._entries.delete(name, self._entry_clock())
