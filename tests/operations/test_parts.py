"""A call for more embeddings than a request may have: its parts, sent at the same time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from asgi_aiproxy import AIShim, UsageRecord
from asgi_aiproxy.providers import JINA, MISTRAL, OPENAI, Provider
from asgi_aiproxy.upstream import HttpxTransport
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

ROWS = pytest.mark.parametrize(
    ("row", "most"),
    [(MISTRAL, 256), (JINA, 2048), (OPENAI, 2048)],  # (OpenAI's own requests pass through)
    ids=["mistral", "jina", "openai"],
)
Reply = Callable[[int, list[str]], Awaitable[httpx.Response]]


def vectors(texts: list[str]) -> httpx.Response:
    """The texts are numbers, and so are their vectors; each costs a token."""
    data = [{"index": at, "embedding": [int(text)]} for at, text in enumerate(texts)]
    count = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return httpx.Response(200, json={"object": "list", "data": data, "model": "m", "usage": count})


class Vendor:
    """Answers with `reply`, to which it passes the number of the request and its texts."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.requests = self.open = self.most = self.cancelled = 0

    async def handle(self, request: httpx.Request) -> httpx.Response:
        texts = json.loads(await request.aread())["input"]
        self.requests += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await self._reply(self.requests, texts)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1


async def embed(
    row: Provider, vendor: Vendor, count: int, keys: tuple[str, ...] = ("k",)
) -> tuple[asgi.Answer, list[UsageRecord]]:
    records: list[UsageRecord] = []
    transport = HttpxTransport(httpx.MockTransport(vendor.handle))
    app = AIShim(row.using(list(keys)), transport=transport, record=records.append, attempts=1)
    body = {"model": "m", "input": [str(number) for number in range(count)]}
    async with app:
        answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    return answer, records


@ROWS
async def test_some_parts_are_sent_at_the_same_time_and_joined_in_order(
    row: Provider, most: int
) -> None:
    full = asyncio.Event()

    async def reply(number: int, texts: list[str]) -> httpx.Response:
        if 1 < number < 6:  # the first of these is answered last
            if vendor.open == 4:
                full.set()
            await full.wait()
            for _ in range(10 * (6 - number)):
                await asyncio.sleep(0)
        return vectors(texts)

    vendor = Vendor(reply)
    answer, (record,) = await embed(row, vendor, 7 * most)
    assert answer.status == 200, answer.body
    assert [each["embedding"] for each in answer.json["data"]] == [[n] for n in range(7 * most)]
    assert (vendor.requests, vendor.most) == (7, 4)
    assert record.usage is not None
    assert record.usage.input == 7 * most


@ROWS
async def test_a_part_that_fails_ends_the_others_and_what_was_paid_is_recorded(
    row: Provider, most: int
) -> None:
    waiting = asyncio.Event()

    async def reply(number: int, texts: list[str]) -> httpx.Response:
        if number <= 3:
            return vectors(texts)
        if number == 4:
            await waiting.wait()
            return httpx.Response(400, json={"error": {"message": "Too long.", "type": "t"}})
        if vendor.open == 4:
            waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    vendor = Vendor(reply)
    answer, (record,) = await embed(row, vendor, 20 * most)
    assert answer.status == 400
    assert "Too long." in answer.json["error"]["message"]
    assert vendor.open == 0
    assert vendor.cancelled == 3
    assert vendor.requests == 7  # of 20
    assert record.usage is not None
    assert (record.usage.input, record.outcome) == (3 * most, "refused")


async def test_parts_that_were_paid_before_another_key_is_tried_are_recorded_too() -> None:
    async def reply(number: int, texts: list[str]) -> httpx.Response:
        if number == 2:
            return httpx.Response(429, json={"error": {"message": "slow", "type": "t"}})
        return vectors(texts)

    vendor = Vendor(reply)
    answer, (record,) = await embed(MISTRAL, vendor, 300, ("k1", "k2"))
    assert answer.status == 200
    assert record.usage is not None
    assert record.usage.input == 300 + 256


async def test_parts_end_when_the_client_leaves() -> None:
    requested = asyncio.Event()

    async def reply(number: int, texts: list[str]) -> httpx.Response:
        if number == 1:
            return vectors(texts)
        if vendor.open == 4:
            requested.set()
        await asyncio.Event().wait()
        raise AssertionError

    vendor = Vendor(reply)
    records: list[UsageRecord] = []
    transport = HttpxTransport(httpx.MockTransport(vendor.handle))
    app = AIShim(MISTRAL.using("k"), transport=transport, record=records.append)
    body: dict[str, Any] = {"model": "m", "input": [str(number) for number in range(2000)]}
    async with app, asgi.opened(app, "POST", "/v1/embeddings") as exchange:
        exchange.send_body(json.dumps(body).encode())
        await asyncio.wait_for(requested.wait(), 30)
        exchange.disconnect()
        await exchange.ended()
    assert vendor.open == 0
    (record,) = records
    assert record.usage is not None
    assert (record.usage.input, record.outcome) == (256, "cut")
