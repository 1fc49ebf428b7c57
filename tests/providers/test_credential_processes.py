"""Credentials that expire, in worker processes of their own over one Redis."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.testing import serve
from tests.support.redis_server import free_port
from tests.support.scripted_upstream import chat_answer

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
CHAT = (
    b'event:conversation.message.completed\ndata:{"id":"1","conversation_id":"2","chat_id":"3",'
    b'"type":"answer","role":"assistant","content":"Hello","content_type":"text"}\n\n'
    b'event:conversation.chat.completed\ndata:{"id":"3","conversation_id":"2","status":"completed",'
    b'"usage":{"input_count":1,"output_count":2,"token_count":3}}\n\nevent:done\ndata:"[DONE]"\n\n'
)


class Vendor:
    """Coze's token endpoint and chat, and a second vendor. The first token ends in 200 seconds,
    which is within the margin for its renewal; later ones in an hour.
    """

    def __init__(self) -> None:
        self.grants: Counter[str] = Counter()  # by refresh token
        self.used: list[str] = []  # tokens of chats

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, kind, answer = 200, b"application/json", chat_answer()
        if scope["path"].endswith("/token"):
            status, answer = self._token(json.loads(body)["refresh_token"])
        elif scope["path"] == "/v3/chat":
            self.used.append(dict(scope["headers"])[b"authorization"].decode())
            kind, answer = b"text/event-stream", CHAT
        start = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": answer})

    def _token(self, refresh: str) -> tuple[int, bytes]:
        self.grants[refresh] += 1
        if refresh not in ("refresh-0", "refresh-1"):
            return 401, b'{"error_code":"invalid_grant","error_message":"No."}'
        number = int(refresh[-1]) + 1
        ends = time.time() + (200 if number == 1 else 3600)
        token = {"access_token": f"at-{number}", "expires_in": int(ends)}
        return 200, json.dumps({**token, "refresh_token": f"refresh-{number}"}).encode()


def app_of(base: str, refresh: str) -> str:
    secret = {"client_type": "web", "client_id": "app-1", "client_secret": "app-secret"}
    return json.dumps({**secret, "refresh_token": refresh, "coze_api_base": base})


@dataclass
class World:
    vendor: Vendor
    urls: list[str]
    client: httpx.AsyncClient

    async def chat(self, worker: int, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        url = f"{self.urls[worker % 2]}/v1/chat/completions"
        return await self.client.post(url, json=body, timeout=60)

    async def all(self, model: str, calls: int = 20) -> list[httpx.Response]:
        return await asyncio.gather(*(self.chat(number, model) for number in range(calls)))


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.support.credential_worker:app"]
    command += ["--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    vendor = Vendor()
    async with serve(vendor) as url, httpx.AsyncClient() as client:
        environment = {
            "STORE": redis_url,
            "PREFIX": uuid.uuid4().hex,
            "SEALING_KEY": Sealer.generate(),
            "VENDOR": url,
            "GOOD_APP": app_of(url, "refresh-0"),
            "STALE_APP": app_of(url, "stale"),
        }
        with worker(environment) as one, worker(environment) as other:
            for started in (one, other):
                await up(client, started)
            yield World(vendor, [one, other], client)


async def up(client: httpx.AsyncClient, url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            await client.get(f"{url}/v1/models")
        except httpx.HTTPError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("a worker did not start")


async def test_workers_refresh_once_before_the_end_and_share_a_failure(world: World) -> None:
    vendor = world.vendor
    # One worker fetches for all callers of both, and one renews before the end.
    assert {answer.status_code for answer in await world.all("good")} == {200}
    end = time.monotonic() + 60
    while vendor.used[-2:] != ["Bearer at-2"] * 2:
        assert time.monotonic() < end
        assert {answer.status_code for answer in await world.all("good", 2)} == {200}
    assert vendor.grants == {"refresh-0": 1, "refresh-1": 1}
    assert {*vendor.used} <= {"Bearer at-1", "Bearer at-2"}

    # A failure is a fallback in both workers, and the key cools down for both.
    answers = await world.all("stale")
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["aiproxy-provider"] for answer in answers} == {"second"}
    assert vendor.grants["stale"] == 1

    # Without another target it is an error with a name, and shows no secret.
    refused = await world.chat(0, "alone")
    assert refused.status_code == 502
    assert refused.json()["error"]["code"] == "credential_unavailable"
    again = await world.chat(1, "alone")
    assert again.status_code >= 500
    assert "app-secret" not in refused.text + again.text
    assert vendor.grants["stale"] == 2  # the other worker does not request it again
