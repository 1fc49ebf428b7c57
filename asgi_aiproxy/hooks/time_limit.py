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
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


@coroutine
def within(seconds: float, work: Awaitable[_T]) -> Generator[Any, Any, _T]:
    """Await `work` for at most `seconds`, and return its result. Raises TimeoutError."""
    steps = work.__await__()
    try:
        waited_for = next(steps)
    except StopIteration as done:
        result: _T = done.value
        return result
    return (yield from _limited(seconds, _Remaining(steps, waited_for)).__await__())


async def _limited(seconds: float, work: Awaitable[_T]) -> _T:
    async with asyncio.timeout(seconds):
        return await work


class _Remaining(Generic[_T]):
    """Work whose first step has been run, and waits for `waited_for`."""

    __slots__ = ("_steps", "_waited_for")

    def __init__(self, steps: Generator[Any, Any, _T], waited_for: Any) -> None:
        self._steps = steps
        self._waited_for = waited_for

    def __await__(self) -> Generator[Any, Any, _T]:
        steps, waited_for = self._steps, self._waited_for
        try:
            while True:
                try:
                    value = yield waited_for
                except BaseException as error:
                    waited_for = steps.throw(error)
                else:
                    waited_for = next(steps) if value is None else steps.send(value)
        except StopIteration as done:
            result: _T = done.value
            return result
