"""Updates of the list prices while the gateway runs. Theory of operation.

genai-prices publishes its list between its releases. `PriceUpdates` fetches it regularly, in a
thread. What has become cheaper, or has a price now, applies at once. What has become dearer applies
from the next UTC month on, so that no price rises within a month without notice: until then the
price at the beginning of the month stays. Each change of a model that is used is logged, and listed
in `changes`. A failed update changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Self

import msgspec

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.prices.price import KINDS, Rates

logger = logging.getLogger("asgi_aiproxy")

_MIN_INTERVAL_SECONDS = 60.0
_MAX_CHANGES = 1000
_rates_of = attrgetter(*KINDS)


class PriceChange(msgspec.Struct, frozen=True):
    """A change of the list price of `model` at `provider`.

    `input_before`, `output_before`, `input` and `output` are the prices before and after it, in US
    dollars per million tokens. `at` is the Unix time when it was seen, `month` the month from which
    on it applies (such as `2026-12`; the current one if it applies already).
    """

    provider: str
    model: str
    input_before: float
    output_before: float
    input: float
    output: float
    at: float
    month: str


class HeldPrices:
    """Decides which of two prices of a model applies; `clock` returns Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.changes: dict[tuple[str, str], PriceChange] = {}

    def choose(
        self, provider: str, model: str, base: Rates | None, new: Rates | None
    ) -> Rates | None:
        """The price that applies, of the one at the beginning of the month and the latest."""
        if base is None or new is None or new == base:
            return base if new is None else new
        dearer = _is_dearer(new, base)
        now = self._clock()
        change = PriceChange(
            provider,
            model,
            input_before=_dollars(base.input),
            output_before=_dollars(base.output),
            input=_dollars(new.input),
            output=_dollars(new.output),
            at=now,
            month=month_of(now, later=dearer),
        )
        known = self.changes.get((provider, model))
        if known is None or (known.input, known.output) != (change.input, change.output):
            if len(self.changes) >= _MAX_CHANGES:
                self.changes.clear()
            self.changes[provider, model] = change
            logger.warning(
                "the list price of %s/%s changes from %g/%g to %g/%g dollars per million tokens "
                "of input/output, from %s on",
                *(provider, model, change.input_before, change.output_before),
                *(change.input, change.output, change.month),
            )
        return base if dearer else new


def _is_dearer(new: Rates, base: Rates) -> bool:
    """Whether any kind of use costs more."""
    rows = [(new, base), *((above[1], base) for above in new.tiers)]
    if new.tiers and len(new.tiers) == len(base.tiers):
        rows = [(new, base)]
        rows += [(a[1], b[1]) for a, b in zip(new.tiers, base.tiers, strict=True)]
        if any(a[0] < b[0] for a, b in zip(new.tiers, base.tiers, strict=True)):
            return True
    return any(
        one > other
        for row, before in rows
        for one, other in zip(_rates_of(row), _rates_of(before), strict=True)
    )


def _dollars(rate: int) -> float:
    return rate / 1_000_000


def month_of(now: float, *, later: bool = False) -> str:
    """The UTC month of a Unix time, or the next one."""
    day = datetime.fromtimestamp(now, UTC)
    years, month = divmod(day.month - 1 + (1 if later else 0), 12)
    return f"{day.year + years:04}-{month + 1:02}"


class PriceUpdates:
    """Updates the list prices of `prices` every `interval` seconds while it is entered.

    `fetch` returns a new list; by default it is fetched from where genai-prices publishes it.
    Raises ConfigurationError for an interval below a minute.
    """

    def __init__(
        self,
        prices: Any,
        *,
        interval: float = 86_400.0,
        fetch: Callable[[], Any] | None = None,
    ) -> None:
        if not interval >= _MIN_INTERVAL_SECONDS:
            raise ConfigurationError(
                f"PriceUpdates: interval must be at least {_MIN_INTERVAL_SECONDS:g} seconds, "
                f"got {interval!r}."
            )
        self._prices = prices
        self._interval = interval
        self._fetch = fetch if fetch is not None else _fetch
        self._task: asyncio.Task[None] | None = None

    async def update(self) -> None:
        """Fetch the list once, and use it. Raises what fetching it raises."""
        self._prices.use_list(await asyncio.to_thread(self._fetch))

    async def _step(self) -> None:
        await self.update()
        await asyncio.sleep(self._interval)

    async def __aenter__(self) -> Self:
        what = "updates of list prices"
        self._task = start(repeat(self._step, what=what), what=what)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


def _fetch() -> Any:
    from genai_prices import UpdatePrices

    snapshot = UpdatePrices().fetch()
    if snapshot is None:
        raise ValueError("genai-prices returned no list")
    return snapshot
