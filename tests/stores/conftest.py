"""The stores that all conformance tests run against."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.stores.redis import RedisStore


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "redis", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def make(
    kind: str, clock: Clock, prefix: str, request: pytest.FixtureRequest
) -> Callable[[], Store]:
    """Makes clients of the same store; a memory store is its only client."""
    if kind == "memory":
        only = MemoryStore(clock=clock)
        return lambda: only
    url = request.getfixturevalue("redis_url" if kind == "redis" else "redis_cluster")
    return lambda: RedisStore(url, prefix=prefix, timeout=5.0)


@pytest.fixture
async def store(make: Callable[[], Store]) -> AsyncIterator[Store]:
    async with make() as made:
        yield made


@pytest.fixture
async def other(make: Callable[[], Store]) -> AsyncIterator[Store]:
    """Another client of the same store."""
    async with make() as made:
        yield made


@pytest.fixture
def elapse(kind: str, clock: Clock) -> Callable[[float], Awaitable[None]]:
    """Lets time pass, as the store sees it."""

    async def elapse(seconds: float) -> None:
        if kind == "memory":
            clock.now += seconds
        else:
            await asyncio.sleep(seconds + 0.01)  # a server counts whole milliseconds

    return elapse
