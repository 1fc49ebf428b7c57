"""Responses, in all forms of bytes."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from functools import partial

import brotli
import pytest
import zstandard

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.upstream import Transport
from asgi_aiproxy.upstream.base import header
from tests.support.socket_server import PATIENCE, Line, Wire, again, answering
from tests.transports.conftest import Kind, close, post, rest

pytestmark = pytest.mark.anyio

FORMS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
    "chunks with extras": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'B;note="x"\r\nhello world\r\n0\r\nX-Sum: 1\r\n\r\n',
    "until closed": b"HTTP/1.1 200 OK\r\n\r\nhello world",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello world",
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 11\r\n\r\nhello world",
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("streamed", [False, True], ids=["gathered", "streamed"])
async def test_a_body_arrives_whole(transport: Transport, form: str, streamed: bool) -> None:
    async with Wire(answering(FORMS[form])) as wire:
        answer = await transport.send(post(wire.url, streamed=streamed))
        assert answer.status == 200
        assert await rest(answer) == b"hello world"
        assert await answer.read() == b""
        await answer.aclose()


@pytest.mark.parametrize("form", FORMS)
async def test_it_makes_no_difference_how_the_bytes_are_cut(
    transport: Transport, form: str
) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        for byte in FORMS[form]:
            await line.send(bytes([byte]))
            await asyncio.sleep(0)

    async with Wire(handler) as wire:
        answer = await transport.send(post(wire.url, streamed=True))
        assert await rest(answer) == b"hello world"
        await answer.aclose()


async def test_status_and_headers_arrive_in_lower_case_and_repeated(transport: Transport) -> None:
    head = (
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nX-RateLimit-Reset: 1\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nContent-Length: 2\r\n\r\nno"
    )
    async with Wire(answering(head)) as wire:
        answer = await transport.send(post(wire.url))
        assert answer.status == 429
        assert [(n, v) for n, v in answer.headers if n != "content-length"] == [
            ("content-type", "text/plain"),
            ("x-ratelimit-reset", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-empty", ""),
        ]
        assert await rest(answer) == b"no"
        await answer.aclose()


async def test_a_header_beyond_ascii_breaks_nothing(transport: Transport) -> None:
    head = "HTTP/1.1 200 OK\r\nX-Name: café\r\nX-Id: 7\r\nContent-Length: 2\r\n\r\nok".encode()
    async with Wire(answering(head)) as wire:
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == b"ok"
        assert header(answer.headers, "x-id") == "7"
        await answer.aclose()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_without_a_body_ends_at_once(transport: Transport, status: str) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(f"HTTP/1.1 {status}\r\n\r\n".encode())
        await line.gone()

    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == b""
        await answer.aclose()


async def test_the_first_bytes_arrive_before_the_next_are_sent(transport: Transport) -> None:
    read = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"):
            await line.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await read.wait()
            read.clear()
        await line.send(b"0\r\n\r\n")

    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):
        answer = await transport.send(post(wire.url, streamed=True))
        for at in (b"1", b"2", b"3"):
            assert await answer.read() == b"data: %b\n\n" % at
            read.set()
        assert await answer.read() == b""
        await answer.aclose()


async def test_the_head_arrives_before_the_body_is_sent(transport: Transport) -> None:
    seen = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await seen.wait()
        await line.send(b"ok")

    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):
        answer = await transport.send(post(wire.url, streamed=True))
        seen.set()
        assert await rest(answer) == b"ok"
        await answer.aclose()


TEXT = b'{"choices": []}' * 50
CODED = {
    "gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstandard.compress(TEXT),
}


@pytest.mark.parametrize("coding", CODED)
async def test_a_compressed_response_is_decoded_although_it_was_not_requested(
    transport: Transport, coding: str
) -> None:
    body = CODED[coding]
    async with Wire(again(body, f"Content-Encoding: {coding}", "X-Other: 1")) as wire:
        answer = await transport.send(post(wire.url, streamed=True))
        assert await rest(answer) == TEXT
        assert answer.headers == [("x-other", "1")]
        await answer.aclose()


async def test_an_unknown_coding_is_an_error(transport: Transport) -> None:
    async with Wire(again(b"????", "Content-Encoding: compress")) as wire:
        with pytest.raises(APIError, match="compress"):
            await transport.send(post(wire.url))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_a_few_bytes_do_not_become_gigabytes(kind: Kind, coding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}
    pack["br"] = partial(brotli.compress, quality=3)
    limit = 8 * 1024 * 1024
    body = pack[coding](bytes(10 * limit))
    transport = kind(max_decoded=limit)
    sizes: list[int] = []
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(other())
    async with Wire(again(body, f"Content-Encoding: {coding}")) as wire:
        answer = await transport.send(post(wire.url, streamed=True))

        async def read() -> None:
            while data := await answer.read():
                sizes.append(len(data))

        with pytest.raises(APIError, match=f"larger than {limit} bytes") as caught:
            await read()
        assert caught.value.status == 502
        await answer.aclose()
    assert max(sizes) <= 2 * 1024 * 1024
    assert sum(sizes) <= limit
    assert turns >= len(sizes)  # the event loop went on between the pieces
    beside.cancel()
    await close(transport)


@pytest.mark.parametrize("body", [b"no gzip", CODED["gzip"][:-30]], ids=["wrong", "cut"])
async def test_an_invalid_coding_is_an_error(transport: Transport, body: bytes) -> None:
    async with Wire(again(body, "Content-Encoding: gzip")) as wire:
        with pytest.raises(APIError):
            await rest(await transport.send(post(wire.url, streamed=True)))


async def test_chunks_before_one_that_is_not_valid_are_delivered(kind: Kind) -> None:
    if kind.library != "sockets":
        pytest.skip("that is for each library to decide")
    transport = kind()
    broken = FORMS["chunks"].replace(b"0\r\n\r\n", b"zz\r\n")
    async with Wire(answering(broken)) as wire:
        answer = await transport.send(post(wire.url, streamed=True))
        assert await answer.read() == b"hello world"
        with pytest.raises(APIError, match="invalid HTTP response"):
            await answer.read()
        await answer.aclose()
    await close(transport)


async def test_a_redirect_is_given_back_and_not_followed(transport: Transport) -> None:
    async with Wire(again(b"", "Location: /elsewhere", "X: 1")) as wire:
        wire.handler = answering(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        )
        answer = await transport.send(post(wire.url))
        assert answer.status == 307
        assert header(answer.headers, "location") == "/elsewhere"
        await answer.aclose()
    assert len(wire.lines) == 1


async def test_a_cookie_of_one_answer_is_not_sent_with_the_next_request(
    transport: Transport,
) -> None:
    cookies: list[str] = []

    async def handler(line: Line) -> None:
        while True:
            cookies.extend((await line.request()).all("cookie"))
            await line.answer(b"{}", "200 OK", "Set-Cookie: session=SECRET; Path=/")

    async with Wire(handler) as wire:
        for _ in range(2):
            answer = await transport.send(post(wire.url))
            await rest(answer)
            await answer.aclose()
        assert cookies == []


async def test_connections_are_used_again(transport: Transport) -> None:
    async with Wire(again()) as wire:
        for _ in range(5):
            answer = await transport.send(post(wire.url))
            assert await rest(answer) == b"{}"
            await answer.aclose()
        assert len(wire.lines) == 1
        await asyncio.gather(*[rest(await transport.send(post(wire.url))) for _ in range(5)])
        assert len(wire.lines) <= 5


async def test_a_connection_closed_by_the_provider_is_not_used(kind: Kind) -> None:
    if kind.library == "reqwest":
        pytest.skip("pyreqwest may not have noticed yet, on its own threads")
    transport = kind()
    async with Wire(answering(FORMS["length"])) as wire:
        for _ in range(3):
            answer = await transport.send(post(wire.url))
            assert await rest(answer) == b"hello world"
            await answer.aclose()
            await wire.opened(0)
        assert len(wire.lines) == 3
    await close(transport)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and surplus",
    ],
    ids=["close", "HTTP/1.0", "surplus"],
)
async def test_a_connection_is_not_used_again_when_it_should_not_be(
    kind: Kind, head: bytes
) -> None:
    if kind.library == "httpx" and b"surplus" in head:
        pytest.skip("httpx uses it, and takes the rest for the next answer")
    transport = kind()

    async def handler(line: Line) -> None:
        while True:
            await line.request()
            await line.send(head)

    async with Wire(handler) as wire:
        for _ in range(2):
            answer = await transport.send(post(wire.url))
            assert await rest(answer) == b"ok"
            await answer.aclose()
        assert len(wire.lines) == 2
    await close(transport)


async def test_a_provider_cannot_send_faster_than_the_response_is_read(kind: Kind) -> None:
    transport = kind()
    sent = 0
    piece = b"x" * 100_000
    stuck = asyncio.Event()

    async def handler(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        while True:
            try:
                async with asyncio.timeout(0.3):  # nothing moves: the reader has stopped
                    await line.send(piece)
            except TimeoutError:
                break
            sent += len(piece)
        stuck.set()
        await line.gone()

    async with Wire(handler) as wire, asyncio.timeout(30):
        answer = await transport.send(post(wire.url, streamed=True))
        await answer.read()
        await stuck.wait()
        await answer.aclose()
        assert sent < 20_000_000
    await close(transport)


async def test_a_raw_response_keeps_its_encoding(transport: Transport) -> None:
    packed = gzip.compress(b"hello " * 100)
    async with Wire(again(packed, "Content-Encoding: gzip")) as wire:
        answer = await transport.send(post(wire.url, streamed=True, raw=True))
        assert header(answer.headers, "content-encoding") == "gzip"
        assert header(answer.headers, "content-length") == str(len(packed))
        assert await rest(answer) == packed
        await answer.aclose()


async def test_a_raw_answer_may_have_an_unknown_encoding(transport: Transport) -> None:
    async with Wire(again(b"abc", "Content-Encoding: made-up")) as wire:
        answer = await transport.send(post(wire.url, streamed=True, raw=True))
        assert await rest(answer) == b"abc"
        await answer.aclose()
