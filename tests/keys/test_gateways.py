"""Several gateways, like several workers, with one pool of keys in front of a vendor."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.keys import Health, Key, KeyPool
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.testing import serve
from tests.keys.conftest import Pools, is_so
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import chat_answer
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

Gateway = Callable[..., Awaitable[tuple[OpenAIShim, KeyPool]]]


class Vendor:
    """Answers requests with a valid key, and counts how many are concurrent."""

    def __init__(self, *valid: str) -> None:
        self.valid = set(valid)
        self.limited: set[str] = set()
        self.busy: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.seen: Counter[tuple[str, int]] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        secret = headers[b"authorization"].decode().removeprefix("Bearer ")
        while (await receive()).get("more_body"):
            pass
        self.busy[secret] += 1
        self.most[secret] = max(self.most[secret], self.busy[secret])
        try:
            await asyncio.sleep(0.01)
        finally:
            self.busy[secret] -= 1
        status = 401 if secret not in self.valid else 429 if secret in self.limited else 200
        self.seen[secret, status] += 1
        body = chat_answer() if status == 200 else json.dumps({"error": {"message": "no"}}).encode()
        answered = [(b"content-type", b"application/json"), (b"retry-after", b"60")]
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
async def gateway(worker: Pools, vendor: Vendor) -> AsyncIterator[Gateway]:
    """Makes gateways, each with its own pool over the same store."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(vendor))

        async def gateway(*keys: Key, **options: Any) -> tuple[OpenAIShim, KeyPool]:
            pool = await worker(*keys, **options)
            shim = OpenAIShim(OPENAI.using(pool, base_url=f"{url}/v1"))
            return await stack.enter_async_context(shim), pool

        yield gateway


async def test_the_vendor_never_gets_more_concurrent_requests_than_a_key_allows(
    gateway: Gateway, vendor: Vendor
) -> None:
    keys = [Key("sk-a", id="a", concurrency=2), Key("sk-b", id="b", concurrency=1)]
    vendor.valid = {"sk-a", "sk-b"}
    gateways = [(await gateway(*keys, max_wait_seconds=60))[0] for _ in range(3)]
    answers = await asyncio.gather(*(asgi.chat(gateways[n % 3]) for n in range(60)))
    assert {answer.status for answer in answers} == {200}
    assert vendor.most == {"sk-a": 2, "sk-b": 1}


async def test_a_key_that_one_worker_found_limited_is_not_used_by_others(
    gateway: Gateway, vendor: Vendor
) -> None:
    keys = [Key("sk-a", id="a"), Key("sk-b", id="b", priority=1)]
    vendor.valid, vendor.limited = {"sk-a", "sk-b"}, {"sk-a"}
    (first, _), (second, pool) = await gateway(*keys), await gateway(*keys)
    assert (await asgi.chat(first)).header("x-auth-id") == "b"
    await until(lambda: is_so(pool, a=Health.COOLING))
    for _ in range(5):
        assert (await asgi.chat(second)).header("x-auth-id") == "b"
    assert vendor.seen["sk-a", 429] == 1


async def test_no_caller_notices_that_all_keys_are_rotated(
    gateway: Gateway, vendor: Vendor
) -> None:
    vendor.valid = {"sk-0"}
    (first, pool), (second, other) = await gateway(), await gateway()
    pools = [pool, other]
    await pools[0].add(Key("sk-0", id="a", rpm=100_000))
    await until(lambda: all("a" in pool.keys for pool in pools))
    statuses: Counter[int] = Counter()
    over = asyncio.Event()

    async def caller(gateway: OpenAIShim) -> None:
        while not over.is_set():
            statuses[(await asgi.chat(gateway)).status] += 1

    callers = [asyncio.create_task(caller(one)) for one in (first, second) for _ in range(5)]
    for turn in range(1, 4):
        vendor.valid.add(f"sk-{turn}")
        await pools[turn % 2].replace([Key(f"sk-{turn}", id="a", rpm=100_000)])
        await until(lambda turn=turn: all(p.keys["a"].secret == f"sk-{turn}" for p in pools))
        await asyncio.sleep(0.3)  # what was on its way with the old one
        vendor.valid.remove(f"sk-{turn - 1}")
        await until(lambda turn=turn: vendor.seen[f"sk-{turn}", 200] > 5)
    over.set()
    await asyncio.gather(*callers)
    assert set(statuses) == {200}
    assert {status for _, status in vendor.seen} == {200}
