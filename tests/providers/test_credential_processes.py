"""Credentials that expire, in worker processes of their own over one Redis."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.testing import serve
from tests.support.credential_vendors import Vendors, keys_of
from tests.support.worker_process import started, worker

pytestmark = pytest.mark.anyio

APP = "tests.support.credential_worker:app"


@dataclass
class World:
    vendors: Vendors
    urls: list[str]
    client: httpx.AsyncClient

    async def chat(self, worker: int, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        url = f"{self.urls[worker % 2]}/v1/chat/completions"
        return await self.client.post(url, json=body, timeout=60)

    async def all(self, model: str, calls: int = 20) -> list[httpx.Response]:
        return await asyncio.gather(*(self.chat(number, model) for number in range(calls)))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all tests here, which share the workers."""
    return "asyncio"


@pytest.fixture(scope="module")
async def world(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    vendors, folder = Vendors(), tmp_path_factory.mktemp("aws")
    async with serve(vendors) as url, httpx.AsyncClient() as client:
        environment = {
            "STORE": redis_url,
            "PREFIX": uuid.uuid4().hex,
            "SEALING_KEY": Sealer.generate(),
            "VENDOR": url,
            "KEYS": json.dumps(keys_of(url, folder)),
            "AWS_CONFIG_FILE": str(folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_STS": f"{url}/sts",
        }
        with worker(APP, environment) as (_, one), worker(APP, environment) as (_, other):
            for worker_url in (one, other):
                await started(client, worker_url)
            yield World(vendors, [one, other], client)


@pytest.mark.parametrize("kind", ["aws", "coze", "google"])
async def test_workers_refresh_once_before_the_end_and_share_a_failure(
    world: World, kind: str
) -> None:
    grants = world.vendors.grants[kind]
    # One worker fetches for all callers of both, and one renews before the end.
    assert {answer.status_code for answer in await world.all(f"{kind}-good")} == {200}
    end = time.monotonic() + 60
    while grants.used[-2:] != ["token2"] * 2:
        assert time.monotonic() < end
        assert {answer.status_code for answer in await world.all(f"{kind}-good", 2)} == {200}
    assert grants.requests == {"good": 2}
    assert {*grants.used} == {"token1", "token2"}

    # A failure is a fallback in both workers, and the key cools down for both.
    answers = await world.all(f"{kind}-stale")
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["aiproxy-provider"] for answer in answers} == {"second"}
    assert grants.requests["stale"] == 1

    # Without another target it is an error with a name, and shows no secret.
    refused = await world.chat(0, f"{kind}-alone")
    assert refused.status_code == 502
    assert refused.json()["error"]["code"] == "credential_unavailable"
    again = await world.chat(1, f"{kind}-alone")
    assert again.status_code >= 500
    assert "app-secret" not in refused.text + again.text
    assert grants.requests["stale"] == 2  # the other worker does not request it again
