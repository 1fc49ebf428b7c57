"""`LoadShedder`: refuses requests before the other routes of the host suffer.

Theory of operation. One event loop serves the gateway and the routes of the host, so all of them
wait while it is busy. Two mechanisms limit this:

1. *Turns.* Requests that are ready at the same time have turns (`_turns.py`): all of them together
   run for a fraction of a millisecond in each iteration of the loop, then it is the host's turn. So
   the host's routes hardly wait, and the requests wait for each other.
2. *A limit* keeps that short. Every 5 ms it is measured how long a request that is ready waits for
   its turn (the lag). While the lag is above `max_lag`, the number of requests that may be in
   flight here falls to a fraction of those that are; while it is below and the number is reached,
   it grows slowly (additive increase, multiplicative decrease, as in TCP). What nine of ten
   measurements do not exceed counts, so that one pause of the garbage collector changes nothing.

Requests beyond the number get 503 with `retry-after`, spread so that their clients do not return
together. Those of low priority are refused when half of it is reached, those of high priority when
a quarter more is: so the lowest priority is refused first.

`max_held_bytes` limits the memory of request bodies: a declared length is reserved before the body
is read, other bodies count as they arrive, and new requests are refused while the sum is reached.
Responses are not buffered anywhere, so their memory is limited by the number of requests.

The timer only runs while requests are in flight.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter

import msgspec

from asgi_aiproxy._asgi import ASGIApp, Message, Receive, Scope, Send, content_length
from asgi_aiproxy._turns import FairTurns
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, require_int_at_least
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.error_format import send_error_for
from asgi_aiproxy.patterns import matches_pattern
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal

logger = logging.getLogger("asgi_aiproxy")

_INTERVAL = 0.005  # seconds between two measurements
_MEASURED = 20  # measurements that count
_DECIDE = 10  # measurements between two changes of the limit
_LATE = 0.002  # seconds by which timers may be late in an idle loop
_DECREASE, _INCREASE = 0.8, 0.05
_LOW_SHARE, _HIGH_SHARE = 0.5, 1.25


class LoadStatus(msgspec.Struct, frozen=True):
    """The load of this process: requests in flight, how many may be, the lag in seconds (how long
    a request that is ready waits until it continues), the bytes of request bodies in memory, and
    the number of requests that were refused.
    """

    in_flight: int
    limit: int
    lag: float
    held_bytes: int
    refused: int


class AdaptiveLimit:
    """How many requests may be in flight, by the lag. Pure.

    `max_lag` is in seconds; `most` is the highest number.
    """

    def __init__(self, max_lag: float, most: int) -> None:
        self._max_lag = max_lag
        self._most = most
        self._lags: deque[float] = deque([0.0] * _MEASURED, _MEASURED)
        self._observed = 0
        self.limit = float(most)

    @property
    def lag(self) -> float:
        """What nine of ten of the last measurements do not exceed."""
        return sorted(self._lags)[_MEASURED * 9 // 10 - 1]

    def observe(self, lag: float, in_flight: int) -> None:
        """Take one measurement, with the number of requests in flight."""
        self._lags.append(lag)
        self._observed += 1
        if self._observed % _DECIDE:
            return
        if self.lag > self._max_lag:
            self.limit = max(min(self.limit, float(in_flight)) * _DECREASE, 1.0)
        elif in_flight >= self.limit * 0.9:
            self.limit = min(self.limit + max(self.limit * _INCREASE, 1.0), self._most)

    def admits(self, in_flight: int, priority: int) -> bool:
        """Whether one more request may be served. `priority` is negative (low), 0 or positive."""
        share = _LOW_SHARE if priority < 0 else _HIGH_SHARE if priority > 0 else 1.0
        return in_flight < max(self.limit * share, 1.0)


Priority = Callable[[Principal], int]


def priority_by_name(
    *, groups: Mapping[str, int] | None = None, principals: Mapping[str, int] | None = None
) -> Priority:
    """Return the `priority` of a `LoadShedder` by the names of `groups` and ids of `principals`.

    Both are patterns; the first that matches counts, of ids before groups. Other callers have
    priority 0. Raises ConfigurationError for a priority that is not an integer.
    """
    by_id, by_group = dict(principals or {}), dict(groups or {})
    for name, priority in (by_id | by_group).items():
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise ConfigurationError(f"The priority of {name!r} must be an integer.")

    def priority_of(caller: Principal) -> int:
        for names, name in ((by_id, caller.id), (by_group, caller.group)):
            for pattern, priority in names.items():
                if name and matches_pattern(pattern, name):
                    return priority
        return 0

    return priority_of


class LoadShedder(Middleware):
    """A middleware that protects the other routes of the host from the requests of an app: these
    have turns on the event loop, and some are refused while it is overloaded.

    ::

        app.mount("/ai", Authenticate(LoadShedder(ai, max_lag=0.05), verify=...))

    Arguments:

    - `app`: the wrapped app.
    - `max_lag`: for how long a request that is ready may wait until it continues, in seconds.
    - `max_in_flight`: the highest number of requests at the same time.
    - `max_held_bytes`: the highest sum of request bodies in memory, in bytes (None: no limit).
    - `priority`: the priority of a caller: negative (refused first), 0, or positive (refused last);
      see `priority_by_name`. Without it, all callers have the same. Callers are known below
      `Authenticate`.
    - `retry_after`: the mean number of seconds after which refused clients shall try again.

    Raises ConfigurationError if an argument is invalid.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_lag: float = 0.05,
        max_in_flight: int = 1000,
        max_held_bytes: int | None = None,
        priority: Priority | None = None,
        retry_after: float = 2.0,
    ) -> None:
        super().__init__(app)
        require_int_at_least(max_in_flight=max_in_flight)
        if max_held_bytes is not None:
            require_int_at_least(max_held_bytes=max_held_bytes)
        if not max_lag > 0 or not retry_after > 0:
            raise ConfigurationError("LoadShedder: max_lag and retry_after must be > 0 seconds.")
        if priority is not None and not callable(priority):
            raise ConfigurationError(
                "LoadShedder: priority is a function of a Principal, such as priority_by_name(...)."
            )
        self._limit = AdaptiveLimit(max_lag, max_in_flight)
        self._max_held = max_held_bytes
        self._priority = priority
        self._retry_after = retry_after
        self._in_flight = self._held = self._refused = 0
        # Called with the reason ("load", "memory") and the priority ("low", "normal", "high") of
        # each request that is refused; see `Metrics.watch`.
        self.on_refused: Callable[[str, str], None] | None = None
        self._shedding = False
        self._turns = FairTurns()
        self._measured: asyncio.AbstractEventLoop | None = None  # that will run a measurement

    @property
    def status(self) -> LoadStatus:
        """The load now."""
        limit = self._limit
        return LoadStatus(self._in_flight, int(limit.limit), limit.lag, self._held, self._refused)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI scope to the app, or answer 503."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_other_scope(scope, receive, send)
            return
        declared = 0
        if self._max_held is not None and scope["type"] == "http":
            declared = content_length(scope) or 0
        if self._refuses(scope, declared):
            await self._turns.run(send_error_for(scope, receive, send, self._refusal()))
            return
        loop = asyncio.get_running_loop()
        if self._measured is not loop:
            self._measure_soon(loop)
        body = _HeldBody(self, receive, declared) if self._max_held is not None else None
        receive = receive if body is None else body.receive
        self._in_flight += 1
        try:
            await self._turns.run(self._pass(scope, receive, send))
        finally:
            self._in_flight -= 1
            if body is not None:
                body.release()

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def _refuses(self, scope: Scope, declared: int) -> bool:
        """Whether a request is refused; it is counted then."""
        priority = 0
        if self._priority is not None:
            priority = self._priority(scope.get(SCOPE_KEY) or ANONYMOUS)
        if self._max_held is not None and self._held + declared > self._max_held:
            if declared > self._max_held and not self._held:
                return False  # the app refuses it by itself
            reason = "memory"
        elif self._limit.admits(self._in_flight, priority):
            return False
        else:
            reason = "load"
        self._refused += 1
        if self.on_refused is not None:
            self.on_refused(reason, "low" if priority < 0 else "high" if priority > 0 else "normal")
        return True

    def _refusal(self) -> APIError:
        return APIError(
            ErrorKind.OVERLOADED,
            "The service is busy. Try again later.",
            code="overloaded",
            retry_after=self._retry_after * random.uniform(0.5, 1.5),  # noqa: S311
        )

    def hold(self, size: int) -> None:
        """Count bytes of request bodies that are in memory from now on, or (negative) no more."""
        self._held += size

    # the lag

    def _measure_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._measured = loop
        loop.call_later(_INTERVAL, self._measure, loop, perf_counter() + _INTERVAL)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        late = perf_counter() - due  # as something had blocked the loop
        self._turns.measure(
            lambda waited: self._observe(loop, max(waited, late if late > _LATE else 0.0))
        )

    def _observe(self, loop: asyncio.AbstractEventLoop, lag: float) -> None:
        self._measured = None
        self._limit.observe(lag, self._in_flight)
        shedding = self._limit.admits(self._in_flight, 0) is False
        if shedding is not self._shedding:
            self._shedding = shedding
            logger.warning(
                "load: %d requests in flight, each waits %.0f ms until it continues; %s",
                *(self._in_flight, self._limit.lag * 1000),
                "further ones are refused" if shedding else "requests are accepted again",
            )
        if self._in_flight:
            self._measure_soon(loop)


class _HeldBody:
    """Counts the body of one request, of which `declared` bytes are reserved."""

    __slots__ = ("_counted", "_receive", "_received", "_shedder")

    def __init__(self, shedder: LoadShedder, receive: Receive, declared: int) -> None:
        self._shedder = shedder
        self._receive = receive
        self._received = 0
        self._counted = declared
        shedder.hold(declared)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            more = self._received - self._counted
            if more > 0:
                self._counted += more
                self._shedder.hold(more)
        return message

    def release(self) -> None:
        self._shedder.hold(-self._counted)
