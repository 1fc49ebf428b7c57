"""The grants of calls, the costs of exchanges, and their settlement."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import Principal
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.exchange.admission import ResponseSample
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.token_estimate import RequestSize
from asgi_aiproxy.principal import Budget, Limits, TemporaryRaise
from asgi_aiproxy.quotas.grants import (
    account_name,
    denial_error,
    request_grants,
    reserve,
    token_grants,
)
from asgi_aiproxy.quotas.periods import is_within, period_kind, period_name, seconds_to_end
from asgi_aiproxy.quotas.settlement import SettlementQueue
from asgi_aiproxy.quotas.usage_estimate import BillableUsage, billable_usage
from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    MemoryStore,
    StoreUnavailableError,
)
from asgi_aiproxy.usage.record import Outcome, UsageRecord
from tests.support.metered_gateway import Trouble

pytestmark = pytest.mark.anyio


def at(*args: int) -> float:
    return datetime(*args, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("per", "now", "name", "left"),
    [
        ("total", at(2026, 3, 5), "total", None),
        ("day", at(2026, 3, 5), "2026-03-05", 86400),
        ("day", at(2026, 3, 5, 23, 59, 30), "2026-03-05", 30),
        ("month", at(2026, 12, 31, 12), "2026-12", 43200),
        ("month", at(2026, 2, 1), "2026-02", 28 * 86400),
        ("month", at(2028, 2, 1), "2028-02", 29 * 86400),
        ("hour", at(2026, 3, 5, 23, 59, 30), "2026-03-05T23", 30),
        ("hour", at(2026, 3, 5, 7), "2026-03-05T07", 3600),
        ("week", at(2026, 11, 30), "2026-W49", 7 * 86400),
        ("week", at(2026, 12, 6, 23, 59, 59), "2026-W49", 1),
        ("week", at(2027, 1, 3), "2026-W53", 86400),
        ("2026-12-01..2026-12-31", at(2026, 12, 31, 23), "2026-12-01..2026-12-31", 3600),
        ("2026-12-01..2026-12-01", at(2026, 11, 30, 23), "2026-12-01..2026-12-01", 3600),
        ("2026-12-01..2026-12-31", at(2027, 1, 1), "2026-12-01..2026-12-31", None),
    ],
)
def test_periods_are_those_of_utc(per: Any, now: float, name: str, left: float | None) -> None:
    assert period_name(per, now) == name
    assert period_kind(name) == per
    assert seconds_to_end(per, now) == left


def test_a_budget_of_two_days_can_be_spent_on_these_and_between() -> None:
    who = Principal("a")
    budget = Budget.parse("5/2026-12-01..2026-12-31")
    for now, limit in (
        (at(2026, 11, 30, 23, 59, 59), 0),
        (at(2026, 12, 1), 5_000_000),
        (at(2026, 12, 31, 23, 59, 59), 5_000_000),
        (at(2027, 1, 1), 0),
    ):
        grant = reserve(who, budget, 1, now)
        assert grant.cap == limit
        assert is_within(budget.per, now) is bool(limit)
        error = denial_error(Denied(grant=grant, left=0), now)
        assert ("cannot be spent today" in error.message) is not bool(limit)
        assert "budget from 2026-12-01 to 2026-12-31" in error.message


def test_a_raise_ends_by_itself() -> None:
    budget = Budget.usd(5, "month")
    now = at(2026, 12, 1)
    raised = Budget(
        budget.limit, "month", raises=(TemporaryRaise(100, now + 10), TemporaryRaise(7, now + 20))
    )
    caps = [reserve(Principal("a"), raised, 1, now + s).cap for s in (0, 9, 10, 19, 20)]
    assert caps == [5_000_107, 5_000_107, 5_000_007, 5_000_007, 5_000_000]


@pytest.mark.parametrize(
    "text", ["5/year", "5/2026-12-31..2026-12-01", "5/2026-02-30..2026-03-01", "5/2026-12-01"]
)
def test_other_periods_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Budget.parse(text)


def test_all_grants_of_a_call_are_in_one_account() -> None:
    budgets = (Budget(5), Budget(6, "day"), Budget(7, "month", "units"), Budget(8, shared=True))
    limits = Limits(rpm=1, tpm=2, concurrency=3, budgets=budgets)
    who = Principal("a", account="acme", limits=limits)
    now = at(2026, 3, 5)
    grants = [*request_grants(who, limits), *token_grants(who, limits, 9, lambda b: b.limit, now)]
    assert {grant.account for grant in grants} == {account_name(who)} == {"caller:acme"}
    assert len({grant.name for grant in grants}) == 7
    other = Principal("b", account="acme")
    assert reserve(who, budgets[0], 1, now).name != reserve(other, budgets[0], 1, now).name
    assert reserve(who, budgets[3], 1, now).name == reserve(other, budgets[3], 1, now).name
    assert next(grant.keep for grant in grants if isinstance(grant, BudgetReservation)) is None


@pytest.mark.parametrize(
    ("budget", "left", "words"),
    [
        (Budget(5), 0, "Your budget is used up."),
        (Budget(5, "day"), 0, "Your budget of this day is used up."),
        (Budget(5, shared=True), 0, "The budget of your account is used up."),
        (Budget(5), 3, "Your budget has $0.000003 left, and this request may cost $0.000009."),
        (
            Budget(5, "month", "units", shared=True),
            3,
            "The budget of this month of your account has 3 units left, "
            "and this request may cost 9 units.",
        ),
    ],
)
def test_the_error_names_the_budget_that_is_used_up(budget: Budget, left: int, words: str) -> None:
    who = Principal("a:b")  # what a host calls its users may look like anything
    now = at(2026, 3, 5)
    refused = Denied(grant=reserve(who, budget, 9, now), left=left)
    assert denial_error(refused, now).message == words


# ── what was used ────────────────────────────────────────────────────────────

REPORTED = Usage(input=10, output=5)


SIZE = RequestSize("p", "", input=70, output=300, usual=40)


def record(outcome: Outcome, **fields: Any) -> UsageRecord:
    return UsageRecord(id="1", outcome=outcome, **{"provider": "p", "duration": 10.0, **fields})


@pytest.mark.parametrize(
    ("ended", "reckoned"),
    [
        (record(Outcome.DONE, usage=REPORTED, first_byte=1.0), BillableUsage(REPORTED)),
        (record(Outcome.DONE, first_byte=9.0), BillableUsage(Usage(input=40, output=51), True)),
        (record(Outcome.DONE, first_byte=1.0), BillableUsage(Usage(input=40, output=300), True)),
        (
            record(Outcome.DONE, first_byte=1.0, operation="embeddings"),
            BillableUsage(Usage(input=40), True),
        ),
        (record(Outcome.REFUSED), BillableUsage(Usage())),
        (record(Outcome.FAILED), BillableUsage(Usage())),
        (record(Outcome.FAILED, usage=REPORTED), BillableUsage(REPORTED, not_charged=True)),
        (
            record(Outcome.FAILED, usage=REPORTED, first_byte=9.0),
            BillableUsage(Usage(input=10, output=51), True, True),
        ),
        (record(Outcome.CLIENT_DISCONNECTED, provider=""), BillableUsage(Usage())),
        (record(Outcome.CLIENT_DISCONNECTED), BillableUsage(Usage(input=40), True)),
        (
            record(Outcome.CLIENT_DISCONNECTED, usage=Usage(input=10, output=1), first_byte=9.5),
            BillableUsage(Usage(input=10, output=26), True),
        ),
        (
            record(Outcome.CLIENT_DISCONNECTED, usage=Usage(input=10, output=90), first_byte=9.5),
            BillableUsage(Usage(input=10, output=90), True),
        ),
    ],
)
def test_an_exchange_costs_its_reported_usage_or_else_an_estimate(
    ended: UsageRecord, reckoned: BillableUsage
) -> None:
    assert billable_usage(ended, lambda: SIZE) == reckoned


@pytest.mark.parametrize(
    ("sample", "least", "most"),
    [
        (b'data: {"choices":[{"delta":{"content":"word "}}]}\n\n', 1000, 2000),
        (
            b'data: {"delta":{"type":"text_delta","text":"ten words of it, give or take"}}\n\n',
            0,
            10**4,
        ),
        (b'{"candidates":[{"content":{"parts":[{"text":"' + b"lorem ipsum " * 50, 10**5, 2 * 10**5),
    ],
)
def test_a_response_without_usage_is_charged_by_an_estimate_of_its_text(
    sample: bytes, least: int, most: int
) -> None:
    for ended in (
        record(Outcome.DONE, first_byte=9.0),
        record(Outcome.CLIENT_DISCONNECTED, first_byte=9.0),
    ):
        passed = ResponseSample(len(sample) * 1000, sample)
        assert least < billable_usage(ended, lambda: SIZE, passed).usage.output < most
        # Usage without text is estimated by time.
        silent = ResponseSample(10**6, b"event: ping\n\n")
        assert billable_usage(ended, lambda: SIZE, silent).usage.output == 51


# ── settling ─────────────────────────────────────────────────────────────────


def grants(amount: int) -> list[Any]:
    return [ConcurrencySlot("a", "slots", 100), BudgetReservation("a", "usd", amount, 10**9)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.booleans(), st.booleans()),
        max_size=30,
    )
)
async def test_whatever_the_store_does_the_usage_is_charged_once(
    steps: list[tuple[int, int, bool, bool]],
) -> None:
    store = Trouble(lambda: 1_700_000_000.0)
    settler = SettlementQueue(store)
    settler._backlog._pause = lambda tries: 0.0  # type: ignore[method-assign, assignment]
    for number, (amount, used, away, late) in enumerate(steps):
        try:
            admitted = await store.admit(f"h{number}", grants(amount))
        except StoreUnavailableError:
            admitted = Admitted.assumed(f"h{number}", grants(amount))
        assert isinstance(admitted, Admitted)
        settler.put(admitted, {admitted.grants[1]: used})
        if number % 3 == 0:
            settler.put(admitted, {admitted.grants[1]: used + 1})  # twice, by a slip
        store.away, store.late = away, late
        await asyncio.sleep(0)
    store.away = False
    await settler.drain()
    slots, budget = await store.peek(grants(0))
    assert (slots.used, budget.held) == (0, 0)
    assert budget.used == sum(used for _, used, _, _ in steps)


async def test_a_failing_settlement_does_not_delay_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    settler = SettlementQueue(store)
    admitted = [await store.admit(f"h{n}", grants(10)) for n in range(3)]
    inner = store.settle

    async def settle(one: Admitted, actual: Any) -> Any:
        if one.holder == "h1":
            raise RuntimeError("a bug")
        return await inner(one, actual)

    store.settle = settle  # type: ignore[method-assign, assignment]
    for one in admitted:
        assert isinstance(one, Admitted)
        settler.put(one, {one.grants[1]: 5})
    await settler.drain()
    assert "its reservation stays charged" in caplog.text
    level = await store.peek(grants(0))
    assert (level[1].used, level[1].held) == (10, 10)


async def test_only_open_admissions_are_renewed() -> None:
    store = Trouble(lambda: 1_700_000_000.0)
    settler = SettlementQueue(store, ttl=0.06)
    held = await store.admit("held", grants(10))
    assert isinstance(held, Admitted)
    settler.keep(held)
    for number in range(50):
        ended = await store.admit(f"h{number}", grants(1))
        assert isinstance(ended, Admitted)
        settler.keep(ended)
        settler.put(ended, {})
    while store.calls.count("renew") < 3:
        await asyncio.sleep(0.01)
    settler.put(held, {})
    await settler.drain()
    assert settler._renewal is not None
    await asyncio.wait((settler._renewal,), timeout=5)
    assert settler._renewal.done()
    assert store.calls.count("renew") < 10


async def test_a_hook_is_called_once_for_each_settlement() -> None:
    store = MemoryStore()
    heard: list[tuple[int, ...]] = []

    async def settled(result: Any) -> None:
        heard.append(tuple(result.spent.values()))

    settler = SettlementQueue(store, settled=settled)
    admitted = await store.admit("h", grants(10))
    assert isinstance(admitted, Admitted)
    for _ in range(3):
        settler.put(admitted, {admitted.grants[1]: 7})
    await settler.drain()
    assert heard == [(7,)]
