"""Hooks that run after calls are limited in number: calls go on while a database hangs."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Any

import pytest

from asgi_aiproxy import AIShim, UsageRecord
from asgi_aiproxy.hooks import Call, Hook, after
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

CALLER = contextvars.ContextVar("CALLER", default="")


class Database(Hook):
    """A hook that writes records to a database, which hangs until it is released."""

    seconds = 30.0

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.busy = self.most = 0
        self.written: list[str] = []

    async def after(self, call: Call, record: UsageRecord) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await self.free.wait()
            self.written.append(CALLER.get())
        finally:
            self.busy -= 1


def gateway(hook: Hook) -> AIShim:
    return AIShim(OPENAI.using("sk-1"), transport=Upstream(answers()).transport, hooks=[hook])


async def chat(app: Any, caller: int, text: str = "Hi") -> None:
    CALLER.set(str(caller))
    messages = [{"role": "user", "content": text}]
    assert (await asgi.chat(app, model="m", messages=messages)).status == 200


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after, "MAX_RUNNING", 2)
    monkeypatch.setattr(after, "MAX_WAITING", 5)


async def test_a_limited_number_runs_and_the_others_follow_each_in_its_context(few: None) -> None:
    hook = Database()
    async with gateway(hook) as app:
        for number in range(7):
            await chat(app, number)
        await until(lambda: hook.busy == 2)
        hook.free.set()
    assert sorted(hook.written) == list("0123456")
    assert hook.most == 2


async def test_while_they_hang_calls_go_on_and_the_oldest_that_wait_are_lost(
    few: None, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Database()
    async with gateway(hook) as app:
        for number in range(17):
            await chat(app, number)
        assert caplog.text.count("the oldest are not seen by them from now on") == 1
        hook.free.set()
        await until(lambda: len(hook.written) == 7)
    assert sorted(map(int, hook.written)) == [0, 1, 12, 13, 14, 15, 16]
    assert caplog.text.count("hooks did not see the end of 10 calls in all") == 1


async def test_the_requests_that_wait_hold_a_limited_number_of_bytes(
    few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after, "MAX_BYTES", 5_000)
    hook = Database()
    async with gateway(hook) as app:
        for number in range(6):
            await chat(app, number, "x" * 2_000)
        hook.free.set()
    assert sorted(hook.written) == list("0145")


async def test_shutdown_waits_as_long_as_one_hook_may_take(
    few: None, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Database()
    hook.seconds = 0.1
    async with asyncio.timeout(60):
        async with gateway(hook) as app:
            for number in range(7):
                await chat(app, number)
    assert hook.written == []
    assert "failed after the exchange" in caplog.text


async def test_calls_that_still_wait_at_shutdown_are_counted_in_the_log(
    few: None, caplog: pytest.LogCaptureFixture
) -> None:
    free = asyncio.Event()

    async def hang(call: Call, record: UsageRecord) -> None:
        await free.wait()

    runs = after.AfterRuns(hang, seconds=0.01)
    request: Any = SimpleNamespace(body=b"12345")
    for number in range(9):  # two run, five wait, and two are dropped at once
        runs.put(request, UsageRecord(id=str(number)))
    await runs.drain()
    free.set()
    assert runs.lost == 7
    assert caplog.text.count("hooks did not see the end of 7 calls in all") == 1


def test_what_hung_when_its_event_loop_was_closed_takes_no_place_in_the_next_one(few: None) -> None:
    hook = Database()
    app = gateway(hook)

    async def calls_that_hang() -> None:
        for number in range(4):
            await chat(app, number)
        await until(lambda: hook.busy == 2)

    async def one_call() -> None:
        hook.free = asyncio.Event()
        hook.free.set()
        async with app:
            await chat(app, 9)

    asyncio.run(calls_that_hang())
    asyncio.run(one_call())
    assert "9" in hook.written
