"""Coroutines that have turns on the event loop: calls of the gateway, and pages in the background.

Theory of operation. A task continues as soon as what it waited for is there, so everything that is
ready runs in the same iteration of the event loop, one after the other, and what else becomes ready
waits for the sum. `LoopTurns.run` steps through a coroutine by itself, as a task does, and before
each step it asks a queue whether the coroutine may go on. What the coroutine waits for is passed on
to the task, and what the task throws into it (a cancellation) to the coroutine: within it nothing
is different.

`FairTurns` is for calls beside routes of a host. In one iteration the calls run for
`BUDGET_SECONDS` together, and at least one step; the others have their turns in the next
iterations, in their order. So a route waits for a fraction of a millisecond, however many calls are
ready. Calls that need less than that in an iteration are not delayed.

`BackgroundTurns` is for pages beside calls.

1. There is one slice at a time, for all pages of a process: within a turn `give_way` returns at
   once until `SLICE_SECONDS` are over.
2. A turn begins when an iteration of the event loop has done nothing else. This is recognized by
   the time from one `call_soon` to the next: without other work it is a few microseconds. While the
   loop is busy, it is looked at again after `PAUSE_SECONDS`, in which a call usually takes all its
   short steps.
3. A turn is due after `MAX_WAIT_SECONDS` in any case, so that pages come to an end however busy the
   process is, and take a few percent of it at most.

What remains is the delay of an event that arrives during a slice: half a slice on average.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from time import perf_counter
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Clock = Callable[[], float]

BUDGET_SECONDS = 0.00005
SLICE_SECONDS = 0.00015
PAUSE_SECONDS = 0.001
MAX_WAIT_SECONDS = 0.005
IDLE_SECONDS = 0.00005  # that an iteration of an event loop without other work takes at most
_AVERAGED = 20  # steps of which the average duration is known


class _End:
    """The end of an async generator."""


_END = _End()


class _Queue(ABC):
    """Coroutines of one event loop that wait for their turn. `slice_seconds` is for how long one
    may go on when it gives way.
    """

    slice_seconds: float

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()

    @abstractmethod
    def begin(self) -> asyncio.Future[None] | None:
        """Return a future that is done when it is the caller's turn, None if it is now. `end` must
        be called after what was done then.
        """

    @abstractmethod
    def end(self, seconds: float) -> None:
        """Take back a turn, which took so long."""

    def _wait(self) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        return turn

    def _admit(self) -> bool:
        """Let the first one that waits have its turn; returns whether there is one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # it is if its task was cancelled
                turn.set_result(None)
                return True
        return False


class _FairQueue(_Queue):
    slice_seconds = 0.0

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        super().__init__(loop, clock)
        self._used = 0.0  # in this iteration of the loop
        self._step = BUDGET_SECONDS  # on average
        self._following = False  # whether `_next_iteration` is called in the next iteration

    def begin(self) -> asyncio.Future[None] | None:
        if self._waiting or self._used >= BUDGET_SECONDS:
            return self._wait()
        return None

    def end(self, seconds: float) -> None:
        self._used += seconds
        self._step += (seconds - self._step) / _AVERAGED
        if not self._following:
            self._following = True
            self._loop.call_soon(self._next_iteration)

    def _next_iteration(self) -> None:
        self._used = expected = 0.0
        while expected < BUDGET_SECONDS and self._admit():
            expected += self._step
        self._following = expected > 0 or bool(self._waiting)
        if self._following:
            self._loop.call_soon(self._next_iteration)


class _IdleQueue(_Queue):
    slice_seconds = SLICE_SECONDS

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        super().__init__(loop, clock)
        self._looking = False
        self._last_turn = clock()

    def begin(self) -> asyncio.Future[None]:
        if not self._waiting:
            self._last_turn = self._clock()
        turn = self._wait()
        self._find()
        return turn

    def end(self, seconds: float) -> None:
        self._find()

    def _find(self) -> None:
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
        self._last_turn = now
        self._admit()


class LoopTurns:
    """Runs coroutines in turns; see its subclasses. `clock` returns seconds."""

    _queue_type: type[_Queue]

    def __init__(self, clock: Clock = perf_counter) -> None:
        self._clock = clock
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine, which is run in turns. Raises what it raises."""
        return await _Stepped(coroutine, self._queue(), self._clock)

    async def each(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield what an async generator yields; it is run in turns, and closed in the end."""

        async def next_item() -> T | _End:
            return await anext(items, _END)

        try:
            while not isinstance(item := await self.run(next_item()), _End):
                yield item
        finally:
            await items.aclose()

    def _queue(self) -> _Queue:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            # (A copy, because other threads may add the queues of theirs meanwhile.)
            queues = list(self._queues.items())
            self._queues = {known: its for known, its in queues if not known.is_closed()}
            queue = self._queues[loop] = self._queue_type(loop, self._clock)
        return queue


class BackgroundTurns(LoopTurns):
    """Runs coroutines of low priority, while the event loop is idle."""

    _queue_type = _IdleQueue


class FairTurns(LoopTurns):
    """Runs coroutines such that all of them together leave time for others in each iteration."""

    _queue_type = _FairQueue

    def measure(self, report: Callable[[float], None]) -> None:
        """Report the number of seconds until something that is ready now would have its turn."""
        loop, queue, began = asyncio.get_running_loop(), self._queue(), self._clock()

        def ready() -> None:
            turn = queue.begin()
            if turn is None:
                have_turn()
            else:
                turn.add_done_callback(have_turn)

        def have_turn(_: object = None) -> None:
            report(self._clock() - began)

        loop.call_soon(ready)


class _Stepped(Generic[T]):
    """An awaitable: a coroutine that continues only when it has its turn."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], queue: _Queue, clock: Clock) -> None:
        self._coroutine = coroutine
        self._queue = queue
        self._clock = clock

    def __await__(self) -> Generator[Any, None, T]:
        # A coroutine yields a future that it waits for, or None to give way.
        coroutine, queue, clock = self._coroutine, self._queue, self._clock
        error: BaseException | None = None
        while True:
            turn = queue.begin()
            if turn is not None:
                try:
                    yield from turn
                except GeneratorExit:  # there are no more turns
                    coroutine.close()
                    raise
                except BaseException as thrown:
                    error = thrown
            began = clock()
            end = began + queue.slice_seconds
            try:
                while True:
                    if error is None:
                        awaited = coroutine.send(None)
                    else:
                        thrown_in, error = error, None
                        awaited = coroutine.throw(thrown_in)
                    if awaited is not None or clock() >= end:
                        break
            except StopIteration as result:
                returned: T = result.value
                return returned
            finally:
                queue.end(clock() - began)
            if awaited is not None or turn is None:
                try:
                    yield awaited
                except GeneratorExit:  # there are no more turns
                    coroutine.close()
                    raise
                except BaseException as thrown:
                    error = thrown
