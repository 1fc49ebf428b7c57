"""A budget holds whatever callers send and upstreams report.

The vendor here follows the vendors' documentation, not the gateway's view of them: it writes as
much as the limits that it supports allow, and charges for that.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asgi_aiproxy import AIShim, PassthroughProxy, Principal
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.providers import (
    ANTHROPIC,
    GEMINI,
    OLLAMA,
    OPENAI,
    Provider,
    openai_compatible,
)
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import MemoryStore
from asgi_aiproxy.upstream import HttpxTransport
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

LONGEST = 4096  # what the vendors here write if nothing stops them
PRICE = Price(input=1, output=10)
NO_LIMIT = {"type": "invalid_request_error", "message": "max_tokens: Field required"}
CUSTOM = Provider(name="own", dialect=OPENAI.dialect, base_url="http://own.test/v1")


def _limit(value: Any) -> int | None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return math.ceil(value) if ok else None


class Vendor:
    """`knows` are the members that limit an answer, by the path of a request."""

    def __init__(self, *, new: bool = True) -> None:
        self.new = new
        self.bodies: list[Any] = []
        self.usage: Any = None  # what it reports, if that is wrong
        self.transport = HttpxTransport(httpx.MockTransport(self._answer))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        self.bodies.append(body)
        await asyncio.sleep(0.002)  # all are in flight at once
        path, read = request.url.path, len(str(body.get("messages") or body)) // 4 + 1
        if path.endswith("/chat/completions"):
            names = ("max_completion_tokens", "max_tokens") if self.new else ("max_tokens",)
            limits = [_limit(body.get(name)) for name in names]
            times = _limit(body.get("n")) or 1
            wrote = min([LONGEST, *(limit for limit in limits[:1] or limits if limit)])
            if limits[0] is None and len(limits) > 1 and limits[1]:
                wrote = min(LONGEST, limits[1])
            wrote *= times
            usage = {"prompt_tokens": read, "completion_tokens": wrote}
            choice = {"index": 0, "message": {"role": "assistant", "content": "x"}}
            answer: Any = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
            answer["choices"] = [{**choice, "finish_reason": "stop"}]
            answer["usage"] = self.usage or {**usage, "total_tokens": read + wrote}
        elif path.endswith("/messages"):
            limit = _limit(body.get("max_tokens"))
            if limit is None:
                return httpx.Response(400, json={"type": "error", "error": NO_LIMIT})
            usage = {"input_tokens": read, "output_tokens": min(limit, LONGEST)}
            answer = {"id": "m", "type": "message", "role": "assistant", "model": "m"}
            answer |= {"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"}
            answer["usage"] = self.usage or usage
        elif path.endswith("/batches"):
            answer = {"id": "batch_1", "processing_status": "in_progress"}
        elif "generateContent" in path:
            config = body.get("generationConfig") or {}
            wrote = min(_limit(config.get("maxOutputTokens")) or LONGEST, LONGEST)
            reported = {"promptTokenCount": read, "candidatesTokenCount": wrote}
            candidate = {"content": {"role": "model", "parts": [{"text": "x"}]}}
            answer = {"candidates": [{**candidate, "finishReason": "STOP"}]}
            answer["usageMetadata"] = self.usage or reported
        else:
            wrote = min(_limit((body.get("options") or {}).get("num_predict")) or LONGEST, LONGEST)
            answer = {"model": "m", "message": {"role": "assistant", "content": "x"}, "done": True}
            answer |= {"done_reason": "stop", "prompt_eval_count": read, "eval_count": wrote}
        headers = {"content-type": "application/json"}
        return httpx.Response(200, content=json.dumps(answer).encode(), headers=headers)


class Place:
    def __init__(
        self, row: Provider, vendor: Vendor, budget: int, price: Price = PRICE, *, proxy: bool
    ) -> None:
        target = row.using("sk-pool-0123456789")
        self.records: list[UsageRecord] = []
        make: Callable[..., Any] = PassthroughProxy if proxy else AIShim
        self.inner = make(target, transport=vendor.transport, record=self.records.append)
        self.who = Principal("alice", limits=Limits(budgets=(Budget(budget),)))
        self.store = MemoryStore()
        prices = Prices({"*": price}, listed=False)
        self.quota = Quota(self.inner, store=self.store, prices=prices)
        self.app = Authenticate(self.quota, identify=lambda scope: self.who)

    async def ask(self, path: str = "/v1/chat/completions", **body: Any) -> asgi.Answer:
        whole = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
        return await asgi.request(
            self.app, "POST", path, whole, headers={"content-type": "application/json"}
        )

    async def spent(self) -> int:
        async with self.app:
            pass  # what has ended is booked
        budget = reserve(self.who, self.who.limits.budgets[0], 0, 0.0)
        return (await self.store.peek([budget]))[0].used


def cheap(*, proxy: bool) -> st.SearchStrategy[Provider]:
    rows = [OPENAI, openai_compatible("http://any.test/v1"), CUSTOM]
    return st.sampled_from(rows if proxy else [*rows, ANTHROPIC, GEMINI, OLLAMA])


NUMBER = st.sampled_from([None, 0, 1, 7, 100, 4000, 100_000, 1.0, 5000.0])
TOP = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(TOP, NUMBER),
        "n": st.sampled_from([None, 1, 2, 5]),
        "options": st.fixed_dictionaries({"num_predict": NUMBER}),
        "generationConfig": st.fixed_dictionaries({"maxOutputTokens": NUMBER}),
        "thinking": st.just({"type": "disabled"}),
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), MEMBERS, st.booleans(), st.booleans())
def test_the_budget_holds_whatever_limits_a_request_has(
    data: st.DataObject, members: dict[str, Any], proxy: bool, new: bool
) -> None:
    row = data.draw(cheap(proxy=proxy))
    budget = 100_000
    text = data.draw(st.sampled_from(["hi", "a b " * 3000, "0123456789" * 1000, "ab,c/de-" * 2000]))

    async def run() -> None:
        vendor = Vendor(new=new or row is OPENAI)
        place = Place(row, vendor, budget, proxy=proxy)
        messages = [{"role": "user", "content": text}]
        requested = [place.ask(**members, messages=messages) for _ in range(12)]
        await asyncio.gather(*requested)
        spent = await place.spent()
        assert spent <= budget
        assert spent == sum(record.cost or 0 for record in place.records)

    asyncio.run(run())


@pytest.mark.parametrize("proxy", [False, True])
async def test_a_limit_next_to_a_null_reaches_the_vendor(proxy: bool) -> None:
    vendor = Vendor()
    place = Place(OPENAI, vendor, 10**9, proxy=proxy)
    await place.ask(max_completion_tokens=None, max_tokens=1)
    assert 1 in (vendor.bodies[0].get("max_completion_tokens"), vendor.bodies[0].get("max_tokens"))
    for row in (ANTHROPIC, GEMINI, OLLAMA, openai_compatible("http://any.test/v1")):
        other = Place(row, vendor, 10**9, proxy=False)
        await other.ask(max_completion_tokens=None, max_tokens=1)
        assert b"1" in json.dumps(vendor.bodies[-1]).encode()
        assert (await other.spent()) < 100


async def test_the_limit_sent_to_the_vendor_is_reserved() -> None:
    """Anthropic is sent a limit that the caller did not set; a request that sets one fits."""
    vendor = Vendor()
    place = Place(ANTHROPIC, vendor, 50_000, proxy=False)
    answer = await place.ask()
    assert (answer.status, answer.json["error"]["code"]) == (429, "insufficient_quota")
    assert (await place.ask(max_tokens=1000)).status == 200
    assert len(vendor.bodies) == 1


@pytest.mark.parametrize("last", [False, True])
async def test_a_limit_is_read_anywhere_in_a_long_proxied_body(
    last: bool,
) -> None:
    vendor = Vendor()
    place = Place(OPENAI, vendor, 1_000_000, proxy=True)
    messages = [{"role": "user", "content": "word " * 300_000}]
    limit = {"max_tokens": 100_000}
    body = {
        "model": "m",
        **({} if last else limit),
        "messages": messages,
        **(limit if last else {}),
    }
    answer = await asgi.request(
        place.app,
        "POST",
        "/v1/chat/completions",
        json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    assert (answer.status, answer.json["error"]["code"]) == (429, "insufficient_quota")
    assert (await place.ask(messages=messages, max_tokens=10)).status == 200


async def test_an_unreadable_body_is_refused_for_a_caller_with_a_budget() -> None:
    vendor = Vendor()
    place = Place(OPENAI, vendor, 10**9, proxy=True)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await asgi.request(place.app, "POST", "/v1/chat/completions", b"x", headers=headers)
    assert (answer.status, vendor.bodies) == (415, [])


REPORTED: list[tuple[dict[str, Any], int, int]] = [
    # reported usage, and the minimum and maximum that is charged for input and output
    ({"prompt_tokens": -5, "completion_tokens": -5}, 5, 200),
    ({"prompt_tokens": 10**18, "completion_tokens": 10**18}, 5, 200),
    ({"prompt_tokens": 10, "completion_tokens": 10**9}, 10, 200),
    ({"prompt_tokens": 10**9, "completion_tokens": 10}, 10, 200),
    ({"prompt_tokens": 10, "completion_tokens": 30_000}, 10, 200),
    ({"prompt_tokens": 0, "completion_tokens": 0}, 5, 200),
    ({"prompt_tokens": "many", "completion_tokens": "few"}, 5, 200),
    ({"prompt_tokens": {"a": 5}, "completion_tokens": [5]}, 5, 200),
    ({"prompt_tokens": 1.5, "completion_tokens": 2.5}, 5, 200),
    ({"prompt_tokens": None, "completion_tokens": None}, 5, 200),
    ({"prompt_tokens": True, "completion_tokens": False}, 5, 200),
    ({"prompt_tokens": 10, "completion_tokens": 5,
      "prompt_tokens_details": {"cached_tokens": -10**6}}, 10, 70),
    ({"prompt_tokens": 10, "completion_tokens": 5,
      "prompt_tokens_details": {"cached_tokens": 10**12}}, 10, 200),
    ({"prompt_tokens": 10, "completion_tokens": 5,
      "completion_tokens_details": {"reasoning_tokens": 10**12}}, 10, 200),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "least", "most"), REPORTED)
@pytest.mark.parametrize("proxy", [False, True])
async def test_impossible_token_counts_are_replaced_by_an_estimate(
    usage: dict[str, Any], least: int, most: int, proxy: bool
) -> None:
    vendor = Vendor()
    vendor.usage = usage
    place = Place(OPENAI, vendor, 10**9, proxy=proxy)
    assert (await place.ask(max_tokens=10)).status == 200
    assert least <= await place.spent() <= most
    (record,) = place.records
    assert record.estimated
    assert record.cost == await place.spent()


@pytest.mark.parametrize("proxy", [False, True])
async def test_invalid_token_counts_are_replaced_by_an_estimate(proxy: bool) -> None:
    vendor = Vendor()
    vendor.usage = {"prompt_tokens": float("nan"), "completion_tokens": float("inf")}

    place = Place(OPENAI, vendor, 10**9, proxy=proxy)
    assert (await place.ask(max_tokens=10)).status == 200
    assert 5 <= await place.spent() <= 200
    assert place.records[0].estimated


@pytest.mark.parametrize("reported", [10, 60])
async def test_plausible_counts_are_accepted_also_slightly_above_the_limit(reported: int) -> None:
    vendor = Vendor()
    vendor.usage = {"prompt_tokens": 500, "completion_tokens": reported}
    vendor.usage["completion_tokens_details"] = {"reasoning_tokens": reported - 5}
    place = Place(OPENAI, vendor, 10**9, proxy=False)
    await place.ask(max_tokens=10)
    assert await place.spent() == 500 + 10 * reported
    assert not place.records[0].estimated


@pytest.mark.parametrize("proxy", [False, True], ids=["shim", "proxy"])
@pytest.mark.parametrize(
    ("row", "path", "members", "factor"),
    [
        (OPENAI, "/v1/chat/completions", {}, 1),
        (OPENAI, "/v1/chat/completions", {"service_tier": "auto"}, 1),
        (OPENAI, "/v1/chat/completions", {"service_tier": "priority"}, 2),
        (OPENAI, "/v1/chat/completions", {"service_tier": "fast"}, 2),
        (OPENAI, "/v1/chat/completions", {"service_tier": "priority", "model": "gpt-5.5-x"}, 2.5),
        (ANTHROPIC, "/v1/messages", {"speed": "fast", "model": "claude-opus-4-6"}, 6),
        (ANTHROPIC, "/v1/messages", {"speed": "fast", "model": "claude-opus-4-8"}, 2),
        (ANTHROPIC, "/v1/messages", {"inference_geo": "us"}, 1.1),
    ],
)
async def test_a_faster_mode_costs_the_multiple_that_the_vendor_charges(
    row: Provider, path: str, members: dict[str, Any], factor: float, proxy: bool
) -> None:
    costs = []
    usual = {name: "standard" for name in members if name != "model"}
    for sent in (members, {**members, **usual}):
        place = Place(row, Vendor(), 10**6, proxy=proxy)
        answer = await place.ask(path, **sent, max_tokens=100)
        assert answer.status == 200, answer.body
        costs.append(await place.spent())
        [record] = place.records
        assert record.cost == costs[-1]
    assert costs[0] == pytest.approx(costs[1] * factor, abs=2)


async def test_a_faster_mode_that_the_target_is_not_sent_costs_no_more() -> None:
    costs = []
    for members in ({"service_tier": "priority", "speed": "fast"}, {}):
        place = Place(GEMINI, Vendor(), 10**6, proxy=False)
        assert (await place.ask(max_tokens=100, **members)).status == 200
        costs.append(await place.spent())
    assert costs[0] == costs[1]


async def test_a_faster_mode_that_would_overspend_the_budget_is_refused() -> None:
    place = Place(OPENAI, Vendor(), 1500, proxy=False)  # 100 tokens cost 1000, and the prompt
    answer = await place.ask(max_tokens=100, service_tier="priority")
    assert answer.json["error"]["code"] == "insufficient_quota"
    assert (await place.ask(max_tokens=100)).status == 200


async def test_a_batch_costs_the_amount_reserved() -> None:
    vendor = Vendor()
    place = Place(ANTHROPIC, vendor, 1_000_000, proxy=True)
    prices = Prices({"anthropic/": PRICE}, listed=False)
    place.quota._limiter.tariffs["usd"] = prices
    calls = [{"custom_id": str(n), "params": {"model": "m", "max_tokens": 1000}} for n in range(50)]
    answer = await place.ask("/v1/messages/batches", requests=calls)
    assert answer.status == 200
    assert 50 * 1000 * 10 <= await place.spent() <= 600_000
    assert (await place.ask("/v1/messages/batches", requests=calls)).status == 429
