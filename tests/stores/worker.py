"""A worker process of `test_workers`: callers that are admitted, run for a moment, and settle.

Writes each event to a file, one JSON line each, before and after it calls the store.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time

import msgspec

from asgi_aiproxy.stores import Admitted, BudgetReservation, ConcurrencySlot, Grant, RateLimit
from asgi_aiproxy.stores.redis import RedisStore


class Task(msgspec.Struct):
    url: str
    prefix: str
    log: str
    number: int
    callers: int
    turns: int
    ttl: float
    calls: int
    rpm: int
    cap: int
    estimate: int


def grants(task: Task) -> tuple[ConcurrencySlot, RateLimit, BudgetReservation]:
    return (
        ConcurrencySlot("team", "calls", task.calls),
        RateLimit("team", "rpm", task.rpm, window=3600),
        BudgetReservation("team", "usd", task.estimate, task.cap),
    )


async def main(task: Task) -> None:
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    wanted: tuple[Grant, ...] = grants(task)
    budget = wanted[-1]

    def note(event: str, holder: str, **more: object) -> None:
        line = {"event": event, "holder": holder, "at": time.monotonic(), **more}
        os.write(log, json.dumps(line).encode() + b"\n")

    async def caller(number: int, store: RedisStore) -> None:
        dice = random.Random(f"{task.number} {number}")
        for turn in range(task.turns):
            holder = f"{task.number}.{number}.{turn}"
            found = await store.admit(holder, wanted, ttl=task.ttl)
            if not isinstance(found, Admitted):
                note("refused", holder, why=found.grant.name)
                await asyncio.sleep(dice.uniform(0, 0.02))
                continue
            note("admitted", holder)
            await asyncio.sleep(dice.uniform(0, 0.02))
            used = dice.randint(0, task.estimate)
            note("settling", holder, used=used)
            await store.settle(found, {budget: used})
            note("settled", holder)

    async with RedisStore(task.url, prefix=task.prefix, timeout=20) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        await asyncio.gather(*(caller(number, store) for number in range(task.callers)))


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Task)))
