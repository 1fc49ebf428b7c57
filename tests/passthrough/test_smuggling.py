"""A request with an ambiguous end is the last one on its connection: bytes after it are ignored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from asgi_aiproxy import PassthroughProxy
from tests.support import asgi_client as asgi, servers
from tests.support.passthrough_upstream import Frontend, behind
from tests.support.scripted_upstream import Upstream
from tests.support.servers import SERVERS, Running, Server
from tests.support.socket_server import PATIENCE, Line

pytestmark = pytest.mark.anyio


class _Config(uvicorn.Config):
    """A uvicorn whose parser is h11."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **{**options, "http": "h11"})


def _h11(app: Any, grace: float) -> Running:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers.uvicorn, "Config", _Config)
        return servers._uvicorn(app, grace)


@pytest.fixture(scope="module", params=[*SERVERS, Server("uvicorn-h11", _h11)], ids=str)
async def frontend(request: pytest.FixtureRequest, anyio_backend: Any) -> AsyncIterator[Frontend]:
    made = Frontend(str(request.param))
    async with request.param(made) as running:
        made.port = running.port
        yield made


SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /first HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n" + SECOND
UNSURE = {
    "both lengths, the first counts": POST + b"Content-Length: %d\r\n" % len(LAST) + CHUNKED,
    "both lengths, the second counts": POST + CHUNKED + b"Content-Length: 5\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: %d\r\n" % len(LAST),
    "chunked twice": POST + CHUNKED + CHUNKED,
    "chunked twice in one": POST + b"Transfer-Encoding: chunked, chunked\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n",
    "an unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n",
    "chunked but not last": POST + b"Transfer-Encoding: chunked, identity\r\n",
    "two hosts": b"POST /first HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + CHUNKED,
    "a control character": POST + b"X-A: a\x01b\r\n" + CHUNKED,
    "a NUL": POST + b"X-A: a\x00b\r\n" + CHUNKED,
    "an invalid name": POST + b"X(A): b\r\n" + CHUNKED,
}


async def _ok(line: Line) -> None:
    while True:
        await line.request()
        await line.answer(b"ok")


@pytest.mark.parametrize("head", UNSURE.values(), ids=UNSURE)
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "later"])
async def test_bytes_after_an_ambiguous_request_do_not_reach_the_upstream(
    frontend: Frontend, head: bytes, apart: bool
) -> None:
    async with behind(frontend, _ok) as at:
        caller = await at.caller()
        caller.say(head + b"\r\n" + LAST)
        said = b""
        async with asyncio.timeout(PATIENCE):
            try:
                if apart:
                    said = await caller.reader.readuntil(b"\r\n\r\n")
                    caller.say(SECOND)
                while data := await caller.reader.read(65536):
                    said += data
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
        assert "GET /second HTTP/1.1" not in [each.line for each in at.requests]
        assert said.count(b"HTTP/1.1 ") <= 1
        caller.leave()


@pytest.mark.parametrize(("version", "reported"), [("1.1", "close"), ("1.0", "close"), ("2", None)])
async def test_the_server_closes_the_connection_where_the_protocol_has_one(
    version: str, reported: str | None
) -> None:
    upstream = Upstream()
    app = PassthroughProxy("http://up", transport=upstream.transport)
    headers = {"content-length": "5", "transfer-encoding": "chunked"}
    answer = await asgi.request(app, "POST", "/x", b"hello", headers=headers, http_version=version)
    assert (answer.status, answer.header("connection")) == (400, reported)
    assert upstream.requests == []
