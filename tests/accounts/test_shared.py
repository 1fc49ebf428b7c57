"""Two workers over one Redis enforce the same limits and accept the same tokens."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from asgi_aiproxy import OpenAIShim, Principal
from asgi_aiproxy.accounts import Tokens
from asgi_aiproxy.accounts.token_verifier import make_principal
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.middleware import Authenticate, Quota, stored_tokens
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import ConcurrencySlot
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.testing import Answer, MockProvider, serve
from asgi_aiproxy.usage.ledger import Ledger
from tests.support import asgi_client as asgi
from tests.support.metered_gateway import COST, PRICES, Gateway
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    name = "redis_url" if request.param == "redis" else "redis_cluster"
    return str(request.getfixturevalue(name))


@pytest.fixture
async def stores(url: str) -> AsyncIterator[list[RedisStore]]:
    """Three clients of one store, for three workers."""
    prefix = f"test-{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(RedisStore(url, prefix=prefix, timeout=5.0))
            for _ in range(3)
        ]


async def test_two_hundred_callers_of_three_workers_never_overspend(
    stores: list[RedisStore],
) -> None:
    who = Principal(
        "alice",
        account="acme",
        limits=Limits(budgets=(Budget(2_000), Budget(10_000, shared=True)), concurrency=500),
    )
    workers = [Gateway(store, Upstream(answers(before=0.01)), who=who) for store in stores]
    many = await asyncio.gather(*(workers[n % 3].ask(max_tokens=2) for n in range(200)))
    assert {answer.status for answer in many} == {200, 429}
    passed = sum(answer.status == 200 for answer in many)
    for worker in workers:
        await worker.settled()
    assert await workers[0].spent() == passed * COST <= 2_000
    assert await workers[1].spent(1) == passed * COST
    assert passed >= 2_000 // 80  # what an estimate reserves
    level = await stores[2].peek([ConcurrencySlot("caller:acme", "alice:slots", 500)])
    assert level[0].used == 0


async def test_requests_per_minute_are_counted_together(stores: list[RedisStore]) -> None:
    who = Principal("bob", limits=Limits(rpm=30))
    workers = [Gateway(store, who=who) for store in stores]
    many = await asyncio.gather(*(workers[n % 3].ask() for n in range(200)))
    assert sum(answer.status == 200 for answer in many) == 30


async def test_a_revoked_token_is_refused_by_all_workers_within_a_second(
    stores: list[RedisStore],
) -> None:
    tokens = Tokens(stores[0])
    secret, token = await tokens.issue()
    doors = [stored_tokens(store) for store in stores]
    for frontend in doors:
        assert await frontend(secret) is not None
    await asyncio.sleep(0.1)
    await tokens.revoke(token.id)
    revoked = time.monotonic()
    alive = set(doors)
    while alive:
        alive = {frontend for frontend in alive if await frontend(secret) is not None}
        await asyncio.sleep(0.005)
        assert time.monotonic() - revoked < 10.0


async def test_a_token_of_the_store_is_limited_and_billed_by_all_workers(url: str) -> None:
    """Everything together: real sockets, a mock provider, Redis, two servers."""
    mock = MockProvider(Answer("Hi", usage=Usage(input=3, output=2)))
    prefix = f"test-{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        provider = await enter(serve(mock))
        store = await enter(RedisStore(url, prefix=prefix, timeout=5.0))
        secret, token = await Tokens(store).issue(
            name="team", limits=Limits(rpm=12, budgets=(Budget.usd(1),))
        )
        headers = {"authorization": f"Bearer {secret}"}
        async with AsyncExitStack() as running:
            workers = []
            for _ in range(2):
                mine = await enter(RedisStore(url, prefix=prefix, timeout=5.0))
                shim = OpenAIShim(
                    OPENAI.using("sk-1", base_url=f"{provider}/v1"), record=Ledger(mine)
                )
                quota = Quota(shim, store=mine, prices=PRICES)
                app = Authenticate(quota, verify=stored_tokens(mine))
                workers.append(await running.enter_async_context(app))
            many = await asyncio.gather(
                *(asgi.chat(workers[n % 2], stream=bool(n % 3), headers=headers) for n in range(20))
            )
        # What has ended is booked when the workers have closed.
        assert [answer.status for answer in many].count(200) == 12
        records = (await Ledger(store).query()).records
        assert len(records) == 20
        assert sum(record.cost or 0 for record in records) == 12 * COST
        assert {record.principal for record in records} == {token.id}
        who = make_principal(token, None, None)
        now = time.time()
        level = await store.peek([reserve(who, who.limits.budgets[0], 0, now)])
        assert (level[0].used, level[0].held) == (12 * COST, 0)
