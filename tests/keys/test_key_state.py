"""How keys cool down, recover and keep their limits."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from asgi_aiproxy.keys import (
    Health,
    Key,
    KeyPool,
    NoKeyError,
)
from tests.support.key_pools import Clock, cooldowns, fails, health, named, pool, served, tally

pytestmark = pytest.mark.anyio


async def test_a_limited_key_cools_down_as_long_as_the_provider_says() -> None:
    keys, clock = pool("sk-1", "sk-2")
    first = fails(keys, 429, 20)
    assert (await cooldowns(keys))[first] == 20
    assert first not in tally(keys, 10)
    clock.now += 19.9
    assert first not in tally(keys, 10)
    clock.now += 0.1
    assert first in tally(keys, 10)
    assert set((await health(keys)).values()) == {Health.OK}


async def test_without_a_time_from_the_provider_every_strike_doubles_the_cooldown() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    for rest in (10, 20, 40, 80, 160, 320, 320):
        fails(keys, 429)
        assert await cooldowns(keys) == {"a": rest}
        clock.now += rest
    served(keys)
    fails(keys, 429)
    assert await cooldowns(keys) == {"a": 10}


async def test_a_burst_of_refusals_is_one_strike() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    leases = [keys.acquire_nowait() for _ in range(50)]
    for lease in leases:
        lease.report(429)
        lease.release()
        clock.now += 0.01
    assert 9.5 < (await cooldowns(keys))["a"] <= 10
    clock.now += 10
    fails(keys, 429)
    assert await cooldowns(keys) == {"a": 20}


async def test_of_several_cooldowns_the_longest_counts() -> None:
    keys, clock = pool(Key("sk", id="a"))
    leases = [keys.acquire_nowait() for _ in range(3)]
    leases[0].report(429, 20)
    leases[1].report(429, 5)
    clock.now += 10
    leases[2].report(429, 30)
    assert await cooldowns(keys) == {"a": 30}


async def test_a_late_success_does_not_end_a_cooldown_or_clear_a_strike() -> None:
    keys, clock = pool(Key("sk", id="a"), cooldown=10)
    late, refused = keys.acquire_nowait(), keys.acquire_nowait()
    refused.report(429)
    late.report(200)
    assert await health(keys) == {"a": Health.COOLING}
    clock.now += 10
    fails(keys, 429)
    assert await cooldowns(keys) == {"a": 20}


async def test_a_quarantine_is_not_ended_by_a_late_429() -> None:
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
    assert await cooldowns(keys) == {"a": 100}


async def test_a_refused_key_is_tried_by_one_call_at_a_time_and_recovers() -> None:
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
async def test_a_response_that_is_not_about_the_key_does_not_end_its_quarantine(
    status: int,
) -> None:
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


async def test_a_key_that_stays_refused_is_tried_at_growing_intervals() -> None:
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
def test_a_recovered_key_gets_its_share_back_gradually(strategy: Any) -> None:
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


async def test_a_single_refused_key_is_tried_at_once_after_its_cooldown() -> None:
    for seed in range(20):
        keys, clock = pool(Key("sk", id="a"), cooldown=10, random=random.Random(seed))
        fails(keys, 401)
        clock.now += 10
        assert served(keys) == "a"


async def test_an_operator_disables_and_enables_a_key() -> None:
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


async def test_enabling_a_key_resets_its_health() -> None:
    keys, _ = pool(Key("sk", id="a"), cooldown=10)
    fails(keys, 402)
    await keys.enable("a")
    assert served(keys) == "a"
    fails(keys, 429)
    assert await cooldowns(keys) == {"a": 10}


@pytest.mark.parametrize("start", [0.0, 0.7, 1_000.1, 123_456_789.123])
@pytest.mark.parametrize("rpm", [1, 2, 3, 7, 11, 60, 61, 500])
def test_requests_per_minute_are_exact_and_become_available_one_by_one(
    rpm: int, start: float
) -> None:
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


def test_a_key_over_its_tokens_per_minute_is_not_used_until_they_have_drained() -> None:
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


def test_a_key_serves_as_many_concurrent_calls_as_its_limit() -> None:
    keys, _ = pool(*named("a", concurrency=2), *named("b", concurrency=1))
    leases = [keys.acquire_nowait() for _ in range(3)]
    assert Counter(lease.key.id for lease in leases) == {"a": 2, "b": 1}
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert (caught.value.exists, caught.value.retry_after) == (True, None)
    leases[0].release()
    assert keys.acquire_nowait().key.id == leases[0].key.id


def test_the_error_has_the_time_until_the_first_key_recovers() -> None:
    keys, _ = pool(*named("a", "b"), *named("c", concurrency=1))
    keys.acquire_nowait(key_id="c")
    fails(keys, 429, 30, key_id="a")
    fails(keys, 429, 7, key_id="b")
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert caught.value.retry_after == 7
