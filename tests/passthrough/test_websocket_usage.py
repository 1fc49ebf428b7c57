"""Usage, limits and budgets of WebSocket sessions."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from asgi_aiproxy import Authenticate, KeyPool, PassthroughProxy, UsageRecord
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.exchange.attribution import Attribution
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.middleware import Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.quotas import grants
from asgi_aiproxy.stores import MemoryStore
from asgi_aiproxy.stores.base import Admitted, StoreUnavailableError
from asgi_aiproxy.usage.record import Outcome
from tests.passthrough.test_websocket import echo, place, realtime
from tests.support.passthrough_upstream import Frontend
from tests.support.socket_server import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]


# ── limits and budgets ───────────────────────────────────────────────────────


async def test_unusual_usage_and_a_failing_admission_control_do_not_affect_session_key_or_record(
    frontend: Frontend, caplog: pytest.LogCaptureFixture
) -> None:
    class Gate:
        async def admit(self, *call: Any) -> None:
            return None

        def settle(self, *end: Any) -> UsageRecord:
            raise RuntimeError("no settlement")

    def gated(proxy: PassthroughProxy, pool: KeyPool) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await proxy({**scope, GATE_KEY: Gate()}, receive, send)

        return app

    events = [
        '{"type":"response.done","response":{"usage":{"\\ud800":1,"input_tokens":1}}}',
        '{"type":"response.done","response":{"usage":{"input_tokens":[],"output_tokens":1e999}}}',
        '{"type":"response.done","response":{"usage":{"input_tokens":"\\udfff"}}}',
        '{"type":"response.done","response":{"usage":7}}',
    ]
    async with place(frontend, echo, wrap=gated) as at:
        async with realtime(at.url) as client:
            for event in events:
                await client.send(event)
                assert await client.recv() == event
        await at.recorded()
    assert "could not be settled" in caplog.text


async def test_a_restricted_caller_cannot_change_the_model_of_its_session(
    frontend: Frontend,
) -> None:
    def bound(proxy: Any, pool: KeyPool) -> Any:
        who = Principal("ada", models=("gpt-realtime", "whisper-*"))
        return Authenticate(proxy, identify=lambda scope: who)

    transcribed = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    allowed = [
        json.dumps({"type": "session.update", "session": transcribed}),
        json.dumps({"type": "conversation.item.create", "item": {"model": "no model"}}),
        b"\x00\xff{" * 10,
        b"{\xff" * 10,
    ]
    refused = [
        json.dumps({"type": "session.update", "session": {"model": "gpt-dear"}}),
        '{"type":"session.update","session":{"model":"gpt-realtime","Model":"gpt-dear"}}',
        '{"type":"session.update","session":{"model":"gpt-dear","model":"gpt-realtime"}}',
        '{"type":"session.update"} {"session":{"model":"gpt-dear"}}',
        json.dumps({"type": "session.update", "session": {"model": "gpt-dear"}}).encode(),
    ]
    for message in refused:
        async with place(frontend, echo, wrap=bound) as at, realtime(at.url) as client:
            for fine in allowed:
                await client.send(fine)
                assert await client.recv() == fine
            await client.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert closed.value.rcvd.reason
            assert (await at.recorded()).status in (400, 403)


async def test_a_caller_with_a_budget_cannot_change_the_model_of_its_session(
    frontend: Frontend,
) -> None:
    def rich(proxy: Any, pool: KeyPool) -> Any:
        who = Principal("bob", limits=Limits(budgets=(Budget.usd(9),)))
        prices = Prices({"gpt-realtime": Price(input=1, output=1)}, listed=False)
        quota = Quota(proxy, store=MemoryStore(), prices=prices)
        return Authenticate(quota, identify=lambda scope: who)

    async with place(frontend, echo, wrap=rich) as at, realtime(at.url) as client:
        same = json.dumps({"type": "session.update", "session": {"model": "gpt-realtime"}})
        await client.send(same)
        assert await client.recv() == same
        await client.send(same.replace("gpt-realtime", "whisper-1"))
        with pytest.raises(ConnectionClosed, match=r"1008.*was admitted"):
            await client.recv()


# ── the budget of a session ──────────────────────────────────────────────────

ADMITTED = 20_100  # tokens that a session is admitted with: 20,001 of input, 99 of output


def billed(limit: int, *, store: MemoryStore, **options: Any) -> Any:
    """Puts the caller's budgets in front of the proxy, in total and per day, at a millionth per
    token.
    """

    def wrap(proxy: Any, pool: KeyPool) -> Any:
        who = Principal("bob", limits=Limits(budgets=(Budget(limit), Budget(10 * limit, "day"))))
        prices = Prices({"gpt-realtime": Price(input=1, output=1)}, listed=False)
        quota = Quota(proxy, store=store, prices=prices, default_output=99, **options)
        return Authenticate(quota, identify=lambda scope: who)

    return wrap


def response_done(input_tokens: int, output_tokens: int) -> str:
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return json.dumps({"type": "response.done", "response": {"usage": usage}})


async def echoed(client: Any, message: str, times: int = 1) -> None:
    for _ in range(times):
        await client.send(message)
        assert await client.recv() == message


async def spent(store: MemoryStore, limit: int) -> list[int]:
    """The amounts reserved or spent of the caller's two budgets."""
    amounts = []
    for budget in (Budget(limit), Budget(10 * limit, "day")):
        grant = grants.reserve(Principal("bob"), budget, 0, time.time())
        look = msgspec.structs.replace(grant, cap=10**12)
        admitted = await store.admit("look", [look], ttl=1.0)
        assert isinstance(admitted, Admitted)
        assert admitted.left[0] is not None
        amounts.append(10**12 - admitted.left[0])
    return amounts


async def settled(store: MemoryStore, limit: int, amount: int) -> None:
    """Wait until both budgets are charged this amount, and nothing is reserved any more."""
    async with asyncio.timeout(PATIENCE):
        while await spent(store, limit) != [amount, amount]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("binary", [False, True])
async def test_a_session_is_closed_with_1008_when_its_budget_refuses_more(
    frontend: Frontend, binary: bool
) -> None:
    async def vendor(connection: ServerConnection) -> None:
        async for _ in connection:
            event = response_done(ADMITTED // 2, ADMITTED // 2)
            await connection.send(event.encode() if binary else event)

    limit, store = 5 * ADMITTED + ADMITTED // 2, MemoryStore()
    async with place(frontend, vendor, wrap=billed(limit, store=store)) as at:
        async with realtime(at.url) as client:
            for _ in range(5):
                await client.send('{"type":"response.create"}')
                await client.recv()
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert "budget" in closed.value.rcvd.reason
        record = await at.recorded()
        assert (record.outcome, record.status) == (Outcome.REFUSED, 429)
        assert record.usage == Usage(input=5 * ADMITTED // 2, output=5 * ADMITTED // 2)
        assert record.cost == 5 * ADMITTED
        await at.sessions[0].wait_closed()
        await settled(store, limit, 5 * ADMITTED)


async def test_a_long_session_within_its_budget_continues_and_is_charged_once(
    frontend: Frontend,
) -> None:
    limit, store = 10**8, MemoryStore()
    async with place(frontend, echo, wrap=billed(limit, store=store)) as at:
        async with realtime(at.url) as client:
            await echoed(client, response_done(4_000, 6_000), times=50)
            for amount in await spent(store, limit):
                assert 500_000 < amount <= 500_000 + ADMITTED
        record = await at.recorded()
        assert record.cost == 500_000
        await settled(store, limit, 500_000)


async def test_a_session_that_uses_less_than_was_reserved_reserves_once(frontend: Frontend) -> None:
    class Counting(MemoryStore):
        admissions = 0

        async def admit(self, *args: Any, **options: Any) -> Any:
            self.admissions += 1
            return await super().admit(*args, **options)

    limit, store = 10**8, Counting()
    async with place(frontend, echo, wrap=billed(limit, store=store)) as at:
        async with realtime(at.url) as client:
            await echoed(client, response_done(1, 9), times=50)
            await echoed(client, json.dumps({"type": "response.text.delta"}), times=50)
        await at.recorded()
        assert store.admissions == 1
        await settled(store, limit, 500)


async def test_a_response_above_the_whole_budget_is_charged_and_ends_the_session(
    frontend: Frontend,
) -> None:
    limit, store = 30_000, MemoryStore()
    async with place(frontend, echo, wrap=billed(limit, store=store)) as at:
        async with realtime(at.url) as client:
            await echoed(client, response_done(40_000, 60_000))
            with pytest.raises(ConnectionClosed, match="1008"):
                await client.recv()
        assert (await at.recorded()).cost == 100_000
        await settled(store, limit, 100_000)


@pytest.mark.parametrize(("policy", "code"), [("fail_closed", 1013), ("fail_open", None)])
async def test_an_unavailable_store_ends_a_session_only_if_budgets_fail_closed(
    frontend: Frontend, policy: str, code: int | None
) -> None:
    class Unavailable(MemoryStore):
        unavailable = False

        async def admit(self, *args: Any, **options: Any) -> Any:
            if self.unavailable:
                raise StoreUnavailableError("unavailable")
            return await super().admit(*args, **options)

    limit, store = 10**8, Unavailable()
    wrap = billed(limit, store=store, budgets_away=policy)
    async with place(frontend, echo, wrap=wrap) as at:
        async with realtime(at.url) as client:
            store.unavailable = True
            await echoed(client, response_done(20_000, 20_000))
            if code is None:
                await echoed(client, response_done(20_000, 20_000), times=3)
            else:
                with pytest.raises(ConnectionClosed, match=str(code)):
                    await client.recv()
        cost = 40_000 if code else 160_000
        assert (await at.recorded()).cost == cost
        store.unavailable = False
        await settled(store, limit, cost)


async def test_a_session_with_the_callers_own_key_uses_no_budget(frontend: Frontend) -> None:
    limit, store = 30_000, MemoryStore()
    wrap = billed(limit, store=store)
    async with place(frontend, echo, wrap=wrap, allow_client_keys=True) as at:
        headers = {"x-provider-key": "sk-own"}
        async with realtime(at.url, additional_headers=headers) as client:
            await echoed(client, response_done(40_000, 60_000), times=3)
        await at.recorded()
        await settled(store, limit, 0)


async def test_a_session_has_the_session_id_and_the_tags_of_its_handshake(
    frontend: Frontend,
) -> None:
    def known(proxy: Any, pool: KeyPool) -> Any:
        who = Principal("ada", tags={"tier": "gold"})
        return Authenticate(proxy, identify=lambda scope: who)

    attribution = Attribution(tag_headers={"x-team": "team"})
    headers = {"x-team": "search", "aiproxy-session": "call-7"}
    async with place(frontend, echo, wrap=known, attribution=attribution) as at:
        async with realtime(at.url, additional_headers=headers) as client:
            await client.send("{}")
            await client.recv()
        await at.recorded()
    assert at.records[0].session == "call-7"
    assert at.records[0].tags == {"team": "search", "tier": "gold"}
