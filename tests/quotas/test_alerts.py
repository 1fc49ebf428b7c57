"""Thresholds of budgets: reported once a period, over all workers; raises; webhooks."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from asgi_aiproxy.principal import Budget, Limits, Principal, TemporaryRaise
from asgi_aiproxy.quotas.alerts import BudgetAlert, ThresholdWatch, log_alert
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import Admitted, MemoryStore, Store, StoreUnavailableError
from asgi_aiproxy.stores.redis import RedisStore

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
LEVELS = (0.5, 0.8, 0.95)


@pytest.fixture(params=["memory", "redis"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Sequence[Store]]:
    """The stores of three workers."""
    if request.param == "memory":
        yield [MemoryStore()] * 3
        return
    url, prefix = request.getfixturevalue("redis_url"), f"test-{uuid.uuid4().hex}"
    made = [RedisStore(url, prefix=prefix, timeout=5.0) for _ in range(3)]
    async with made[0], made[1], made[2]:
        yield made


class Workers:
    """Workers that spend one budget, and the alerts that they have reported."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores
        self.now = NOW
        self.alerts: list[BudgetAlert] = []
        self.watches = [
            ThresholdWatch(store, LEVELS, [self.alerts.append], clock=lambda: self.now)
            for store in stores
        ]

    async def spend(self, budget: Budget, amount: int, worker: int = 0) -> None:
        store, watch = self.stores[worker], self.watches[worker]
        who = Principal("ann", account="acme", limits=Limits(budgets=(budget,)))
        grant = reserve(who, budget, amount, self.now)
        admitted = await store.admit(uuid.uuid4().hex, [grant])
        assert isinstance(admitted, Admitted)
        await watch.settled(await store.settle(admitted, {grant: amount}))

    async def reported(self) -> list[float]:
        for watch in self.watches:
            await watch.drain()
        return sorted(alert.threshold for alert in self.alerts)


async def test_each_threshold_is_reported_once_over_all_workers(stores: Sequence[Store]) -> None:
    workers = Workers(stores)
    budget = Budget(1000, "day", shared=True)
    random.seed(7)
    await asyncio.gather(*(workers.spend(budget, 10, random.randrange(3)) for _ in range(96)))
    assert await workers.reported() == [0.5, 0.8, 0.95]
    alert = max(workers.alerts, key=lambda alert: alert.threshold)
    assert (alert.account, alert.caller, alert.unit) == ("acme", "", "usd")
    assert (alert.per, alert.period, alert.limit) == ("day", "2026-11-30", 1000)
    assert 950 <= alert.spent <= 960


async def test_the_next_period_and_a_higher_limit_are_reported_again(
    stores: Sequence[Store],
) -> None:
    workers = Workers(stores)
    await workers.spend(Budget(1000, "day"), 600, 0)
    await workers.spend(Budget(1000, "day"), 10, 1)
    assert await workers.reported() == [0.5]
    workers.now += 86400
    await workers.spend(Budget(1000, "day"), 600, 1)
    assert await workers.reported() == [0.5, 0.5]
    raised = Budget(1000, "day", raises=(TemporaryRaise(1000, workers.now + 60),))
    await workers.spend(raised, 500, 2)  # 1100 of 2000
    assert await workers.reported() == [0.5, 0.5, 0.5]
    workers.now += 61
    with pytest.raises(AssertionError):
        await workers.spend(raised, 1)  # the raise has ended: 1100 of 1000 are spent


async def test_a_worker_that_is_restarted_does_not_report_again(stores: Sequence[Store]) -> None:
    await Workers(stores).spend(Budget(100), 60)
    again = Workers(stores)
    await again.spend(Budget(100), 1)
    assert await again.reported() == []


class Unsure(MemoryStore):
    """A store whose answer to an addition is lost, once."""

    lost = False

    async def add(self, *args: Any, **options: Any) -> dict[str, int]:
        sums = await super().add(*args, **options)
        if not self.lost:
            self.lost = True
            raise StoreUnavailableError("no answer")
        return sums


async def test_an_alert_is_not_lost_with_an_answer_of_the_store() -> None:
    workers = Workers([Unsure()])
    await workers.spend(Budget(100), 60)
    assert await workers.reported() == []
    await workers.spend(Budget(100), 1)
    await workers.spend(Budget(100), 1)
    assert await workers.reported() == [0.5]


async def test_a_slow_callback_does_not_hold_up_settlements() -> None:
    release = asyncio.Event()
    heard: list[float] = []

    async def slow(alert: BudgetAlert) -> None:
        await release.wait()
        heard.append(alert.threshold)

    store = MemoryStore()
    workers = Workers([store])
    workers.watches = [ThresholdWatch(store, LEVELS, [slow], clock=lambda: NOW)]
    await workers.spend(Budget(100), 60)
    await workers.spend(Budget(100), 30)  # it would wait here
    assert heard == []
    release.set()
    await workers.watches[0].drain()
    assert sorted(heard) == [0.5, 0.8]


def test_an_alert_can_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log_alert(
        BudgetAlert(
            account="acme",
            caller="",
            unit="usd",
            per="month",
            period="2026-11",
            threshold=0.8,
            limit=1000,
            spent=801,
            at=NOW,
        )
    )
    assert caplog.messages == [
        "80 % of a budget are spent: account=acme caller=- per=month period=2026-11 spent=801 "
        "limit=1000 micro-dollars"
    ]
