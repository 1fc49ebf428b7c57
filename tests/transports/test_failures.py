"""Failures of connections: the kind of the error, and what its message does not reveal."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trustme

from asgi_aiproxy.errors import APIError, ErrorKind as ErrorKind
from asgi_aiproxy.upstream import Timeouts, Transport
from tests.support.socket_server import PATIENCE, Handler, Line, Wire, closed_port, deaf_port
from tests.transports.conftest import Kind, close, post, rest

pytestmark = pytest.mark.anyio


async def whole(transport: Transport, url: str) -> bytes:
    answer = await transport.send(post(url + "/path", streamed=True))
    try:
        return await rest(answer)
    finally:
        await answer.aclose()


async def fails(transport: Transport, url: str) -> APIError:
    """The error of a request that fails, at its beginning or in its response."""
    with pytest.raises(APIError) as caught:
        await asyncio.wait_for(whole(transport, url), PATIENCE)
    error = caught.value
    # A sentence for a client, without the query, the key, or an empty reason.
    for reported in (str(error), repr(error)):
        assert "SECRET" not in reported
        assert "?" not in reported
        assert "/path" not in reported
    assert re.fullmatch(r"[A-Z][^\n]*[^ .:]\.", str(error)), str(error)
    return error


def only_in_the_log(address: str, error: APIError, log: pytest.LogCaptureFixture) -> None:
    """The address of a provider is for the log only, not for callers."""
    host = address.partition(":")[0]
    assert host not in str(error)
    lines = [record.getMessage() for record in log.records if record.name == "asgi_aiproxy"]
    assert [address in line for line in lines] == [True]
    assert "SECRET" not in lines[0]


async def breaking(kind: Kind, handler: Handler, **options: object) -> APIError:
    """The error for the behaviour of a server."""
    transport = kind(**options)
    async with Wire(handler) as wire:
        error = await fails(transport, wire.url)
        assert not any(text in str(error) for text in (str(wire.port), wire.url))
    await close(transport)
    return error


async def test_no_server_listens(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    with closed_port() as port:
        error = await fails(transport, f"http://me:SECRET@127.0.0.1:{port}")
    assert (error.kind, error.status, error.code) == (ErrorKind.UPSTREAM, 502, "connect_error")
    assert "refused" in str(error).lower()
    only_in_the_log(f"127.0.0.1:{port}", error, caplog)


async def test_the_host_does_not_exist(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    error = await fails(transport, "http://nothing.invalid")
    assert (error.kind, error.code) == (ErrorKind.UPSTREAM, "connect_error")
    only_in_the_log("nothing.invalid", error, caplog)


async def test_connecting_takes_too_long(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    transport = kind(timeouts=Timeouts(connect=0.2))
    with deaf_port() as port:
        error = await fails(transport, f"http://127.0.0.1:{port}")
    assert (error.kind, error.status, error.code) == (ErrorKind.TIMEOUT, 504, "connect_timeout")
    only_in_the_log(f"127.0.0.1:{port}", error, caplog)
    await close(transport)


async def test_the_handshake_takes_too_long(kind: Kind) -> None:
    async def handler(line: Line) -> None:
        await line.gone()

    transport = kind(timeouts=Timeouts(connect=0.2))
    async with Wire(handler) as wire:
        error = await fails(transport, f"https://127.0.0.1:{wire.port}")
        await wire.opened(0)
    assert (error.kind, error.code) == (ErrorKind.TIMEOUT, "connect_timeout")
    await close(transport)


async def test_there_are_more_calls_than_connections(kind: Kind) -> None:
    async def handler(line: Line) -> None:
        while True:
            await line.request()
            await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            if len(wire.lines) > 1:
                await line.send(b"0\r\n\r\n")

    transport = kind(timeouts=Timeouts(pool=0.1), max_connections=1)
    async with Wire(handler) as wire:
        first = await transport.send(post(wire.url, streamed=True))
        assert await first.read() == b"ok"
        error = await fails(transport, wire.url)
        assert (error.kind, error.status) == (ErrorKind.TIMEOUT, 504)
        await first.aclose()
        second = await transport.send(post(wire.url, streamed=True))
        assert await rest(second) == b"ok"
        await second.aclose()
    await close(transport)


async def test_a_call_that_waits_for_a_connection_gets_the_next_free_one(kind: Kind) -> None:
    go = asyncio.Event()
    most = 0

    async def handler(line: Line) -> None:
        nonlocal most
        while True:
            await line.request()
            most = max(most, wire.open)
            await go.wait()
            await line.answer()

    transport = kind(max_connections=3)
    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):

        async def call() -> bytes:
            answer = await transport.send(post(wire.url))
            try:
                return await rest(answer)
            finally:
                await answer.aclose()

        calls = asyncio.gather(*[call() for _ in range(12)])
        await wire.opened(3)
        go.set()
        assert await calls == [b"{}"] * 12
        assert most <= 3
    await close(transport)


async def shut(line: Line) -> None:
    await line.request()


async def reset(line: Line) -> None:
    await line.request()
    line.reset()


async def cut_head(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Ty")


async def banner(line: Line) -> None:
    await line.send(b"SSH-2.0-OpenSSH_9.2\r\n")


async def garbage(line: Line) -> None:
    await line.request()
    await line.send(b"\x00\x01\x02 nonsense\r\n\r\n")


async def endless_head(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\n", *[b"X: %b\r\n" % (b"y" * 60_000)] * 12)


async def two_lengths(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!")


@pytest.mark.parametrize(
    "handler", [shut, reset, cut_head, banner, garbage, endless_head, two_lengths]
)
async def test_missing_and_invalid_responses_are_errors(kind: Kind, handler: Handler) -> None:
    error = await breaking(kind, handler)
    assert (error.kind, error.status) == (ErrorKind.UPSTREAM, 502)
    assert "broke" in str(error)
    # Not a failure to connect: the request may have had its effect.
    assert error.code is None


async def short(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}")


async def short_chunks(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")


async def half_a_chunk(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}")


async def no_chunks(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")
    await line.gone()


async def reset_body(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}")
    await asyncio.sleep(0.02)  # a RST overtakes what is not read yet
    line.reset()


@pytest.mark.parametrize("handler", [short, short_chunks, half_a_chunk, no_chunks, reset_body])
async def test_a_response_that_breaks_off_is_an_error(kind: Kind, handler: Handler) -> None:
    error = await breaking(kind, handler)
    assert (error.kind, error.status, error.code) == (ErrorKind.UPSTREAM, 502, None)
    assert "broke" in str(error)


async def test_the_part_received_before_the_break_is_delivered(transport: Transport) -> None:
    async with Wire(short) as wire:
        answer = await transport.send(post(wire.url, streamed=True))
        assert await answer.read() == b"{}"
        with pytest.raises(APIError):
            await answer.read()
        await answer.aclose()


async def test_tls_to_a_server_without_tls_is_an_error(transport: Transport) -> None:
    async def handler(line: Line) -> None:
        await line.reader.read(10)
        await line.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with Wire(handler) as wire:
        error = await fails(transport, f"https://127.0.0.1:{wire.port}")
    assert (error.kind, error.code) == (ErrorKind.UPSTREAM, "connect_error")


async def test_plain_http_to_a_tls_server_is_an_error(
    transport: Transport, server_context: ssl.SSLContext
) -> None:
    async with Wire(shut, server_context) as wire:
        error = await fails(transport, f"http://127.0.0.1:{wire.port}")
    assert error.kind is ErrorKind.UPSTREAM


async def test_a_self_signed_certificate_is_refused(
    transport: Transport, server_context: ssl.SSLContext
) -> None:
    async with Wire(shut, server_context) as wire:
        error = await fails(transport, wire.url)
        assert (error.kind, error.code) == (ErrorKind.UPSTREAM, "connect_error")
        assert "certificate" in str(error)


async def test_the_other_name_of_a_certificate_is_not_shown(
    kind: Kind, authority: trustme.CA, ca: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("one.internal", "two.internal").configure_cert(context)
    transport = kind(ca=ca)
    async with Wire(shut, context) as wire:
        error = await fails(transport, wire.url)
        assert (error.kind, error.code) == (ErrorKind.UPSTREAM, "connect_error")
        assert "certificate" in str(error)
        assert "internal" not in str(error)
        only_in_the_log(f"127.0.0.1:{wire.port}", error, caplog)
    await close(transport)


async def test_after_any_failure_the_transport_works(kind: Kind) -> None:
    """Nothing stays in use: with one connection allowed, ten calls fail and the eleventh works."""
    transport = kind(timeouts=Timeouts(pool=2.0, connect=2.0), max_connections=1)
    failing: list[Callable[[Line], Awaitable[None]]] = [shut, reset, garbage, short, half_a_chunk]

    async def handler(line: Line) -> None:
        if failing:
            await failing.pop(0)(line)
        else:
            await line.request()
            await line.answer(b"well")

    async with Wire(handler) as wire:
        while failing:
            await fails(transport, wire.url)
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == b"well"
        await answer.aclose()
    await close(transport)
