"""Four worker processes, two hundred callers, one server: limits hold across all of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from asgi_aiproxy.stores import UsageLevel
from asgi_aiproxy.stores.redis import RedisStore
from tests.stores import worker
from tests.stores.worker import Task

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
WORKERS = 4
CALLERS = 50


@contextmanager
def running(task: Task) -> Iterator[list[subprocess.Popen[str]]]:
    """The workers, all started at the same moment."""
    workers: list[subprocess.Popen[str]] = []
    try:
        for number in range(WORKERS):
            own = msgspec.structs.replace(task, number=number)
            workers.append(
                subprocess.Popen(
                    [sys.executable, worker.__file__, msgspec.json.encode(own).decode()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                    env={"PYTHONPATH": str(ROOT)},
                )
            )
        for each in workers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in workers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        yield workers
    finally:
        for each in workers:
            each.kill()
            each.communicate()


def events(task: Task) -> list[dict[str, Any]]:
    path = Path(task.log)
    written = path.read_bytes() if path.exists() else b""
    lines = written[: written.rfind(b"\n") + 1].splitlines()  # the last one may be half written
    return sorted(map(json.loads, lines), key=lambda line: float(line["at"]))


def most_at_once(reported: list[dict[str, Any]]) -> int:
    """The number of requests that were certainly admitted at the same time."""
    now = most = 0
    for line in reported:
        if line["event"] == "admitted":
            now += 1
            most = max(most, now)
        elif line["event"] == "settling":
            now -= 1
    return most


def made(url: str, prefix: str, log: Path, **limits: int) -> Task:
    roomy = {"calls": 10_000, "rpm": 100_000, "cap": 10_000_000, "estimate": 100}
    return Task(
        url=url, prefix=prefix, log=str(log), number=0, callers=CALLERS, turns=20, ttl=60.0,
        **(roomy | limits),
    )  # fmt: skip


async def check(task: Task) -> tuple[list[dict[str, Any]], list[UsageLevel]]:
    async with RedisStore(task.url, prefix=task.prefix, timeout=20) as store:
        return events(task), await store.peek(worker.grants(task))


@pytest.mark.parametrize("where", ["redis_url", "redis_cluster"])
@pytest.mark.parametrize("scarce", ["calls", "rpm", "usd", "all"])
async def test_limits_hold_across_workers_and_all_requests_are_counted(
    request: pytest.FixtureRequest, where: str, prefix: str, tmp_path: Path, scarce: str
) -> None:
    limits = {
        "calls": {"calls": 17},
        "rpm": {"rpm": 333},
        "usd": {"cap": 20_000},
        "all": {"calls": 17, "rpm": 333, "cap": 15_000},
    }[scarce]
    task = made(request.getfixturevalue(where), prefix, tmp_path / "log", **limits)
    with running(task) as workers:
        for each in workers:
            assert await asyncio.to_thread(each.wait, 90) == 0
    reported, (slots, count, budget) = await check(task)
    admitted = [line for line in reported if line["event"] == "admitted"]
    used = sum(line["used"] for line in reported if line["event"] == "settling")
    reasons = {line["why"] for line in reported if line["event"] == "refused"}
    assert len(admitted) == sum(line["event"] == "settled" for line in reported)
    assert len(admitted) + sum(line["event"] == "refused" for line in reported) == 200 * task.turns
    assert reasons >= ({scarce} if scarce != "all" else {"calls"})

    assert slots == UsageLevel(0)
    assert count == UsageLevel(len(admitted))
    assert len(admitted) <= task.rpm
    assert budget == UsageLevel(used, 0)
    assert used <= task.cap
    assert most_at_once(reported) <= task.calls
    if scarce == "rpm":
        assert len(admitted) == task.rpm
    if scarce == "usd":
        assert used > task.cap - task.estimate
    if scarce == "calls":
        assert most_at_once(reported) > task.calls / 2


async def test_killed_workers_leave_nothing_behind_and_the_ledger_is_exact(
    redis_url: str, prefix: str, tmp_path: Path
) -> None:
    task = made(redis_url, prefix, tmp_path / "log", calls=60, cap=60_000)
    task = msgspec.structs.replace(task, ttl=2.0, turns=60)
    with running(task) as workers:
        end = time.monotonic() + 30
        while sum(line["event"] == "settled" for line in events(task)) < 200:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        for each in workers[:2]:
            each.kill()
        for each in workers[2:]:
            assert await asyncio.to_thread(each.wait, 90) == 0
    await asyncio.sleep(task.ttl + 0.1)
    reported, (slots, _, budget) = await check(task)
    assert slots == UsageLevel(0)
    assert budget.held == 0

    fields = redis.Redis.from_url(redis_url).hgetall(f"{prefix}:{{team}}:b:usd")
    charged = {name[1:].decode(): int(n) for name, n in fields.items() if name.startswith(b"x")}
    settled = {line["holder"]: line["used"] for line in reported if line["event"] == "settling"}
    admitted = {line["holder"] for line in reported if line["event"] == "admitted"}
    finished = {line["holder"] for line in reported if line["event"] == "settled"}
    assert set(charged.values()) == {task.estimate}  # some were killed in the middle
    assert not finished & set(charged)
    assert {holder for holder in charged if holder.startswith(("2.", "3."))} == set()
    assert admitted <= set(settled) | set(charged)
    known = sum(used for holder, used in settled.items() if holder not in charged)
    assert budget.used == known + sum(charged.values())
    assert budget.used <= task.cap
    assert most_at_once([line for line in reported if line["holder"] not in charged]) <= task.calls
