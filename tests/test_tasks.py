"""Background loops survive failures, and no task ends without a log message."""

from __future__ import annotations

import ast
import asyncio
import gc
from pathlib import Path

import pytest

import asgi_aiproxy
from asgi_aiproxy import _background_tasks
from asgi_aiproxy._background_tasks import FailureLog, repeat, start

pytestmark = pytest.mark.anyio


async def test_a_loop_continues_after_any_exception_and_logs_it_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_background_tasks, "_FIRST_PAUSE", 0.0)
    steps = 0

    async def step() -> bool:
        nonlocal steps
        steps += 1
        if 1 < steps < 5:
            raise KeyError("garbage")
        await asyncio.sleep(0)
        return steps < 8

    await repeat(step, what="the loop")
    assert steps == 8
    assert caplog.text.count("the loop: 'garbage'; retrying") == 1
    assert caplog.text.count("KeyError: 'garbage'") == 1  # its traceback
    assert caplog.text.count("working again after 3 failures") == 1


async def test_a_loop_can_be_cancelled_while_it_waits_after_a_failure() -> None:
    async def step() -> None:
        raise ValueError("always")

    task = start(repeat(step, what="the loop"), what="the loop")
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_a_task_that_an_error_ends_is_logged_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise RuntimeError("unforeseen")

    await asyncio.wait((start(work(), what="the work"),))
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.text.count("the work: ended by an error") == 1
    assert caplog.text.count("RuntimeError: unforeseen") == 1


def test_a_step_that_succeeds_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog("it")
    log.log_recovery()
    assert caplog.text == ""
    log.log_failure("no")
    log.log_failure("no")
    log.log_recovery()
    log.log_recovery()
    log.log_failure("no")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


# Modules that await their own tasks, or retrieve their exceptions; all other tasks are made by
# `_background_tasks.start`, which logs the exception that ends one.
AWAITED = {
    "_background_tasks",
    "_cancellation",
    "exchange.follow_ups",
    "exchange.responses",
    "hosting",
    "inprocess",
    "keys.lease",
    "passthrough.websocket",
    "serving",
    "stores.file",
    "stores.redis.client",
    "stores.redis.pipeline",
    "upstream.connect",
    "upstream.connection",
    "upstream.httpx",
    "upstream.reqwest",
    "usage.recorder",
}


def test_background_tasks_are_made_in_one_place() -> None:
    root = Path(asgi_aiproxy.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if name.startswith("testing."):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            made = isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future")
            if made:
                found.add(name)
    assert found <= AWAITED, "use asgi_aiproxy._background_tasks.start, or repeat"
