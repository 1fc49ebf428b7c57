"""Streams through the proxy under real servers: without delay, with back-pressure, and
cancellable.
"""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from asgi_aiproxy import PassthroughProxy, Timeouts
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.upstream import SocketTransport
from tests.passthrough.test_conformance import ask, says
from tests.support import asgi_client as asgi
from tests.support.passthrough_upstream import Frontend, behind
from tests.support.socket_client import Caller
from tests.support.socket_server import PATIENCE, Line, Wire

pytestmark = pytest.mark.anyio

STREAM = says("HTTP/1.1 200 OK\nContent-Type: text/event-stream\nTransfer-Encoding: chunked")
MiB = 1024 * 1024


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Upstream:
    """Reads the head, sends some bytes, and waits for the other side to close."""

    def __init__(self, *said: bytes, reads: int = 0) -> None:
        self.said = said
        self.reads = reads  # so much of the body
        self.reached = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        await line.head()
        if self.reads:
            await line.reader.readexactly(self.reads)
        await line.send(*self.said)
        self.reached.set()
        await line.gone()
        self.gone.set()

    async def reach(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.reached.wait()
        await asyncio.sleep(0.02)  # so that the proxy waits, and is not about to

    async def left(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.gone.wait()


# ── at once ──────────────────────────────────────────────────────────────────


async def test_each_piece_of_a_response_is_forwarded_before_the_next_is_sent(
    frontend: Frontend,
) -> None:
    heard = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(STREAM)
        for number in range(5):
            await line.send(chunk(b"data: %d\n\n" % number))
            await heard.wait()
            heard.clear()
        await line.send(b"0\r\n\r\n")

    async with behind(frontend, handler) as at:
        caller = await at.caller()
        caller.say(ask("GET /x"))
        await caller.head()
        for number in range(5):
            assert await caller.piece() == b"data: %d\n\n" % number
            heard.set()
        assert await caller.piece() == b""


async def test_each_piece_of_a_request_is_forwarded_before_the_next_is_sent(
    frontend: Frontend,
) -> None:
    async def handler(line: Line) -> None:
        await line.head()
        await line.send(STREAM)
        for number in range(5):
            size = int(await line.reader.readuntil(b"\r\n"), 16)
            data = (await line.reader.readexactly(size + 2))[:-2]
            assert data == b"piece %d" % number
            await line.send(chunk(data))
        await line.reader.readuntil(b"0\r\n\r\n")
        await line.send(b"0\r\n\r\n")

    async with behind(frontend, handler) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", "Transfer-Encoding: chunked") + chunk(b"piece 0"))
        await caller.head()
        for number in range(5):
            assert await caller.piece() == b"piece %d" % number
            caller.say(chunk(b"piece %d" % (number + 1)) if number < 4 else b"0\r\n\r\n")
        assert await caller.piece() == b""
        assert (await at.recorded()).outcome == "done"


async def test_the_last_piece_of_a_known_length_ends_the_response_at_once() -> None:
    """One message, one packet to the client: it does not wait to learn that no more follows."""
    pieces = [[b"all of it"], [b"one, ", b"two"]]

    async def handler(line: Line) -> None:
        for said in pieces:
            await line.request()
            await line.send(STREAM + b"".join(map(chunk, said)) + b"0\r\nx-trailer: 1\r\n\r\n")

    async with Wire(handler) as wire:
        transport = SocketTransport()
        proxy = PassthroughProxy(wire.url, transport=transport)
        for said in pieces:
            async with asgi.opened(proxy, "GET", "/x") as exchange:
                exchange.send_body(b"")
                assert (await exchange.message())["status"] == 200
                body = await exchange.message()
                assert (body["body"], body["more_body"]) == (b"".join(said), False)
                await exchange.ended()
        assert len(wire.lines) == 1  # the connection was kept
        await transport.aclose()


# ── at the slower side's pace ────────────────────────────────────────────────

# What the kernel's and the servers' buffers on both connections may hold; of so much more is sent
# that the two cannot be confused.
BUFFERS = 32 * MiB


async def test_a_slow_client_slows_the_upstream(frontend: Frontend) -> None:
    sent = 0

    async def handler(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.send(STREAM)
        piece = chunk(b"x" * 65536)
        for _ in range(64 * MiB // 65536):
            await line.send(piece)
            sent += 65536
        await line.send(b"0\r\n\r\n")

    async with behind(frontend, handler) as at:
        caller = await at.caller(window=65536)
        caller.say(ask("GET /x"))
        await caller.head()
        await settled(lambda: sent)
        assert sent < BUFFERS
        size = 0
        while data := await caller.piece():
            size += len(data)
        assert size == 64 * MiB


async def test_a_slow_upstream_slows_the_client(frontend: Frontend) -> None:
    go = asyncio.Event()
    got = 0

    async def handler(line: Line) -> None:
        nonlocal got
        await line.head()
        await go.wait()
        while got < 64 * MiB:
            got += len(await line.reader.read(MiB))
        await line.answer(b"ok")

    async with behind(frontend, handler) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", f"Content-Length: {64 * MiB}"))
        task = await stuck(caller)
        go.set()
        assert (await caller.answer()).body == b"ok"
        await task
        assert got == 64 * MiB


async def settled(value: object) -> None:
    """Wait until a number no longer changes."""
    last = -1
    async with asyncio.timeout(4 * PATIENCE):
        while (now := value()) != last:  # type: ignore[operator]
            last = now
            await asyncio.sleep(0.25)


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_long_body_takes_no_memory(frontend: Frontend, way: str) -> None:
    size = 48 * MiB

    async def handler(line: Line) -> None:
        request = await line.head()
        left = int(request.header("content-length") or 0)
        while left:
            left -= len(await line.reader.read(min(left, 65536)))
        length = 0 if way == "up" else size
        await line.send(says(f"HTTP/1.1 200 OK\nContent-Length: {length}"))
        for _ in range(length // 65536):
            await line.send(b"x" * 65536)

    async with behind(frontend, handler) as at:
        caller = await at.caller(window=MiB)
        tracemalloc.start()
        try:
            if way == "up":
                caller.say(ask("POST /x", f"Content-Length: {size}"))
                for _ in range(size // 65536):
                    caller.say(b"x" * 65536)
                    await caller.writer.drain()
            else:
                caller.say(ask("GET /x"))
            head = await caller.head()
            assert head.status == 200
            while await caller.piece():
                pass
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 12 * MiB  # all sides of both connections are in this process


# ── a client that leaves ─────────────────────────────────────────────────────


async def test_disconnecting_while_it_sends(frontend: Frontend) -> None:
    upstream = Upstream(reads=100_000)
    async with behind(frontend, upstream) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", "Content-Length: 3000000") + b"x" * 100_000)
        await upstream.reach()
        caller.leave()
        await upstream.left()
        record = await at.recorded()
        assert (record.outcome, record.status) == ("cut", 499)


class Deaf(Upstream):
    """Reads nothing after the head, until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.listens = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        await line.head()
        self.reached.set()
        await self.listens.wait()
        await line.gone()
        self.gone.set()

    async def left(self) -> None:
        self.listens.set()
        await super().left()


async def stuck(caller: Caller) -> asyncio.Task[None]:
    """Send until no more is accepted; the task continues to send."""
    written = 0

    async def upload() -> None:
        nonlocal written
        for _ in range(64 * MiB // 65536):
            caller.say(b"x" * 65536)
            await caller.writer.drain()
            written += 65536

    task = asyncio.ensure_future(upload())
    await settled(lambda: written)
    assert written < BUFFERS
    return task


async def test_disconnecting_when_all_it_sent_is_forwarded(frontend: Frontend) -> None:
    upstream = Deaf()
    async with behind(frontend, upstream) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", "Content-Length: 3000000") + b"x" * 100_000)
        await upstream.reach()
        caller.leave()
        assert (await at.recorded()).outcome == "cut"
        await upstream.left()


@pytest.mark.parametrize("reset", [False, True])
async def test_disconnecting_while_the_upstream_does_not_read(
    frontend: Frontend, reset: bool
) -> None:
    """A disconnect that a server cannot detect ends after the time that the upstream has for
    reading on.
    """
    upstream = Deaf()
    async with behind(frontend, upstream, timeouts=Timeouts(first=20.0, idle=1.0)) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", f"Content-Length: {64 * MiB}"))
        (await stuck(caller)).cancel()
        caller.leave(reset=reset)
        assert (await at.recorded()).outcome in ("cut", "failed")
        await upstream.left()


async def test_an_upstream_that_stops_reading_is_given_up(frontend: Frontend) -> None:
    upstream = Deaf()
    async with behind(frontend, upstream, timeouts=Timeouts(first=20.0, idle=1.0)) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", f"Content-Length: {64 * MiB}"))
        (await stuck(caller)).cancel()
        record = await at.recorded()
        assert (record.outcome, record.status) == ("failed", 504)
        assert record.error == "The upstream stopped reading the request."
        await upstream.left()


async def test_a_client_may_pause_for_longer_than_an_upstream_may(frontend: Frontend) -> None:
    async with behind(frontend, echo, timeouts=Timeouts(first=20.0, idle=0.3)) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", "Transfer-Encoding: chunked") + chunk(b"one"))
        await asyncio.sleep(1.0)
        caller.say(chunk(b"two") + b"0\r\n\r\n")
        assert (await caller.answer()).body == b"onetwo"


async def echo(line: Line) -> None:
    await line.answer((await line.request()).body)


async def test_disconnecting_while_a_short_body_is_sent(frontend: Frontend) -> None:
    async with behind(frontend, Upstream()) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", "Content-Length: 1000") + b"x" * 100)
        await asyncio.sleep(0.05)
        caller.leave()
        record = await at.recorded()
        assert record.outcome == "cut"
        assert at.wire.lines == []


@pytest.mark.parametrize("said", [[], [STREAM], [STREAM, chunk(b"data: 1\n\n")]])
async def test_disconnecting_while_it_waits(frontend: Frontend, said: list[bytes]) -> None:
    upstream = Upstream(*said)
    async with behind(frontend, upstream) as at:
        caller = await at.caller()
        caller.say(ask("GET /x"))
        await upstream.reach()
        if said:
            await caller.head()
        caller.leave()
        await upstream.left()
        assert (await at.recorded()).outcome == "cut"


async def test_disconnecting_while_it_is_sent_more_than_it_reads(frontend: Frontend) -> None:
    gone = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(STREAM)
        try:
            while True:
                await line.send(chunk(b"x" * 65536))
        finally:
            gone.set()

    async with behind(frontend, handler) as at:
        caller = await at.caller(window=65536)
        caller.say(ask("GET /x"))
        await caller.head()
        await asyncio.sleep(0.3)
        caller.leave(reset=True)
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        assert (await at.recorded()).outcome == "cut"


async def test_disconnecting_while_it_sends_although_it_was_answered(frontend: Frontend) -> None:
    upstream = Upstream(STREAM, chunk(b"early"))
    async with behind(frontend, upstream) as at:
        caller = await at.caller()
        caller.say(ask("POST /x", "Transfer-Encoding: chunked") + chunk(b"one"))
        await caller.head()
        assert await caller.piece() == b"early"
        caller.leave()
        await upstream.left()
        assert (await at.recorded()).outcome == "cut"


async def test_a_disconnect_frees_the_key(frontend: Frontend) -> None:
    upstream = Upstream(STREAM)
    from asgi_aiproxy import Key, KeyPool

    pool = KeyPool([Key("sk-1", id="1", concurrency=1)])
    async with behind(frontend, upstream, OPENAI, base="/v1", keys=pool) as at:
        caller = await at.caller()
        caller.say(ask("GET /v1/files"))
        await upstream.reach()
        assert [key.in_flight for key in await pool.status()] == [1]
        caller.leave()
        await upstream.left()
        await at.recorded()
        assert [key.in_flight for key in await pool.status()] == [0]


async def test_many_disconnects_at_once(frontend: Frontend) -> None:
    async def handler(line: Line) -> None:
        while True:
            request = await line.request()
            await line.answer(request.body[::-1])

    async with behind(frontend, handler) as at:

        async def one(number: int) -> None:
            body = b"%d " % number * 1000
            caller = await at.caller()
            caller.say(ask("POST /x", body=body))
            assert (await caller.answer()).body == body[::-1]
            caller.leave()

        await asyncio.gather(*map(one, range(100)))
        await at.recorded(100)
