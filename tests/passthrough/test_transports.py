"""The proxy over every transport: bodies, headers and failures pass as they should."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asgi_aiproxy import PassthroughProxy
from asgi_aiproxy.upstream import HttpxTransport, ReqwestTransport, SocketTransport
from tests.support import asgi_client as asgi
from tests.support.socket_server import PATIENCE, Line, Wire

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[SocketTransport, HttpxTransport, ReqwestTransport])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    made = request.param()
    yield made
    await made.aclose()


PIECES = [b"%d" % number * 1000 for number in range(40)]


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunks"])
async def test_a_body_that_comes_in_pieces_arrives(transport: Any, length: bool) -> None:
    got = []

    async def handler(line: Line) -> None:
        got.append(await line.request())
        await line.answer(b"ok")

    async with Wire(handler) as wire:
        app = PassthroughProxy(wire.url, transport=transport, max_replay=10)
        size = {"content-length": str(sum(map(len, PIECES)))} if length else {}
        async with asgi.opened(app, "PUT", "/x?y=%2F", headers=size) as exchange:
            for piece in PIECES:
                exchange.send_body(piece, more=True)
            exchange.send_body(b"")
            answer = await exchange.answer()
            await exchange.ended()
    assert (answer.status, answer.body) == (200, b"ok")
    assert got[0].line == "PUT /x?y=%2F HTTP/1.1"
    assert got[0].body == b"".join(PIECES)


async def test_a_response_is_forwarded_unchanged(transport: Any) -> None:
    packed = gzip.compress(b"hello")

    async def handler(line: Line) -> None:
        await line.request()
        headers = ["Content-Encoding: gzip", "Set-Cookie: a=1", "Set-Cookie: b=2"]
        await line.answer(packed, "203 Other", *headers)

    async with Wire(handler) as wire:
        app = PassthroughProxy(wire.url, transport=transport)
        answer = await asgi.request(app, "GET", "/x", headers={"accept-encoding": "gzip"})
    assert (answer.status, answer.body) == (203, packed)
    assert [v for n, v in answer.headers if n == "set-cookie"] == ["a=1", "b=2"]
    assert answer.header("content-encoding") == "gzip"
    assert answer.header("content-length") == str(len(packed))


async def test_an_upstream_failure_is_not_a_clean_end(transport: Any) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")

    async with Wire(handler) as wire:
        app = PassthroughProxy(wire.url, transport=transport)
        async with asgi.opened(app, "GET", "/x") as exchange:
            exchange.send_body(b"")
            assert (await exchange.message())["status"] == 200
            assert (await exchange.message())["more_body"]
            with pytest.raises(Exception, match="in the middle"):
                await exchange.ended()


async def test_a_disconnect_frees_the_upstream(transport: Any) -> None:
    gone = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await line.gone()
        gone.set()

    async with Wire(handler) as wire:
        app = PassthroughProxy(wire.url, transport=transport)
        async with asgi.opened(app, "GET", "/x") as exchange:
            exchange.send_body(b"")
            assert (await exchange.message())["status"] == 200
            assert (await exchange.message())["body"] == b"hi"
            exchange.disconnect()
            await exchange.ended()
            async with asyncio.timeout(PATIENCE):
                await gone.wait()


async def test_a_refusal_before_the_body_was_sent_is_forwarded(transport: Any) -> None:
    async def handler(line: Line) -> None:
        await line.head()
        await line.answer(b"no", "413 Too Large", "Connection: close")
        await line.gone()

    async with Wire(handler) as wire:
        app = PassthroughProxy(wire.url, transport=transport, max_replay=10)
        headers = {"content-length": "100000"}
        async with asgi.opened(app, "POST", "/x", headers=headers) as exchange:
            exchange.send_body(b"x" * 1000, more=True)
            async with asyncio.timeout(PATIENCE):
                if isinstance(transport, HttpxTransport):  # it says all before it listens
                    exchange.send_body(b"x" * 99_000)
                answer = await exchange.answer()
    assert answer.status == 413
