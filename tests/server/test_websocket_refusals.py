"""WebSockets where only HTTP is served are refused so that clients switch to HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from asgi_aiproxy import (
    Authenticate,
    InjectKey,
    KeyPool,
    MemoryStore,
    OpenAIShim,
    PassthroughProxy,
    ProviderRouter,
)
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.shim import AIShim, Shim
from asgi_aiproxy.testing import MockProvider
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
ROW = OPENAI.using("sk-not-used-here", base_url="http://127.0.0.1:1/v1")


async def refused(server: Server, app: Any, path: str) -> tuple[Response, Any]:
    """Return the response to a handshake, and its body."""
    async with server(app) as running:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{running.port}{path}", proxy=None, compression=None)
    response = caught.value.response
    return response, json.loads(bytes(response.body or b"null"))


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (OpenAIShim(ROW, websockets=False), "/v1/responses"),
        (OpenAIShim(ROW), "/v1/chat/completions"),
        (OpenAIShim(ROW), "/v1/models"),
        (OpenAIShim(ROW), "/v1/realtime"),
        (OpenAIShim(ROW), "/nothing"),
        (AIShim(ROW), "/v1/messages"),
        (AIShim(ROW), "/v1beta/models/m:streamGenerateContent"),
    ],
)
async def test_a_websocket_at_a_path_of_a_shim_is_refused_in_favour_of_http(
    server: Server, app: Shim, path: str
) -> None:
    response, body = await refused(server, app, path)
    assert response.status_code == 426
    assert "HTTP/1.1" in response.headers.get_all("upgrade")
    assert "upgrade" in response.headers["connection"].lower()
    assert response.headers["content-type"] == "application/json"
    assert "use HTTP" in body["error"]["message"]
    assert ("type" in body) == path.endswith("/messages")  # each in its own dialect
    assert ("status" in body["error"]) == path.startswith("/v1beta")


async def test_an_unknown_provider_is_a_404_for_a_websocket_too(server: Server) -> None:
    response, body = await refused(server, ProviderRouter(providers=[ROW]), "/nobody/v1")
    assert (response.status_code, "/openai/" in str(body)) == (404, True)


async def test_a_websocket_without_a_token_is_a_401_and_without_a_key_what_http_gets(
    server: Server,
) -> None:
    app: Any = Authenticate(OpenAIShim(ROW), verify=static_tokens({"token": "someone"}))
    response, body = await refused(server, app, "/v1/responses")
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert body["error"]["message"]
    pool = KeyPool(["sk-12345678"])
    await pool.disable((await pool.status())[0].id)
    app = InjectKey(PassthroughProxy("http://127.0.0.1:1"), pool=pool)
    response, body = await refused(server, app, "/v1/realtime")
    assert response.status_code != 403
    assert body["error"]["message"]


async def test_neither_the_admin_api_nor_the_mock_has_websockets(server: Server) -> None:
    for app in (AdminApp(MemoryStore(), token="admin-token-1234"), MockProvider()):
        response, body = await refused(server, app, "/v1/responses")
        assert response.status_code == 426
        assert body["error"]
