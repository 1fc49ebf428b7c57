"""Properties of any sequence of calls; and that a server behaves like the memory store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings, strategies as st

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    Grant,
    MemoryStore,
    NotOnHold,
    RateLimit,
    Store,
)
from asgi_aiproxy.stores.redis import RedisStore
from tests.stores.conftest import Clock

LONG = 3600.0
ACCOUNTS = ("a", "b")
CAP = 60
LIMIT = 6
SLOTS = 3

counts = st.builds(
    RateLimit,
    st.sampled_from(ACCOUNTS),
    st.just("n"),
    st.just(LIMIT),
    st.just(LONG),
    st.integers(0, 4),
)
slots = st.builds(ConcurrencySlot, st.sampled_from(ACCOUNTS), st.just("s"), st.just(SLOTS))
budgets = st.builds(
    BudgetReservation,
    st.sampled_from(ACCOUNTS),
    st.just("b"),
    st.integers(0, 40),
    st.just(CAP),
    st.sampled_from(["charge", "release"]),
)
clears = st.builds(NotOnHold, st.sampled_from(ACCOUNTS), st.sampled_from(["k1", "k2"]))
grants = st.lists(st.one_of(counts, slots, budgets, clears), max_size=4)
# Of two holds, the first to end is returned, which depends on the clock: so there is one.
choosable = st.one_of(slots, budgets, st.just(NotOnHold("a", "k1")))
choices = st.lists(st.lists(choosable, max_size=2), max_size=3)

admits = st.tuples(st.just("admit"), st.integers(0, 30), grants, choices)
settles = st.tuples(st.just("settle"), st.integers(0, 30), st.integers(0, 50), st.booleans())
assumed = st.tuples(st.just("assume"), st.integers(0, 30), grants, st.integers(0, 50))
renews = st.tuples(st.just("renew"), st.integers(0, 30))
holds = st.tuples(st.just("hold"), st.sampled_from(ACCOUNTS), st.sampled_from(["k1", "k2"]))
lifts = st.tuples(st.just("lift"), st.sampled_from(ACCOUNTS), st.sampled_from(["k1", "k2"]))
charges = st.tuples(
    st.just("charge"), st.sampled_from(ACCOUNTS), st.integers(0, 9), st.integers(0, 3)
)
steps = st.lists(
    st.one_of(admits, admits, settles, settles, assumed, renews, holds, lifts, charges),
    max_size=25,
)

waits = st.tuples(st.just("wait"), st.sampled_from([1, 1800, 3599, 3601, 90_000]))
forgotten = st.builds(
    BudgetReservation,
    st.sampled_from(ACCOUNTS),
    st.just("b"),
    st.integers(0, 40),
    st.just(CAP),
    st.just("charge"),
    st.sampled_from([None, 60.0, 7200.0]),
)
later = st.lists(
    st.one_of(
        steps.map(lambda actions: actions[0] if actions else ("wait", 1)),
        st.tuples(
            st.just("admit"), st.integers(0, 30), st.lists(forgotten, max_size=1), st.just([])
        ),
        waits,
        waits,
    ),
    max_size=40,
)

EVERY: Sequence[Grant] = [
    kind
    for account in ACCOUNTS
    for kind in (
        RateLimit(account, "n", LIMIT, LONG),
        ConcurrencySlot(account, "s", SLOTS),
        BudgetReservation(account, "b", 0, CAP),
        NotOnHold(account, "k1"),
        NotOnHold(account, "k2"),
    )
]


def plain(result: Any) -> Any:
    """A result without the times in it."""
    if isinstance(result, Admitted):
        return msgspec.structs.replace(result, at=0.0)
    if isinstance(result, Denied):
        wait = result.retry_after
        return msgspec.structs.replace(result, retry_after=wait and round(wait / LONG))
    return result


async def step(store: Store, action: Any, known: dict[int, Admitted]) -> Any:
    match action:
        case ("admit", holder, wanted, one_of):
            try:
                found = await store.admit(f"{holder}", wanted, ttl=LONG, one_of=one_of)
            except ConfigurationError:
                return "no sense"
            if isinstance(found, Admitted):
                known[holder] = found
            return found
        case ("settle", holder, used, more):
            if holder not in known:
                return None
            got = known[holder]
            actual: dict[Grant, int] = {
                grant: used if more else min(used, grant.amount)
                for grant in got.grants
                if isinstance(grant, BudgetReservation | RateLimit)
            }
            return await store.settle(got, actual)
        case ("assume", holder, wanted, used):
            real = [grant for grant in wanted if isinstance(grant, BudgetReservation)][:1]
            return await store.settle(
                Admitted.assumed(f"assumed {holder}", real), dict.fromkeys(real, used)
            )
        case ("renew", holder):
            return await store.renew(known[holder], LONG) if holder in known else None
        case ("hold", account, name):
            await store.hold(account, name, LONG)  # whether it is longer depends on the clock
            return None
        case ("lift", account, name):
            return await store.lift(account, name)
        case ("charge", account, amount, once):
            return await store.charge(BudgetReservation(account, "b", amount, CAP), once=f"{once}")
    raise AssertionError(action)


async def play(store: Store, actions: Sequence[Any]) -> list[Any]:
    known: dict[int, Admitted] = {}
    seen = []
    for action in actions:
        result = await step(store, action, known)
        seen.append((plain(result), await store.peek(EVERY)))
    return seen


quick = settings(max_examples=150, deadline=None)
fewer = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(st.one_of(steps, later))
def test_admissions_never_exceed_limits(actions: list[Any]) -> None:
    async def run() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        known: dict[int, Admitted] = {}
        for action in actions:
            if action[0] == "wait":
                clock.now += action[1]
                continue
            before = dict(zip(EVERY, await store.peek(EVERY), strict=True))
            result = await step(store, action, known)
            after = dict(zip(EVERY, await store.peek(EVERY), strict=True))
            for grant, level in after.items():
                if isinstance(grant, ConcurrencySlot):
                    assert 0 <= level.used <= SLOTS
                    continue
                if isinstance(grant, NotOnHold):
                    continue
                assert level.used >= 0
                assert level.held >= 0
                most = LIMIT if isinstance(grant, RateLimit) else CAP
                total = level.used + level.held
                if isinstance(result, Admitted) and before[grant] != level:
                    assert total <= max(most, before[grant].used + before[grant].held)
                if isinstance(result, Denied):
                    assert level == before[grant]

    asyncio.run(run())


@quick
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.booleans()), max_size=30))
def test_spent_amounts_are_the_settled_amounts(turns: list[tuple[int, int, bool]]) -> None:
    """And at most the cap, plus the part of underestimated amounts beyond it."""

    async def run() -> None:
        store = MemoryStore()
        total = beyond = 0
        for number, (estimate, used, twice) in enumerate(turns):
            budget = BudgetReservation("a", "b", estimate, CAP)
            got = await store.admit(f"{number}", [budget])
            if isinstance(got, Admitted):
                await store.settle(got, {budget: used})
                if twice:
                    await store.settle(got, {budget: used + 1})
                total += used
                beyond = max(beyond, used - estimate)
            (level,) = await store.peek([budget])
            assert (level.used, level.held) == (total, 0)
            assert total <= CAP + beyond

    asyncio.run(run())


@fewer
@given(actions=steps)
def test_a_server_behaves_like_the_memory_store(redis_url: str, actions: list[Any]) -> None:
    async def run() -> None:
        async with RedisStore(redis_url, prefix=uuid.uuid4().hex, timeout=5) as store:
            assert await play(store, actions) == await play(MemoryStore(), actions)

    asyncio.run(run())


@fewer
@given(actions=steps)
def test_a_cluster_behaves_like_the_memory_store(redis_cluster: str, actions: list[Any]) -> None:
    def of_one(action: Any) -> Any:
        """With several accounts a cluster may name another one of the denied grants."""
        if action[0] == "admit":
            kept = [grant for grant in action[2] if grant.account == "a"]
            one_of = [[grant for grant in one if grant.account == "a"] for one in action[3]]
            return (*action[:2], kept, one_of)
        return action

    single = [of_one(action) for action in actions]

    async def run() -> None:
        async with RedisStore(redis_cluster, prefix=uuid.uuid4().hex, timeout=5) as store:
            assert await play(store, single) == await play(MemoryStore(), single)

    asyncio.run(run())


@quick
@given(
    st.lists(st.tuples(st.integers(0, 45), st.integers(1, 4), st.booleans()), max_size=60),
    st.sampled_from([0.5, 1.0, 7.0]),
)
def test_no_window_admits_more_than_the_limit(
    calls: list[tuple[int, int, bool]], window: float
) -> None:
    """And a request after the given wait is admitted, unless another one was faster."""

    async def run() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        passed: list[tuple[float, int]] = []
        for ticks, amount, patient in calls:
            clock.now += ticks * window / 40
            count = RateLimit("a", "n", LIMIT, window, amount)
            found = await store.admit("x", [count])
            if isinstance(found, Denied):
                assert found.retry_after is not None
                assert 0 < found.retry_after <= window * 1.05 + 0.01
                if not patient:
                    continue
                clock.now += found.retry_after + 0.001
                found = await store.admit("x", [count])
            assert isinstance(found, Admitted)
            passed.append((clock.now, amount))
            recent = sum(n for at, n in passed if at > clock.now - window)
            assert recent <= LIMIT

    asyncio.run(run())
