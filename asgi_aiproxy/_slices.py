"""Places at which long calculations may be interrupted, so that other tasks run in between.

An event loop runs one step of one task at a time, so a page that is calculated for 10 ms delays
every call of the gateway in the same process by as much. Threads do not help, because they share
the interpreter lock, and hand it over after 5 ms only. So calculations `await give_way()` wherever
they may be interrupted, about every `CHECK_SECONDS`. What happens then is decided by what runs
them: by itself `give_way` lets other tasks run, once; `_turns.py` has what runs pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

CHECK_SECONDS = 0.00004
SLICE_ITEMS = 100  # of which each takes less than a microsecond


async def give_way() -> None:
    """Let other tasks run; within `BackgroundTurns.run` only when the slice is over."""
    await asyncio.sleep(0)


async def in_slices(items: Iterable[T], size: int = SLICE_ITEMS) -> AsyncIterator[list[T]]:
    """Yield items in lists of at most `size`, and give way after each."""
    rest = iter(items)
    while found := list(islice(rest, size)):
        yield found
        await give_way()


def taken(items: list[T]) -> Iterator[T]:
    """Yield the items of a list from its end on, and remove them: freeing all items of a large list
    at the same time would take long.
    """
    while items:
        yield items.pop()


def taken_items(items: dict[K, V]) -> Iterator[tuple[K, V]]:
    """Yield the items of a dictionary, and remove them, see `taken`."""
    while items:
        yield items.popitem()


async def joined(pieces: Iterator[str]) -> str:
    """Return the text that a generator makes in pieces, and give way in between."""
    text: list[str] = []
    await give_way()
    end = perf_counter() + CHECK_SECONDS
    for piece in pieces:
        text.append(piece)
        if perf_counter() >= end:
            await give_way()
            end = perf_counter() + CHECK_SECONDS
    return "".join(text)
