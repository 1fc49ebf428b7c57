"""Which requests are sent again if the server closes the connection at that moment.

https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asgi_aiproxy import PassthroughProxy
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.upstream import Transport
from tests.support import asgi_client as asgi
from tests.support.socket_server import Handler, Line, Wire
from tests.transports.conftest import HTTPX, SOCKETS, SOCKETS_UVLOOP, Kind, close, post, rest

pytestmark = pytest.mark.anyio
kinds = pytest.mark.parametrize(
    "kind", [SOCKETS, SOCKETS_UVLOOP, HTTPX], ids=lambda kind: kind.name
)
ours = pytest.mark.parametrize("kind", [SOCKETS, SOCKETS_UVLOOP], ids=lambda kind: kind.name)


async def shut(line: Line) -> None:
    """Close before a response."""


async def reset(line: Line) -> None:
    line.reset()


async def half(line: Line) -> None:
    await line.send(b"HTTP/1.1 20")


async def wrong(line: Line) -> None:
    await line.send(b"HTTP/9.9 nonsense\r\n\r\n")


class Server:
    """Answers the first request of a connection, and ends it in its own way at the second."""

    def __init__(self, end: Handler = shut, *, always: bool = False) -> None:
        self.end = end
        self.always = always
        self.requests: list[str] = []

    async def __call__(self, line: Line) -> None:
        for count in range(2):
            request = await line.request()
            self.requests.append(f"{request.line.split()[0]} {request.body.decode()}".strip())
            if count == 1 or (self.always and len(self.requests) > 1):
                await self.end(line)
                return
            await line.answer(b"" if request.line.startswith("HEAD") else b"ok")


async def ask(transport: Transport, url: str, method: str, body: object = None) -> bytes:
    answer = await transport.send(post(url, body, method=method))
    try:
        return await rest(answer)
    finally:
        await answer.aclose()


@kinds
@pytest.mark.parametrize("end", [shut, reset])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"])
async def test_idempotent_requests_are_sent_once_more(
    kind: Kind, end: Handler, method: str
) -> None:
    server = Server(end)
    transport = kind()
    body = b"data" if method == "PUT" else None
    async with Wire(server) as wire:
        for _ in range(3):
            expected = b"" if method == "HEAD" else b"ok"
            assert await ask(transport, wire.url, method, body) == expected
        assert len(wire.lines) == 3
        requested = f"{method} data" if body else method
        assert server.requests == [requested] * 5
        await close(transport)


@kinds
@pytest.mark.parametrize("end", [shut, reset])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_requests_that_are_not_idempotent_are_never_sent_twice(
    kind: Kind, end: Handler, method: str
) -> None:
    server = Server(end)
    transport = kind()
    headers = [("idempotency-key", "k-1")]  # vendors do not say what they make of it
    async with Wire(server) as wire:
        await ask(transport, wire.url, method, b"{}")
        with pytest.raises(APIError) as caught:
            await transport.send(post(wire.url, b"{}", method=method, headers=headers))
        assert (caught.value.status, caught.value.code) == (502, None)
        assert server.requests == [f"{method} {{}}"] * 2
        await close(transport)


@ours
async def test_a_body_that_streams_is_never_sent_twice(kind: Kind) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"data"

    server = Server()
    transport = kind()
    async with Wire(server) as wire:
        await ask(transport, wire.url, "PUT", b"data")
        with pytest.raises(APIError):
            await ask(transport, wire.url, "PUT", body())
        assert server.requests == ["PUT data"] * 2
        await close(transport)


@ours
@pytest.mark.parametrize("end", [half, wrong])
async def test_no_request_is_repeated_once_a_byte_of_the_response_arrived(
    kind: Kind, end: Handler
) -> None:
    server = Server(end)
    transport = kind()
    async with Wire(server) as wire:
        await ask(transport, wire.url, "GET")
        with pytest.raises(APIError):
            await ask(transport, wire.url, "GET")
        assert server.requests == ["GET"] * 2
        await close(transport)


@ours
async def test_a_request_is_repeated_only_once(kind: Kind) -> None:
    server = Server(always=True)
    transport = kind()
    async with Wire(server) as wire:
        await ask(transport, wire.url, "GET")
        with pytest.raises(APIError):
            await ask(transport, wire.url, "GET")
        assert server.requests == ["GET"] * 3
        # On a new connection it is not sent again at all.
        with pytest.raises(APIError):
            await ask(transport, wire.url, "GET")
        assert server.requests == ["GET"] * 4
        await close(transport)


@ours
async def test_a_repeated_request_uses_a_new_connection(kind: Kind) -> None:
    server = Server()
    transport = kind()
    async with Wire(server) as wire:
        await asyncio.gather(*[ask(transport, wire.url, "GET") for _ in range(5)])
        await wire.opened(5)
        assert await ask(transport, wire.url, "GET") == b"ok"
        assert len(wire.lines) == 6
        await close(transport)


@ours
async def test_a_repeated_request_frees_its_slot_in_any_case(kind: Kind) -> None:
    server = Server(always=True)
    transport = kind(max_connections=1)
    async with Wire(server) as wire:
        await ask(transport, wire.url, "GET")
        for _ in range(3):
            with pytest.raises(APIError):
                await ask(transport, wire.url, "GET")
        server.always = False
        assert await ask(transport, wire.url, "GET") == b"ok"
        await close(transport)


@pytest.mark.parametrize(("method", "statuses"), [("GET", [200] * 4), ("POST", [200, 502] * 2)])
async def test_an_idempotent_request_through_the_proxy_is_answered(
    method: str, statuses: list[int]
) -> None:
    async with Wire(Server()) as wire, PassthroughProxy(wire.url) as app:
        got = []
        for _ in statuses:
            async with asgi.opened(app, method, "/v1/models") as exchange:
                # Some servers say only with the last piece that there is no body.
                exchange.send_body(b"", more=True)
                exchange.send_body(b"")
                got.append((await exchange.answer()).status)
        assert got == statuses
