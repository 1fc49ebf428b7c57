"""A cancelled call closes its connection at once, whatever it waits for."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from asgi_aiproxy.upstream import HttpxTransport, Timeouts, Transport
from tests.support.socket_server import PATIENCE, Line, Wire, again
from tests.transports.conftest import Kind, close, post, rest

pytestmark = pytest.mark.anyio

# It takes less than a millisecond; this is what a loaded machine may add.
AT_ONCE = 20.0

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Left:
    """What happens to the connection of a cancelled call."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.gone = asyncio.Event()
        self.at = 0.0

    async def watch(self, line: Line) -> None:
        self.reached.set()
        await line.gone()
        self.at = time.perf_counter()
        self.gone.set()

    async def after(self, moment: float, record: Callable[[str, object], None]) -> None:
        """Check that it was closed soon."""
        async with asyncio.timeout(PATIENCE):
            await self.gone.wait()
        record("milliseconds", round((self.at - moment) * 1000, 2))
        assert self.at - moment < AT_ONCE


async def give_up(call: Any, left: Left) -> float:
    """Cancel a call at a certain point; returns the time."""
    task = asyncio.ensure_future(call)
    async with asyncio.timeout(PATIENCE):
        await left.reached.wait()
    await asyncio.sleep(0.02)  # so that it waits, and is not about to
    moment = time.perf_counter()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    return moment


async def test_while_it_connects(kind: Kind, record_property: Any) -> None:
    """The TCP connection is open, and the call waits for the server's part of the handshake."""
    if kind.library != "sockets":
        pytest.skip("pyreqwest continues until its own limit, httpx forgets to close the socket")
    left = Left()
    transport = kind()
    async with Wire(left.watch) as wire:
        call = transport.send(post(f"https://127.0.0.1:{wire.port}"))
        await left.after(await give_up(call, left), record_property)
    await close(transport)


async def test_while_it_waits_for_the_head(kind: Kind, record_property: Any) -> None:
    if kind.library == "reqwest":
        pytest.skip("pyreqwest lets the provider continue: the reason why it is not the default")
    left = Left()

    async def handler(line: Line) -> None:
        await line.request()
        await left.watch(line)

    transport = kind()
    async with Wire(handler) as wire:
        moment = await give_up(transport.send(post(wire.url)), left)
        await left.after(moment, record_property)
    await close(transport)


async def test_while_it_waits_for_the_rest_of_the_head(kind: Kind, record_property: Any) -> None:
    if kind.library == "reqwest":
        pytest.skip("pyreqwest lets the provider continue")
    left = Left()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        await left.watch(line)

    transport = kind()
    async with Wire(handler) as wire:
        moment = await give_up(transport.send(post(wire.url)), left)
        await left.after(moment, record_property)
    await close(transport)


@pytest.mark.parametrize("first", [b"", b"5\r\nhello\r\n"], ids=["before", "within"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_in_mid_body(
    kind: Kind,
    first: bytes,
    secure: bool,
    server_context: ssl.SSLContext,
    ca: bytes,
    record_property: Any,
) -> None:
    left = Left()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD + first)
        await left.watch(line)

    async def call() -> None:
        answer = await transport.send(post(wire.url, streamed=True))
        try:
            await rest(answer)
        finally:
            await answer.aclose()

    transport = kind(ca=ca)
    async with Wire(handler, server_context if secure else None) as wire:
        moment = await give_up(call(), left)
        await left.after(moment, record_property)
    await close(transport)


@pytest.mark.parametrize("waits", ["for its source", "for the provider"])
async def test_while_its_body_is_sent(kind: Kind, waits: str, record_property: Any) -> None:
    left = Left()
    ended = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.head()
        if waits == "for its source":
            await left.watch(line)
            return
        left.reached.set()
        await asyncio.sleep(0.2)  # reads nothing for a while: the sender's buffers are full
        await left.watch(line)

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"begin"
            while waits == "for the provider":
                yield b"x" * 1_000_000
            await asyncio.sleep(3600)
        finally:
            ended.set()

    transport = kind()
    async with Wire(handler) as wire:
        moment = await give_up(transport.send(post(wire.url, body())), left)
        await left.after(moment, record_property)
        async with asyncio.timeout(PATIENCE):
            await ended.wait()  # the source is closed as well
    await close(transport)


async def test_closing_an_answer_in_its_middle_closes_its_connection(
    kind: Kind, record_property: Any
) -> None:
    left = Left()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD + b"2\r\nhi\r\n")
        await left.watch(line)

    transport = kind()
    async with Wire(handler) as wire:
        answer = await transport.send(post(wire.url, streamed=True))
        assert await answer.read() == b"hi"
        moment = time.perf_counter()
        await answer.aclose()
        await left.after(moment, record_property)
        await answer.aclose()  # and again does no harm
    await close(transport)


async def test_while_it_waits_for_a_free_connection(kind: Kind) -> None:
    if kind.library == "reqwest":
        pytest.skip("pyreqwest sends the request all the same as soon as one is free")

    async def handler(line: Line) -> None:
        while True:
            await line.request()
            await line.send(HEAD + b"2\r\nhi\r\n")

    transport = kind(max_connections=1, timeouts=Timeouts(pool=PATIENCE))
    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):
        first = await transport.send(post(wire.url, streamed=True))
        waiting = [asyncio.ensure_future(transport.send(post(wire.url))) for _ in range(3)]
        await asyncio.sleep(0.02)  # so that they wait
        for call in waiting:
            call.cancel()
        await asyncio.wait(waiting)
        assert len(wire.lines) == 1
        await first.aclose()
        second = await transport.send(post(wire.url, streamed=True))
        assert await second.read() == b"hi"
        await second.aclose()
    await close(transport)


async def test_hundreds_of_calls_cancelled_at_any_moment_leave_nothing_behind(kind: Kind) -> None:
    if kind.library == "reqwest":
        pytest.skip("pyreqwest lets the provider continue")
    handling = 0

    async def handler(line: Line) -> None:
        nonlocal handling
        while True:
            await line.request()
            await asyncio.sleep(0.002)
            await line.send(HEAD)
            for _ in range(5):
                await line.send(b"2\r\nhi\r\n")
                await asyncio.sleep(0.001)
            await line.send(b"0\r\n\r\n")

    async def call() -> bytes:
        answer = await transport.send(post(wire.url, streamed=True))
        try:
            return await rest(answer)
        finally:
            await answer.aclose()

    # httpcore 1.0 loses a place when a call that waits for one is given up: there none waits.
    most = 20 if kind.library == "sockets" else 500
    transport = kind(max_connections=most)
    async with Wire(handler) as wire:
        for wait in range(60):
            calls = [asyncio.ensure_future(call()) for _ in range(5)]
            await asyncio.sleep(wait * 0.0003)  # another moment of the call each time
            for each in calls:
                each.cancel()
            await asyncio.wait(calls)
        # All places are free, and the connections that are left are sound.
        assert await asyncio.gather(*[call() for _ in range(20)]) == [b"hi" * 5] * 20
        assert wire.open <= most
        await close(transport)
        await wire.opened(0)


async def test_closing_a_transport_ends_its_connections_idle_or_not(kind: Kind) -> None:
    left = Left()

    async def handler(line: Line) -> None:
        while True:
            request = await line.request()
            if request.line.startswith("GET"):
                await line.answer()
            else:
                await line.send(HEAD + b"2\r\nhi\r\n")
                await left.watch(line)

    transport = kind()
    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):
        busy = await transport.send(post(wire.url, streamed=True))
        idle = await transport.send(post(wire.url, None, method="GET"))
        await rest(idle)
        await idle.aclose()
        assert len(wire.lines) == 2
        if kind.library == "sockets":
            await close(transport)
            await left.gone.wait()
        else:  # the others end what is idle; what is busy ends with its answer
            await busy.aclose()
            await close(transport)
        await wire.opened(0)
        await busy.aclose()


async def test_a_transport_that_was_closed_can_be_used_again(transport: Transport) -> None:
    async with Wire(again()) as wire:
        for _ in range(3):
            answer = await transport.send(post(wire.url))
            assert await rest(answer) == b"{}"
            await answer.aclose()
            await transport.aclose()


def test_a_transport_serves_one_event_loop_after_the_other(kind: Kind) -> None:
    if kind.name.endswith("given"):
        pytest.skip("a transport that is given belongs to the event loop it was first used in")
    transport = kind()

    async def call() -> None:
        async with Wire(again()) as wire:
            for _ in range(2):
                answer = await transport.send(post(wire.url))
                assert await rest(answer) == b"{}"
                await answer.aclose()

    for _ in range(3):
        asyncio.run(call())
    asyncio.run(close(transport))


def test_a_transport_serves_several_event_loops_at_the_same_time(kind: Kind) -> None:
    if kind.name.endswith("given"):
        pytest.skip("a transport that is given belongs to the event loop it was first used in")
    transport = kind()

    async def calls() -> int:
        async with Wire(again()) as wire:
            for _ in range(50):
                answer = await transport.send(post(wire.url))
                assert await rest(answer) == b"{}"
                await answer.aclose()
            return len(wire.lines)

    async def both() -> list[int]:
        return await asyncio.gather(*[asyncio.to_thread(asyncio.run, calls()) for _ in range(3)])

    connections = asyncio.run(both())
    if kind.library != "reqwest":  # whose own thread takes a moment to have one back
        assert connections == [1, 1, 1]
    asyncio.run(close(transport))


async def test_closing_an_httpx_answer_is_not_undone_by_a_cancellation() -> None:
    closed = asyncio.Event()

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"hi"
            yield b"ho"

        async def aclose(self) -> None:
            await asyncio.sleep(0.01)
            closed.set()

    transport = HttpxTransport(httpx.MockTransport(lambda _: httpx.Response(200, stream=Body())))
    answer = await transport.send(post("http://host"))
    await answer.read()
    task = asyncio.ensure_future(answer.aclose())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    async with asyncio.timeout(PATIENCE):
        await closed.wait()
