"""Background work on the event loop: long calculations that calls of the gateway hardly notice.

Theory of operation. An event loop runs one step of one task at a time, so a page that is calculated
for 10 ms delays every call of the gateway in the same process by as much. Threads do not help,
because they share the interpreter lock, and hand it over after 5 ms only. So pages are calculated
in slices.

1. *Places to stop.* Calculations `await give_way()` wherever they may be interrupted, about every
   `CHECK_SECONDS`. By itself that lets other tasks run, once.
2. *Turns.* `BackgroundTurns.run` steps through a coroutine by itself, as a task does. The coroutine
   continues only when it has its turn, no matter what it has waited for; within a turn `give_way`
   returns at once until `SLICE_SECONDS` are over. Coroutines that wait have turns one after the
   other, so that there is one slice at a time for all pages of a process.
3. *Idleness.* A turn begins when an iteration of the event loop has done nothing else. This is
   recognized by the time from one `call_soon` to the next: without other work it is a few
   microseconds. While the loop is busy, it is looked at again after `PAUSE_SECONDS`, in which a
   call usually takes all its short steps. A turn is due after `MAX_WAIT_SECONDS` in any case, so
   that pages come to an end however busy the process is, and take a few percent of it at most.

What remains is the delay of an event that arrives during a slice: half a slice on average.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from itertools import islice
from time import perf_counter
from typing import Any, Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

SLICE_SECONDS = 0.00015
CHECK_SECONDS = 0.00004
SLICE_ITEMS = 100  # of which each takes less than a microsecond
PAUSE_SECONDS = 0.001
MAX_WAIT_SECONDS = 0.005
IDLE_SECONDS = 0.00005  # that an iteration of an event loop without other work takes at most


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


class BackgroundTurns:
    """Runs coroutines of low priority, one slice at a time. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine, which is run in slices. Raises what it raises."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            # (A copy, because other threads may add the queues of theirs meanwhile.)
            queues = list(self._queues.items())
            self._queues = {known: its for known, its in queues if not known.is_closed()}
            queue = self._queues[loop] = _Queue(loop, self._clock)
        return await _Sliced(coroutine, queue, self._clock)

    async def each(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield what an async generator yields; it is run in slices, and closed in the end."""

        async def next_item() -> T | _End:
            return await anext(items, _END)

        try:
            while not isinstance(item := await self.run(next_item()), _End):
                yield item
        finally:
            await items.aclose()


class _End:
    """The end of an async generator."""


_END = _End()


class _Queue:
    """Coroutines of one event loop that wait for their turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._looking = False
        self._last_turn = clock()

    def turn(self) -> asyncio.Future[None]:
        """Return a future that is done when it is the caller's turn; `proceed` comes after it."""
        turn: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._last_turn = self._clock()
        self._waiting.append(turn)
        self.proceed()
        return turn

    def proceed(self) -> None:
        """Find the time of the next turn, if one is waited for."""
        if self._waiting and not self._looking:
            self._looking = True
            self._look()

    def _look(self) -> None:
        self._loop.call_soon(self._judge, self._clock())

    def _judge(self, began: float) -> None:
        now = self._clock()
        if now - began > IDLE_SECONDS and now - self._last_turn < MAX_WAIT_SECONDS:
            self._loop.call_later(PAUSE_SECONDS, self._look)
            return
        self._looking = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # it is if its task was cancelled
                self._last_turn = now
                turn.set_result(None)
                return


class _Sliced(Generic[T]):
    """An awaitable: a coroutine that continues only when it has its turn."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], queue: _Queue, clock: Callable[[], float]
    ) -> None:
        self._coroutine = coroutine
        self._queue = queue
        self._clock = clock

    def __await__(self) -> Generator[Any, None, T]:
        # What a coroutine yields is for its task: a future that it waits for, or None to let others
        # run. What the task throws in here (CancelledError) is for the coroutine.
        coroutine, queue = self._coroutine, self._queue
        error: BaseException | None = None
        while True:
            try:
                yield from queue.turn()
            except BaseException as thrown:
                error = thrown
            end = self._clock() + SLICE_SECONDS
            awaited = None
            try:
                while awaited is None:
                    if error is None:
                        awaited = coroutine.send(None)
                    else:
                        thrown_in, error = error, None
                        awaited = coroutine.throw(thrown_in)
                    if self._clock() >= end:
                        break
            except StopIteration as result:
                returned: T = result.value
                return returned
            finally:
                queue.proceed()
            if awaited is not None:
                try:
                    yield awaited
                except BaseException as thrown:
                    error = thrown
