"""Results that many callers request at the same time, calculated once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

_MAX_RESULTS = 100


class SharedResults(Generic[T]):
    """Keeps each result for `seconds`: callers within that time get the same one.

    A calculation that fails or is cancelled is not kept.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._results: dict[Hashable, tuple[float, T]] = {}
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, calculate: Callable[[], Awaitable[T]]) -> T:
        """Return the result for `key`, calculated if there is none. Raises what that raises."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            known = self._results.get(key)
            if known is not None and monotonic() < known[0]:
                return known[1]
            result = await calculate()
            if len(self._results) >= _MAX_RESULTS:
                self._results.clear()
                self._locks = {key: lock}
            self._results[key] = monotonic() + self._seconds, result
            return result
