"""Coroutines have turns: pages while the event loop is idle, calls such that others run, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy._slices import give_way, in_slices, joined, taken, taken_items
from asgi_aiproxy._turns import (
    BUDGET_SECONDS,
    MAX_WAIT_SECONDS,
    SLICE_SECONDS,
    BackgroundTurns,
    FairTurns,
    LoopTurns,
)

pytestmark = pytest.mark.anyio


class Loop:
    """A clock that only moves when a test says so, and the number of the loop's iteration.

    `busy` is how many seconds of the clock other tasks take in each iteration.
    """

    def __init__(self, busy: float = 0.0) -> None:
        self.now = 0.0
        self.busy = busy
        self.iteration = 0
        self.open = True
        asyncio.get_running_loop().call_soon(self._iterate)

    def clock(self) -> float:
        return self.now

    def _iterate(self) -> None:
        self.iteration += 1
        self.now += self.busy
        if self.open:
            asyncio.get_running_loop().call_soon(self._iterate)


async def page(loop: Loop, slices: int, note: Callable[[], None]) -> int:
    """A calculation of so many slices."""
    for _ in range(slices):
        note()
        loop.now += SLICE_SECONDS
        await give_way()
    return slices


async def test_all_pages_together_have_one_slice_in_an_iteration_and_take_turns() -> None:
    loop = Loop()
    turns = BackgroundTurns(loop.clock)
    noted: list[tuple[str, int]] = []

    def by(name: str) -> Callable[[], None]:
        return lambda: noted.append((name, loop.iteration))

    pages = (turns.run(page(loop, 5, by(name))) for name in "abc")
    assert await asyncio.gather(*pages) == [5, 5, 5]
    loop.open = False
    assert len({iteration for _, iteration in noted}) == len(noted) == 15
    assert "".join(name for name, _ in noted) == "abc" * 5


async def test_giving_way_within_a_slice_costs_no_iteration() -> None:
    loop = Loop()
    noted = []

    async def short_steps() -> None:
        for _ in range(100):
            noted.append(loop.iteration)
            await give_way()

    await BackgroundTurns(loop.clock).run(short_steps())
    loop.open = False
    assert len(noted) == 100
    assert len(set(noted)) == 1


async def test_a_page_waits_while_others_are_busy_but_comes_to_an_end() -> None:
    loop = Loop(busy=MAX_WAIT_SECONDS / 4)
    noted: list[float] = []
    await BackgroundTurns(loop.clock).run(page(loop, 4, lambda: noted.append(loop.now)))
    loop.open = False
    pauses = [later - earlier for earlier, later in zip([0.0, *noted], noted, strict=False)]
    assert min(pauses) >= MAX_WAIT_SECONDS


async def test_a_page_that_was_waiting_for_the_store_waits_for_its_turn_too() -> None:
    loop = Loop()
    turns = BackgroundTurns(loop.clock)
    noted: list[tuple[str, int]] = []
    answered = asyncio.Event()

    async def reading(name: str) -> None:
        await answered.wait()
        noted.append((name, loop.iteration))
        loop.now += SLICE_SECONDS

    pages = [asyncio.ensure_future(turns.run(reading(name))) for name in "abc"]
    while loop.iteration < 30:
        await asyncio.sleep(0)
    answered.set()
    await asyncio.gather(*pages)
    loop.open = False
    assert len({iteration for _, iteration in noted}) == 3


@pytest.mark.parametrize("kind", [BackgroundTurns, FairTurns])
async def test_a_cancelled_coroutine_cleans_up_and_the_others_go_on(kind: type[LoopTurns]) -> None:
    loop = Loop()
    turns = kind(loop.clock)
    ends: list[str] = []

    async def endless() -> None:
        try:
            while True:
                loop.now += SLICE_SECONDS
                await give_way()
        finally:
            await asyncio.sleep(0)
            ends.append("cleaned up")

    first = asyncio.ensure_future(turns.run(endless()))
    waiting = asyncio.ensure_future(turns.run(endless()))
    other = asyncio.ensure_future(turns.run(page(loop, 20, lambda: None)))
    while loop.iteration < 10:
        await asyncio.sleep(0)
    first.cancel()
    waiting.cancel()
    assert await other == 20
    results = await asyncio.gather(first, waiting, return_exceptions=True)
    loop.open = False
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert ends == ["cleaned up"] * 2


@pytest.mark.parametrize("kind", [BackgroundTurns, FairTurns])
async def test_a_coroutine_that_is_closed_has_no_more_turns(kind: type[LoopTurns]) -> None:
    turns = kind()
    ends: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends.append("closed")

    closed = turns.run(endless())
    for _ in range(2):  # it waits for its first turn, or for the future
        closed.send(None)
        if kind is FairTurns:
            break
        await asyncio.sleep(0.02)
    closed.close()
    assert ends == ["closed"]


@pytest.mark.parametrize("kind", [BackgroundTurns, FairTurns])
async def test_time_limits_and_errors_work_as_in_any_task(kind: type[LoopTurns]) -> None:
    turns = kind()

    async def limited() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "timeout"
        return "no timeout"

    async def failing() -> None:
        await give_way()
        raise LookupError("missing")

    assert await turns.run(limited()) == "timeout"
    with pytest.raises(LookupError, match="missing"):
        await turns.run(failing())


async def test_what_a_generator_yields_is_made_in_turns_and_it_is_closed() -> None:
    loop = Loop()
    noted: list[int] = []
    closed: list[bool] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(4):
                noted.append(loop.iteration)
                loop.now += SLICE_SECONDS
                yield number
        finally:
            closed.append(True)

    turns = BackgroundTurns(loop.clock)
    assert [number async for number in turns.each(numbers())] == [0, 1, 2, 3]
    assert len(set(noted)) == 4
    stopped = turns.each(numbers())
    assert await anext(stopped) == 0
    await stopped.aclose()
    loop.open = False
    assert closed == [True, True]


async def test_calls_that_are_ready_together_leave_time_for_others_in_each_iteration() -> None:
    loop = Loop()
    turns = FairTurns(loop.clock)
    answered = asyncio.Event()
    noted: list[tuple[int, int]] = []

    async def call(number: int) -> None:
        await answered.wait()
        noted.append((number, loop.iteration))
        loop.now += BUDGET_SECONDS * 4

    calls = [asyncio.ensure_future(turns.run(call(number))) for number in range(20)]
    while loop.iteration < 40:
        await asyncio.sleep(0)
    answered.set()
    await asyncio.gather(*calls)
    loop.open = False
    assert [number for number, _ in noted] == list(range(20))
    assert len({iteration for _, iteration in noted}) > 15


async def test_short_steps_share_an_iteration_and_a_single_call_is_not_delayed() -> None:
    loop = Loop()
    turns = FairTurns(loop.clock)
    noted: list[int] = []

    async def call() -> None:
        for _ in range(100):
            noted.append(loop.iteration)
            loop.now += BUDGET_SECONDS / 10
            await asyncio.sleep(0)

    await turns.run(call())
    assert noted == list(range(noted[0], noted[0] + 100))
    noted.clear()
    await asyncio.gather(*(turns.run(call()) for _ in range(20)))
    loop.open = False
    most = max(noted.count(iteration) for iteration in noted)
    assert 5 < most <= 20, "about ten steps fit into the budget"


async def test_the_wait_for_a_turn_is_measured() -> None:
    loop = Loop()
    turns = FairTurns(loop.clock)

    async def measured() -> float:
        found: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        turns.measure(found.set_result)
        return await found

    async def call() -> None:
        while loop.open:
            loop.now += BUDGET_SECONDS
            await asyncio.sleep(0)

    assert await measured() == 0
    calls = [asyncio.ensure_future(turns.run(call())) for _ in range(8)]
    await asyncio.sleep(0)
    waited = await measured()
    loop.open = False
    await asyncio.gather(*calls)
    assert waited == pytest.approx(8 * BUDGET_SECONDS, rel=0.3)


STEPS = st.lists(st.sampled_from(["work", "way", "future", "sleep", "caught"]), max_size=12)


@settings(max_examples=50, deadline=None)
@given(
    pages=st.lists(STEPS, max_size=4),
    busy=st.sampled_from([0.0, MAX_WAIT_SECONDS]),
    kind=st.sampled_from([BackgroundTurns, FairTurns]),
)
def test_coroutines_return_the_same_in_turns_as_without(
    pages: list[list[str]], busy: float, kind: type[LoopTurns]
) -> None:
    async def calculate(steps: list[str], loop: Loop) -> list[str]:
        done = []
        for step in steps:
            if step == "work":
                loop.now += SLICE_SECONDS / 2
            elif step == "way":
                await give_way()
            elif step == "future":
                future = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(future.set_result, step)
                assert await future == step
            elif step == "sleep":
                await asyncio.sleep(0)
            else:
                try:
                    await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0)
                except TimeoutError:
                    pass
            done.append(step)
        return done

    async def both() -> tuple[Any, Any]:
        loop = Loop(busy)
        turns = kind(loop.clock)
        without = await asyncio.gather(*(calculate(steps, loop) for steps in pages))
        within = await asyncio.gather(*(turns.run(calculate(steps, loop)) for steps in pages))
        loop.open = False
        return without, within

    without, within = asyncio.run(both())
    assert within == without == pages


async def test_slices_keep_the_order_and_lose_nothing() -> None:
    found = [item async for some in in_slices(range(1201), 500) for item in some]
    assert found == list(range(1201))
    assert await joined(iter(["a", "", "b"])) == "ab"
    items, named = [1, 2, 3], {"a": 1, "b": 2}
    assert list(taken(items)) == [3, 2, 1]
    assert dict(taken_items(named)) == {"a": 1, "b": 2}
    assert (items, named) == ([], {})
