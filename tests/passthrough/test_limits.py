"""Limits and budgets apply to proxied requests as well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import OpenAIShim, PassthroughProxy, Principal
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import MemoryStore, UsageLevel
from asgi_aiproxy.usage.record import Outcome, UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import (
    Upstream,
    answers,
    chat_answer,
    chat_stream,
    refuses,
    streams,
)

pytestmark = pytest.mark.anyio

PRICES = Prices({"gpt-test": Price(input=1, output=10)}, listed=False)
COST = 23
BODY = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}


class Place:
    def __init__(self, upstream: Upstream, target: Any = None, **limits: Any) -> None:
        self.who = Principal("alice", limits=Limits(**limits))
        self.store = MemoryStore()
        self.records: list[UsageRecord] = []
        target = target if target is not None else OPENAI.using("sk-1")
        proxy = PassthroughProxy(target, transport=upstream.transport, record=self._record)
        self._proxy = proxy
        self.prices(PRICES)

    def prices(self, prices: Prices) -> None:
        self.quota = Quota(self._proxy, store=self.store, prices=prices)
        self.app = Authenticate(self.quota, identify=lambda scope: self.who)

    def wrap(self, app: Any) -> None:
        self._proxy = app
        self.prices(PRICES)

    async def _record(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def post(self, body: Any = BODY, path: str = "/v1/chat/completions") -> asgi.Answer:
        headers = {"content-type": "application/json"}
        return await asgi.request(self.app, "POST", path, body, headers=headers)

    async def level(self) -> UsageLevel:
        async with self.app:
            pass  # what has ended is booked and recorded
        limiter = self.quota._limiter
        budget = reserve(self.who, self.who.limits.budgets[0], 0, limiter.clock())
        return (await self.store.peek([budget]))[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_budget_is_charged_for_proxied_requests(stream: bool) -> None:
    place = Place(Upstream(streams() if stream else answers()), budgets=(Budget(200),))
    assert (await place.post({**BODY, "stream": stream})).status == 200
    assert await place.level() == UsageLevel(COST)
    assert [record.cost for record in place.records] == [COST]
    statuses = [(await place.post()).status for _ in range(10)]
    assert 429 in statuses
    assert (await place.level()).used <= 200


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("shim", [False, True])
async def test_a_stream_without_usage_is_charged_by_its_text(leaves: bool, shim: bool) -> None:
    pieces = list(chat_stream(*["word "] * 3000, usage=False))
    if leaves:
        pieces = [*pieces[:-2], 60.0]
    upstream = Upstream(streams(*pieces))
    place = Place(upstream, budgets=(Budget(10**9),))
    if shim:
        place.wrap(OpenAIShim(OPENAI.using("sk-1"), transport=upstream.transport))
    body = {**BODY, "stream": True, "max_tokens": 9000}
    scope = asgi.scope_of(
        "POST", "/v1/chat/completions", headers={"content-type": "application/json"}
    )
    async with asgi.Exchange(place.app, scope) as exchange:
        exchange.send_body(json.dumps(body).encode())
        await exchange.message()
        seen = 0
        while seen < 2999:
            seen += (await exchange.message()).get("body", b"").count(b'"word "')
        if leaves:
            exchange.disconnect()
            await exchange.ended()
        else:
            while (await exchange.message()).get("more_body"):
                pass
    used = (await place.level()).used
    assert 10 * 1500 < used < 10 * 9000  # dollars for a million tokens


async def test_a_refused_request_costs_nothing_and_frees_its_slot() -> None:
    place = Place(Upstream(refuses(400)), budgets=(Budget(10_000),), concurrency=1)
    for _ in range(2):
        assert (await place.post()).status == 400
        assert await place.level() == UsageLevel(0)


async def test_reading_resources_counts_as_a_request_and_costs_nothing() -> None:
    place = Place(Upstream(answers(b'{"data": []}')), budgets=(Budget(0),), rpm=2, tpm=1)
    statuses = [(await asgi.request(place.app, "GET", "/v1/files")).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert await place.level() == UsageLevel(0)


async def test_a_request_without_a_priced_model_is_refused_for_a_caller_with_a_budget() -> None:
    place = Place(Upstream(answers()), budgets=(Budget(10**9),))
    answer = await place.post({"input_file_id": "f"}, "/v1/batches")
    assert (answer.status, answer.json["error"]["code"]) == (403, "model_not_priced")
    place.who = Principal("bob", limits=Limits(rpm=5))
    assert (await place.post({"input_file_id": "f"}, "/v1/batches")).status == 200


async def test_an_application_behind_it_has_no_price() -> None:
    place = Place(
        Upstream(answers(chat_answer(usage=None))), "http://internal", budgets=(Budget(0),), rpm=9
    )
    answer = await place.post({"anything": 1}, "/any")
    assert answer.status == 200
    assert answer.header("x-ratelimit-remaining-requests") == "8"
    assert await place.level() == UsageLevel(0)


async def test_errors_have_the_vendors_format() -> None:
    place = Place(Upstream(answers()), ANTHROPIC.using("sk"), rpm=1)
    await place.post(path="/v1/messages")
    answer = await place.post(path="/v1/messages")
    assert (answer.status, answer.json["error"]["type"]) == (429, "rate_limit_error")


@pytest.mark.parametrize(
    ("limits", "model", "status"),
    [
        ({"budgets": (Budget(10),)}, "gpt-test", 429),
        ({"budgets": (Budget(10**9),)}, "unpriced", 403),
    ],
)
async def test_the_limits_of_a_websocket_are_checked_before_anything_is_opened(
    limits: Any, model: str, status: int
) -> None:
    place = Place(Upstream(answers()), **limits)
    scope = {
        **asgi.scope_of("GET", f"/v1/realtime?model={model}"),
        "type": "websocket",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    async with asgi.Exchange(place.app, scope) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        assert (await exchange.message())["status"] == status
    assert await place.level() == UsageLevel(0)
    assert [record.outcome for record in place.records] == [Outcome.REFUSED]


async def test_a_call_costs_the_price_of_the_requested_model_whatever_the_response_names() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    answer = {"choices": [{"delta": {"arguments": {"model": "cheap"}}}], "model": "cheap"}
    place = Place(
        Upstream(answers(json.dumps({**answer, "usage": usage}).encode())), budgets=(Budget(200),)
    )
    place.prices(Prices({"gpt-test": Price(input=1, output=10), "cheap": Price()}, listed=False))
    assert (await place.post()).status == 200
    assert await place.level() == UsageLevel(COST)
    assert [(record.requested_model, record.model) for record in place.records] == [
        ("gpt-test", "cheap")
    ]


async def test_a_request_without_a_model_has_the_price_of_the_provider() -> None:
    place = Place(Upstream(answers(chat_answer())), budgets=(Budget(10**9),))
    place.prices(Prices({"openai/": Price(input=1, output=10)}, listed=False))
    assert (await place.post({"input_file_id": "f"}, "/v1/batches")).status == 200
    assert await place.level() == UsageLevel(COST)
