"""Requests, as they arrive at a provider byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asgi_aiproxy.errors import APIError, ErrorKind as ErrorKind
from asgi_aiproxy.upstream import Transport
from tests.support.socket_server import PATIENCE, Line, Request, Wire, again
from tests.transports.conftest import Kind, close, post, rest

pytestmark = pytest.mark.anyio


async def received(transport: Transport, **options: object) -> Request:
    """What a server receives of a request."""
    got: list[Request] = []

    async def handler(line: Line) -> None:
        got.append(await line.request())
        await line.answer()

    async with Wire(handler) as wire:
        path = str(options.pop("path", "/v1/chat/completions"))
        answer = await transport.send(post(wire.url + path, **options))
        assert await rest(answer) == b"{}"
        await answer.aclose()
        assert got[0].all("host") == [f"127.0.0.1:{wire.port}"]
    return got[0]


async def test_line_headers_and_body_arrive_as_they_were_given(transport: Transport) -> None:
    request = await received(
        transport,
        body=b'{"model": "m\xc3\xa9"}',
        headers=[("x-one", "1"), ("accept-encoding", "identity"), ("x-two", "a"), ("x-two", "b")],
    )
    assert request.line == "POST /v1/chat/completions?key=SECRET HTTP/1.1"
    assert request.body == b'{"model": "m\xc3\xa9"}'
    assert request.all("content-length") == [str(len(request.body))]
    assert request.all("x-two") == ["a", "b"]
    assert request.all("accept-encoding") == ["identity"]
    assert request.all("cookie") == []
    assert request.all("transfer-encoding") == []
    given = [name for name, _ in request.headers if name.lower().startswith("x-")]
    assert given == ["x-one", "x-two", "x-two"]


@pytest.mark.parametrize("length", [10, 5000])
async def test_calls_with_the_same_headers_arrive_with_their_own_bodies_and_keys(
    transport: Transport, length: int
) -> None:
    requests: list[Request] = []

    async def handler(line: Line) -> None:
        while True:
            requests.append(await line.request())
            await line.answer()

    calls = [("a", b"{}"), ("a", b'{"model":"m"}'), ("b", b"{}"), ("a", b'{"model":"n"}')]
    async with Wire(handler) as wire:
        for key, body in calls:
            headers = (("x-long", "x" * length), ("authorization", f"Bearer {key}"))
            answer = await transport.send(post(wire.url + "/v1/x", body, headers=headers))
            assert await rest(answer) == b"{}"
            await answer.aclose()
    assert [(each.all("authorization"), each.body) for each in requests] == [
        ([f"Bearer {key}"], body) for key, body in calls
    ]
    assert [each.all("content-length") for each in requests] == [[str(len(b))] for _, b in calls]


async def test_header_names_are_sent_in_lower_case(kind: Kind) -> None:
    if kind.library == "httpx":
        pytest.skip("httpx spells those that it adds itself with capitals")
    transport = kind()
    request = await received(transport)
    assert [name for name, _ in request.headers if name != name.lower()] == []
    await close(transport)


@pytest.mark.parametrize(
    "path", ["/a%2Fb/c%20d", "/models/gemini:generateContent", "/x/~tilde/@at/(1)", "/a//b/./c%2e"]
)
async def test_paths_arrive_as_they_are_encoded(transport: Transport, path: str) -> None:
    if "/./" in path and not type(transport).__name__.startswith("Socket"):
        pytest.skip("others put dot segments in order")
    assert (await received(transport, path=path)).line.split()[1] == f"{path}?key=SECRET"


async def test_a_request_without_a_body_has_no_body_headers(transport: Transport) -> None:
    request = await received(transport, method="GET", body=None)
    assert request.line.startswith("GET ")
    assert request.all("transfer-encoding") == []
    assert request.header("content-length") in (None, "0")


async def pieces() -> AsyncIterator[bytes]:
    yield b"one "
    await asyncio.sleep(0)
    yield b""
    yield b"two"


async def test_a_streamed_body_of_unknown_length_goes_in_chunks(transport: Transport) -> None:
    request = await received(transport, body=pieces())
    assert request.body == b"one two"
    assert request.all("transfer-encoding") == ["chunked"]
    assert request.all("content-length") == []
    assert request.raw == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_a_streamed_body_of_known_length_goes_as_it_is(transport: Transport) -> None:
    headers = [("content-type", "multipart/form-data"), ("content-length", "7")]
    request = await received(transport, body=pieces(), headers=headers)
    assert (request.body, request.raw) == (b"one two", b"one two")
    assert request.all("content-length") == ["7"]
    assert request.all("transfer-encoding") == []


@pytest.mark.parametrize("streamed", [False, True], ids=["bytes", "stream"])
async def test_large_bodies_arrive_whole(transport: Transport, streamed: bool) -> None:
    whole = bytes(range(256)) * 20_000  # 5 MB

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(whole), 100_000):
            yield whole[at : at + 100_000]

    request = await received(transport, body=parts() if streamed else whole)
    assert request.body == whole


async def test_each_piece_of_a_streamed_body_is_sent_at_once(transport: Transport) -> None:
    arrived = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        async with asyncio.timeout(PATIENCE):
            await arrived.wait()
        yield b"second"

    async def handler(line: Line) -> None:
        await line.head()
        await line.reader.readuntil(b"first\r\n")
        arrived.set()
        await line.reader.readuntil(b"0\r\n\r\n")
        await line.answer()

    async with Wire(handler) as wire:
        answer = await transport.send(post(wire.url, parts()))
        assert await rest(answer) == b"{}"
        await answer.aclose()


class OddError(APIError):
    """An exception of a body stream."""

    def __init__(self) -> None:
        super().__init__(ErrorKind.TOO_LARGE, "too much")


async def test_an_exception_of_a_body_stream_is_raised_by_send(transport: Transport) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        raise OddError

    async def handler(line: Line) -> None:
        await line.gone()

    async with Wire(handler) as wire:
        with pytest.raises(OddError):
            await transport.send(post(wire.url, parts()))
        await wire.opened(0)


async def test_a_refusal_is_read_while_the_body_is_still_being_sent(kind: Kind) -> None:
    if kind.library == "httpx":
        pytest.skip("httpx listens only when it has sent all")
    transport = kind()
    ended = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def handler(line: Line) -> None:
        await line.head()
        await line.answer(b"too large", "413 Content Too Large", "Connection: close")
        await line.gone()

    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):
        answer = await transport.send(post(wire.url, parts()))
        assert answer.status == 413
        assert await rest(answer) == b"too large"
        await answer.aclose()
        await ended.wait()
        await wire.opened(0)
    await close(transport)


@pytest.mark.parametrize(
    ("name", "value"),
    [("x-api-key", "sk-SECRET\n"), ("x-api-key", "sk-SECRET\r\nx-evil: 1"), ("x y", "SECRET")],
    ids=["line end", "smuggled header", "bad name"],
)
async def test_an_invalid_header_is_not_sent_and_not_quoted(
    transport: Transport, name: str, value: str
) -> None:
    async with Wire(again()) as wire:
        with pytest.raises(APIError) as caught:
            await transport.send(post(wire.url, headers=[(name, value)]))
    assert caught.value.kind is ErrorKind.INTERNAL
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in repr(caught.value.__cause__)


@pytest.mark.parametrize("url", ["http://[::1", "ftp://host/", "nothing", "http://host:99999/"])
async def test_an_invalid_url_is_an_error_and_not_quoted(transport: Transport, url: str) -> None:
    with pytest.raises(APIError) as caught:
        await transport.send(post(url))
    assert "SECRET" not in str(caught.value)


def test_a_request_shows_no_secret() -> None:
    shown = repr(post("http://host/path"))
    assert shown == "UpstreamRequest(POST http://host/path)"
