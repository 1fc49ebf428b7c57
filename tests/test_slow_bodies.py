"""A client that stops sending its request is not waited for indefinitely."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asgi_aiproxy import OpenAIShim, PassthroughProxy, Timeouts
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.shim import AIShim
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

SOON = Timeouts(body=0.05)
FORM = {"content-type": "multipart/form-data; boundary=XbX"}
PART = b'--XbX\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
JSON = {"content-type": "application/json"}


def shim(timeouts: Timeouts = SOON) -> tuple[Any, Upstream]:
    upstream = Upstream(answers())
    return AIShim(OPENAI.using("sk-1"), transport=upstream.transport, timeouts=timeouts), upstream


def proxy(timeouts: Timeouts = SOON) -> tuple[Any, Upstream]:
    upstream = Upstream(answers())
    row = OPENAI.using("sk-1")
    return PassthroughProxy(row, transport=upstream.transport, timeouts=timeouts), upstream


@pytest.mark.parametrize("make", [shim, proxy])
@pytest.mark.parametrize(
    ("path", "headers", "pieces"),
    [
        ("/v1/chat/completions", JSON, []),
        ("/v1/chat/completions", JSON, [b'{"model":']),
        ("/v1/chat/completions", {**JSON, "content-length": "99"}, [b'{"model":', b" "]),
        ("/v1/audio/transcriptions", FORM, []),
        ("/v1/audio/transcriptions", FORM, [PART % (b"file", b"x")]),
        ("/v1/audio/transcriptions", FORM, [PART % (b"model", b"m"), PART % (b"file", b"x")]),
        ("/v1/files", {**FORM, "content-length": "9999999"}, [b"x" * 99_999, b"x"]),
    ],
)
async def test_clients_that_fall_silent_in_their_request_get_a_408(
    make: Any, path: str, headers: dict[str, str], pieces: list[bytes]
) -> None:
    app, upstream = make()
    if make is shim and path == "/v1/files":
        pytest.skip("a path of the proxy's")
    async with asgi.opened(app, "POST", path, headers=headers) as exchange:
        for piece in pieces:
            exchange.send_body(piece, more=True)
        answer = await exchange.answer()
        await exchange.ended()
    assert answer.status == 408, answer.body
    assert "0.05 seconds" in answer.json["error"]["message"]
    assert answer.header("connection") == "close"
    assert upstream.open == 0


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (ANTHROPIC, "/v1/messages"),
        (GEMINI, "/v1beta/models/m:generateContent"),
        (OPENAI, "/v1/chat/completions"),
    ],
)
async def test_the_error_has_the_callers_dialect(row: Any, path: str) -> None:
    app = AIShim(row.using("k"), transport=Upstream(answers()).transport, timeouts=SOON)
    async with asgi.opened(app, "POST", path, headers=JSON) as exchange:
        answer = await exchange.answer()
    assert answer.status == 408
    shapes = {"/v1/messages": "type", "/v1beta/models/m:generateContent": "status"}
    assert shapes.get(path, "param") in {**answer.json, **answer.json["error"]}


@pytest.mark.parametrize("make", [shim, proxy])
async def test_slow_but_not_silent_clients_are_served(make: Any) -> None:
    app, upstream = make(Timeouts(body=1.0))
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    async with asgi.opened(app, "POST", "/v1/chat/completions", headers=JSON) as exchange:
        for at in range(0, len(body), 10):
            exchange.send_body(body[at : at + 10], more=True)
            await asyncio.sleep(0.01)
        exchange.send_body(b"")
        assert (await exchange.answer()).status == 200
    assert len(upstream.requests) == 1


async def test_without_a_limit_a_silent_client_is_waited_for() -> None:
    app, _ = shim(Timeouts(body=None))
    async with asgi.opened(app, "POST", "/v1/chat/completions", headers=JSON) as exchange:
        await asyncio.sleep(0.1)
        assert exchange._out.empty()


async def test_under_a_real_server_the_connection_ends() -> None:
    app = OpenAIShim(OPENAI.using("sk-1"), timeouts=Timeouts(body=0.2))
    async with serve(app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b'content-length: 100\r\n\r\n{"model": '
        )
        async with asyncio.timeout(20):
            said = await reader.read()  # to its end
        writer.close()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said.lower()
