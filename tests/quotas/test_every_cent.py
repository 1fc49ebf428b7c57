"""Receipts, the ledger and budgets agree to the micro-dollar, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from asgi_aiproxy import AIShim
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.services.receipts import to_receipt
from asgi_aiproxy.services.usage import to_record_out
from asgi_aiproxy.stores import (
    Admitted,
    Denied,
    Grant,
    MemoryStore,
    Settled,
    StoreUnavailableError,
)
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.usage.ledger import Ledger, Query
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

# Prices at which nearly every call ends in a fraction of a micro-dollar.
PRICES = Prices(
    {
        "gpt-a": Price(input=0.153, output=0.617, cache_read=0.0371),
        "gpt-b": Price(input=2.5, output=10, reasoning=13.7, request=0.0000031),
    },
    listed=False,
)
HUGE = 10**12


class Outages:
    """A store that is unavailable while `away`: before it executes a call, or after (`late`)."""

    away = False
    late = False

    def _fail(self, *, after: bool) -> None:
        if self.away and self.late is after:
            raise StoreUnavailableError("away")

    async def admit(
        self, holder: str, grants: Sequence[Grant], **options: Any
    ) -> Admitted | Denied:
        self._fail(after=False)
        answer: Admitted | Denied = await super().admit(holder, grants, **options)  # type: ignore[misc]
        self._fail(after=True)
        return answer

    async def settle(
        self, admitted: Admitted, actual: Mapping[Grant, int] | None = None
    ) -> Settled:
        self._fail(after=False)
        answer: Settled = await super().settle(admitted, actual)  # type: ignore[misc]
        self._fail(after=True)
        return answer

    async def add(self, *args: Any, **options: Any) -> dict[str, int]:
        self._fail(after=False)
        sums: dict[str, int] = await super().add(*args, **options)  # type: ignore[misc]
        self._fail(after=True)
        return sums

    async def append(self, *args: Any, **options: Any) -> None:
        self._fail(after=False)
        await super().append(*args, **options)  # type: ignore[misc]
        self._fail(after=True)


class MemoryWithOutages(Outages, MemoryStore):
    """In memory."""


class RedisWithOutages(Outages, RedisStore):
    """In Redis."""


class Response:
    """A response in pieces; an exception among them is raised."""

    def __init__(self, status: int, kind: str, pieces: list[bytes | Exception]) -> None:
        self.status = status
        self.headers = [("content-type", kind)]
        self._pieces = pieces

    async def read(self) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def aclose(self) -> None:
        self._pieces.clear()


class RandomUpstream:
    """A transport to a provider that answers, refuses, fails and breaks off at random."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def send(self, request: Any) -> Response:
        rng = self._rng
        broken = APIError(ErrorKind.UPSTREAM, "The connection was lost.")
        fault = rng.random()
        if fault < 0.04:
            raise broken
        if fault < 0.10:
            status = rng.choice([400, 500, 503])
            body = json.dumps({"error": {"message": "no", "type": "t", "code": None}}).encode()
            return Response(status, "application/json", [body])
        usage = self._usage() if rng.random() < 0.9 else None
        if not json.loads(request.body).get("stream"):
            return Response(200, "application/json", [self._whole(usage)])
        pieces: list[bytes | Exception] = [*self._events(usage)]
        if fault < 0.2:
            pieces[rng.randrange(1, len(pieces)) :] = [broken]
        return Response(200, "text/event-stream", pieces)

    def _usage(self) -> dict[str, Any]:
        rng = self._rng
        prompt, completion = rng.randrange(1, 4000), rng.randrange(1, 900)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": rng.randrange(prompt)},
            "completion_tokens_details": {"reasoning_tokens": rng.randrange(completion)},
        }

    def _whole(self, usage: dict[str, Any] | None) -> bytes:
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        more = {"usage": usage} if usage else {}
        return json.dumps(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-x"}
            | {"choices": [choice], **more}
        ).encode()

    def _events(self, usage: dict[str, Any] | None) -> list[bytes]:
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x"}
        chunks: list[dict[str, Any]] = [
            {**head, "choices": [{"index": 0, "delta": {"content": "word "}}]} for _ in range(3)
        ]
        chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if usage:
            chunks.append({**head, "choices": [], "usage": usage})
        events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
        return [*events, b"data: [DONE]\n\n"]


CALLERS = {
    "ann": Principal(
        "ann", limits=Limits(budgets=(Budget(HUGE), Budget(HUGE, "hour"), Budget(HUGE, "week")))
    ),
    "bob": Principal(
        "bob", account="acme", price_ratio=0.8314159,
        limits=Limits(budgets=(Budget(HUGE, "month"), Budget(HUGE, "day", shared=True))),
    ),
    "eve": Principal(
        "eve", account="acme", price_ratio=1.5,
        limits=Limits(budgets=(Budget(HUGE), Budget(HUGE, "day", shared=True))),
    ),
}  # fmt: skip
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()  # of the store and the limits


class Place:
    """A gateway for CALLERS, over one store."""

    def __init__(self, store: Any, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = store
        self.ledger = Ledger(store, max_records=20_000)
        self.shim = AIShim(
            OPENAI.using("sk-1"),
            transport=RandomUpstream(self.rng),
            record=self.ledger,
            backoff=0.0,
            attempts=1,
        )
        self.quota = Quota(
            self.shim,
            store=store,
            prices=PRICES,
            budgets_away="fail_open",
            clock=lambda: NOW,
        )
        self.app = Authenticate(
            self.quota, identify=lambda scope: CALLERS[scope["state"]["caller"]]
        )

    async def call(self, number: int) -> None:
        """One exchange; some clients leave before its end."""
        rng = self.rng
        body = {
            "model": rng.choice(["gpt-a", "gpt-b"]),
            "messages": [{"role": "user", "content": "Hi " * rng.randrange(30)}],
            "max_tokens": 1000,
            "stream": rng.random() < 0.5,
        }
        path = "/v1/messages" if rng.random() < 0.2 else "/v1/chat/completions"
        state = {"caller": rng.choice(list(CALLERS))}
        leaves = rng.randrange(1, 6) if rng.random() < 0.1 else 10**6
        messages = [{"type": "http.request", "body": json.dumps(body).encode()}]
        sent = 0

        async def receive() -> Any:
            if messages:
                return messages.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            nonlocal sent
            sent += 1
            if sent >= leaves:
                raise OSError("the client has left")

        scope = asgi.scope_of("POST", path, headers={"x-request-id": f"r{number}"}, state=state)
        await self.app(scope, receive, send)

    async def run(self, count: int, outages: Sequence[tuple[int, int, bool]]) -> None:
        """`count` exchanges, some at the same time; `outages` are begin, end, and whether late."""
        async with self.app:
            for begin in range(0, count, 50):
                away = [late for first, last, late in outages if first <= begin < last]
                self.store.away, self.store.late = bool(away), bool(away and away[0])
                await asyncio.gather(*(self.call(begin + n) for n in range(50)))
            self.store.away = False
            async with asyncio.timeout(60):
                while len(self.quota._limiter.settler):
                    await asyncio.sleep(0.01)
            await self.shim._recorder.drain(60.0)
            await self.ledger.drain(60.0)

    async def records(self) -> list[UsageRecord]:
        found: list[UsageRecord] = []
        after: str | None = ""
        while after is not None:
            page = await self.ledger.query(Query(), after=after, limit=1000)
            found += page.records
            after = page.after or None
        return found

    async def spent(self) -> dict[str, int]:
        """What is spent of each budget, by its name in the store."""
        grants = [
            reserve(caller, budget, 0, NOW)
            for caller in CALLERS.values()
            for budget in caller.limits.budgets
        ]
        levels = await self.store.peek(grants)
        assert {level.held for level in levels} == {0}
        return {
            f"{grant.account}/{grant.name}": level.used
            for grant, level in zip(grants, levels, strict=True)
        }


def charged(records: Sequence[UsageRecord], **fields: str) -> int:
    """What the receipts of some exchanges add up to, in micro-dollars."""
    total = Decimal(0)
    for record in records:
        if all(getattr(record, name) == value for name, value in fields.items()):
            receipt = to_receipt(to_record_out(record))
            lines = sum((Decimal(line.micro_dollars) for line in receipt.lines), Decimal(0))
            assert lines == (receipt.micro_dollars or 0)
            paid = Decimal(0) if receipt.not_charged else lines
            assert Decimal(receipt.charged) * 1_000_000 == paid
            total += paid
    assert total == int(total)
    return int(total)


# With Redis; 10,000 take a minute (see docs/development.md).
REDIS_EXCHANGES = int(os.environ.get("AIPROXY_EXCHANGES", "500"))


@pytest.mark.parametrize(
    ("kind", "count"), [("memory", 10_000), ("redis", REDIS_EXCHANGES)], ids=["memory", "redis"]
)
async def test_receipts_ledger_and_budgets_agree_to_the_micro_dollar(
    request: pytest.FixtureRequest, kind: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "asgi_aiproxy")
    store: Any = MemoryWithOutages(clock=lambda: NOW)
    if kind == "redis":
        url, prefix = request.getfixturevalue("redis_url"), f"test-{uuid.uuid4().hex}"
        store = RedisWithOutages(url, prefix=prefix, timeout=30.0)
    length = min(count // 10, 200)
    outages = [
        (count // 5, count // 5 + length, False),
        (3 * count // 5, 3 * count // 5 + length, True),
    ]
    async with store:
        await check_agreement(store, count, outages)


async def check_agreement(store: Any, count: int, outages: Sequence[tuple[int, int, bool]]) -> None:
    place = Place(store, seed=42)
    await place.run(count, outages)
    records = await place.records()
    assert {record.request_id for record in records} == {f"r{n}" for n in range(count)}
    assert len(records) == count
    outcomes = {record.outcome.value for record in records}
    assert outcomes == {"done", "cut", "failed", "refused"}
    assert any(record.not_charged and record.cost for record in records)
    assert any(record.estimated for record in records)

    total = charged(records)
    assert total > 0
    today = datetime.now(UTC).date()
    days = await place.ledger.totals("day", since=today - timedelta(days=1), until=today)
    assert sum(day.requests for day in days.values()) == count
    assert sum(day.cost for day in days.values()) == total
    by_caller = await place.ledger.totals("principal", since=today - timedelta(days=1), until=today)
    assert {name: totals.cost for name, totals in by_caller.items()} == {
        name: charged(records, principal=name) for name in CALLERS
    }

    ann, bob, eve = (charged(records, principal=name) for name in CALLERS)
    assert await place.spent() == {
        "caller:ann/ann:usd:total": ann,
        "caller:ann/ann:usd:2026-11-30T12": ann,
        "caller:ann/ann:usd:2026-W49": ann,
        "caller:acme/bob:usd:2026-11": bob,
        "caller:acme/eve:usd:total": eve,
        "caller:acme/usd:2026-11-30": bob + eve,
    }
