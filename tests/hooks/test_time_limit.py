"""A time limit that costs no timer unless something is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from asgi_aiproxy.hooks.time_limit import within

pytestmark = pytest.mark.anyio


async def test_work_that_waits_for_nothing_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timer(seconds: float) -> None:
        raise AssertionError("a timer was set")

    monkeypatch.setattr(asyncio, "timeout", no_timer)
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    await within(1, work())
    assert done == [1]


async def sleeps() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)


async def waits() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 7)
    assert await future == 7


async def gathers() -> None:
    await asyncio.gather(sleeps(), waits())
    async with asyncio.timeout(30):
        await sleeps()


@pytest.mark.parametrize("work", [sleeps, waits, gathers])
async def test_work_that_waits_goes_on(work: Callable[[], Awaitable[None]]) -> None:
    await within(30, work())


async def test_work_is_ended_when_its_time_is_up() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        await within(0.01, work())
    assert ended == ["cancelled"]


async def test_errors_and_cancellations_reach_the_work_and_its_caller() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await within(30, fails())
    seen: list[str] = []

    async def cancelled() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.ensure_future(_run(cancelled()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def _run(work: Awaitable[None]) -> None:
    await within(30, work)
