"""The line of calls that wait for a key: who came first goes first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError


class FairQueue:
    """Calls that wait. `serve` gives them what `take` has for them, in the order they came."""

    def __init__(self, take: Callable[[KeyRequest], Lease]) -> None:
        self._take = take
        self._waiting: dict[_Waiter, None] = {}  # in order
        self._kinds: Counter[object] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def has_waiter(self, want: KeyRequest) -> bool:
        """Whether somebody waits for what would do for `want`."""
        return bool(self._waiting) and want.kind in self._kinds

    async def wait(self, want: KeyRequest, seconds: float) -> Lease:
        """Stand in line, at most so long. Raises NoKeyError."""
        waiting = _Waiter(want)
        self._waiting[waiting] = None
        self._kinds[waiting.kind] += 1
        turn = waiting.turn
        try:
            self.serve()
            await asyncio.wait((turn,), timeout=seconds)
            return turn.result() if turn.done() else self._take(want)
        except asyncio.CancelledError:
            if turn.done() and turn.exception() is None:
                turn.result().release()  # it was given to one who leaves
            raise
        finally:
            del self._waiting[waiting]
            self._kinds[waiting.kind] -= 1
            self._kinds += Counter()  # forget those at zero
            if not self._waiting:
                self._wake_after(None)

    def serve(self) -> None:
        """Give those who wait what they can have now, and come back when there may be more."""
        in_vain: dict[object, NoKeyError] = {}
        for waiting in self._waiting:
            if waiting.turn.done():
                continue
            failure = in_vain.get(waiting.kind)
            if failure is None:
                try:
                    waiting.turn.set_result(self._take(waiting.want))
                    continue
                except NoKeyError as error:
                    failure = in_vain[waiting.kind] = error
            if not failure.exists:
                waiting.turn.set_exception(failure)
            elif len(in_vain) == len(self._kinds):
                break  # nothing for anybody
        waits = [error.retry_after for error in in_vain.values() if error.retry_after is not None]
        self._wake_after(min(waits, default=None))

    def _wake_after(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(seconds, 0.001), self.serve)


class _Waiter:
    """One who waits; `turn` becomes its lease."""

    __slots__ = ("kind", "turn", "want")

    def __init__(self, want: KeyRequest) -> None:
        self.want = want
        self.kind = want.kind
        self.turn: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
