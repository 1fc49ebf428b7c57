"""Explanations agree with what then happens."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import (
    AIShim,
    Authenticate,
    Budget,
    Key,
    KeyPool,
    Limits,
    MemoryStore,
    Price,
    Prices,
    Principal,
    ProviderRouter,
    Quota,
    UsageRecord,
)
from asgi_aiproxy.exchange.explain import Explanation
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.applied import AppliedPrice
from asgi_aiproxy.prices.price import Rates
from asgi_aiproxy.prices.token_estimate import RequestSize, SentRequest, estimate_size
from asgi_aiproxy.providers import OPENAI, Provider
from asgi_aiproxy.providers.base import Target
from asgi_aiproxy.services.explain import explain_record
from asgi_aiproxy.usage.record import Attempt, Outcome
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

PRICES = Prices({"d": Price(input=1000, output=1000), "m": Price(input=1, output=1)},
                listed=False)  # fmt: skip
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}


@st.composite
def keys(draw: st.DrawFn, name: str) -> KeyPool:
    """A pool whose keys may be limited, restricted to models, cooling down or disabled."""
    pool = KeyPool(
        [
            Key(
                f"sk-{name}-{number}",
                id=f"{name}{number}",
                priority=draw(st.integers(0, 1)),
                models=draw(st.sampled_from([(), ("other",)])),
                concurrency=draw(st.sampled_from([None, 1])),
                rpm=draw(st.sampled_from([None, 1, 60])),
            )
            for number in range(draw(st.integers(0, 3)))
        ],
        strategy=draw(st.sampled_from(["weighted", "fill_first", "least_busy", "random"])),
    )
    for state in pool.key_set.states.values():
        match draw(st.sampled_from(["ok", "ok", "busy", "limited", "model", "refused", "off"])):
            case "busy":
                state.mark_used(pool.key_set.clock())
            case "limited":
                pool.key_set.pause(state, "", 100)
            case "model":
                pool.key_set.pause(state, "m", 100)
            case "refused":
                pool.key_set.apply_response(state, "m", 401, None, None, None)
            case "off":
                asyncio.run(pool.disable(state.key.id))
    return pool


@st.composite
def routers(draw: st.DrawFn) -> ProviderRouter:
    providers: list[Provider] = [
        OPENAI.using(draw(keys(name)), name=name, base_url=f"http://{name}/v1")
        for name in ("a", "b", "c")[: draw(st.integers(1, 3))]
    ]
    targets = [
        Target(
            provider,
            draw(st.sampled_from(["m", "d"])),
            weight=draw(st.integers(1, 3)),
            priority=draw(st.integers(0, 1)),
        )
        for provider in providers
    ]
    name = draw(st.sampled_from(["m", "m", "m", "x"]))
    return ProviderRouter({name: targets}, random=SameDraw())


class SameDraw(random.Random):
    """Draws the same order of targets each time, so that the last error is the same."""

    def random(self) -> float:
        return 0.5


@st.composite
def callers(draw: st.DrawFn) -> Principal:
    budgets = draw(st.sampled_from([(), (Budget(100),), (Budget(3_000), Budget(50, "day"))]))
    return Principal(
        "ada",
        models=draw(st.sampled_from([(), (), ("m",), ("z",)])),
        providers=draw(st.sampled_from([(), (), ("a",), ("z",)])),
        keys=draw(st.sampled_from([(), (), ("a*",)])),
        key_id=draw(st.sampled_from(["", "", "a1", "z"])),
        limits=Limits(
            rpm=draw(st.sampled_from([None, 1, 5])),
            tpm=draw(st.sampled_from([None, 60, 10_000])),
            concurrency=draw(st.sampled_from([None, 1])),
            budgets=budgets,
        ),
    )


@settings(max_examples=250, deadline=None)
@given(routers(), callers(), st.integers(0, 2))
def test_an_explanation_agrees_with_what_then_happens(
    router: ProviderRouter, caller: Principal, earlier: int
) -> None:
    explained, answer, upstream, record = asyncio.run(explain_and_call(router, caller, earlier))
    if explained.refusal is None:
        assert answer.status == 200, (explained, answer.body)
        (sent,) = upstream.requests
        first = {target.provider: target for target in explained.first_targets}
        assert sent.url.host in first
        assert record.key_id in first[sent.url.host].first
    else:
        assert upstream.requests == []
        assert (answer.status, answer.json["error"]["message"]) == (
            explained.refusal.status,
            explained.refusal.message,
        ), explained
        assert (answer.json["error"]["code"] or "") in (
            explained.refusal.code, *(("rate_limit_exceeded",) if answer.status == 429 else ())
        )  # fmt: skip


async def explain_and_call(
    router: ProviderRouter, caller: Principal, earlier: int
) -> tuple[Explanation, asgi.Answer, Upstream, UsageRecord]:
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    upstream = Upstream(answers())
    shim = AIShim(router, transport=upstream.transport, record=keep)
    quota = Quota(shim, store=MemoryStore(), prices=PRICES)
    app = Authenticate(quota, identify=lambda scope: caller)
    headers = {"aiproxy-key-id": caller.key_id} if caller.key_id else {}
    async with shim:
        for _ in range(earlier):  # uses up limits, keys and budgets
            await asgi.request(app, "POST", "/v1/chat/completions", BODY, headers=headers)
        upstream.requests.clear()
        size = await size_as_sent()
        before = await pool_status(router)
        explained = await shim.explain(
            "m", caller, size.input, output=size.output, key_id=caller.key_id, limits=quota.explain
        )
        assert await pool_status(router) == before
        assert upstream.requests == []
        answer = await asgi.request(app, "POST", "/v1/chat/completions", BODY, headers=headers)
    return explained, answer, upstream, records[-1]


async def size_as_sent() -> RequestSize:
    """The estimated size of the request as it is sent."""
    upstream = Upstream(answers())
    shim = AIShim(OPENAI.using("sk", name="a"), transport=upstream.transport)
    await asgi.request(shim, "POST", "/v1/chat/completions", BODY)
    body = await upstream.requests[0].aread()
    sent = SentRequest("a", "m", "/chat/completions", body, upstream.bodies[0])
    return estimate_size(sent, 4096)


async def pool_status(router: ProviderRouter) -> list[Any]:
    pools = [provider.keys for provider in router.providers.values()]
    return [
        [(key.id, key.health, key.in_flight, key.uses) for key in await pool.status()]
        for pool in pools
        if pool is not None
    ]


async def test_an_explanation_shows_keys_limits_and_the_highest_cost() -> None:
    pool = KeyPool([Key("sk-1", id="1", rpm=50), Key("sk-2", id="2", priority=1)])
    pool.key_set.pause(pool.key_set.states["1"], "", 30)
    shim = AIShim(ProviderRouter({"m": OPENAI.using(pool)}))
    quota = Quota(shim, store=MemoryStore(), prices=PRICES)
    caller = Principal("ada", limits=Limits(rpm=5, budgets=(Budget.usd(1, "day"),)))
    found = await shim.explain("m", caller, 1000, output=500, limits=quota.explain)
    (target,) = found.targets
    assert [(key.id, key.usable) for key in target.keys] == [("1", False), ("2", True)]
    assert target.keys[0].wait == pytest.approx(30, abs=5)
    assert target.keys[0].reason == "over a limit (429)"
    assert (target.first, target.max_cost) == (("2",), 1500)
    assert [(limit.name, limit.limit, limit.needed) for limit in found.limits] == [
        ("requests per minute", 5, 1),
        ("usd per day", 1_000_000, 1500),
    ]
    assert found.refusal is None
    assert "sk-" not in msgspec.json.encode(found).decode()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"outcome": Outcome.DONE, "attempts": 1, "status": 200}, "answered by openai."),
        ({"outcome": Outcome.DONE, "attempts": 2}, "answered by openai with attempt 2."),
        ({"outcome": Outcome.CLIENT_DISCONNECTED, "duration": 1.5}, "disconnected after 1.500 s"),
        ({"outcome": Outcome.REFUSED, "error": "Too big."}, "No provider was called: Too big."),
        (
            {"outcome": Outcome.FAILED, "attempts": 1, "first_byte": 0.1, "error": "Lost."},
            "The response of openai broke off: Lost.",
        ),
        (
            {
                "outcome": Outcome.FAILED,
                "attempts": 2,
                "error": "No.",
                "attempt_details": (Attempt("groq", status=429), Attempt("openai", status=503)),
            },
            "openai failed (HTTP 503, after 2 attempts): No.",
        ),
    ],
)
def test_a_record_is_explained_by_its_cause(changes: dict[str, Any], cause: str) -> None:
    record = UsageRecord(id="r", provider="openai", **changes)
    found = explain_record(record)
    assert cause in found.cause
    assert f"HTTP {record.status}." in found.steps[-1]


def test_a_record_is_explained_with_the_calculation_of_its_cost() -> None:
    rates = Rates(input=150_000, output=600_000, cache_read=75_000)
    price = AppliedPrice("gpt-4o", "genai-prices", rates, ratio=1_500_000)
    record = UsageRecord(
        id="r",
        usage=Usage(input=1_000, output=20, cache_read=400),
        cost=198,
        group="vip",
        price=price,
        estimated=True,
    )
    assert (
        "It cost $0.000198: 600 input tokens at $0.15 per million, 400 cache_read tokens at $0.075 "
        "per million, 20 output tokens at $0.6 per million, by the price of 'gpt-4o' "
        "(genai-prices), times the caller's price ratio 1.5 of group 'vip'."
    ) in explain_record(record).steps
    assert "A part of its usage was estimated." in explain_record(record).steps
    images = AppliedPrice("dall-e", "my prices", Rates(image=40_000_000_000))
    record = UsageRecord(
        id="r", usage=Usage(images=2), cost=80_000, price=images, group="vip", not_charged=True
    )
    assert [step for step in explain_record(record).steps if "cost" in step] == [
        "It cost $0.080000: 2 images at $0.04 each, by the price of 'dall-e' (my prices)."
    ]
    assert "The caller was not charged." in explain_record(record).steps
    own = UsageRecord(id="r", usage=Usage(input=1), cost=5)
    assert "It cost $0.000005." in explain_record(own).steps
