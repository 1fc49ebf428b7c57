"""Redis stopped, paused, restarted, slow, full: no call waits beyond its limit, and all
recovers.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    RateLimit,
    StoreUnavailableError,
)
from asgi_aiproxy.stores.redis import RedisStore, pipeline
from tests.support.redis_server import Server, server as started
from tests.support.tcp_proxy import Fault, Proxy

pytestmark = pytest.mark.anyio

LIMIT = 0.5
SLACK = 30.0  # what a busy machine may take on top


@pytest.fixture
def server() -> Iterator[Server]:
    with started("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server
        server.signal(signal.SIGCONT)


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    async with RedisStore(server.url, timeout=LIMIT) as store:
        yield store


async def timed(call: Awaitable[object]) -> tuple[float, object]:
    """The duration of a call, and its result."""
    start = time.monotonic()
    try:
        result: object = await call
    except StoreUnavailableError as error:
        result = error
    return time.monotonic() - start, result


async def recovered(store: RedisStore) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await store.add("recovery", {"n": 1})
            except StoreUnavailableError:
                await asyncio.sleep(0.02)
            else:
                return


def stop(server: Server) -> None:
    server.stop()


def pause(server: Server) -> None:
    server.signal(signal.SIGSTOP)


def resume(server: Server) -> None:
    if server.process is None:
        server.start()
    else:
        server.signal(signal.SIGCONT)


@pytest.mark.parametrize("fault", [stop, pause])
@pytest.mark.parametrize("used", [True, False], ids=["connected", "never connected"])
async def test_calls_to_an_unavailable_server_end_in_time_and_it_recovers(
    store: RedisStore, server: Server, fault: Callable[[Server], None], used: bool
) -> None:
    if used:
        await store.add("day", {"n": 1})
    fault(server)
    results = await asyncio.gather(*(timed(store.add("day", {"n": 1})) for _ in range(300)))
    assert all(isinstance(result, StoreUnavailableError) for _, result in results)
    assert max(seconds for seconds, _ in results) < LIMIT + SLACK
    resume(server)
    await recovered(store)
    assert await store.add("other", {"n": 1}) == {"n": 1}


async def test_while_the_server_is_unavailable_calls_fail_concurrently(
    store: RedisStore, server: Server
) -> None:
    await store.add("day", {"n": 1})
    pause(server)
    start = time.monotonic()
    for _ in range(100):
        _, result = await timed(store.add("day", {"n": 1}))
        assert isinstance(result, StoreUnavailableError)
        await asyncio.sleep(0.005)
    assert time.monotonic() - start < 100 * LIMIT / 2
    resume(server)
    await recovered(store)


async def test_a_single_call_long_after_a_failure_is_not_refused_for_it(
    store: RedisStore, server: Server
) -> None:
    """No call was made during the outage: the next call is served."""
    stop(server)
    with pytest.raises(StoreUnavailableError):
        await store.get("t", "k")
    resume(server)
    await asyncio.sleep(1.5)
    assert await store.get("t", "k") is None


async def test_when_reconnecting_has_ended_the_next_call_finds_the_server(
    store: RedisStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_RECONNECT_IDLE", 0)
    for _ in range(2):
        stop(server)
        with pytest.raises(StoreUnavailableError):
            await store.get("t", "k")
        resume(server)
        await asyncio.sleep(0)
        assert await store.get("t", "k") is None


async def test_a_connection_that_the_server_closed_while_idle_costs_nothing(
    store: RedisStore, server: Server
) -> None:
    for number in range(1, 4):
        assert await store.add("day", {"n": 1}) == {"n": number}
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        await asyncio.sleep(0.1)
    stop(server)
    server.start()
    await asyncio.sleep(0.1)
    assert await store.add("day", {"n": 1}) == {"n": 4}


@pytest.mark.parametrize("fault", ["swallow", "cut"])
async def test_nothing_is_done_twice_when_replies_are_lost(server: Server, fault: Fault) -> None:
    async with Proxy(server.port) as proxy, RedisStore(proxy.url, timeout=LIMIT) as store:
        await store.add("day", {"n": 0})
        for number in range(1, 4):
            proxy.fault = fault
            seconds, result = await timed(store.add("day", {"n": 1}))
            assert isinstance(result, StoreUnavailableError)
            assert seconds < LIMIT + SLACK
            proxy.fault = "none"
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await store.sums("day", ["n"]) == {"n": number}
                        break
                    except StoreUnavailableError:
                        await asyncio.sleep(0.02)


async def test_late_replies_are_not_given_to_other_calls(server: Server) -> None:
    """After a time-out the connection is closed: its late replies answer no later call."""
    async with Proxy(server.port) as proxy, RedisStore(proxy.url, timeout=LIMIT) as store:
        for number in range(50):
            await store.put("t", f"k{number}", b"%d" % number)
        proxy.delay = LIMIT + 0.2
        late = await asyncio.gather(*(timed(store.get("t", f"k{n}")) for n in range(50)))
        assert all(isinstance(result, StoreUnavailableError) for _, result in late)
        proxy.delay = 0.0
        await recovered(store)
        found = await asyncio.gather(*(store.get("t", f"k{n}") for n in reversed(range(50))))
        assert found == [b"%d" % n for n in reversed(range(50))]


async def test_in_any_disorder_a_reply_is_the_callers_own_or_an_error(server: Server) -> None:
    """Connections are cut, replies are late or lost, callers are cancelled; two hundred
    continue.
    """
    dice = random.Random(4711)
    served = failed = 0
    ended = False

    async with Proxy(server.port) as proxy, RedisStore(proxy.url, timeout=1) as store:

        async def ask(key: str) -> None:
            nonlocal served, failed
            value = f"{key} {dice.random()}"
            try:
                if dice.random() < 0.5:
                    assert await store.rows("t", [key, "none"]) == {key: key.encode() * 3}
                else:
                    assert list(await store.add("sums", {value: 1})) == [value]
            except StoreUnavailableError:
                failed += 1
            else:
                served += 1

        async def caller(number: int) -> None:
            while not ended:
                call = asyncio.create_task(ask(f"key-{number}"))
                if dice.random() < 0.2:
                    await asyncio.sleep(dice.uniform(0, 0.01))
                    call.cancel()
                await asyncio.wait((call,))
                if not call.cancelled():
                    call.result()
                await asyncio.sleep(dice.uniform(0, 0.2))

        keys = [f"key-{number}" for number in range(200)]
        async with RedisStore(server.url, timeout=10) as before:
            await before.put_many("t", {key: key.encode() * 3 for key in keys})
        callers = [asyncio.create_task(caller(number)) for number in range(200)]
        rounds = 0
        while rounds < 12 or served < 500 or failed < 100:
            faults: list[Fault] = ["none", "none", "swallow", "cut"]
            proxy.fault = dice.choice(faults)
            proxy.delay = dice.choice([0.0, 0.0, 0.1, 0.95, 1.5])
            await asyncio.sleep(0.25)
            proxy.fault, proxy.delay = "none", 0.0
            await asyncio.sleep(0.25)
            rounds += 1
        ended = True
        await asyncio.gather(*callers)


async def test_a_slow_server_serves_all_calls_at_the_same_time(server: Server) -> None:
    async with Proxy(server.port) as proxy, RedisStore(proxy.url, timeout=5) as store:
        proxy.delay = 0.3
        start = time.monotonic()
        waves = []
        for number in range(10):
            waves += [
                asyncio.create_task(store.add("day", {f"{number}.{n}": 1})) for n in range(50)
            ]
            await asyncio.sleep(0.02)
        await asyncio.gather(*waves)
        assert time.monotonic() - start < 500 * 0.3 / 2
        assert proxy.connections == 1


async def test_a_server_without_free_connections_is_unavailable_until_it_has_one(
    server: Server,
) -> None:
    store = RedisStore(server.url, timeout=LIMIT)
    server.ask("CONFIG", "SET", "maxclients", "1")
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    results = await asyncio.gather(*(timed(store.add("day", {"n": 1})) for _ in range(20)))
    assert all(isinstance(result, StoreUnavailableError) for _, result in results)
    assert max(seconds for seconds, _ in results) < LIMIT + SLACK
    writer.close()
    await recovered(store)
    await store.aclose()


async def test_five_hundred_calls_need_one_connection(server: Server) -> None:
    async with Proxy(server.port) as proxy, RedisStore(proxy.url, timeout=5) as store:
        await asyncio.gather(*(store.add("day", {"n": 1}) for _ in range(500)))
        assert await store.add("day", {"n": 0}) == {"n": 500}
        assert proxy.connections == 1


async def test_the_number_of_waiting_calls_is_limited(
    store: RedisStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_MAX_WAITING", 100)
    results = await asyncio.gather(*(timed(store.add("day", {"n": 1})) for _ in range(150)))
    refused = [result for _, result in results if isinstance(result, StoreUnavailableError)]
    assert len(refused) == 50
    assert "calls are waiting" in str(refused[0])
    assert await store.add("day", {"n": 1}) == {"n": 101}


async def test_scripts_that_the_server_has_forgotten_are_sent_again(
    store: RedisStore, server: Server
) -> None:
    await store.add("day", {"n": 1})
    server.ask("SCRIPT", "FLUSH")
    results = await asyncio.gather(*(store.add("day", {"n": 1}) for _ in range(20)))
    assert sorted(result["n"] for result in results) == list(range(2, 22))


async def test_errors_of_the_server_are_quoted(store: RedisStore, server: Server) -> None:
    server.ask("SET", "aiproxy:{day}:n", "no hash")
    with pytest.raises(StoreUnavailableError, match="WRONGTYPE"):
        await store.add("day", {"n": 1})
    server.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailableError, match="OOM"):
        await store.add("night", {"n": 1})
    server.ask("CONFIG", "SET", "maxmemory", "0")
    assert await store.add("night", {"n": 1}) == {"n": 1}


async def test_a_server_that_has_become_a_replica_is_left(server: Server) -> None:
    """As when a name resolves to another server from now on: old connections accept no writes."""
    with started() as new:
        async with Proxy(server.port) as proxy, RedisStore(proxy.url, timeout=5) as store:
            await store.add("day", {"n": 1})
            server.ask("REPLICAOF", "127.0.0.1", str(new.port))
            proxy.target = new.port
            with pytest.raises(StoreUnavailableError, match="READONLY"):
                await store.add("day", {"n": 1})
            await recovered(store)
            assert await store.add("day", {"n": 1}) == {"n": 1}


async def test_a_version_rises_though_the_servers_clock_was_set_back(
    store: RedisStore, server: Server
) -> None:
    future = str(int(time.time() + 1e6) * 1_000_000)
    server.ask("SET", "aiproxy:{t}:v", future)
    await store.put("t", "k", b"1")
    assert await store.version("t") == int(future) + 1


async def test_a_closed_store_opens_again_when_it_is_used(store: RedisStore) -> None:
    await store.add("day", {"n": 1})
    await store.aclose()
    assert await store.add("day", {"n": 1}) == {"n": 2}


def test_a_store_moves_to_another_event_loop(server: Server) -> None:
    store = RedisStore(server.url)

    async def use() -> dict[str, int]:
        stop = store.watch("t", lambda: None)
        try:
            return await store.add("day", {"n": 1})
        finally:
            stop()

    assert [asyncio.run(use())["n"] for _ in range(3)] == [1, 2, 3]


async def test_watchers_are_notified_of_changes_made_during_an_outage(
    store: RedisStore, server: Server
) -> None:
    heard = asyncio.Event()
    await store.put("t", "k", b"1")
    stop = store.watch("t", heard.set)
    await heard.wait()
    pause(server)
    await asyncio.sleep(1)
    resume(server)
    heard.clear()
    async with RedisStore(server.url) as other:
        await other.put("t", "k", b"2")
    async with asyncio.timeout(60):
        await heard.wait()
    stop()


@pytest.mark.parametrize("fault", ["pause", "restart", "swallow", "cut"])
async def test_budgets_are_exact_at_the_end_whatever_happens_meanwhile(
    server: Server, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty callers spend while the server comes and goes; what fails is settled later, as
    `Admitted.assumed`. Nothing is charged twice or lost, nothing stays reserved.
    """
    caplog.set_level(logging.ERROR)
    budget = BudgetReservation("team", "usd", 10, 100_000)
    grants = [ConcurrencySlot("team", "calls", 1000), RateLimit("team", "rpm", 100_000), budget]
    spent = 0
    ended = False
    unsettled: list[tuple[Admitted, int]] = []

    async with Proxy(server.port) as proxy, RedisStore(proxy.url, timeout=LIMIT) as store:

        async def caller(number: int) -> int:
            nonlocal spent
            turn = 0
            while not ended:
                turn += 1
                holder = f"{number}.{turn}"
                used = turn % 7
                try:
                    found = await store.admit(holder, grants)
                except StoreUnavailableError:
                    # fail_closed for every other: it did not go out, and cost nothing
                    used *= turn % 2
                    found = Admitted.assumed(holder, grants)
                assert isinstance(found, Admitted)
                spent += used
                await asyncio.sleep(0.02)
                try:
                    await store.settle(found, {budget: used})
                except StoreUnavailableError:
                    unsettled.append((found, used))
            return turn

        callers = [asyncio.create_task(caller(number)) for number in range(20)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            if fault == "pause":
                pause(server)
                await asyncio.sleep(0.8)
                resume(server)
            elif fault == "restart":
                stop(server)
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.start)
            else:
                proxy.fault = "swallow" if fault == "swallow" else "cut"
                await asyncio.sleep(0.8)
                proxy.fault = "none"
            await recovered(store)
        ended = True
        turns = await asyncio.gather(*callers)
        assert sum(turns) > 300
        assert unsettled
    async with RedisStore(server.url, timeout=30) as sink:
        for _ in range(2):
            await asyncio.gather(*(sink.settle(each, {budget: n}) for each, n in unsettled))
        level, slots = await sink.peek([budget, grants[0]])
        assert (level.used, level.held) == (spent, 0)
        assert slots.used == 0
    assert caplog.records == []


async def test_a_busy_event_loop_is_not_a_timeout_of_the_server(server: Server) -> None:
    limit = 2.0  # the server itself takes less, also on a busy machine
    async with RedisStore(server.url, timeout=limit) as store:
        await store.add("day", {"n": 1})
        for turn in range(2, 6):
            call = asyncio.create_task(store.add("day", {"n": 1}))
            await asyncio.sleep(0.01 if turn % 2 else 0)
            time.sleep(limit + 0.1)  # noqa: ASYNC251 (that is the point)
            assert await call == {"n": turn}


async def test_a_call_for_a_whole_table_does_not_wait_for_an_unavailable_server(
    store: RedisStore, server: Server
) -> None:
    await store.put_many("t", {f"{n}": b"" for n in range(1000)})
    pause(server)
    many: dict[str, bytes | None] = {f"{n}": b"" for n in range(1000)}
    for call in (store.rows("t"), store.page("t", limit=5000), store.put_many("t", many)):
        seconds, result = await timed(call)
        assert isinstance(result, StoreUnavailableError)
        assert seconds < LIMIT + SLACK
