"""Worker processes over one Redis; some of them are killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from asgi_aiproxy.accounts import Tokens
from asgi_aiproxy.accounts.token_verifier import make_principal
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.quotas.grants import request_grants, reserve
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.testing import Answer, MockProvider, serve
from asgi_aiproxy.usage.ledger import Ledger
from tests.support.metered_gateway import COST
from tests.support.worker_process import started, worker

pytestmark = pytest.mark.anyio

APP = "tests.support.account_worker:app"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@dataclass
class World:
    store: RedisStore
    tokens: Tokens
    mock: MockProvider
    workers: list[tuple[subprocess.Popen[bytes], str]]

    async def ask(self, client: httpx.AsyncClient, number: int, secret: str, **more: object) -> int:
        _, url = self.workers[number % len(self.workers)]
        headers = {"authorization": f"Bearer {secret}"}
        try:
            answer = await client.post(
                f"{url}/v1/chat/completions", json={**BODY, **more}, headers=headers, timeout=60
            )
        except httpx.HTTPError:
            return 0  # its worker is dead
        return answer.status_code


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    mock = MockProvider(Answer("Hi", usage=Usage(input=3, output=2)))
    prefix = f"test-{uuid.uuid4().hex}"
    async with (
        serve(mock) as provider,
        RedisStore(redis_url, prefix=prefix, timeout=5.0) as store,
    ):
        environment = {"STORE": redis_url, "PREFIX": prefix, "PROVIDER": provider}
        with ExitStack() as stack:
            workers = [stack.enter_context(worker(APP, environment)) for _ in range(4)]
            async with httpx.AsyncClient() as client:
                for _, url in workers:
                    await started(client, url)
            yield World(store, Tokens(store), mock, workers)


async def test_four_workers_hold_two_hundred_callers_to_one_budget_and_one_limit(
    world: World,
) -> None:
    poor, who_is_poor = await world.tokens.issue(limits=Limits(budgets=(Budget(1_000),)))
    busy, _ = await world.tokens.issue(limits=Limits(rpm=25))
    # (A connection that is kept may be closed by the server just when it is used again.)
    limits = httpx.Limits(max_connections=300, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits) as client:
        statuses = await asyncio.gather(
            *(world.ask(client, number, poor) for number in range(200)),
            *(world.ask(client, number, busy) for number in range(200)),
        )
    spent, called = statuses[:200].count(200), statuses[200:].count(200)
    assert set(statuses) == {200, 429}
    assert called == 25
    assert 1_000 // 80 <= spent <= 1_000 // COST
    assert len(world.mock.requests) == spent + called
    caller = make_principal(who_is_poor, None, None)
    budget = reserve(caller, Budget(1_000), 0, time.time())
    level = (await world.store.peek([budget]))[0]
    while level.held:  # what has ended last is just being booked
        await asyncio.sleep(0.02)
        level = (await world.store.peek([budget]))[0]
    assert level.used == spent * COST


async def test_a_worker_that_is_killed_leaves_no_slot_and_no_unpaid_call(world: World) -> None:
    world.mock.always(Answer("Hi", usage=Usage(input=3, output=2), first_after=30))
    limits = Limits(concurrency=8, budgets=(Budget(10_000),))
    secret, token = await world.tokens.issue(limits=limits)
    caller = make_principal(token, None, None)
    (slots,) = request_grants(caller, limits)
    budget = reserve(caller, limits.budgets[0], 0, time.time())
    async with httpx.AsyncClient() as client:
        requested = [asyncio.ensure_future(world.ask(client, n, secret)) for n in range(8)]
        while (await world.store.peek([slots]))[0].used < 8:
            await asyncio.sleep(0.02)
        assert await world.ask(client, 0, secret) == 429
        for process, _ in world.workers[:2]:
            process.send_signal(signal.SIGKILL)
        held = (await world.store.peek([budget]))[0].held
        # The slots of the dead end by themselves; those of the living are renewed.
        end = time.monotonic() + 10
        while (await world.store.peek([slots]))[0].used > 4:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        levels = await world.store.peek([slots, budget])
        assert levels[0].used == 4
        # What a killed worker had reserved is charged: its provider may bill for it.
        assert (levels[1].used, levels[1].held) == (held // 2, held // 2)
        world.mock.always(Answer("Hi", usage=Usage(input=3, output=2)))
        assert await world.ask(client, 2, secret) == 200
        for one in requested:
            one.cancel()
        await asyncio.wait(requested)
        # Callers that leave are booked, too.
        ledger, states = Ledger(world.store), list[str]()
        while (await world.store.peek([slots]))[0].used or states.count("cut") < 4:
            assert time.monotonic() < end + 10
            await asyncio.sleep(0.05)
            states = [record.outcome.value for record in (await ledger.query()).records]
    assert (states.count("cut"), states.count("done")) == (4, 1)
