"""A disconnect at a real server, in every phase, ends the request to the provider and frees the
key.

The goal is 50 ms; each test records its measurement (`--junitxml` has the figures).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from asgi_aiproxy import Timeouts
from asgi_aiproxy.upstream import UpstreamRequest
from tests.support.scripted_upstream import chat_answer, chat_stream
from tests.support.served_gateway import HEAD, Gateway, chunked, gateway
from tests.support.servers import SERVERS, UVLOOP, Server
from tests.support.socket_server import PATIENCE, Line, deaf_port
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

# What a loaded machine may add to the few milliseconds that it takes.
SOON = 20.0

WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
Note = Callable[[str, object], None]


@pytest.fixture(params=[*SERVERS, UVLOOP], ids=str)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.param
    return found


class Provider:
    """A provider that sends some bytes and then waits, and notices when its client closes."""

    def __init__(self, *said: bytes, reads: bool = True) -> None:
        self.said = said
        self.reads = reads
        self.reached = asyncio.Event()
        self.gone = asyncio.Event()
        self.at = 0.0

    async def __call__(self, line: Line) -> None:
        if self.reads:
            await line.request()
        await line.send(*self.said)
        self.reached.set()
        await line.gone()
        assert line.gone_at is not None
        self.at = line.gone_at
        self.gone.set()

    async def reach(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.reached.wait()
        await asyncio.sleep(0.02)  # so that the gateway waits, and is not about to

    async def left(self) -> float:
        async with asyncio.timeout(PATIENCE):
            await self.gone.wait()
        return self.at


async def check(
    place: Gateway, moment: float, note: Note, provider: Provider | None = None
) -> None:
    """Check that the provider's connection was closed soon, the key is free, and one record was
    written.
    """
    record = await place.recorded()
    assert (record.outcome, record.status) == ("cut", 499)
    taken = place.recorded_at - moment
    note("record_ms", round(taken * 1000, 2))
    assert taken < SOON
    if provider is not None:
        taken = await provider.left() - moment
        note("upstream_ms", round(taken * 1000, 2))
        assert taken < SOON


@WAYS
async def test_while_it_waits_for_a_key(
    server: Server, stream: bool, record_property: Note
) -> None:
    provider = Provider()
    async with gateway(server, provider, wait=60.0) as place:
        caller = await place.caller()
        async with place.pool.lease():
            caller.chat(stream=stream)
            await until(lambda: bool(place.pool.key_set.waiting))
            moment = caller.leave()
            await until(lambda: not place.pool.key_set.waiting)
        await check(place, moment, record_property)
    assert not place.wire.lines


@WAYS
async def test_while_it_waits_for_a_connection(
    server: Server, stream: bool, record_property: Note
) -> None:
    provider = Provider()
    limits = Timeouts(pool=60.0)
    async with gateway(server, provider, max_connections=1, timeouts=limits) as place:
        request = UpstreamRequest(method="POST", url=place.wire.url, headers=[])
        other = asyncio.ensure_future(place.transport.send(request))
        await provider.reach()
        caller = await place.caller()
        caller.chat(stream=stream)
        pool = place.transport._pools[asyncio.get_running_loop()]
        await until(lambda: bool(pool._waiting))
        moment = caller.leave()
        await check(place, moment, record_property)
        other.cancel()
        await asyncio.wait((other,))
        assert (pool.free, len(pool._waiting)) == (1, 0)
        assert len(place.wire.lines) == 1


@WAYS
async def test_while_it_connects(server: Server, stream: bool, record_property: Note) -> None:
    """The connection is open, and the TLS handshake gets no answer."""
    provider = Provider(reads=False)
    async with gateway(server, provider, base="https://127.0.0.1:{port}/v1") as place:
        caller = await place.caller()
        caller.chat(stream=stream)
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


async def test_while_the_connection_is_not_accepted(server: Server, record_property: Note) -> None:
    with deaf_port() as port:
        async with gateway(server, Provider(), base=f"http://127.0.0.1:{port}/v1") as place:
            caller = await place.caller()
            caller.chat(stream=True)
            await until(lambda: bool(place.pool.key_set.states["1"].in_flight))
            await asyncio.sleep(0.02)
            await check(place, caller.leave(), record_property)


async def test_while_its_request_is_still_on_its_way(server: Server, record_property: Note) -> None:
    """The provider reads nothing: the request waits in the gateway."""
    accepted, left = asyncio.Event(), asyncio.Event()
    provider = Provider(reads=False)

    async def slow(line: Line) -> None:
        accepted.set()
        await left.wait()
        await provider(line)

    async with gateway(server, slow) as place:
        caller = await place.caller()
        caller.post({"model": "m", "messages": [{"role": "user", "content": "x" * 9_000_000}]})
        await accepted.wait()
        await until(lambda: bool(place.pool.key_set.states["1"].in_flight))
        moment = caller.leave()
        left.set()
        await check(place, moment, record_property, provider)


@WAYS
async def test_while_it_waits_for_the_head(
    server: Server, stream: bool, record_property: Note
) -> None:
    provider = Provider()
    async with gateway(server, provider) as place:
        caller = await place.caller()
        caller.chat(stream=stream)
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


async def test_while_it_waits_for_the_first_token(server: Server, record_property: Note) -> None:
    provider = Provider(HEAD + chunked(chat_stream()[0]))
    async with gateway(server, provider) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


async def test_while_it_waits_for_the_first_token_and_is_kept_alive(
    server: Server, record_property: Note
) -> None:
    provider = Provider()
    async with gateway(server, provider, keepalive_seconds=0.05) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        await caller.head()
        await caller.until(b":")
        await check(place, caller.leave(), record_property, provider)


async def test_while_the_body_of_a_whole_response_arrives(
    server: Server, record_property: Note
) -> None:
    body = chat_answer()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    provider = Provider(head % len(body) + body[:20])
    async with gateway(server, provider) as place:
        caller = await place.caller()
        caller.chat()
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
async def test_in_mid_stream(server: Server, reset: bool, record_property: Note) -> None:
    provider = Provider(HEAD + chunked(*chat_stream("Hel")[:2]))
    async with gateway(server, provider) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        assert (await caller.head()).status == 200
        await caller.until(b"Hel")
        await check(place, caller.leave(reset=reset), record_property, provider)


async def test_two_hundred_at_once(server: Server, record_property: Note) -> None:
    gone = []

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD + chunked(*chat_stream("Hel")[:2]))
        await line.gone()
        gone.append(line.gone_at or 0.0)

    async with gateway(server, handler, concurrency=None, max_connections=200) as place:
        callers = [await place.caller() for _ in range(200)]
        for caller in callers:
            caller.chat(stream=True)
        for caller in callers:
            assert (await caller.head()).status == 200
            await caller.until(b"Hel")
        moment = max([caller.leave() for caller in callers])
        await place.recorded(200)
        assert {record.outcome for record in place.records} == {"cut"}
        await until(lambda: len(gone) == 200)
        record_property("upstream_ms", round((max(gone) - moment) * 1000, 2))
        record_property("record_ms", round((place.recorded_at - moment) * 1000, 2))
        assert max(gone) - moment < SOON
        pool = place.transport._pools[asyncio.get_running_loop()]
        assert (pool.free, len(pool.open)) == (200, 0)


async def test_in_mid_stream_of_sound(server: Server, record_property: Note) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    provider = Provider(head + chunked(b"la la"))
    async with gateway(server, provider) as place:
        caller = await place.caller()
        caller.post({"model": "m", "input": "x", "voice": "v"}, "/v1/audio/speech")
        await caller.head()
        await caller.until(b"la la")
        await check(place, caller.leave(), record_property, provider)


async def test_in_mid_stream_while_the_provider_never_pauses(
    server: Server, record_property: Note
) -> None:
    """The gateway is busy, and never waits for long."""
    provider = Provider()
    token = chunked(chat_stream("x" * 1000)[1])

    async def flood(line: Line) -> None:
        await line.request()
        await line.send(HEAD)
        while not line.reader.at_eof():
            await line.send(token)
            await asyncio.sleep(0)
        await line.gone()
        assert line.gone_at is not None
        provider.at = line.gone_at
        provider.gone.set()

    async def handler(line: Line) -> None:
        try:
            await flood(line)
        except ConnectionError:
            await line.gone()
            provider.at = line.gone_at or 0.0
            provider.gone.set()

    async with gateway(server, handler) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        await caller.head()
        for _ in range(50):
            await caller.piece()
        await check(place, caller.leave(), record_property, provider)


async def test_while_it_does_not_read(server: Server, record_property: Note) -> None:
    """The gateway waits for its client; a disconnect is noticed nevertheless."""
    provider = Provider()
    token = chunked(chat_stream("x" * 60_000)[1])
    full = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD)
        try:
            while True:
                async with asyncio.timeout(0.25):
                    await line.send(token)
        except TimeoutError:
            full.set()
        except ConnectionError:
            pass
        await line.gone()
        provider.at = line.gone_at or 0.0
        provider.gone.set()

    async with gateway(server, handler) as place:
        caller = await place.caller(window=4096)
        caller.chat(stream=True)
        await caller.head()
        async with asyncio.timeout(PATIENCE):
            await full.wait()
        await check(place, caller.leave(), record_property, provider)


BOUNDARY = "Content-Type: multipart/form-data; boundary=cut"
FORM = (
    b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
)


async def test_in_the_body_of_an_upload(server: Server, record_property: Note) -> None:
    provider = Provider(reads=False)

    async def handler(line: Line) -> None:
        await line.head()
        await line.reader.readuntil(b"filename")
        await provider(line)

    async with gateway(server, handler) as place:
        caller = await place.caller()
        caller.post(FORM + b"x" * 5000, "/v1/audio/transcriptions", BOUNDARY, length=1_000_000)
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


async def test_in_the_body_of_an_upload_that_waits_for_a_key(
    server: Server, record_property: Note
) -> None:
    async with gateway(server, Provider(), wait=60.0) as place:
        caller = await place.caller()
        async with place.pool.lease():
            caller.post(FORM + b"x" * 5000, "/v1/audio/transcriptions", BOUNDARY, length=1_000_000)
            await until(lambda: bool(place.pool.key_set.waiting))
            moment = caller.leave()
            await until(lambda: not place.pool.key_set.waiting)
        await check(place, moment, record_property)


@WAYS
async def test_while_a_failed_provider_is_about_to_be_tried_again(
    server: Server, stream: bool, record_property: Note
) -> None:
    refused = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.answer(b"{}", "503 Service Unavailable", "Content-Type: application/json")
        refused.set()
        await line.request()

    async with gateway(server, handler, backoff=60.0) as place:
        caller = await place.caller()
        caller.chat(stream=stream)
        await refused.wait()
        await until(lambda: not place.pool.key_set.states["1"].in_flight)
        await asyncio.sleep(0.02)
        moment = caller.leave()
        await check(place, moment, record_property)
        assert len(place.wire.lines) == 1
