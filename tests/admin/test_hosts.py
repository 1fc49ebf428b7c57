"""The admin API is the same in every host, below any path."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from anyio import to_thread

from asgi_aiproxy import AdminApp, Key, KeyPool, MemoryStore
from asgi_aiproxy.testing import serve
from tests.admin.conftest import ROOT
from tests.support.hosts import HOSTS, Host

pytestmark = pytest.mark.anyio


def ask(method: str, url: str, body: Any = None, token: str = ROOT) -> tuple[int, Any]:
    data = json.dumps(body).encode() if body is not None else None
    headers = {"authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            return found.status, json.loads(found.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
async def test_every_host_serves_it(host: Host) -> None:
    pool = KeyPool([Key("sk-1", id="a/b")], name="openai")
    admin = AdminApp(MemoryStore(), token=ROOT, pools=[pool])
    async with serve(host.build({host.path: admin})) as served:
        url = served + host.path

        async def reported(method: str, path: str, *body: Any, **more: Any) -> tuple[int, Any]:
            return await to_thread.run_sync(lambda: ask(method, url + path, *body, **more))

        status, made = await reported("POST", "/tokens", {"name": "t", "scopes": ["read"]})
        assert status == 201
        id, secret = made["token"]["id"], made["secret"]
        assert (await reported("GET", f"/tokens/{id}", token=secret))[1]["name"] == "t"
        assert (await reported("DELETE", f"/tokens/{id}", token=secret))[0] == 403
        assert (await reported("GET", "/providers/openai/keys/a%2Fb"))[1]["id"] == "a/b"
        assert (await reported("GET", "/health", token="-"))[0] == 200
        assert (await reported("GET", "/nowhere"))[0] == 404
        assert (await reported("PATCH", "/tokens", {}))[0] == 405
        assert (await reported("GET", "/tokens", token="wrong"))[0] == 401
