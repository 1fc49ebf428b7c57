"""Key pools: which key serves, how it fares, how it heals, and who waits."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.keys import (
    Health,
    HealthChange,
    Key,
    KeyPool,
    Lease,
    NoKeyError,
    classify_response,
    fingerprint,
    matches_pattern,
)
from asgi_aiproxy.keys.key_state import KeyState

pytestmark = pytest.mark.anyio

INFINITY = float("inf")


class Clock:
    """Time as a test wants it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def pool(*keys: str | Key, **options: Any) -> tuple[KeyPool, Clock]:
    clock = Clock()
    options.setdefault("random", random.Random(7))
    return KeyPool(keys, clock=clock, **options), clock


def served(keys: KeyPool, **wish: Any) -> str:
    """Which key serves one call that goes well."""
    with keys.acquire_nowait(**wish) as lease:
        lease.report(200)
        return lease.key.id


def tally(keys: KeyPool, calls: int, **wish: Any) -> Counter[str]:
    return Counter(served(keys, **wish) for _ in range(calls))


async def health(keys: KeyPool) -> dict[str, Health]:
    return {status.id: status.health for status in await keys.status()}


async def rests(keys: KeyPool) -> dict[str, float]:
    return {status.id: status.cooldown_seconds for status in await keys.status()}


def fails(keys: KeyPool, status: int, retry_after: float | None = None, **wish: Any) -> str:
    """Which key served one call that went badly."""
    with keys.acquire_nowait(**wish) as lease:
        lease.report(status, retry_after)
        return lease.key.id


def named(*ids: str, **more: Any) -> list[Key]:
    return [Key(f"sk-{id}", id=id, **more) for id in ids]


# ── verdicts ─────────────────────────────────────────────────────────────────

COOL, QUARANTINE, OK = Health.COOLING, Health.QUARANTINED, Health.OK


@pytest.mark.parametrize(
    ("status", "retry_after", "code", "strikes", "health", "rest"),
    [
        (200, None, None, 0, OK, 0),
        (204, 30.0, None, 9, OK, 0),
        (400, None, None, 0, OK, 0),
        (404, None, None, 0, OK, 0),
        (403, 60.0, None, 3, OK, 0),
        (403, None, "insufficient_quota", 0, OK, 0),
        (408, None, None, 0, OK, 0),
        (500, None, None, 0, OK, 0),
        (503, 60.0, None, 0, OK, 0),
        (529, None, None, 5, OK, 0),
        # The provider's word goes; without one every strike doubles the rest.
        (429, 7.0, None, 0, COOL, 7),
        (429, 7.0, None, 9, COOL, 7),
        (429, 90_000.0 * 365, None, 0, COOL, 86_400),
        (429, INFINITY, None, 0, COOL, 86_400),
        (429, 0.001, None, 0, COOL, 0.5),
        # "Now" is the shortest rest, longer each time that it was not true.
        (429, 0.0, None, 0, COOL, 0.5),
        (429, -5.0, None, 0, COOL, 0.5),
        (429, 0.0, None, 3, COOL, 4),
        (429, 0.0, None, 10**6, COOL, 2048),
        (429, None, None, 0, COOL, 10),
        (429, None, None, 1, COOL, 20),
        (429, None, None, 2, COOL, 40),
        (429, None, None, 5, COOL, 320),
        (429, None, None, 500, COOL, 320),
        (429, None, "rate_limit_exceeded", 0, COOL, 10),
        # Out of money: minutes do not help, whatever the header says.
        (429, 1.0, "insufficient_quota", 0, COOL, 3600),
        (429, None, "billing_hard_limit_reached", 0, COOL, 3600),
        (429, None, "insufficient_balance", 4, COOL, 3600),
        (401, None, None, 0, QUARANTINE, 10),
        (401, 1.0, None, 1, QUARANTINE, 20),
        (401, None, "invalid_api_key", 3, QUARANTINE, 80),
        (401, None, None, 7, QUARANTINE, 1280),
        (401, None, None, 100_000, QUARANTINE, 1280),
        (402, None, None, 0, QUARANTINE, 3600),
    ],
)
def test_what_an_answer_means_for_its_key(
    status: int,
    retry_after: float | None,
    code: str | None,
    strikes: int,
    health: Health,
    rest: float,
) -> None:
    judged = classify_response(status, retry_after, code=code, cooldown=10.0, strikes=strikes)
    assert judged == HealthChange(health, rest)


@given(
    status=st.integers(100, 600),
    retry_after=st.none() | st.floats(),
    cooldown=st.floats(0.01, 1e6),
    strikes=st.integers(0, 10**6),
)
def test_no_verdict_outlasts_a_day_or_more_than_its_own_cooldowns(
    status: int, retry_after: float | None, cooldown: float, strikes: int
) -> None:
    judged = classify_response(status, retry_after, cooldown=cooldown, strikes=strikes)
    assert 0 <= judged.cooldown_seconds <= max(86_400, cooldown * 32)
    assert (judged.cooldown_seconds > 0) == (judged.health is not Health.OK)


# ── which key ────────────────────────────────────────────────────────────────


def test_keys_of_one_weight_take_turns() -> None:
    keys, _ = pool(*named("a", "b", "c"))
    assert [served(keys) for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]


def test_weights_are_honoured() -> None:
    keys, _ = pool(Key("1", id="a", weight=5), Key("2", id="b", weight=3), Key("3", id="c"))
    counts = tally(keys, 9000)
    assert 4800 < counts["a"] < 5200
    assert 2800 < counts["b"] < 3200
    assert 850 < counts["c"] < 1150


@pytest.mark.parametrize("strategy", ["weighted", "round_robin", "random"])
def test_the_load_of_a_cooling_key_is_shared_by_all_others(
    strategy: Any,
) -> None:
    keys, _ = pool(*named("a", "b", "c", "d", "e"), strategy=strategy)
    fails(keys, 429, 3600, key_id="b")
    counts = tally(keys, 4000)
    assert set(counts) == {"a", "c", "d", "e"}
    assert all(850 < count < 1150 for count in counts.values()), counts


def test_the_rest_of_a_heavy_key_is_shared_by_weight() -> None:
    heavy = Key("0", id="heavy", weight=94)
    keys, _ = pool(heavy, Key("1", id="a", weight=4), *named("b", "c"))
    fails(keys, 429, 3600, key_id="heavy")
    counts = tally(keys, 6000)
    assert 3700 < counts["a"] < 4300
    assert 850 < counts["b"] < 1150
    assert 850 < counts["c"] < 1150


def test_round_robin_ignores_weights_and_random_spreads_evenly() -> None:
    heavy = [Key("1", id="a", weight=9), *named("b", "c")]
    keys, _ = pool(*heavy, strategy="round_robin")
    assert [served(keys) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    keys, _ = pool(*heavy, strategy="random")
    assert all(850 < count < 1150 for count in tally(keys, 3000).values())


def test_fill_first_takes_the_first_that_can() -> None:
    keys, clock = pool(Key("1", id="a", concurrency=1), *named("b", "c"), strategy="fill_first")
    assert tally(keys, 5) == {"a": 5}
    first = keys.acquire_nowait()
    assert served(keys) == "b"
    first.release()
    fails(keys, 429, 10)
    assert tally(keys, 5) == {"b": 5}
    clock.now += 10
    assert served(keys) == "a"


def test_least_busy_spreads_calls_in_flight_by_weight() -> None:
    keys, _ = pool(Key("1", id="a", weight=2), *named("b"), strategy="least_busy")
    leases = [keys.acquire_nowait() for _ in range(9)]
    assert Counter(lease.key.id for lease in leases) == {"a": 6, "b": 3}
    for lease in leases:
        if lease.key.id == "b":
            lease.release()
    assert keys.acquire_nowait().key.id == "b"


def test_least_busy_finds_an_idle_one_among_many() -> None:
    keys, _ = pool(*named(*map(str, range(100))), strategy="least_busy")
    leases = [keys.acquire_nowait() for _ in range(300)]
    assert max(Counter(lease.key.id for lease in leases).values()) <= 6
    assert len({lease.key.id for lease in leases}) == 100


def test_lower_priorities_serve_only_when_no_higher_one_can() -> None:
    keys, clock = pool(*named("reserve", priority=1), *named("a", "b"), *named("last", priority=2))
    assert set(tally(keys, 20)) == {"a", "b"}
    fails(keys, 429, 10, key_id="a")
    fails(keys, 429, 20, key_id="b")
    assert set(tally(keys, 5)) == {"reserve"}
    fails(keys, 401, key_id="reserve")
    assert set(tally(keys, 5)) == {"last"}
    clock.now += 10
    assert set(tally(keys, 5)) == {"a"}


def test_an_affinity_keeps_its_key_yields_to_health_and_comes_back() -> None:
    keys, clock = pool(*named(*"abcdefgh"))
    mine = served(keys, affinity="session-1")
    assert tally(keys, 20, affinity="session-1") == {mine: 20}
    fails(keys, 429, 10, key_id=mine)
    other = served(keys, affinity="session-1")
    assert other != mine
    assert tally(keys, 20, affinity="session-1") == {other: 20}
    clock.now += 10
    assert tally(keys, 20, affinity="session-1") == {mine: 20}


def test_affinities_spread_over_keys_by_weight_and_so_do_those_of_a_sick_key() -> None:
    keys, _ = pool(Key("1", id="a", weight=2), *named("b", "c", "d"))
    sessions = [f"session-{n}" for n in range(2000)]
    homes = {session: served(keys, affinity=session) for session in sessions}
    counts = Counter(homes.values())
    assert 700 < counts["a"] < 900
    assert all(320 < counts[id] < 480 for id in "bcd")
    fails(keys, 429, 10, key_id="d")
    moved = Counter(served(keys, affinity=s) for s in sessions if homes[s] == "d")
    assert set(moved) == {"a", "b", "c"}
    assert min(moved.values()) > 50
    stayed = [s for s in sessions if homes[s] != "d"]
    assert all(served(keys, affinity=session) == homes[session] for session in stayed)


def test_a_key_serves_only_its_models() -> None:
    keys, _ = pool(
        Key("1", id="small", models=("gpt-4o-mini*", "text-*")),
        Key("2", id="long", models=("sonnet[1m]",)),
        Key("3", id="gpt", models=("gpt-*",)),
    )
    assert set(tally(keys, 20, model="gpt-4o-mini")) == {"small", "gpt"}
    assert set(tally(keys, 20, model="gpt-5")) == {"gpt"}
    assert set(tally(keys, 5, model="sonnet[1m]")) == {"long"}
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait(model="claude")
    assert not caught.value.exists
    # A call that names no model may have any.
    assert set(tally(keys, 30)) == {"small", "long", "gpt"}


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("*", "", True),
        ("gpt-*", "gpt-", True),
        ("gpt-*", "GPT-4", False),
        ("gpt-?", "gpt-4", True),
        ("gpt-?", "gpt-40", False),
        ("a*b", "a/x/b", True),
        ("sonnet[1m]", "sonnet[1m]", True),
        ("sonnet[1m]", "sonnet1", False),
        ("[a-z]*", "abc", False),
        ("[*", "[x", True),
    ],
)
def test_a_star_stands_for_anything_and_brackets_for_themselves(
    pattern: str, model: str, fits: bool
) -> None:
    assert matches_pattern(pattern, model) is fits


def test_a_caller_can_ask_for_a_key_and_exclude_some() -> None:
    keys, _ = pool(*named("a", "b", "c"))
    assert tally(keys, 5, key_id="b") == {"b": 5}
    assert set(tally(keys, 9, exclude={"b"})) == {"a", "c"}
    with pytest.raises(NoKeyError, match="'z'") as caught:
        keys.acquire_nowait(key_id="z")
    assert (caught.value.unknown, caught.value.exists) == (True, False)
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait(exclude=("a", "b", "c"))
    assert (caught.value.unknown, caught.value.exists) == (False, False)
    # A key that was asked for is not replaced by another.
    fails(keys, 429, 9, key_id="b")
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait(key_id="b")
    assert (caught.value.exists, caught.value.retry_after) == (True, 9)


def test_an_empty_pool_says_so() -> None:
    keys, _ = pool()
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert not caught.value.exists
    assert len(keys) == 0


# ── rest and recovery ────────────────────────────────────────────────────────


async def test_a_limited_key_cools_down_as_long_as_the_provider_says() -> None:
    keys, clock = pool("sk-1", "sk-2")
    first = fails(keys, 429, 20)
    assert (await rests(keys))[first] == 20
    assert first not in tally(keys, 10)
    clock.now += 19.9
    assert first not in tally(keys, 10)
    clock.now += 0.1
    assert first in tally(keys, 10)
    assert set((await health(keys)).values()) == {Health.OK}


async def test_without_a_word_of_the_provider_every_strike_doubles_the_rest() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    for rest in (10, 20, 40, 80, 160, 320, 320):
        fails(keys, 429)
        assert await rests(keys) == {"a": rest}
        clock.now += rest
    served(keys)
    fails(keys, 429)
    assert await rests(keys) == {"a": 10}


async def test_a_burst_of_refusals_is_one_strike() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    leases = [keys.acquire_nowait() for _ in range(50)]
    for lease in leases:
        lease.report(429)
        lease.release()
        clock.now += 0.01
    assert 9.5 < (await rests(keys))["a"] <= 10
    clock.now += 10
    fails(keys, 429)
    assert await rests(keys) == {"a": 20}


async def test_of_several_cooldowns_the_longest_counts() -> None:
    keys, clock = pool(Key("sk", id="a"))
    leases = [keys.acquire_nowait() for _ in range(3)]
    leases[0].report(429, 20)
    leases[1].report(429, 5)
    clock.now += 10
    leases[2].report(429, 30)
    assert await rests(keys) == {"a": 30}


async def test_a_late_success_does_not_end_a_rest_nor_forgive_a_strike() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    late, refused = keys.acquire_nowait(), keys.acquire_nowait()
    refused.report(429)
    late.report(200)
    assert await health(keys) == {"a": Health.COOLING}
    clock.now += 10
    fails(keys, 429)
    assert await rests(keys) == {"a": 20}


async def test_a_refused_key_is_not_let_out_by_a_late_429() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    first, second = keys.acquire_nowait(), keys.acquire_nowait()
    first.report(401)
    second.report(429, 1)
    first.release()
    second.release()
    assert await health(keys) == {"a": Health.QUARANTINED}
    clock.now += 5
    with pytest.raises(NoKeyError):
        keys.acquire_nowait()
    # The other way round the harder verdict wins, too.
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    first, second = keys.acquire_nowait(), keys.acquire_nowait()
    first.report(429, 100)
    second.report(401)
    assert await health(keys) == {"a": Health.QUARANTINED}
    assert await rests(keys) == {"a": 100}


async def test_a_refused_key_is_tried_by_one_call_at_a_time_and_heals() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    fails(keys, 401)
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert caught.value.retry_after == 10
    clock.now += 10
    trial = keys.acquire_nowait()
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert (caught.value.retry_after, caught.value.exists) == (None, True)
    trial.report(200)
    assert await health(keys) == {"a": Health.OK}
    assert served(keys) == "a"  # the trial itself may still run
    trial.release()


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
async def test_an_answer_that_says_nothing_of_the_key_does_not_heal_it(status: int) -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    fails(keys, 401)
    clock.now += 10
    fails(keys, status)
    assert await health(keys) == {"a": Health.QUARANTINED}
    trial = keys.acquire_nowait()
    with pytest.raises(NoKeyError):
        keys.acquire_nowait()
    trial.report(200)
    assert await health(keys) == {"a": Health.OK}


async def test_a_key_that_stays_refused_is_tried_ever_more_seldom() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    tries = []
    while clock.now < 1000 + 86_400:
        try:
            fails(keys, 401)
            tries.append(clock.now)
        except NoKeyError as error:
            clock.now += error.retry_after or 0
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert gaps[:7] == [10, 20, 40, 80, 160, 320, 640]
    assert set(gaps[7:]) == {1280}


@pytest.mark.parametrize("strategy", ["weighted", "round_robin", "random", "fill_first"])
def test_a_healed_key_gets_its_share_back_step_by_step(strategy: Any) -> None:
    first = []
    for seed in range(400):
        keys, clock = pool(*named("a", "b"), strategy=strategy, random=random.Random(seed))
        keys.acquire_nowait(key_id="a").report(401)
        clock.now += 31
        keys.key_set.states["a"].in_flight = 0
        first.append(served(keys))
    assert 20 < first.count("a") < 100  # an eighth of the half or whole it had
    keys, clock = pool(*named("a", "b"), strategy=strategy)
    fails(keys, 401, key_id="a")
    clock.now += 31
    for _ in range(4):
        served(keys, key_id="a")
    normal, _ = pool(*named("a", "b"), strategy=strategy)
    assert abs(tally(keys, 1000)["a"] - tally(normal, 1000)["a"]) < 80


async def test_a_lone_refused_key_is_tried_at_once_when_its_rest_is_over() -> None:
    for seed in range(20):
        keys, clock = pool(Key("sk", id="a"), cooldown=10, random=random.Random(seed))
        fails(keys, 401)
        clock.now += 10
        assert served(keys) == "a"


async def test_an_operator_switches_a_key_off_and_on() -> None:
    keys, _ = pool(*named("a", "b"))
    running = keys.acquire_nowait(key_id="a")
    await keys.disable("a")
    assert tally(keys, 10) == {"b": 10}
    running.report(200)  # no answer brings it back
    running.report(429, 1)
    assert (await health(keys))["a"] is Health.DEAD
    running.release()
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait(key_id="a")
    assert caught.value.retry_after is None
    await keys.enable("a")
    assert set(tally(keys, 10)) == {"a", "b"}
    for change in (keys.disable, keys.enable, keys.remove):
        with pytest.raises(KeyError):
            await change("nobody")


async def test_enabling_a_key_forgives_it_everything() -> None:
    keys, _ = pool(Key("sk", id="a"), cooldown=10)
    fails(keys, 402)
    await keys.enable("a")
    assert served(keys) == "a"
    fails(keys, 429)
    assert await rests(keys) == {"a": 10}


# ── limits ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("start", [0.0, 0.7, 1_000.1, 123_456_789.123])
@pytest.mark.parametrize("rpm", [1, 2, 3, 7, 11, 60, 61, 500])
def test_requests_a_minute_are_exact_and_come_back_one_by_one(rpm: int, start: float) -> None:
    clock = Clock(start)
    keys = KeyPool([Key("sk", id="a", rpm=rpm)], clock=clock)
    assert tally(keys, rpm) == {"a": rpm}
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert caught.value.retry_after == pytest.approx(60 / rpm, rel=1e-3)
    clock.now += 60 / rpm
    assert served(keys) == "a"
    with pytest.raises(NoKeyError):
        keys.acquire_nowait()
    clock.now += 600
    assert tally(keys, rpm) == {"a": rpm}
    with pytest.raises(NoKeyError):
        keys.acquire_nowait()


def test_tokens_a_minute_hold_a_key_back_until_they_have_drained() -> None:
    keys, clock = pool(Key("sk", id="a", tpm=6000))
    with keys.acquire_nowait() as lease:
        lease.count_tokens(3000)
    with keys.acquire_nowait() as lease:
        lease.count_tokens(3000)
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert caught.value.retry_after == pytest.approx(0.01)
    clock.now += 1
    with keys.acquire_nowait() as lease:
        pass
    lease.count_tokens(12_000)  # what a call has used is known after its end
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert caught.value.retry_after == pytest.approx(119.01, rel=1e-3)
    clock.now += 120
    assert served(keys) == "a"


def test_a_key_serves_as_many_calls_at_once_as_it_may() -> None:
    keys, _ = pool(*named("a", concurrency=2), *named("b", concurrency=1))
    leases = [keys.acquire_nowait() for _ in range(3)]
    assert Counter(lease.key.id for lease in leases) == {"a": 2, "b": 1}
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert (caught.value.exists, caught.value.retry_after) == (True, None)
    leases[0].release()
    assert keys.acquire_nowait().key.id == leases[0].key.id


def test_the_error_says_when_the_first_key_is_back() -> None:
    keys, _ = pool(*named("a", "b"), *named("c", concurrency=1))
    keys.acquire_nowait(key_id="c")
    fails(keys, 429, 30, key_id="a")
    fails(keys, 429, 7, key_id="b")
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert caught.value.retry_after == 7


# ── leases ───────────────────────────────────────────────────────────────────


async def in_flight(keys: KeyPool) -> int:
    return sum(status.in_flight for status in await keys.status())


@pytest.mark.parametrize("how", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_lease_ends_with_its_block_however_that_ends(how: type[BaseException]) -> None:
    keys, _ = pool("sk")

    async def work() -> None:
        async with keys.lease():
            assert await in_flight(keys) == 1
            raise how

    with pytest.raises(how):
        await work()
    assert await in_flight(keys) == 0
    with pytest.raises(how), keys.acquire_nowait():
        raise how
    assert await in_flight(keys) == 0


async def test_a_lease_ends_when_its_task_is_cancelled() -> None:
    keys, _ = pool("sk")
    inside = asyncio.Event()

    async def work() -> None:
        async with keys.lease():
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    assert await in_flight(keys) == 1
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert await in_flight(keys) == 0


async def test_releasing_twice_and_settling_late_are_harmless() -> None:
    keys, _ = pool(Key("sk", id="a"))
    lease, other = keys.acquire_nowait(), keys.acquire_nowait()
    lease.release()
    lease.release()
    lease.report(401)
    with lease:
        pass
    assert await in_flight(keys) == 1
    assert await health(keys) == {"a": Health.OK}
    other.release()
    assert await in_flight(keys) == 0


async def test_status_shows_what_happened() -> None:
    keys, _ = pool(*named("a"))
    fails(keys, 429, 12)
    (status,) = await keys.status()
    assert (status.id, status.health, status.cooldown_seconds) == ("a", Health.COOLING, 12)
    assert (status.uses, status.failures, status.in_flight) == (1, 1, 0)


# ── waiting ──────────────────────────────────────────────────────────────────


async def turn() -> None:
    """Let all tasks that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


class Queue:
    """Calls that ask a pool for a key; `order` is in which order they got one."""

    def __init__(self, keys: KeyPool) -> None:
        self.keys = keys
        self.order: list[str] = []
        self.leases: dict[str, Lease] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _call(self, name: str, wish: dict[str, Any]) -> None:
        lease = await self.keys.acquire(**wish)
        self.order.append(name)
        self.leases[name] = lease

    async def join(self, name: str, **wish: Any) -> None:
        self.tasks[name] = asyncio.create_task(self._call(name, wish))
        await turn()

    async def release(self, name: str) -> None:
        self.leases.pop(name).release()
        await turn()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await turn()

    async def empty(self) -> None:
        for lease in self.leases.values():
            lease.release()
        self.leases.clear()
        for task in self.tasks.values():
            task.cancel()
        await asyncio.wait(self.tasks.values(), timeout=5)
        assert not self.keys.key_set.waiting
        assert self.keys.key_set.waiting._timer is None
        assert await in_flight(self.keys) == 0


async def test_the_longest_waiting_call_goes_first() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "abcde":
        await queue.join(name)
    assert queue.order == ["a"]
    for name in "abcd":
        await queue.release(name)
    assert queue.order == list("abcde")
    await queue.empty()


async def test_a_newcomer_does_not_jump_the_queue() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "ab":
        await queue.join(name)
    queue.leases.pop("a").release()  # before "b" has noticed, "c" comes
    await queue.join("c")
    assert queue.order == ["a", "b"]
    await queue.release("b")
    assert queue.order == ["a", "b", "c"]
    await queue.empty()


async def test_a_call_that_waits_for_another_key_delays_no_one() -> None:
    keys = KeyPool(
        [
            Key("1", id="x", models=("x*",), concurrency=1),
            Key("2", id="y", models=("y*",), concurrency=1),
        ],
        max_wait_seconds=30,
    )
    queue = Queue(keys)
    await queue.join("x1", model="x")
    await queue.join("y1", model="y")
    await queue.join("x2", model="x")
    await queue.join("y2", model="y")
    await queue.release("y1")
    assert queue.order == ["x1", "y1", "y2"]
    await queue.join("y3", model="y")
    await queue.release("x1")
    assert queue.order == ["x1", "y1", "y2", "x2"]
    await queue.empty()


async def test_one_release_serves_one_and_a_new_key_all() -> None:
    keys = KeyPool([Key("sk", id="old", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "abcde":
        await queue.join(name)
    await queue.release("a")
    assert queue.order == ["a", "b"]
    await keys.add(Key("new", id="new"))
    await turn()
    assert queue.order == list("abcde")
    await queue.empty()


async def test_a_call_that_leaves_the_queue_gives_its_turn_to_the_next() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    for name in "abcd":
        await queue.join(name)
    await queue.cancel("b")
    # "c" is given its turn and cancelled in the same moment: "d" has it.
    queue.leases.pop("a").release()
    queue.tasks["c"].cancel()
    await turn()
    assert queue.order == ["a", "d"]
    assert queue.tasks["c"].cancelled()
    assert await in_flight(keys) == 1
    await queue.empty()


async def test_a_wait_has_an_end() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=0.02)
    async with keys.lease():
        with pytest.raises(NoKeyError) as caught:
            await keys.acquire()
        assert caught.value.exists
    assert not keys.key_set.waiting
    assert (await keys.acquire()).key.secret == "sk"


async def test_no_call_waits_for_a_key_that_will_not_come() -> None:
    keys = KeyPool(named("a", models=("x",)), max_wait_seconds=30)
    for wish in ({"model": "y"}, {"key_id": "nobody"}, {"exclude": ("a",)}):
        with pytest.raises(NoKeyError):
            await asyncio.wait_for(keys.acquire(**wish), 5)
    assert not keys.key_set.waiting


async def test_a_call_that_waits_for_a_removed_key_fails_at_once() -> None:
    keys = KeyPool([Key("sk", id="a", concurrency=1)], max_wait_seconds=30)
    lease = keys.acquire_nowait()
    queue = Queue(keys)
    await queue.join("x")
    await keys.remove("a")
    with pytest.raises(NoKeyError):
        await asyncio.wait_for(queue.tasks["x"], 5)
    lease.release()
    await queue.empty()


async def test_a_cooling_key_is_waited_for_and_served_when_it_is_back() -> None:
    keys = KeyPool(["sk"], max_wait_seconds=30)
    queue = Queue(keys)
    running = keys.acquire_nowait()
    fails(keys, 429, 0.5)
    await queue.join("a")
    await queue.join("b")
    assert queue.order == []
    running.release()  # frees nothing: the key rests
    await asyncio.wait_for(asyncio.gather(*queue.tasks.values()), 5)
    assert queue.order == ["a", "b"]
    await queue.empty()


async def test_a_key_that_cools_down_while_it_is_waited_for_is_served_afterwards() -> None:
    keys = KeyPool([Key("sk", concurrency=1)], max_wait_seconds=30)
    queue = Queue(keys)
    running = keys.acquire_nowait()
    await queue.join("a")
    running.report(429, 0.5)
    running.release()
    await asyncio.wait_for(queue.tasks["a"], 5)
    await queue.empty()


async def test_those_who_wait_are_served_as_soon_as_a_trial_succeeds() -> None:
    clock = Clock()
    keys = KeyPool(["sk"], max_wait_seconds=30, clock=clock)
    fails(keys, 401)
    clock.now += 31
    trial = keys.acquire_nowait()
    queue = Queue(keys)
    for name in "ab":
        await queue.join(name)
    assert queue.order == []
    trial.report(200)  # its answer may take minutes yet
    await turn()
    assert queue.order == ["a", "b"]
    trial.release()
    await queue.empty()


async def test_five_hundred_calls_share_three_keys_without_a_leak() -> None:
    keys = KeyPool(named("a", "b", "c", concurrency=2), max_wait_seconds=30)
    most = 0

    async def call(number: int) -> None:
        nonlocal most
        async with keys.lease() as lease:
            most = max(most, await in_flight(keys))
            await asyncio.sleep(0)
            if number % 5 == 0:
                raise ValueError
            lease.report(200)

    tasks = [asyncio.create_task(call(number)) for number in range(500)]
    await asyncio.sleep(0)
    for task in tasks[100:400:7]:
        task.cancel()
    ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    assert {type(end) for end in ends} == {type(None), ValueError, asyncio.CancelledError}
    assert most == 6
    assert await in_flight(keys) == 0
    assert not keys.key_set.waiting
    assert not keys.key_set.waiting._kinds


# ── keys come and go ─────────────────────────────────────────────────────────


async def test_keys_can_be_added_and_removed_while_calls_run() -> None:
    keys, _ = pool(*named("a"))
    running = keys.acquire_nowait()
    await keys.add(Key("sk-b", id="b"))
    await keys.remove("a")
    assert tally(keys, 4) == {"b": 4}
    assert running.key.secret == "sk-a"
    running.report(429)
    running.count_tokens(10)
    running.release()
    assert await health(keys) == {"b": Health.OK}
    assert await in_flight(keys) == 0
    await keys.add("sk-c")
    assert len(keys) == 2
    assert served(keys, key_id=fingerprint("sk-c"))


async def test_a_replaced_key_is_the_new_one_and_calls_in_flight_keep_theirs() -> None:
    keys, _ = pool(Key("old", id="a"))
    running = keys.acquire_nowait()
    fails(keys, 401)
    await keys.rotate("a", "new")
    assert running.key.secret == "old"
    assert await health(keys) == {"a": Health.OK}
    with keys.acquire_nowait() as lease:
        assert lease.key.secret == "new"
        running.report(401)  # says nothing of the new one
        running.release()
        assert await health(keys) == {"a": Health.OK}
    assert await in_flight(keys) == 0
    assert len(keys) == 1


async def test_other_limits_for_the_same_secret_forget_nothing() -> None:
    keys, _ = pool(Key("sk", id="a", concurrency=5))
    running = [keys.acquire_nowait() for _ in range(5)]
    await keys.add(Key("sk", id="a", concurrency=6, weight=3))
    running.append(keys.acquire_nowait())
    with pytest.raises(NoKeyError):
        keys.acquire_nowait()
    running[0].report(401)
    await keys.add(Key("sk", id="a"))
    assert await health(keys) == {"a": Health.QUARANTINED}
    for lease in running:
        lease.release()
    assert await in_flight(keys) == 0


async def test_ten_thousand_keys_can_be_added_one_by_one() -> None:
    keys, _ = pool()
    for number in range(10_000):
        await keys.add(f"sk-{number}")
    assert len(keys) == 10_000
    assert len(tally(keys, 1000)) == 1000


# ── secrets and mistakes ─────────────────────────────────────────────────────


async def test_nothing_that_is_shown_holds_a_secret() -> None:
    keys = KeyPool(["sk-secret-1", Key("sk-secret-2", id="named", attributes={})])
    lease = keys.acquire_nowait()
    shown = [keys, lease, lease.key, await keys.status(), Key("sk-secret-1"), keys.key_set.states]
    for error in ({"key_id": "x"}, {"exclude": [key.id for key in await keys.status()]}):
        with pytest.raises(NoKeyError) as caught:
            keys.acquire_nowait(**error)
        shown.append(str(caught.value))
    assert "secret" not in repr(shown)
    assert repr(keys) == "KeyPool('default': 2 ok)"
    assert repr(KeyPool()) == "KeyPool('default': no keys)"


def test_a_key_without_an_id_is_known_by_its_fingerprint() -> None:
    assert Key("sk-1").id == fingerprint("sk-1") == "key-" + Key("sk-1").id[4:]
    assert Key("sk-1").id != Key("sk-2").id
    assert len(fingerprint("\ud800")) == 36
    # These two began alike, and were taken for one.
    assert fingerprint("sk-38823") != fingerprint("sk-59480")


async def test_adding_a_key_never_replaces_another_of_the_same_id() -> None:
    keys, _ = pool(Key("old", id="a"))
    with pytest.raises(ConfigurationError, match="another key with the id 'a'"):
        await keys.add(Key("new", id="b"), Key("other", id="a"))
    with pytest.raises(ConfigurationError, match="another key with the id 'c'"):
        await keys.add(Key("1", id="c"), Key("2", id="c"))
    assert {id: key.secret for id, key in keys.keys.items()} == {"a": "old"}
    await keys.add(Key("old", id="a", weight=3))  # the same one, with more to say
    assert keys.keys["a"].weight == 3
    with pytest.raises(KeyError):
        await keys.update(Key("x", id="unknown"))


@pytest.mark.parametrize("one", ["sk-abc", Key("sk-abc")])
def test_a_single_key_is_one_key(one: str | Key) -> None:
    assert len(KeyPool(one)) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KeyPool(["a", "a"]), "the same key is given twice"),
        (lambda: KeyPool([Key("a", id="x"), Key("b", id="x")]), "two keys have the same id: 'x'"),
        (lambda: KeyPool([""], name="openai"), "'openai': a key is empty"),
        (lambda: KeyPool([Key("", id="x")]), "a key is empty.*'x'"),
        (lambda: KeyPool(None), "environment variable"),  # type: ignore[arg-type]
        (lambda: KeyPool([None]), "environment variable"),  # type: ignore[list-item]
        (lambda: KeyPool([b"sk"]), "must be a string, not bytes"),  # type: ignore[list-item]
        (lambda: KeyPool(["sk-1\n"]), "line break"),
        (lambda: KeyPool([" sk-1"]), "a line break, a leading or trailing space"),
        (lambda: KeyPool(["sk-…"]), "not ASCII"),
        (lambda: KeyPool(["a"], strategy="best"), "weighted, round_robin"),  # type: ignore[arg-type]
        (lambda: KeyPool(["a"], cooldown=0), "cooldown"),
        (lambda: KeyPool(["a"], cooldown=float("nan")), "cooldown"),
        (lambda: KeyPool(["a"], max_wait_seconds=-1), "wait"),
        (lambda: Key("a", weight=0), "weight must be at least 1"),
        (lambda: Key("a", id="x", rpm=0), "'x': rpm must be at least 1"),
        (lambda: Key("a", tpm=-1), "tpm must be at least 1"),
        (lambda: Key("a", concurrency=0), "concurrency must be at least 1"),
        (lambda: Key("a", id="x\r\ny"), "printable"),
        (lambda: Key("a", base_url="api.example"), "base_url must begin with http"),
        (lambda: Key("a", proxy="sk-1@proxy:3128"), "the URL of an outbound proxy must begin with"),
    ],
)
def test_a_mistake_is_reported_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        make()
    assert "sk-" not in str(caught.value)


async def test_a_mistake_at_run_time_changes_nothing() -> None:
    keys, _ = pool(*named("a"))
    for bad in ("", "x\n"):
        with pytest.raises(ConfigurationError):
            await keys.add(bad)
    assert len(keys) == 1


def test_models_may_be_one_pattern() -> None:
    keys, _ = pool(Key("sk", models="gpt-*"))  # type: ignore[arg-type]
    assert served(keys, model="gpt-4")
    with pytest.raises(NoKeyError):  # a text is not taken for its letters, one of which is "*"
        keys.acquire_nowait(model="claude")


# ── whatever happens ─────────────────────────────────────────────────────────

STRATEGIES = ["weighted", "round_robin", "random", "least_busy", "fill_first"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "acquire", "settle", "release", "wait", "edit", "cancel"]),
        st.integers(0, 1000),
    ),
    max_size=120,
)


@given(steps=STEPS, strategy=st.sampled_from(STRATEGIES), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_key_ever_serves_more_than_it_may_and_all_leases_come_back(
    steps: list[tuple[str, int]], strategy: Any, seed: int
) -> None:
    asyncio.run(random_walk(steps, strategy, seed))


async def random_walk(steps: list[tuple[str, int]], strategy: Any, seed: int) -> None:
    clock = Clock()
    limits = {"a": 1, "b": 2, "c": 3}
    made = [Key(f"sk-{id}", id=id, weight=n, concurrency=n) for id, n in limits.items()]
    keys = KeyPool(
        made, strategy=strategy, max_wait_seconds=30, clock=clock, random=random.Random(seed)
    )
    held: list[Lease] = []
    waiting: list[asyncio.Task[Lease]] = []
    for action, number in steps:
        if action == "take":
            affinity = f"s{number}" if number % 3 == 0 else ""
            try:
                held.append(keys.acquire_nowait(affinity=affinity))
            except NoKeyError:
                pass
        elif action == "acquire":
            wish = {"key_id": "abc"[number % 3]} if number % 4 == 0 else {}
            waiting.append(asyncio.create_task(keys.acquire(**wish)))
            await asyncio.sleep(0)
        elif action == "settle" and held:
            status = (200, 429, 401, 402, 500)[number % 5]
            held[number % len(held)].report(status, [None, 5.0][number % 2])
        elif action == "release" and held:
            held.pop(number % len(held)).release()
        elif action == "wait":
            clock.now += number
        elif action == "edit":
            id = "abc"[number % 3]
            await (keys.enable(id) if number % 2 else keys.disable(id))
        elif action == "cancel" and waiting:
            waiting[number % len(waiting)].cancel()
        if number % 2:
            await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            waiting.remove(task)
            if not task.cancelled() and task.exception() is None:
                held.append(task.result())
        now = await keys.status()
        assert all(status.in_flight <= limits[status.id] for status in now)
        assert sum(status.in_flight for status in now) >= len(held)
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting)
    ended = [task for task in waiting if not task.cancelled() and task.exception() is None]
    held += [task.result() for task in ended]
    for lease in held:
        lease.release()
    assert await in_flight(keys) == 0
    assert not keys.key_set.waiting


# ── many keys ────────────────────────────────────────────────────────────────


FULL = ("fill_first", 5_000)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys were looked at so far."""
    count = [0]
    wait = KeyState.seconds_until_usable

    def counted(slot: KeyState, now: float) -> float:
        count[0] += 1
        return wait(slot, now)

    monkeypatch.setattr(KeyState, "seconds_until_usable", counted)
    return count


# (fill_first looks at all that are full, by its nature.)
@pytest.mark.parametrize(
    ("strategy", "resting"),
    [(name, rest) for name in STRATEGIES for rest in (0, 5_000) if (name, rest) != FULL],
)
def test_of_ten_thousand_keys_few_are_looked_at(
    strategy: Any, resting: int, looks: list[int]
) -> None:
    weighted = strategy == "weighted"
    made = [Key(f"sk-{n}", id=str(n), weight=1 + n % 3 * weighted) for n in range(10_000)]
    keys = KeyPool(made, strategy=strategy, random=random.Random(1))
    for number in range(2000, 2000 + resting):
        fails(keys, 429, 3600, key_id=str(number))
    looks[0] = 0
    for _ in range(1000):
        served(keys)
    assert looks[0] < 3_000
    looks[0] = 0
    for number in range(1000):
        served(keys, affinity=f"session-{number}")
    assert looks[0] < (1_001 if not resting else 12_000)
