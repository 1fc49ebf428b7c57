"""A time limit that costs nothing for work that waits for nothing.

Theory of operation. A timer costs more than most hooks do. So the first step of the work is run
without one; only if that waits for something, the timer begins, and what happens to this wait is
passed on to the work, as `yield from` does. (Work that blocks the event loop is not interrupted by
a timer either.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from types import coroutine
from typing import Any


@coroutine
def within(seconds: float, work: Awaitable[None]) -> Generator[Any, Any, None]:
    """Await `work` for at most `seconds`. Raises TimeoutError."""
    steps = work.__await__()
    try:
        waited_for = next(steps)
    except StopIteration:
        return
    yield from _limited(seconds, _Remaining(steps, waited_for)).__await__()


async def _limited(seconds: float, work: Awaitable[None]) -> None:
    async with asyncio.timeout(seconds):
        await work


class _Remaining:
    """Work whose first step has been run, and waits for `waited_for`."""

    __slots__ = ("_steps", "_waited_for")

    def __init__(self, steps: Generator[Any, Any, None], waited_for: Any) -> None:
        self._steps = steps
        self._waited_for = waited_for

    def __await__(self) -> Generator[Any, Any, None]:
        steps, waited_for = self._steps, self._waited_for
        try:
            while True:
                try:
                    value = yield waited_for
                except BaseException as error:
                    waited_for = steps.throw(error)
                else:
                    waited_for = next(steps) if value is None else steps.send(value)
        except StopIteration:
            return
