"""A gateway whose callers have limits, over a scripted provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asgi_aiproxy import OpenAIShim, Principal
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Limits
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    Denied,
    Grant,
    MemoryStore,
    Settled,
    Store,
    StoreUnavailableError,
)
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

# An answer of scripted_upstream has 3 tokens in and 2 out: 3 + 2 * 10 micro-dollars here.
PRICES = Prices({"m": Price(input=1, output=10), "dear": Price(input=1000)}, listed=False)
COST = 23


class Trouble(MemoryStore):
    """A store that can be unavailable: before it executes a call, or after."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self.away = False
        self.late = False
        self.calls: list[str] = []

    def _gone(self, *, after: bool) -> None:
        if self.away and self.late == after:
            raise StoreUnavailableError("The store is away.")

    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        *,
        ttl: float = 60.0,
        one_of: Sequence[Sequence[Grant]] = (),
    ) -> Admitted | Denied:
        self.calls.append("admit")
        self._gone(after=False)
        answer = await super().admit(holder, grants, ttl=ttl, one_of=one_of)
        self._gone(after=True)
        return answer

    async def settle(
        self, admitted: Admitted, actual: Mapping[Grant, int] | None = None
    ) -> Settled:
        self.calls.append("settle")
        self._gone(after=False)
        answer = await super().settle(admitted, actual)
        self._gone(after=True)
        return answer

    async def renew(self, admitted: Admitted, ttl: float) -> bool:
        self.calls.append("renew")
        self._gone(after=False)
        return await super().renew(admitted, ttl)


class Gateway:
    """`ask` sends a request as the caller `who`; `spent` returns what it spent."""

    def __init__(
        self,
        store: Store,
        upstream: Upstream | None = None,
        *,
        who: Principal | None = None,
        relay: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.store = store
        self.upstream = upstream or Upstream(answers())
        self.who = who or Principal("alice", limits=Limits())
        self.records: list[UsageRecord] = []
        options.setdefault("prices", PRICES)
        self.shim = OpenAIShim(
            OPENAI.using("sk-1"),
            transport=self.upstream.transport,
            record=self._record,
            backoff=0.01,
            **(relay or {}),
        )
        self.quota = Quota(self.shim, store=store, **options)
        self.app = Authenticate(self.quota, identify=lambda scope: self.who)

    async def _record(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def ask(self, **body: Any) -> asgi.Answer:
        return await asgi.chat(self.app, **{"max_tokens": 10, **body})

    async def settled(self) -> None:
        """Wait until all settlements are written."""
        await self.quota._limiter.drain()
        while self.quota._limiter.settler:
            await asyncio.sleep(0.01)
        await self.shim._recorder.drain()

    async def spent(self, number: int = 0) -> int:
        """The amount spent of a caller's budget; nothing may be reserved any more."""
        await self.settled()
        grant = self._grant(number)
        (level,) = await self.store.peek([grant])
        assert level.held == 0
        return level.used

    def _grant(self, number: int) -> BudgetReservation:
        now = self.quota._limiter.clock()
        return reserve(self.who, self.who.limits.budgets[number], 0, now)
