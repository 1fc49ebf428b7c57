"""A disconnect in any phase frees everything, and writes one record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from asgi_aiproxy import KeyPool, OpenAIShim, Timeouts, UsageRecord
from asgi_aiproxy.keys import Key
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, chat_stream, refuses, streams

pytestmark = pytest.mark.anyio

CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
STREAM = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}'


class Place:
    """A shim over a scripted provider, with its pool and its usage records."""

    def __init__(self, upstream: Upstream, **options: float) -> None:
        self.upstream = upstream
        self.pool = KeyPool([Key("sk-1", id="1", concurrency=1)], max_wait_seconds=30.0)
        self.records: list[UsageRecord] = []
        self.app = OpenAIShim(
            OPENAI.using(self.pool),
            transport=upstream.transport,
            record=self._record,
            timeouts=Timeouts(first=30.0),
            backoff=options.get("backoff", 0.01),
        )

    async def _record(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def check(self, requests: int = 1) -> None:
        """Check that everything is free, and that one record shows the disconnect."""
        assert self.upstream.open == 0
        assert [key.in_flight for key in await self.pool.status()] == [0]
        await self.app._recorder.drain()
        assert [record.outcome for record in self.records] == ["cut"]
        assert len(self.upstream.requests) == requests


async def leave(
    place: Place, body: bytes, when: Callable[[asgi.Exchange], Awaitable[None]]
) -> None:
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(body)
        await when(exchange)
        exchange.disconnect()
        await exchange.ended()


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_while_waiting_for_a_key(body: bytes) -> None:
    place = Place(Upstream(answers()))
    async with place.pool.lease():

        async def queued(exchange: asgi.Exchange) -> None:
            while not place.pool.key_set.waiting:
                await asyncio.sleep(0)

        await leave(place, body, queued)
    await place.check(requests=0)
    assert not place.pool.key_set.waiting


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_while_waiting_for_the_headers(body: bytes) -> None:
    place = Place(Upstream(answers(before=30.0)))

    async def requested(exchange: asgi.Exchange) -> None:
        await place.upstream.requested.wait()

    await leave(place, body, requested)
    await place.check()


async def test_while_waiting_for_the_first_token() -> None:
    place = Place(Upstream(streams(chat_stream()[0], 30.0)))

    async def opened(exchange: asgi.Exchange) -> None:
        while not place.upstream.open:
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    await leave(place, STREAM, opened)
    await place.check()


async def test_while_the_body_of_a_whole_response_arrives() -> None:
    place = Place(Upstream(streams(b'{"id":', 30.0)))
    place.upstream.steps[0].headers["content-type"] = "application/json"  # type: ignore[union-attr]

    async def opened(exchange: asgi.Exchange) -> None:
        while not place.upstream.open:
            await asyncio.sleep(0)

    await leave(place, CHAT, opened)
    await place.check()


async def test_in_mid_stream() -> None:
    place = Place(Upstream(streams(*chat_stream("Hel")[:2], 30.0)))

    async def reading(exchange: asgi.Exchange) -> None:
        assert (await exchange.message())["type"] == "http.response.start"
        assert b"Hel" in (await exchange.message())["body"]

    await leave(place, STREAM, reading)
    await place.check()


async def test_in_mid_stream_where_only_send_shows_it() -> None:
    place = Place(Upstream(streams(*chat_stream("Hel")[:2], 0.05, *chat_stream("lo")[1:])))
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(STREAM)
        await exchange.message()
        await exchange.message()
        exchange.drop()
        await exchange.ended()
    await place.check()


async def test_while_a_failed_target_is_about_to_be_tried_again() -> None:
    place = Place(Upstream(refuses(503), answers()), backoff=30.0)

    async def refused(exchange: asgi.Exchange) -> None:
        await place.upstream.closed.wait()
        await asyncio.sleep(0.01)

    await leave(place, CHAT, refused)
    await place.check()


async def test_before_its_request_is_complete() -> None:
    place = Place(Upstream(answers()))
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(CHAT[:10], more=True)
        exchange.disconnect()
        await exchange.ended()
    assert place.upstream.requests == []


async def test_after_a_complete_response_a_disconnect_is_not_recorded() -> None:
    place = Place(Upstream(answers()))
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(CHAT)
        await exchange.answer()
        exchange.disconnect()
        await exchange.ended()
    await place.app._recorder.drain()
    assert [record.outcome for record in place.records] == ["done"]


@pytest.mark.parametrize("pieces", [[], chat_stream("Hel")[:2]], ids=["waiting", "mid-stream"])
async def test_a_cancellation_from_outside_is_raised_unchanged_and_frees_everything(
    pieces: list[bytes],
) -> None:
    place = Place(Upstream(streams(*pieces, 30.0)))
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(STREAM)
        while not place.upstream.open:
            await asyncio.sleep(0)
        if pieces:
            await exchange.message()
        assert exchange.task is not None
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task
    await place.check()


async def test_a_disconnect_is_distinguished_from_a_time_limit_at_the_same_moment() -> None:
    place = Place(Upstream(answers(before=30.0)))
    place.app._relay.timeouts = Timeouts(first=0.01)
    place.app._relay.attempts = 1
    async with asgi.opened(place.app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(CHAT)
        await asyncio.sleep(0.005)
        exchange.disconnect()
        await asyncio.wait_for(exchange.ended(), 5)
    await place.app._recorder.drain()
    assert len(place.records) == 1
    assert place.upstream.open == 0


async def test_usage_reported_before_a_disconnect_is_recorded() -> None:
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
        b'"role":"assistant","model":"c","content":[],"usage":{"input_tokens":9,"output_tokens":1}}}'
        b'\n\nevent: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\nevent: content_block_delta\ndata: '
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
    )
    place = Place(Upstream(streams(start, 30.0)))
    place.app._relay.router = ANTHROPIC.using(place.pool)

    async def reading(exchange: asgi.Exchange) -> None:
        await exchange.message()
        await exchange.message()

    await leave(place, STREAM, reading)
    await place.check()
    usage = place.records[0].usage
    assert usage is not None
    assert usage.input == 9


async def test_a_client_that_stops_reading_is_disconnected() -> None:
    place = Place(Upstream(streams(*chat_stream("Hel", "lo"))))
    place.app._relay.timeouts = Timeouts(idle=0.05)
    stuck = asyncio.Event()

    async def send(message: asgi.Message) -> None:
        if b"Hel" in message.get("body", b""):
            return
        if message["type"] == "http.response.body":
            await stuck.wait()

    pending = [{"type": "http.request", "body": STREAM, "more_body": False}]

    async def receive() -> asgi.Message:
        if pending:
            return pending.pop()
        await stuck.wait()
        return {}

    scope = asgi.scope_of("POST", "/v1/chat/completions")
    await asyncio.wait_for(place.app(scope, receive, send), 5)
    await place.check()
