"""Long calculations in slices, so that other tasks of the event loop run first.

Theory of operation. An event loop runs one task at a time, so a page that is calculated for 10 ms
delays every call of the gateway in the same process by as much. Threads do not help, because they
share the interpreter lock, and hand it over after 5 ms only. So long calculations give way after
each slice of a fraction of a millisecond. `give_way` continues at once when an iteration of the
loop has done nothing else, which is recognized by its duration; else after `PATIENCE` seconds, so
that calculations take a few percent of a busy process, and always come to an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

SLICE_SECONDS = 0.0003
SLICE_ITEMS = 500  # of which each takes less than a microsecond
PATIENCE = 0.004  # seconds that a slice waits while others are busy
_IDLE = 0.0001  # seconds that an iteration of a loop without other work takes at most


async def give_way() -> None:
    """Let other tasks run; for `PATIENCE` seconds if they have something to do."""
    before = perf_counter()
    await asyncio.sleep(0)
    if perf_counter() - before > _IDLE:
        await asyncio.sleep(PATIENCE)


async def in_slices(items: Iterable[T], size: int = SLICE_ITEMS) -> AsyncIterator[list[T]]:
    """Yield items in lists of at most `size`, and give way after each."""
    rest = iter(items)
    while found := list(islice(rest, size)):
        yield found
        await give_way()


async def joined(pieces: Iterator[str]) -> str:
    """Return the text that a generator makes in pieces, and give way in between."""
    text: list[str] = []
    end = perf_counter() + SLICE_SECONDS
    for piece in pieces:
        text.append(piece)
        if perf_counter() >= end:
            await give_way()
            end = perf_counter() + SLICE_SECONDS
    return "".join(text)
