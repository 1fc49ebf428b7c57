"""Pools with a clock that tests set, and requests that succeed or fail."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from asgi_aiproxy.keys import (
    Health,
    Key,
    KeyPool,
)

INFINITY = float("inf")


class Clock:
    """A clock that tests set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def pool(*keys: str | Key, **options: Any) -> tuple[KeyPool, Clock]:
    clock = Clock()
    options.setdefault("random", random.Random(7))
    return KeyPool(keys, clock=clock, **options), clock


def served(keys: KeyPool, **wish: Any) -> str:
    """Return the key that serves one successful call."""
    with keys.acquire_nowait(**wish) as lease:
        lease.report(200)
        return lease.key.id


def tally(keys: KeyPool, calls: int, **wish: Any) -> Counter[str]:
    return Counter(served(keys, **wish) for _ in range(calls))


async def health(keys: KeyPool) -> dict[str, Health]:
    return {status.id: status.health for status in await keys.status()}


async def cooldowns(keys: KeyPool) -> dict[str, float]:
    return {status.id: status.cooldown_seconds for status in await keys.status()}


def fails(keys: KeyPool, status: int, retry_after: float | None = None, **wish: Any) -> str:
    """Return the key of one failed call."""
    with keys.acquire_nowait(**wish) as lease:
        lease.report(status, retry_after)
        return lease.key.id


def named(*ids: str, **more: Any) -> list[Key]:
    return [Key(f"sk-{id}", id=id, **more) for id in ids]


async def in_flight(keys: KeyPool) -> int:
    return sum(status.in_flight for status in await keys.status())


STRATEGIES = ["weighted", "round_robin", "random", "least_busy", "fill_first"]
