"""The official SDKs work on the compat mounts."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import openai
import pytest

from asgi_aiproxy import InProcessTransport, ProviderRouter
from asgi_aiproxy.compat import AIProxyRoutes, ChatGPTAdapterRoutes, ChatGPTToAPIRoutes
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from tests.compat.oneapi_client import OneAPI
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio


async def served(kind: str) -> tuple[Any, str]:
    """An app and a key for it."""
    vendors = Vendors()
    if kind == "oneapi":
        one = OneAPI(vendors)
        await one.channel()
        return one.app, (await one.token())[1]
    provider = OPENAI.using("sk-upstream")
    if kind == "aiproxy":
        return AIProxyRoutes(openai=provider, transport=vendors.transport), "sk-own"
    if kind == "chatgpt_to_api":
        app = ChatGPTToAPIRoutes(
            provider, admin_password="p" * 16, api_keys=["caller"], transport=vendors.transport
        )
        return app, "caller"
    router = ProviderRouter({"gpt-*": provider, "claude-*": ANTHROPIC.using("a")})
    return ChatGPTAdapterRoutes(router, transport=vendors.transport), "sk-own"


@pytest.mark.parametrize("kind", ["oneapi", "aiproxy", "chatgpt_to_api", "chatgpt_adapter"])
async def test_openais_sdk(kind: str) -> None:
    app, key = await served(kind)
    http = httpx2.AsyncClient(transport=InProcessTransport(app))
    client = openai.AsyncOpenAI(base_url="http://ai/v1", api_key=key, http_client=http)
    messages: Any = [{"role": "user", "content": "Hi"}]
    answer = await client.chat.completions.create(model="gpt-4", messages=messages)
    assert answer.choices[0].message.content == "Hello"
    stream = await client.chat.completions.create(model="gpt-4", messages=messages, stream=True)
    text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert text == "Hello"
    if kind == "oneapi":
        assert [model.id async for model in client.models.list()] == ["gpt-4"]


async def test_anthropics_sdk_on_chatgpt_adapter() -> None:
    app, key = await served("chatgpt_adapter")
    http = httpx2.AsyncClient(transport=InProcessTransport(app))
    client = anthropic.AsyncAnthropic(base_url="http://ai/anthropic", api_key=key, http_client=http)
    async with client.messages.stream(
        model="claude-sonnet-5", max_tokens=5, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        assert await stream.get_final_text() == "Hello"


async def test_errors_of_one_api_are_those_of_the_sdk() -> None:
    app, _ = await served("oneapi")
    http = httpx2.AsyncClient(transport=InProcessTransport(app))
    client = openai.AsyncOpenAI(
        base_url="http://ai/v1", api_key="sk-wrong", http_client=http, max_retries=0
    )
    with pytest.raises(openai.AuthenticationError) as raised:
        await client.chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": "Hi"}]
        )
    assert raised.value.type == "one_api_error"
