"""Bytes received before a connection changes its protocol are not read as the new protocol.

What a proxy, or anyone between, sends after its reply is sent in the clear. If it counted as the
beginning of the new protocol, it would be read as if it had come over verified TLS.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.upstream import Transport
from tests.support.socket_server import PATIENCE, Handler, Line, Wire, again
from tests.transports.conftest import SOCKETS, SOCKETS_UVLOOP, Kind, close, post, rest

pytestmark = pytest.mark.anyio
ours = pytest.mark.parametrize("kind", [SOCKETS, SOCKETS_UVLOOP], ids=lambda kind: kind.name)

EARLY = {
    "a byte": b"!",
    "line end": b"\r\n",
    "text": b'{"injected": true}',
    "answer": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "TLS record": b"\x16\x03\x03\x00\x05hello",
}
early = pytest.mark.parametrize("extra", EARLY.values(), ids=EARLY)
tls = pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])


async def join(line: Line, port: int) -> None:
    """Forward bytes in both directions."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    await asyncio.gather(pump(line.reader, writer), pump(reader, line.writer))


def socks(port: int, step: str, extra: bytes, cut: int = 0) -> Handler:
    """A SOCKS5 proxy that sends `extra` after the reply of one of its steps."""

    async def reply(line: Line, now: str, data: bytes) -> None:
        data += extra if now == step else b""
        await line.send(data[:cut] or data)
        if data[:cut]:
            await asyncio.sleep(0)
            await line.send(data[cut:])

    async def handler(line: Line) -> None:
        _, count = await line.reader.readexactly(2)
        methods = await line.reader.readexactly(count)
        if 2 in methods:
            await reply(line, "method", b"\x05\x02")
            for before in (2, 1):  # version and length of the name, length of the word
                size = (await line.reader.readexactly(before))[-1]
                await line.reader.readexactly(size)
            await reply(line, "credentials", b"\x01\x00")
        else:
            await reply(line, "method", b"\x05\x00")
        head = await line.reader.readexactly(5)
        await line.reader.readexactly(head[4] + 2)
        await reply(line, "connect", b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        await join(line, port)

    return handler


async def refused(transport: Transport, url: str) -> None:
    with pytest.raises(APIError) as caught:
        await asyncio.wait_for(transport.send(post(url)), PATIENCE)
    assert (caught.value.status, caught.value.code) == (502, "connect_error")
    assert "more than its reply" in str(caught.value)


@ours
@early
@tls
@pytest.mark.parametrize("step", ["method", "credentials", "connect"])
async def test_bytes_after_a_socks_reply_end_the_connection(
    kind: Kind, extra: bytes, tls: bool, step: str, server_context: ssl.SSLContext, ca: bytes
) -> None:
    context = server_context if tls else None
    async with (
        Wire(again(b"real"), context) as wire,
        Wire(socks(wire.port, step, extra)) as proxy,
    ):
        transport = kind(proxy=f"socks5://me:word@127.0.0.1:{proxy.port}", ca=ca)
        await refused(transport, wire.url)
        await proxy.opened(0)
        await close(transport)


@ours
@tls
@pytest.mark.parametrize("cut", [1, 4, 7])
async def test_a_socks_reply_may_arrive_in_pieces(
    kind: Kind, tls: bool, cut: int, server_context: ssl.SSLContext, ca: bytes
) -> None:
    context = server_context if tls else None
    async with (
        Wire(again(b"real"), context) as wire,
        Wire(socks(wire.port, "", b"", cut)) as proxy,
    ):
        transport = kind(proxy=f"socks5://127.0.0.1:{proxy.port}", ca=ca)
        for _ in range(2):
            answer = await transport.send(post(wire.url))
            assert await rest(answer) == b"real"
            await answer.aclose()
        assert len(proxy.lines) == 1
        await close(transport)


@ours
@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"\x04\x00\x00\x01\x7f\x00\x00\x01\x00\x00", "not SOCKS5"),
        (b"\x05\x05\x00\x01\x7f\x00\x00\x01\x00\x00", "SOCKS error 5"),
        (b"\x05\x00\x00\x09\x7f\x00\x00\x01\x00\x00", "address type 9"),
    ],
)
async def test_a_socks_reply_that_is_not_valid_is_refused(
    kind: Kind, reply: bytes, why: str
) -> None:
    async def handler(line: Line) -> None:
        await line.reader.readexactly(3)
        await line.send(b"\x05\x00")
        await line.reader.readexactly(5)
        await line.send(reply)
        await line.gone()

    async with Wire(handler) as proxy:
        transport = kind(proxy=f"socks5://127.0.0.1:{proxy.port}")
        with pytest.raises(APIError, match=why):
            await transport.send(post("http://provider.invalid"))
        await close(transport)


@ours
@early
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 Connection Established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",  # which does not count here
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
@pytest.mark.parametrize("secure", [False, True], ids=["http-proxy", "https-proxy"])
async def test_bytes_after_the_reply_to_connect_end_the_connection(
    kind: Kind,
    extra: bytes,
    head: bytes,
    secure: bool,
    server_context: ssl.SSLContext,
    ca: bytes,
) -> None:
    async with Wire(again(b"real"), server_context) as wire:
        replies = [head + extra, head]

        async def handler(line: Line) -> None:
            await line.head()
            await line.send(replies.pop(0))
            await join(line, wire.port)

        async with Wire(handler, server_context if secure else None) as proxy:
            scheme = "https" if secure else "http"
            transport = kind(proxy=f"{scheme}://127.0.0.1:{proxy.port}", ca=ca)
            await refused(transport, wire.url)
            answer = await transport.send(post(wire.url))
            assert await rest(answer) == b"real"
            await answer.aclose()
            await close(transport)


@ours
@pytest.mark.parametrize("extra", [b"", b"\x81\x05hello"], ids=["", "frames"])
async def test_a_change_of_protocol_that_was_not_requested_is_an_error(
    kind: Kind, extra: bytes
) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + extra
        )
        await line.gone()

    async with Wire(handler) as wire:
        transport = kind()
        with pytest.raises(APIError, match="changed to another protocol") as caught:
            await transport.send(post(wire.url))
        assert caught.value.status == 502
        await wire.opened(0)
        await close(transport)
