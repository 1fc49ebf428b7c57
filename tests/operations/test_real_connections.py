"""Operations over real connections: uploads from a file, polled jobs, clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.operations import FluxImages
from asgi_aiproxy.providers import BFL, DEEPGRAM, ELEVENLABS
from asgi_aiproxy.testing import serve
from asgi_aiproxy.upstream import HttpxTransport
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

SOUND = bytes(range(256)) * 12_288  # 3 MiB
PNG = b"\x89PNG\r\n\x1a\n\xff"


class Vendors:
    """Deepgram, ElevenLabs and Black Forest Labs at one address."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, dict[bytes, bytes], bytes]] = []
        self.polled = asyncio.Event()
        self.ready = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        path = scope["path"]
        self.seen.append((path, dict(scope["headers"]), body))
        kind, data = self.answer(path)
        headers = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def answer(self, path: str) -> tuple[bytes, bytes]:
        if path == "/image.png":
            return b"image/png", PNG
        if path == "/v1/get_result":
            self.polled.set()
            result = {"sample": f"{self.url}/image.png"}
            answer: Any = {"status": "Ready" if self.ready else "Pending", "result": result}
        elif path.startswith("/v1/flux"):
            answer = {"id": "1", "polling_url": f"{self.url}/v1/get_result?id=1"}
        elif path == "/v1/listen":
            channel = {"alternatives": [{"transcript": "Hi"}]}
            answer = {"metadata": {"duration": 1}, "results": {"channels": [channel]}}
        else:
            answer = {"text": "Hi", "words": []}
        return b"application/json", json.dumps(answer).encode()


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    app = Vendors()
    async with serve(app) as url:
        app.url = url
        yield app


@pytest.mark.parametrize("row", [DEEPGRAM, ELEVENLABS], ids=lambda row: row.name)
async def test_an_upload_reaches_the_vendor_whole(vendors: Vendors, row: Any) -> None:
    shim = OpenAIShim(row.using("k", base_url=vendors.url))
    async with serve(shim) as url, httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(
            f"{url}/v1/audio/transcriptions",
            data={"model": "m"},
            files={"file": ("a.wav", SOUND, "audio/wav")},
        )
    assert answer.json()["text"] == "Hi"
    ((_, headers, body),) = vendors.seen
    assert headers[b"content-length"] == str(len(body)).encode()
    assert SOUND in body
    assert (body == SOUND) is (row is DEEPGRAM)


async def test_a_job_is_polled_and_its_image_fetched(vendors: Vendors) -> None:
    provider = BFL.using("k", base_url=vendors.url, operations=(FluxImages(poll_seconds=0.01),))
    async with serve(OpenAIShim(provider)) as url, httpx.AsyncClient(timeout=60) as client:
        body = {"model": "flux-2-pro", "prompt": "A cat"}
        answer = await client.post(f"{url}/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == [{"b64_json": "iVBORw0KGgr/"}]
    assert [path for path, _, _ in vendors.seen] == [
        *("/v1/flux-2-pro", "/v1/get_result", "/image.png")
    ]
    keys = [headers.get(b"x-key") for _, headers, _ in vendors.seen]
    assert keys == [b"k", b"k", None]


async def test_a_job_is_not_polled_any_more_when_its_client_leaves() -> None:
    vendors = Vendors()
    vendors.ready = False
    vendors.url = "https://api.bfl.ai"

    async def handle(request: httpx.Request) -> httpx.Response:
        vendors.seen.append((request.url.path, {}, b""))
        kind, data = vendors.answer(request.url.path)
        return httpx.Response(200, content=data, headers={"content-type": kind.decode()})

    provider = BFL.using("k", operations=(FluxImages(poll_seconds=0.001),))
    app = OpenAIShim(provider, transport=HttpxTransport(httpx.MockTransport(handle)))
    async with asgi.opened(app, "POST", "/v1/images/generations") as exchange:
        exchange.send_body(b'{"model":"flux-2-pro","prompt":"A cat"}')
        async with asyncio.timeout(60):
            await vendors.polled.wait()
        exchange.disconnect()
        await exchange.ended()
    polls = len(vendors.seen)
    await asyncio.sleep(0)
    assert len(vendors.seen) == polls
