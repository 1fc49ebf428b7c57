"""Mistakes of the first day get an error that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import (
    AIShim,
    AnthropicShim,
    Authenticate,
    ConfigurationError,
    KeyPool,
    OpenAIShim,
    ProviderRouter,
    Shim,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.testing import Fault, MockProvider, serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

DEAD = "http://127.0.0.1:9/v1"
SHIM = OpenAIShim(ProviderRouter({"m": OPENAI.using("sk-1", base_url=DEAD)}), backoff=0.001)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def said(app: Any, **headers: str) -> tuple[int, str]:
    answer = await asgi.request(app, "POST", "/v1/chat/completions", CHAT, headers=headers)
    return answer.status, answer.json["error"]["message"]


async def test_a_wrong_key_of_the_gateway() -> None:
    mock = MockProvider()
    mock.script(*[Fault.status(401)] * 9)
    async with serve(mock) as vendor:
        app = OpenAIShim(OPENAI.using("sk-wrong", base_url=f"{vendor}/v1"))
        status, message = await said(app)
        assert status == 502
        assert message.endswith("The operator of the gateway must replace or renew it.")
        assert "1 rejected (401); retry in" in (await said(app))[1]


async def test_an_empty_pool() -> None:
    status, message = await said(OpenAIShim(OPENAI.using(KeyPool([]))))
    assert (status, message) == (503, "Provider 'openai' has no keys: add one.")
    with pytest.raises(ConfigurationError, match="Give at least one key"):
        OPENAI.using([])


@pytest.mark.parametrize(
    ("kind", "path", "sentence"),
    [
        (OpenAIShim, "/chat/completions", "The base URL of clients must end with '/v1'."),
        (OpenAIShim, "/v1/v1/chat/completions", "must end before '/v1'."),
        (AIShim, "/v1/v1/messages", "The base URL of this client must end before '/v1'."),
        (AIShim, "/v1beta/v1beta/models/m:generateContent", "must end before '/v1beta'."),
        (OpenAIShim, "/v1/messages", "mount AIShim, which serves all."),
        (OpenAIShim, "/v1beta/models/m:generateContent", "mount AIShim, which serves all."),
        (AnthropicShim, "/v1/responses", "mount AIShim, which serves all."),
        (AIShim, "/v1/other", "Unknown request URL: POST /v1/other."),
    ],
)
async def test_a_base_url_that_is_wrong(kind: type[Shim], path: str, sentence: str) -> None:
    answer = await asgi.request(kind(OPENAI.using("sk-1", base_url=DEAD)), "POST", path, CHAT)
    assert answer.status == 404
    assert answer.json["error"]["message"].endswith(sentence)


async def test_a_vendor_that_cannot_be_reached() -> None:
    status, message = await said(SHIM)
    assert status == 502
    assert "Connection refused" in message
    assert message.endswith("Try again later.")


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({}, "No API key was sent. Send it as 'Authorization: Bearer <key>'."),
        (
            {"authorization": "Bearer other"},
            "The API key is invalid. Check it, or request a new one.",
        ),
    ],
)
async def test_a_caller_without_a_right_token(headers: dict[str, str], sentence: str) -> None:
    app = Authenticate(SHIM, verify=static_tokens({"t-1": "team-1"}))
    assert await said(app, **headers) == (401, sentence)


async def test_a_caller_that_has_not_signed_in() -> None:
    app = Authenticate(SHIM, identify=lambda scope: None)
    status, message = await said(app)
    assert status == 401
    assert message.endswith("Sign in first.")
