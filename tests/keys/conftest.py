"""Stores that pools share, and pools that stand for those of other processes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from asgi_aiproxy.keys import Health, Key, KeyPool
from asgi_aiproxy.keys.encryption import NoEncryption
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.stores.redis import RedisStore

Pools = Callable[..., Any]


@pytest.fixture(params=["memory", "redis", "cluster"])
def client(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Makes clients of one store; a memory store is its only client."""
    if request.param == "memory":
        only = MemoryStore()
        return lambda: only
    url = request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster")
    prefix = f"test-{uuid.uuid4().hex}"
    return lambda: RedisStore(url, prefix=prefix, timeout=5.0)


@pytest.fixture
async def store(client: Callable[[], Store]) -> AsyncIterator[Store]:
    async with client() as store:
        yield store


@pytest.fixture
async def worker(client: Callable[[], Store]) -> AsyncIterator[Pools]:
    """Makes pools, each with its own client, like pools of other processes."""
    async with AsyncExitStack() as stack:

        async def worker(*keys: str | Key, **options: Any) -> KeyPool:
            store = await stack.enter_async_context(client())
            options.setdefault("sealer", NoEncryption())
            pool = KeyPool(keys, name="vendor", store=store, **options)
            return await stack.enter_async_context(pool)

        yield worker


async def health(pool: KeyPool) -> dict[str, Health]:
    return {status.id: status.health for status in await pool.status()}


async def is_so(pool: KeyPool, **expected: Health) -> bool:
    found = await health(pool)
    return all(found.get(id) is state for id, state in expected.items())


async def ids(pool: KeyPool) -> list[str]:
    return [status.id for status in await pool.status()]
