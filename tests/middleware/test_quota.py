"""Limits and budgets of callers are enforced."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from asgi_aiproxy import ConfigurationError, Principal
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.middleware import Quota
from asgi_aiproxy.prices import Price, Prices, Ratio, Ratios, SentRequest
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.quotas.alerts import BudgetAlert, log_alert
from asgi_aiproxy.stores import ConcurrencySlot, MemoryStore
from asgi_aiproxy.usage.record import Outcome
from tests.support import asgi_client as asgi
from tests.support.metered_gateway import COST, PRICES, Gateway, Trouble
from tests.support.scripted_upstream import (
    Upstream,
    answers,
    chat_answer,
    chat_stream,
    refuses,
    streams,
)

pytestmark = pytest.mark.anyio

DAY = 86400.0


class Clock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def caller(**limits: Any) -> Principal:
    return Principal("alice", limits=Limits(**limits))


def usd(micro: int, **more: Any) -> tuple[Budget, ...]:
    return (Budget(micro, **more),)


def gateway(*steps: Any, clock: Clock | None = None, **options: Any) -> Gateway:
    clock = clock or Clock()
    store = Trouble(clock)
    return Gateway(store, Upstream(*steps) if steps else None, clock=clock, **options)


def store_of(place: Gateway) -> Trouble:
    assert isinstance(place.store, Trouble)
    return place.store


# ── requests, tokens, at once ────────────────────────────────────────────────


async def test_more_requests_than_a_minute_allows_are_refused_until_the_next() -> None:
    clock = Clock()
    place = gateway(who=caller(rpm=3), clock=clock)
    for left in (2, 1, 0):
        answer = await place.ask()
        assert answer.status == 200
        assert answer.header("x-ratelimit-limit-requests") == "3"
        assert answer.header("x-ratelimit-remaining-requests") == str(left)
        assert answer.header("x-ratelimit-reset-requests") == "60s"
    answer = await place.ask()
    assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "3 requests per minute" in answer.json["error"]["message"]
    assert 0 < int(answer.header("retry-after") or 0) <= 64
    assert answer.header("x-ratelimit-remaining-requests") == "0"
    assert len(place.upstream.requests) == 3
    clock.now += 64
    assert (await place.ask()).status == 200


async def test_tokens_are_reserved_by_an_estimate_and_corrected_by_the_usage() -> None:
    place = gateway(who=caller(tpm=100))
    for used in (5, 10, 15):  # 5 each; the estimate is about 40
        answer = await place.ask()
        assert answer.status == 200
        await place.settled()
        grants = place.quota._limiter
        level = await place.store.peek(grant_of(place, ":tpm"))
        assert level[0].used == used
        assert grants is not None
    assert answer.header("x-ratelimit-limit-tokens") == "100"
    many = await asyncio.gather(*(place.ask() for _ in range(10)))
    assert 0 < sum(one.status == 200 for one in many) < 10
    refused = next(one for one in many if one.status == 429)
    assert "tokens per minute" in refused.json["error"]["message"]


def grant_of(place: Gateway, end: str) -> Any:
    from asgi_aiproxy.quotas import grants

    limits = place.who.limits
    found = [
        *grants.request_grants(place.who, limits),
        *grants.token_grants(place.who, limits, 1, lambda _: 1, place.quota._limiter.clock()),
    ]
    return [grant for grant in found if getattr(grant, "name", "").endswith(end)]


async def test_a_call_with_more_tokens_than_a_minute_allows_is_admitted_alone() -> None:
    place = gateway(answers(chat_answer(usage={"prompt_tokens": 500, "completion_tokens": 1})),
                    who=caller(tpm=100))  # fmt: skip
    assert (await place.ask(max_tokens=5000)).status == 200
    await place.settled()
    assert (await place.ask()).status == 429  # and is counted as what it was


async def test_concurrency_is_limited_and_slots_are_released() -> None:
    place = gateway(streams(*chat_stream("a"), 30.0), answers(), who=caller(concurrency=1))
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(b'{"model": "m", "messages": [], "stream": true}')
        assert (await exchange.message())["status"] == 200
        answer = await place.ask()
        assert answer.status == 429
        assert "1 concurrent requests" in answer.json["error"]["message"]
        assert answer.header("retry-after") == "1"
        exchange.disconnect()
        await exchange.ended()
    await place.settled()
    assert (await place.ask()).status == 200


async def test_a_long_stream_keeps_its_slot() -> None:
    clock = Clock()
    place = gateway(
        streams(*chat_stream("a"), 30.0), answers(), who=caller(concurrency=1), clock=clock,
        ttl=0.3,
    )  # fmt: skip
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(b'{"model": "m", "messages": [], "stream": true}')
        await exchange.message()
        for _ in range(3):
            renewals = store_of(place).calls.count("renew")
            while store_of(place).calls.count("renew") == renewals:
                await asyncio.sleep(0.01)
            clock.now += 0.25
            assert (await place.ask()).status == 429
        exchange.disconnect()
        await exchange.ended()
    assert (await place.ask()).status == 200


async def test_rate_limit_headers_of_the_provider_are_replaced_for_limited_callers() -> None:
    step = answers()
    step.headers |= {"x-ratelimit-remaining-requests": "4999", "x-request-id": "r1"}
    place = gateway(step, who=caller(rpm=3))
    answer = await place.ask()
    assert [v for k, v in answer.headers if k == "x-ratelimit-remaining-requests"] == ["2"]
    assert answer.header("x-request-id") == "r1"
    place = gateway(step)
    assert (await place.ask()).header("x-ratelimit-remaining-requests") == "4999"


# ── budgets ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
async def test_a_budget_is_charged_the_reported_usage(stream: bool) -> None:
    step = streams() if stream else answers()
    place = gateway(step, who=caller(budgets=usd(10_000)))
    for number in (1, 2, 3):
        assert (await place.ask(stream=stream)).status == 200
        assert await place.spent() == number * COST
    assert [record.cost for record in place.records] == [COST] * 3
    assert [record.estimated for record in place.records] == [False] * 3


async def test_a_budget_that_is_used_up_has_its_own_code_and_is_not_retried() -> None:
    place = gateway(who=caller(budgets=usd(200)))
    seen = set()
    for _ in range(50):
        answer = await place.ask(max_tokens=2)
        seen.add(answer.status)
        await place.settled()
    assert seen == {200, 429}
    error = answer.json["error"]
    assert (error["code"], answer.header("x-should-retry")) == ("insufficient_quota", "false")
    assert "left, and this request may cost" in error["message"]
    assert answer.header("retry-after") is None
    assert 200 - 80 < await place.spent() <= 200
    place = gateway(who=caller(budgets=usd(0)))
    assert (await place.ask()).json["error"]["message"] == "Your budget is used up."


@pytest.mark.parametrize(("per", "wait"), [("day", 6400), ("month", 6400 + 16 * DAY)])
async def test_a_budget_per_day_or_month_starts_again_in_the_next(per: str, wait: float) -> None:
    clock = Clock(1_700_000_000.0)  # 2023-11-14 22:13:20 UTC
    place = gateway(who=caller(budgets=usd(145, per=per)), clock=clock)
    assert (await place.ask(max_tokens=2)).status == 200
    await place.settled()
    assert (await place.ask(max_tokens=2)).status == 200
    await place.settled()
    answer = await place.ask(max_tokens=8)
    assert answer.status == 429
    assert f"budget of this {per}" in answer.json["error"]["message"]
    assert answer.header("retry-after") == f"{wait:.0f}"
    clock.now += wait
    assert (await place.ask(max_tokens=8)).status == 200
    assert await place.spent() == COST


async def test_two_hundred_concurrent_calls_never_overspend() -> None:
    place = gateway(who=caller(budgets=usd(1000)))
    many = await asyncio.gather(*(place.ask(max_tokens=2) for _ in range(200)))
    passed = sum(answer.status == 200 for answer in many)
    assert {answer.status for answer in many} == {200, 429}
    assert await place.spent() == passed * COST <= 1000
    assert len(place.upstream.requests) == passed


async def test_the_tokens_of_an_account_spend_its_budget_together() -> None:
    shared = Budget(110, shared=True)
    place = gateway(who=Principal("a", account="acme", limits=Limits(budgets=(shared,))))
    assert (await place.ask(max_tokens=2)).status == 200
    place.who = Principal("b", account="acme", limits=Limits(budgets=(Budget(5_000), shared)))
    assert (await place.ask(max_tokens=2)).status == 200
    assert (await place.spent(0), await place.spent(1)) == (COST, 2 * COST)
    answer = await place.ask(max_tokens=8)
    assert (answer.status, answer.json["error"]["code"]) == (429, "insufficient_quota")
    assert "budget of your account" in answer.json["error"]["message"]
    assert await place.spent(0) == COST  # nothing is taken if not all of it can be had


async def test_a_model_without_a_price_is_refused_only_to_callers_with_a_budget() -> None:
    place = gateway(who=caller(budgets=usd(10**9)))
    answer = await place.ask(model="mystery")
    assert (answer.status, answer.json["error"]["code"]) == (403, "model_not_priced")
    assert answer.json["error"]["param"] == "model"
    place.who = caller(rpm=5)
    assert (await place.ask(model="mystery")).status == 200
    stated = Prices({"m": Price(input=1)}, unknown=Price(input=100), listed=False)
    place = gateway(who=caller(budgets=usd(10**9)), prices=stated)
    assert (await place.ask(model="mystery")).status == 200
    assert await place.spent() == 300


async def test_a_budget_in_units_is_charged_by_ratios() -> None:
    ratios = Ratios({"m": Ratio(2, 3)})
    who = Principal("a", price_ratio=0.5, limits=Limits(budgets=(Budget.units(1000),)))
    place = gateway(who=who, ratios=ratios)
    await place.ask()
    assert await place.spent() == 9  # 0.5 x 2 x (3 + 2 x 3)
    assert (place.records[0].units, place.records[0].cost) == (9, 12)
    without = gateway(who=who)
    assert (await without.ask()).json["error"]["code"] == "no_prices"


async def test_absurd_numbers_do_no_harm() -> None:
    place = gateway(who=caller(budgets=usd(10_000), tpm=10_000))
    answer = await place.ask(max_tokens=10**18)
    assert (answer.status, answer.json["error"]["code"]) == (429, "insufficient_quota")
    for usage in (
        {"prompt_tokens": -5, "completion_tokens": -5_000},
        {"prompt_tokens": 10**18, "completion_tokens": 10**18},
        {},
    ):
        place.upstream.steps[:] = [answers(chat_answer(usage=usage))]
        before = await place.spent()
        assert (await place.ask(max_tokens=2)).status == 200
        assert 0 < await place.spent() - before < 100
    assert {record.outcome for record in place.records} == {Outcome.REFUSED, Outcome.DONE}


async def test_the_price_list_is_loaded_without_delaying_other_requests() -> None:
    place = gateway(who=caller(budgets=usd(10**9)), prices=None)
    assert not place.quota._limiter.ready
    assert (await place.ask(model="gpt-4o")).status == 200
    assert place.quota._limiter.ready
    assert place.records == [] or place.records[0].cost is not None
    assert await place.spent() > 0


async def test_a_group_pays_by_its_ratio() -> None:
    who = Principal("a", group="vip", price_ratio=0.5, limits=Limits(budgets=usd(1000)))
    place = gateway(who=who)
    await place.ask()
    assert await place.spent() == 12
    assert (place.records[0].cost, place.records[0].group) == (12, "vip")


# ── every ending ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("step", "outcome", "spent"),
    [
        (refuses(400), Outcome.REFUSED, 0),
        (refuses(500), Outcome.FAILED, 0),
        (refuses(429), Outcome.FAILED, 0),
        (refuses(401), Outcome.FAILED, 0),
    ],
)
async def test_refused_and_failed_calls_cost_nothing(
    step: Any, outcome: Outcome, spent: int
) -> None:
    place = gateway(step, who=caller(budgets=usd(10_000), concurrency=1), relay={"attempts": 1})
    for _ in range(2):  # its place is free again
        assert (await place.ask()).status >= 400
        assert await place.spent() == spent
    assert {record.outcome for record in place.records} == {outcome}


async def test_an_answer_that_breaks_is_not_charged_but_recorded() -> None:
    place = gateway(
        streams(*chat_stream("Hello", done=False, usage=False)[:2]), who=caller(budgets=usd(10_000))
    )
    await place.ask(stream=True)
    assert await place.spent() == 0
    (record,) = place.records
    assert (record.outcome, record.not_charged, record.estimated) == (Outcome.FAILED, True, True)
    assert record.cost is not None
    assert record.cost > 0


async def test_callers_that_disconnect_pay_for_the_usage_until_then() -> None:
    place = gateway(
        streams(*chat_stream("a", "b")[:3], 30.0), who=caller(budgets=usd(100_000), concurrency=1)
    )
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(
            json.dumps({"model": "m", "messages": ["x" * 1000], "stream": True}).encode()
        )
        for _ in range(2):
            await exchange.message()
        exchange.disconnect()
        await exchange.ended()
    spent = await place.spent()
    (record,) = place.records
    assert (record.outcome, record.estimated, record.not_charged) == (
        Outcome.CLIENT_DISCONNECTED,
        True,
        False,
    )
    assert record.usage is not None
    assert 300 <= record.usage.input <= 500
    assert 1 <= record.usage.output < 4096
    assert spent == record.cost == record.usage.input + 10 * record.usage.output


async def test_callers_that_disconnect_before_a_request_was_sent_pay_nothing() -> None:
    place = gateway(who=caller(budgets=usd(10_000), concurrency=1))
    blocked = asyncio.Event()
    inner = store_of(place).admit

    async def slow(*args: Any, **options: Any) -> Any:
        answer = await inner(*args, **options)
        blocked.set()
        await asyncio.sleep(30)
        return answer

    store_of(place).admit = slow  # type: ignore[method-assign]
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(b'{"model": "m", "messages": []}')
        await blocked.wait()
        exchange.disconnect()
        await exchange.ended()
    store_of(place).admit = inner  # type: ignore[method-assign]
    assert await place.spent() == 0
    assert (await place.ask()).status == 200


async def test_a_call_without_reported_usage_is_charged_by_an_estimate() -> None:
    place = gateway(answers(chat_answer(usage=None)), who=caller(budgets=usd(10_000)))
    assert (await place.ask()).status == 200
    spent = await place.spent()
    (record,) = place.records
    assert (record.outcome, record.estimated) == (Outcome.DONE, True)
    assert 20 < spent == record.cost < 10_000


async def test_one_store_trip_before_and_one_after() -> None:
    budgets = (Budget(10_000), Budget(10_000, "day"), Budget(10_000, "month"))
    place = gateway(who=caller(rpm=10, tpm=10_000, concurrency=2, budgets=budgets))
    await place.ask()
    await place.settled()
    assert store_of(place).calls == ["admit", "settle"]
    assert [await place.spent(number) for number in range(3)] == [COST] * 3


async def test_callers_without_limits_cost_no_round_trip() -> None:
    place = gateway(prices=None)
    await place.ask()
    await place.settled()
    assert store_of(place).calls == []
    place = gateway()  # prices are set: the cost is reported anyway
    await place.ask()
    await place.settled()
    assert store_of(place).calls == []
    assert place.records[0].cost == COST


async def test_lists_of_models_are_free() -> None:
    place = gateway(who=caller(rpm=1, concurrency=1))
    for _ in range(3):
        assert (await asgi.request(place.app, "GET", "/v1/models")).status == 200
    assert store_of(place).calls == []


# ── the store away and back ──────────────────────────────────────────────────


@pytest.mark.parametrize("late", [False, True])
async def test_nothing_is_lost_or_charged_twice_while_the_store_is_unavailable(late: bool) -> None:
    place = gateway(answers(before=0.05), who=caller(budgets=usd(10_000), concurrency=5))
    store = store_of(place)
    requested = asyncio.get_running_loop().create_task(place.ask())
    await place.upstream.requested.wait()
    store.away, store.late = True, late
    assert (await requested).status == 200
    while store.calls.count("settle") < 3:  # it is tried again and again
        await asyncio.sleep(0.01)
    store.away = False
    assert await place.spent() == COST
    slots = await store.peek([ConcurrencySlot("caller:alice", "alice:slots", 5)])
    assert slots[0].used == 0


@pytest.mark.parametrize("late", [False, True])
async def test_fail_closed_refuses_and_reserves_nothing(late: bool) -> None:
    place = gateway(who=caller(budgets=usd(10_000), rpm=5, concurrency=1))
    store = store_of(place)
    store.away, store.late = True, late
    answer = await place.ask()
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert "cannot be checked" in answer.json["error"]["message"]
    assert place.upstream.requests == []
    store.away = False
    assert await place.spent() == 0
    assert (await place.ask()).status == 200  # the one place is free


@pytest.mark.parametrize("late", [False, True])
async def test_fail_open_admits_and_charges_when_the_store_is_available_again(late: bool) -> None:
    place = gateway(
        who=caller(budgets=usd(10), rpm=1),
        budgets_away="fail_open",
        limits_away="fail_open",
    )
    store = store_of(place)
    store.away, store.late = True, late
    for _ in range(3):
        assert (await place.ask()).status == 200
    store.away = False
    assert await place.spent() == 3 * COST
    assert (await place.ask()).status == 429


@pytest.mark.parametrize("late", [False, True])
async def test_a_local_estimate_counts_in_this_process(late: bool) -> None:
    place = gateway(who=caller(budgets=usd(300), rpm=10), budgets_away="local_estimate")
    store = store_of(place)
    store.away, store.late = True, late
    assert (await place.ask(max_tokens=2)).status == 503  # nothing is known of this budget
    store.away = False
    assert (await place.ask(max_tokens=2)).status == 200
    await place.settled()
    store.away = True
    statuses = [(await place.ask(max_tokens=2)).status for _ in range(15)]
    assert statuses.count(200) < 10
    assert set(statuses[statuses.index(429) :]) == {429}
    store.away = False
    spent = await place.spent()
    assert spent == (1 + statuses.count(200)) * COST <= 300


async def test_limits_are_counted_locally_by_default_while_the_store_is_unavailable() -> None:
    place = gateway(who=caller(rpm=3, concurrency=5))
    store_of(place).away = True
    statuses = [(await place.ask()).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


async def test_at_shutdown_settlements_wait_for_the_store_for_a_short_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = gateway(who=caller(budgets=usd(10_000)), budgets_away="fail_open")
    async with place.app:
        await place.ask()
    assert await place.spent() == COST
    settler = place.quota._limiter.settler
    settler.drain = short(settler.drain)  # type: ignore[method-assign]
    async with place.app:
        store_of(place).away = True
        await place.ask()
    assert len(settler) == 0
    assert "1 settlements (what they had reserved stays charged) are lost" in caplog.text


def short(drain: Any) -> Any:
    async def drained() -> None:
        await drain(0.05)

    return drained


# ── low budgets ──────────────────────────────────────────────────────────────


async def test_thresholds_of_a_budget_are_reported_once() -> None:
    heard: list[BudgetAlert] = []

    async def on_threshold(alert: BudgetAlert) -> None:
        heard.append(alert)

    place = gateway(
        who=caller(budgets=usd(300)), on_threshold=[log_alert, on_threshold], thresholds=[0.5, 0.9]
    )
    for _ in range(9):
        await place.ask(max_tokens=2)
        await place.settled()
    await place.quota._limiter.drain()
    assert [(alert.threshold, alert.spent) for alert in heard] == [(0.5, 7 * COST)]
    assert (heard[0].account, heard[0].caller, heard[0].per) == ("alice", "alice", "total")
    assert heard[0].left == 300 - 7 * COST
    heard.clear()
    place.who = caller(budgets=usd(10**6))
    await place.ask()
    await place.settled()
    await place.quota._limiter.drain()
    assert heard == []


async def test_a_failing_callback_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    def on_threshold(alert: BudgetAlert) -> None:
        raise RuntimeError("no mail today")

    place = gateway(who=caller(budgets=usd(30)), on_threshold=on_threshold, thresholds=[0.1])
    await place.ask(max_tokens=1)
    assert await place.spent() in (0, COST)


# ── other apps ───────────────────────────────────────────────────────────────


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_in_front_of_any_other_app_each_request_counts() -> None:
    store = Trouble(Clock())
    app = Quota(hello, store=store, limits=Limits(rpm=2, concurrency=1))
    statuses = [(await asgi.request(app, "GET", "/")).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = await asgi.request(app, "POST", "/v1/messages", b"{}")
    assert answer.json["error"]["type"] == "rate_limit_error"  # Anthropic's words
    assert answer.json["type"] == "error"


async def test_an_app_that_fails_releases_its_slot() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    app = Quota(broken, store=MemoryStore(), limits=Limits(concurrency=1))
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await asgi.request(app, "GET", "/")
        await app._limiter.drain()


async def test_a_shim_behind_a_host_reserves_the_rest_itself() -> None:
    place = gateway(who=caller(rpm=5, budgets=usd(10_000)))
    shim = place.quota.app

    async def host(scope: Any, receive: Any, send: Any) -> None:
        await shim(scope, receive, send)

    place.quota.app = host
    place.quota._app_handles_admission = False
    answer = await place.ask()
    assert answer.header("x-ratelimit-remaining-requests") == "4"
    assert await place.spent() == COST
    assert store_of(place).calls == ["admit", "admit", "settle"]


async def test_the_admission_control_is_in_the_scope_of_the_wrapped_app() -> None:
    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope[GATE_KEY])
        await hello(scope, receive, send)

    app = Quota(inner, store=MemoryStore(), limits=Limits(budgets=usd(1000)), prices=PRICES)
    await asgi.request(app, "GET", "/")
    with pytest.raises(APIError) as caught:
        await seen[0].admit(
            "chat", [("p", "dear")], lambda: [SentRequest("p", "dear", body=b"x" * 10_000)]
        )
    assert caught.value.kind is ErrorKind.LIMITED


async def test_scopes_without_a_caller_pass_unchanged() -> None:
    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    app = Quota(inner, store=MemoryStore(), limits=Limits(rpm=1))
    scope = {"type": "lifespan"}
    async with asgi.Exchange(app, scope) as exchange:
        await exchange.ended()
    assert seen[0] is scope


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Quota(hello, store=MemoryStore(), limits_away="never"), "fail_open, fail_closed"),
        (lambda: Quota(hello, store=MemoryStore(), thresholds=[2]), "above 0 and at most 1"),
        (lambda: Limits(rpm=0), "at least 1"),
        (lambda: Budget(-1), "cannot be -1"),
        (lambda: Budget(2**53), "cannot be"),
    ],
)
def test_a_mistake_is_reported_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_records_and_limits_are_plain_values() -> None:
    limits = Limits(rpm=1, budgets=(Budget.usd(0.29), Budget.units(5, "day")))
    assert limits.budgets[0].limit == 290_000
    assert msgspec.json.decode(msgspec.json.encode(limits), type=Limits) == limits


async def test_callers_with_their_own_key_are_not_charged() -> None:
    place = gateway(who=caller(budgets=usd(0), rpm=1), relay={"allow_client_keys": True})
    headers = {"x-provider-key": "sk-mine"}
    answer = await place.ask(headers=headers)
    assert (answer.status, place.upstream.keys) == (200, ["sk-mine"])
    assert await place.spent() == 0
    assert place.records[0].cost == 0
    assert (await place.ask(headers=headers)).status == 429  # but it counts


# built without prices


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(scope)


@pytest.fixture
def no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if genai-prices were not installed."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)


@pytest.mark.parametrize(
    ("budget", "words"),
    [(Budget.usd(5), r"asgi-aiproxy\[prices\]"), (Budget.units(5), "ratios")],
    ids=["usd", "units"],
)
@pytest.mark.usefixtures("no_list")
def test_a_budget_in_a_unit_without_prices_is_refused_when_it_is_built(
    budget: Budget, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Quota(nothing, store=MemoryStore(), limits=Limits(rpm=5, budgets=(budget,)))
    prices, ratios = Prices({"*": Price(input=1)}, listed=False), Ratios({"*": 1})
    limits = Limits(budgets=(budget,))
    Quota(nothing, store=MemoryStore(), limits=limits, prices=prices, ratios=ratios)


@pytest.mark.usefixtures("no_list")
async def test_a_caller_with_a_budget_gets_an_error_without_prices(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = gateway(who=caller(budgets=usd(5_000_000)), prices=None)
    assert "asgi-aiproxy[prices]" in caplog.text
    answer = await place.ask()
    assert answer.status == 500
    assert "asgi-aiproxy[prices]" in answer.json["error"]["message"]
