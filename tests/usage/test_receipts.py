"""Receipts: the cost in the answer, and line by line afterwards, for the caller alone."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy import AIShim, PassthroughProxy
from asgi_aiproxy.admin import AdminApp, Billing
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.prices.applied import compact, receipt_lines
from asgi_aiproxy.prices.call_price import price_call
from asgi_aiproxy.prices.price import Tier
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.usage.ledger import Ledger
from tests.admin.conftest import ROOT
from tests.support import asgi_client as asgi
from tests.support.metered_gateway import COST, PRICES
from tests.support.scripted_upstream import (
    Upstream,
    answers,
    chat_answer,
    chat_stream,
    refuses,
    streams,
)

pytestmark = pytest.mark.anyio

PRICE = Price(
    input=0.1,
    output=0.37,
    cache_read=0.013,
    cache_write=0.2,
    cache_write_1h=0.3,
    reasoning=0.5,
    audio_input=7,
    request=0.000001,
    tiers=(Tier(above=1000, input=0.77),),
)
COUNT = st.integers(0, 5000)
USAGES = st.builds(
    Usage,
    input=COUNT,
    output=COUNT,
    cache_read=COUNT,
    cache_write=COUNT,
    cache_write_1h=COUNT,
    reasoning=COUNT,
    audio_input=COUNT,
)


@given(usage=USAGES, ratio=st.integers(0, 5_000_000))
def test_the_lines_of_a_receipt_add_up_to_the_cost(usage: Usage, ratio: int) -> None:
    prices = Prices({"m*": PRICE}, listed=False)
    priced = price_call(prices, "openai", ["other", "m1"], usage, ratio)
    assert priced is not None
    assert priced.price is not None
    assert priced.cost == prices.cost("openai", "m1", usage, ratio)
    assert (priced.price.model, priced.price.source) == ("m1", "own:m*")
    stored = msgspec.json.decode(
        msgspec.json.encode(compact(priced.price, usage)), type=type(priced.price)
    )
    lines = receipt_lines(stored, usage, priced.cost)
    assert sum(Decimal(line.micro_dollars) for line in lines) == priced.cost
    for line in lines:
        assert Decimal(line.price) * line.quantity == Decimal(line.micro_dollars)
    assert [line.kind for line in lines].count("rounding") <= 1


def test_a_pricing_without_rates_has_one_line() -> None:
    lines = receipt_lines(None, Usage(input=1), 42)
    assert [(line.kind, line.micro_dollars) for line in lines] == [("call", "42")]


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("redis_url")
    async with RedisStore(url, prefix=f"test-{uuid.uuid4().hex}", timeout=5.0) as made:
        yield made


def identify(scope: Any) -> Principal | None:
    name = dict(scope["headers"]).get(b"x-user", b"").decode()
    return Principal(name, price_ratio=2.0 if name == "bob" else 1.0) if name else None


class Gateway:
    def __init__(self, store: Store, *steps: Any, **options: Any) -> None:
        self.upstream = Upstream(*steps)
        self.ledger = Ledger(store)
        self.calls = 0
        shim = AIShim(
            OPENAI.using("sk-1"), transport=self.upstream.transport, record=self.ledger, **options
        )
        quota = Quota(shim, store=store, prices=PRICES)
        self.app = Authenticate(Billing(quota, store=store), identify=identify)
        self.admin = AdminApp(store, token=ROOT)

    async def chat(self, user: str = "ann", id: str = "r1", **more: Any) -> asgi.Answer:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
        headers = {"x-user": user, "x-request-id": id}
        self.calls += 1
        return await asgi.request(self.app, "POST", "/v1/chat/completions", body, headers=headers)

    async def get(self, path: str, user: str = "ann") -> asgi.Answer:
        async with asyncio.timeout(30):  # records are written in the background
            while len((await self.ledger.query()).records) < self.calls:
                await asyncio.sleep(0.01)
        return await asgi.request(self.app, "GET", path, headers={"x-user": user})

    async def admin_get(self, path: str) -> asgi.Answer:
        headers = {"authorization": f"Bearer {ROOT}"}
        return await asgi.request(self.admin, "GET", path, headers=headers)


async def test_a_whole_answer_has_its_cost_in_a_header() -> None:
    gateway = Gateway(MemoryStore(), answers())
    async with gateway.app:
        assert (await gateway.chat()).header("aiproxy-cost") == "0.000023"
        assert (await gateway.chat("bob")).header("aiproxy-cost") == "0.000046"
        assert (await gateway.chat(model="unpriced")).header("aiproxy-cost") is None


async def test_the_header_can_be_switched_off() -> None:
    gateway = Gateway(MemoryStore(), answers(), receipts=Receipts(header=False))
    async with gateway.app:
        assert (await gateway.chat()).header("aiproxy-cost") is None


async def test_an_app_without_a_quota_shows_the_cost_by_prices_of_its_own() -> None:
    upstream = Upstream(answers())
    app = AIShim(
        OPENAI.using("sk-1"), transport=upstream.transport, receipts=Receipts(prices=PRICES)
    )
    async with app:
        answer = await asgi.chat(app)
    assert answer.header("aiproxy-cost") == "0.000023"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_stream_ends_with_its_cost_if_that_is_switched_on(path: str) -> None:
    body: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": 9}
    body["messages"] = [{"role": "user", "content": "Hi"}]
    for comment in (True, False):
        gateway = Gateway(MemoryStore(), streams(), receipts=Receipts(comment=comment))
        async with gateway.app:
            answer = await asgi.request(gateway.app, "POST", path, body, headers={"x-user": "ann"})
        assert answer.status == 200, answer.body
        assert answer.body.endswith(b"\n\n: aiproxy-cost: 0.000023\n\n") is comment
        assert answer.header("aiproxy-cost") is None


async def test_a_broken_stream_and_a_client_that_reads_every_line_get_no_comment() -> None:
    broken = streams(*chat_stream("Hel")[:2], OSError("gone"))
    gateway = Gateway(MemoryStore(), broken, receipts=Receipts(comment=True))
    async with gateway.app:
        assert b"aiproxy-cost" not in (await gateway.chat(stream=True)).body
    gateway = Gateway(MemoryStore(), streams(), receipts=Receipts(comment=True))
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    for query in ("?alt=sse", ""):
        async with gateway.app:
            answer = await asgi.request(
                gateway.app,
                "POST",
                f"/v1beta/models/m:streamGenerateContent{query}",
                body,
                headers={"x-user": "ann"},
            )
        assert answer.status == 200, answer.body
        assert b"aiproxy-cost" not in answer.body


async def test_a_receipt_shows_tokens_times_price_line_by_line(store: Store) -> None:
    gateway = Gateway(store, answers())
    async with gateway.app:
        await gateway.chat("bob", "r-bob")
        answer = await gateway.get("/v1/me/exchanges/r-bob", "bob")
    assert answer.status == 200, answer.body
    receipt = answer.json["receipt"]
    assert receipt["lines"] == [
        {
            "kind": "input",
            "quantity": 3,
            "unit": "tokens",
            "price": "2",
            "micro_dollars": "6",
        },
        {
            "kind": "output",
            "quantity": 2,
            "unit": "tokens",
            "price": "20",
            "micro_dollars": "40",
        },
    ]
    assert receipt["micro_dollars"] == 2 * COST
    assert receipt["charged"] == "0.000046"
    assert (receipt["price_source"], receipt["priced_as"], receipt["price_ratio"]) == (
        "own:m",
        "m",
        2.0,
    )
    assert answer.json["record"]["principal"] == "bob"
    for_operator = await gateway.admin_get("/exchanges/r-bob")
    assert for_operator.json["receipt"] == receipt
    assert for_operator.json["record"]["key_id"]
    assert (await gateway.admin_get("/exchanges/none")).status == 404


async def test_a_caller_sees_only_its_own_exchanges_also_by_the_same_request_id(
    store: Store,
) -> None:
    gateway = Gateway(store, answers(), answers(), refuses(400))
    async with gateway.app:
        await gateway.chat("ann", "same")
        await gateway.chat("bob", "same")
        await gateway.chat("bob", "of-bob")
        for user in ("ann", "bob"):
            own = await gateway.get("/me/exchanges/same", user)
            assert own.json["record"]["principal"] == user
        assert (await gateway.get("/me/exchanges/of-bob", "ann")).status == 404
        refused = (await gateway.get("/me/exchanges/of-bob", "bob")).json
        assert refused["receipt"]["charged"] == "0.000000"
        assert refused["receipt"]["lines"] == []
        record = own.json["record"]
        assert "key_id" not in record
        assert "provider" not in record
        assert (await gateway.get("/me/exchanges/a%2Fb", "bob")).status == 404
        anonymous = await asgi.request(gateway.app, "GET", "/me/exchanges/same")
        assert anonymous.status == 401


@pytest.mark.parametrize(
    ("step", "body", "cost"),
    [
        (answers(), {}, "header"),
        (streams(), {"stream": True}, "comment"),
        (answers(chat_answer("x" * 300_000)), {}, None),
        (refuses(400), {}, "header"),
    ],
)
async def test_a_response_that_is_passed_through_shows_its_cost_if_that_is_switched_on(
    step: Any, body: dict[str, Any], cost: str | None
) -> None:
    for receipts in (Receipts(comment=True), None):
        upstream = Upstream(step)
        proxy = PassthroughProxy(
            OPENAI.using("sk-1"), transport=upstream.transport, receipts=receipts
        )
        app = Quota(proxy, store=MemoryStore(), prices=PRICES)
        async with app:
            headers = {"content-type": "application/json"}
            answer = await asgi.chat(app, headers=headers, **body)
        shown = cost if receipts is not None else None
        amount = "0.000023" if answer.status == 200 else "0.000000"
        assert answer.header("aiproxy-cost") == (amount if shown == "header" else None)
        assert answer.body.endswith(f": aiproxy-cost: {amount}\n\n".encode()) is (
            shown == "comment"
        )
        if answer.status == 200 and not body:
            assert answer.json["choices"]


async def test_a_proxy_without_a_quota_shows_the_cost_by_prices_of_its_own() -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy(
        OPENAI.using("sk-1"), transport=upstream.transport, receipts=Receipts(prices=PRICES)
    )
    async with proxy:
        answer = await asgi.chat(proxy, headers={"content-type": "application/json"})
    assert answer.header("aiproxy-cost") == "0.000023"
