"""The store stops, hangs and recovers: calls follow the outage policy, and all is counted later."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.keys import Health, Key, KeyPool, NoEncryption, NoKeyError, shared_pool
from asgi_aiproxy.stores import ConcurrencySlot, MemoryStore, StoreUnavailableError
from asgi_aiproxy.stores.redis import RedisStore
from tests.keys.conftest import ids, is_so
from tests.support.redis_server import Server, die_with_parent, server as started
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

LIMIT = 1.0  # of a call of the store
SLACK = 30.0  # what a busy machine may take on top
LIMITED, FREE = Key("sk-l", id="limited", concurrency=2), Key("sk-f", id="free", priority=1)


@pytest.fixture
def server() -> Iterator[Server]:
    with started("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server
        if server.process is not None:
            server.signal(signal.SIGCONT)


@pytest.fixture
async def worker(server: Server) -> AsyncIterator[Callable[..., KeyPool]]:
    stores: list[RedisStore] = []
    pools: list[KeyPool] = []

    def worker(*keys: Key, **options: Any) -> KeyPool:
        stores.append(RedisStore(server.url, timeout=options.pop("timeout", LIMIT)))
        options = {"sealer": NoEncryption(), "cooldown": 60.0, **options}
        pools.append(KeyPool(keys, name="v", store=stores[-1], **options))
        return pools[-1]

    yield worker
    for closed in (*pools, *stores):
        await closed.__aexit__(None, None, None)


def stop(server: Server) -> None:
    server.stop()


def pause(server: Server) -> None:
    server.signal(signal.SIGSTOP)


def resume(server: Server) -> None:
    if server.process is None:
        server.start()
    else:
        server.signal(signal.SIGCONT)


async def _can(pool: KeyPool, **wish: Any) -> bool:
    try:
        (await pool.acquire(**wish)).release()
    except NoKeyError:
        return False
    return True


@pytest.mark.parametrize("fault", [stop, pause])
async def test_calls_continue_while_the_store_is_unavailable_and_health_is_written_later(
    worker: Callable[..., KeyPool],
    server: Server,
    fault: Callable[[Server], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = [LIMITED, FREE]
    first, second = worker(*keys), worker(*keys)
    async with first, second:
        await until(lambda: _can(first))
        with caplog.at_level(logging.INFO, "asgi_aiproxy"):
            fault(server)
            held = []
            began = time.monotonic()
            for _ in range(3):
                start = time.monotonic()
                held.append(await first.acquire())
                assert time.monotonic() - start < LIMIT + SLACK
            # By what this process knows, the limited key has its two calls.
            assert [lease.key.id for lease in held] == ["limited", "limited", "free"]
            held.pop().report(401)
            await asyncio.sleep(0.1)
            resume(server)
            await until(lambda: is_so(second, free=Health.QUARANTINED))
            assert time.monotonic() - began < 60
            await until(lambda: "the store is available again" in caplog.text)
        # Once for each process:
        assert 1 <= caplog.text.count("pool v: the store is unavailable") <= 2
        for lease in held:
            lease.release()
        await until(lambda: _can(second, key_id="limited"))


async def test_keys_in_use_when_the_store_recovers_are_counted_again(
    worker: Callable[..., KeyPool], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_pool, "_RESERVATION_TTL", 1.5)
    first, second = worker(LIMITED), worker(LIMITED)
    async with first, second:
        before = await first.acquire()
        stop(server)
        (server.folder / "appendonlydir").rename(server.folder / "lost")  # and it lost all it had
        meanwhile = await first.acquire()
        resume(server)

        async def counted() -> bool:
            return not await _can(second)

        await until(counted)
        for lease in (before, meanwhile):
            lease.release()
        await until(lambda: _can(second))


async def test_fail_closed_uses_no_key_whose_limits_cannot_be_checked(
    worker: Callable[..., KeyPool], server: Server
) -> None:
    pool = worker(LIMITED, FREE, on_store_outage="fail_closed")
    alone = worker(LIMITED, on_store_outage="fail_closed", max_wait_seconds=60)
    async with pool, alone:
        await until(lambda: _can(pool, key_id="limited"))
        await until(lambda: _can(alone))
        stop(server)
        with await pool.acquire() as lease:
            assert lease.key.id == "free"
        with pytest.raises(NoKeyError, match="store is unavailable") as caught:
            await pool.acquire(key_id="limited")
        assert caught.value.exists
        assert caught.value.retry_after
        waiting = asyncio.create_task(alone.acquire())  # callers that may wait do so
        await asyncio.sleep(0.1)
        resume(server)
        async with asyncio.timeout(20):
            (await waiting).release()


async def test_a_process_that_starts_while_the_store_is_unavailable_has_the_keys_given_in_code(
    worker: Callable[..., KeyPool], server: Server
) -> None:
    async with worker() as writer:
        await writer.add(Key("sk-t", id="table"))
    pause(server)
    pool, empty = worker(FREE), worker()
    start = time.monotonic()
    with await pool.acquire() as lease:
        assert lease.key.id == "free"
    with pytest.raises(NoKeyError, match="store is unavailable") as caught:
        await empty.acquire()
    assert caught.value.exists
    assert time.monotonic() - start < 2 * 2 + SLACK
    with pytest.raises(StoreUnavailableError):
        await pool.add(Key("sk", id="x"))
    resume(server)
    await until(lambda: _can(empty, key_id="table"))
    await until(lambda: _can(pool, key_id="table"))
    assert await ids(pool) == ["free", "table"]


WORKER = """
import asyncio, sys
from asgi_aiproxy.keys import Key, KeyPool
from asgi_aiproxy.keys import shared_pool
from asgi_aiproxy.stores.redis import RedisStore

shared_pool._RESERVATION_TTL = 2.0
key = Key("sk", id="a", concurrency=6)

async def main():
    pool = KeyPool(key, name="v", store=RedisStore(sys.argv[1], timeout=5), max_wait_seconds=30)

    async def call():
        while True:
            async with pool.lease():
                await asyncio.sleep(0.002)
                print("used", flush=True)

    await asyncio.gather(*(call() for _ in range(10)))

asyncio.run(main())
"""


def process(server: Server) -> subprocess.Popen[bytes]:
    root = Path(__file__).parent.parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, server.url],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
        preexec_fn=die_with_parent,
    )


async def test_the_capacity_of_killed_processes_expires(
    server: Server, worker: Callable[..., KeyPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_pool, "_RESERVATION_TTL", 2.0)
    workers = [process(server) for _ in range(3)]
    key = Key("sk", id="a", concurrency=6)
    pool = worker(key, timeout=5.0)
    try:
        for one in workers:
            assert one.stdout is not None
            line = await asyncio.to_thread(one.stdout.readline)
            assert line == b"used\n"
        store = pool.table.store  # type: ignore[union-attr]
        slots = ConcurrencySlot("pool:v", f"{pool.key_set.states['a'].tag}:slots", None)
        for _ in range(50):
            (level,) = await store.peek([slots])
            assert level.used <= 6
            await asyncio.sleep(0.01)
    finally:
        for one in workers:
            one.kill()
            one.communicate()

    async def all_free() -> bool:
        async with AsyncExitStack() as stack:
            try:
                for _ in range(6):
                    await stack.enter_async_context(pool.lease())
            except NoKeyError:
                return False
        return True

    await until(all_free)


def test_a_pool_in_a_store_requires_a_name() -> None:
    with pytest.raises(ConfigurationError, match="name"):
        KeyPool("sk", store=MemoryStore())


def test_local_estimate_is_not_a_policy_for_keys() -> None:
    with pytest.raises(ConfigurationError, match="fail_open"):
        KeyPool("sk", name="v", store=MemoryStore(), on_store_outage="local_estimate")  # type: ignore[arg-type]
