"""Refused keys are tested in the background, by one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from asgi_aiproxy import ConfigurationError, lifespan
from asgi_aiproxy.keys import Health, Key, KeyPool, NoKeyError
from asgi_aiproxy.stores import Store
from tests.keys.conftest import health, is_so
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

KEYS = [Key("sk-a", id="a"), Key("sk-b", id="b")]


async def refused(pool: KeyPool, id: str) -> None:
    with await pool.acquire(key_id=id) as lease:
        lease.report(401)


async def test_a_refused_key_is_tested_within_the_hosts_lifespan_and_recovers() -> None:
    pool = KeyPool(KEYS, cooldown=0.5)
    tested: list[str] = []
    answers = {"a": [401, 401, 200], "b": [200]}

    async def test(key: Key) -> int:
        tested.append(key.id)
        return answers[key.id].pop(0)

    pool.start_health_checks(test, interval=0.05)
    await refused(pool, "a")
    async with lifespan(pool)():
        await until(lambda: is_so(pool, a=Health.OK))
    assert tested == ["a", "a", "a"]  # those that are well are left alone
    await refused(pool, "b")
    await asyncio.sleep(0.7)  # its cooldown has ended, and the pool is closed
    assert tested == ["a", "a", "a"]


async def test_a_test_that_fails_or_hangs_does_not_change_the_key() -> None:
    pool = KeyPool(KEYS, cooldown=0.5)
    fates = iter(["raise", "hang"])
    tested = 0

    async def test(key: Key) -> int:
        nonlocal tested
        tested += 1
        match next(fates, "well"):
            case "raise":
                raise OSError("no way there")
            case "hang":
                await asyncio.sleep(60)
        return 200

    pool.start_health_checks(test, interval=0.05, timeout=0.05)
    await refused(pool, "a")
    async with pool:
        await until(lambda: is_so(pool, a=Health.OK))
    assert tested == 3
    assert sum(status.in_flight for status in await pool.status()) == 0


async def test_healthy_keys_are_tested_on_request_and_disabled_ones_never() -> None:
    pool = KeyPool([*KEYS, Key("sk-c", id="c"), Key("sk-d", id="d")], cooldown=60)
    tested: Counter[str] = Counter()

    async def test(key: Key) -> int:
        tested[key.id] += 1
        return 401 if key.id == "b" else 200

    pool.start_health_checks(test, interval=0.05, include_healthy=True)
    await pool.disable("c")
    with pool.acquire_nowait(key_id="d") as lease:
        lease.report(429)
    async with pool:
        await until(lambda: tested["a"] >= 3)
    assert set(tested) == {"a", "b"}
    assert tested["b"] == 1  # from then on it cools down
    assert (await health(pool))["b"] is Health.QUARANTINED


async def test_only_one_process_tests(client: Callable[[], Store]) -> None:
    tested: Counter[int] = Counter()
    running = 0

    async with AsyncExitStack() as stack:
        pools = []
        for number in range(3):

            async def test(key: Key, number: int = number) -> int:
                nonlocal running
                running += 1
                assert running == 1
                tested[number] += 1
                await asyncio.sleep(0.01)
                running -= 1
                return 200

            store = await stack.enter_async_context(client())
            pools.append(KeyPool(KEYS[0], name="v", store=store))
            pools[-1].start_health_checks(test, interval=0.2, include_healthy=True)
            await stack.enter_async_context(pools[-1])
        began = asyncio.get_running_loop().time()
        await until(lambda: tested.total() >= 5)
        rounds = (asyncio.get_running_loop().time() - began) / 0.18
        assert tested.total() <= rounds + 1


def test_invalid_times_of_health_checks_are_refused() -> None:
    async def test(key: Key) -> int:
        return 200

    for wrong in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError):
            KeyPool("sk").start_health_checks(test, interval=wrong)


# ── rate limits in headers ───────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "cooldowns"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, 6),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s"}, 90),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:30Z",
            },
            10,
        ),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "6s"}, 0),
        ({"x-ratelimit-remaining-requests": "0"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0),
        ({"x-ratelimit-reset-requests": "6s", "content-type": "text/html"}, 0),
        ({}, 0),
    ],
)
async def test_a_limit_that_an_answer_reports_as_used_up_is_respected(
    headers: dict[str, str], cooldowns: float
) -> None:
    pool = KeyPool(KEYS[0], clock=lambda: 1000.0)
    with pool.acquire_nowait() as lease:
        lease.report(200)
        lease.update_from_headers([("date", "x"), *headers.items()], 1_700_000_000.0)
    (status,) = await pool.status()
    assert status.cooldown_seconds == cooldowns
    assert status.failures == 0
    if cooldowns:
        with pytest.raises(NoKeyError) as caught:
            pool.acquire_nowait()
        assert caught.value.retry_after == cooldowns
