"""ChatGPT Next Web, LobeChat and FastGPT on the compat mounts, by the requests that they send.

Written by hand after the clients' own code: ChatGPT Next Web sends `fetch` from a browser (or from
its own server), the other two use OpenAI's SDK for Node on a server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asgi_aiproxy import ProviderRouter
from asgi_aiproxy.compat import AIProxyRoutes, ChatGPTAdapterRoutes, ChatGPTToAPIRoutes
from asgi_aiproxy.providers import OPENAI
from tests.compat.oneapi_client import OneAPI
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio

BROWSER = {
    "accept": "application/json",
    "content-type": "application/json",
    "origin": "https://chat.example",
    "x-requested-with": "XMLHttpRequest",
}
NODE = {
    "accept": "application/json",
    "content-type": "application/json",
    "user-agent": "OpenAI/JS 4.104.0",
    "x-stainless-arch": "x64",
    "x-stainless-lang": "js",
    "x-stainless-os": "Linux",
    "x-stainless-package-version": "4.104.0",
    "x-stainless-retry-count": "0",
    "x-stainless-runtime": "node",
    "x-stainless-runtime-version": "v20.19.0",
    "x-stainless-timeout": "60",
}
SYSTEM = {"role": "system", "content": "You are a helpful assistant.\nCurrent model: gpt-4\n"}
USER = {"role": "user", "content": "Hi"}
WEATHER = {
    "name": "weather____current",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = {"id": "call_1", "type": "function",
        "function": {"name": "weather____current", "arguments": '{"city":"Bern"}'}}  # fmt: skip
CHATS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "next web": (BROWSER, {
        "messages": [SYSTEM, USER], "stream": True, "model": "gpt-4", "temperature": 0.5,
        "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1,
    }),
    "next web, with a picture": (BROWSER, {
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}],
        "stream": True, "model": "gpt-4", "temperature": 0.5, "presence_penalty": 0,
        "frequency_penalty": 0, "top_p": 1, "max_tokens": 4000,
    }),
    "next web, a title": (BROWSER, {
        "messages": [USER, {"role": "assistant", "content": "Hello"},
                     {"role": "user", "content": "Give this conversation a title."}],
        "stream": False, "model": "gpt-4", "temperature": 0.5, "presence_penalty": 0,
        "frequency_penalty": 0, "top_p": 1,
    }),
    "lobechat": (NODE, {
        "frequency_penalty": 0, "messages": [SYSTEM, USER], "model": "gpt-4",
        "presence_penalty": 0, "stream": True, "stream_options": {"include_usage": True},
        "temperature": 0.6, "top_p": 1, "user": "user-1",
    }),
    "lobechat, with a plugin": (NODE, {
        "messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
                     {"role": "tool", "content": '{"sun":true}', "name": "weather____current",
                      "tool_call_id": "call_1"}],
        "model": "gpt-4", "stream": True, "stream_options": {"include_usage": True},
        "temperature": 0.6, "tools": [{"type": "function", "function": WEATHER}],
    }),
    "fastgpt": (NODE, {
        "model": "gpt-4", "temperature": 0.01, "max_tokens": 2000, "stream": True,
        "messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream_options": {"include_usage": True},
    }),
    "fastgpt, with tools": (NODE, {
        "model": "gpt-4", "temperature": 0, "max_tokens": 2000, "stream": True,
        "messages": [SYSTEM, USER], "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": "auto", "parallel_tool_calls": True, "stop": "",
    }),
    "fastgpt, a question to classify": (NODE, {
        "model": "gpt-4", "temperature": 0.01, "max_tokens": 200, "stream": False,
        "messages": [{"role": "user", "content": "Which of these is it?"}],
    }),
}  # fmt: skip
MOUNTS = ("oneapi", "aiproxy", "chatgpt_to_api", "chatgpt_adapter")


@asynccontextmanager
async def mounted(kind: str, vendors: Vendors) -> AsyncIterator[tuple[Any, str]]:
    """An app, and what its users enter as API key."""
    provider = OPENAI.using("sk-upstream")
    app: Any
    if kind == "oneapi":
        one = OneAPI(vendors)
        await one.channel(models="gpt-4,whisper-1,tts-1,dall-e-3,text-embedding-3-small")
        app, key = one.app, (await one.token())[1]
    elif kind == "aiproxy":
        app, key = AIProxyRoutes(openai=provider, transport=vendors.transport), "sk-own"
    elif kind == "chatgpt_to_api":
        app, key = (
            ChatGPTToAPIRoutes(
                provider, admin_password="p" * 16, api_keys=["caller"], transport=vendors.transport
            ),
            "caller",
        )
    else:
        router = ProviderRouter({"*": provider})
        app, key = ChatGPTAdapterRoutes(router, transport=vendors.transport), "sk-own"
    async with app:
        yield app, key


@pytest.mark.parametrize("kind", MOUNTS)
async def test_chats_of_the_front_ends_are_answered_as_they_read_them(kind: str) -> None:
    vendors = Vendors()
    async with mounted(kind, vendors) as (app, key):
        for name, (headers, body) in CHATS.items():
            sent = {**headers, "authorization": f"Bearer {key}"}
            answer = await asgi.request(app, "POST", "/v1/chat/completions", body, headers=sent)
            assert answer.status == 200, (name, answer.body)
            assert answer.header("access-control-allow-origin") == "*"
            media = answer.header("content-type") or ""
            if body["stream"]:
                assert media.startswith("text/event-stream"), name
                assert answer.events[-1] == "[DONE]", name
                choices = [each for chunk in answer.events[:-1] for each in chunk["choices"]]
                text = "".join(choice["delta"].get("content") or "" for choice in choices)
                assert (text, choices[-1]["finish_reason"]) == ("Hello", "stop"), name
            else:
                assert media.startswith("application/json"), name
                assert answer.json["choices"][0]["message"]["content"] == "Hello", name
            for member in body.keys() - {"stream_options", "max_tokens", "stop"}:
                assert vendors.body[member] == body[member], (name, member)
            assert "origin" not in vendors.last.headers, name


@pytest.mark.parametrize("kind", MOUNTS)
async def test_a_browser_may_send_the_headers_of_next_web(kind: str) -> None:
    async with mounted(kind, Vendors()) as (app, _):
        preflight = {
            "origin": "https://chat.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-requested-with",
        }
        answer = await asgi.request(app, "OPTIONS", "/v1/chat/completions", headers=preflight)
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") == "*"
        allowed = (answer.header("access-control-allow-headers") or "").lower().split(", ")
        assert {"*", "authorization"} <= set(allowed)
        assert "POST" in (answer.header("access-control-allow-methods") or "")


@pytest.mark.parametrize("kind", MOUNTS)
async def test_a_front_end_lists_the_models(kind: str) -> None:
    async with mounted(kind, Vendors()) as (app, key):
        headers = {**NODE, "authorization": f"Bearer {key}"}
        answer = await asgi.request(app, "GET", "/v1/models", headers=headers)
        assert answer.status == 200, answer.body
        if kind != "aiproxy":  # which passes the vendor's answer on
            assert isinstance(answer.json["data"], list)


async def test_next_web_shows_the_balance_of_a_token_of_one_api() -> None:
    async with mounted("oneapi", Vendors()) as (app, key):
        headers = {**BROWSER, "authorization": f"Bearer {key}"}
        path = "/dashboard/billing/usage?start_date=2026-11-01&end_date=2026-12-01"
        used = await asgi.request(app, "GET", path, headers=headers)
        total = await asgi.request(app, "GET", "/dashboard/billing/subscription", headers=headers)
        assert (used.status, total.status) == (200, 200)
        assert used.json["total_usage"] >= 0
        assert total.json["hard_limit_usd"] > 0


async def test_a_wrong_key_is_a_401_that_next_web_shows() -> None:
    async with mounted("oneapi", Vendors()) as (app, _):
        headers = {**BROWSER, "authorization": "Bearer sk-wrong"}
        body = CHATS["next web"][1]
        answer = await asgi.request(app, "POST", "/v1/chat/completions", body, headers=headers)
        assert answer.status == 401
        assert answer.json["error"]["message"]


async def test_fastgpt_makes_vectors_and_speech_with_one_api() -> None:
    vendors = Vendors()
    async with mounted("oneapi", vendors) as (app, key):
        headers = {**NODE, "authorization": f"Bearer {key}"}
        body = {"model": "text-embedding-3-small", "input": ["a"], "encoding_format": "float"}
        answer = await asgi.request(app, "POST", "/v1/embeddings", body, headers=headers)
        assert answer.json["data"][0]["embedding"] == [0.5]
        assert answer.json["usage"]["total_tokens"] == 3
        speech = {"model": "tts-1", "input": "Hi", "voice": "alloy", "response_format": "mp3",
                  "speed": 1}  # fmt: skip
        answer = await asgi.request(app, "POST", "/v1/audio/speech", speech, headers=headers)
        assert answer.status == 200, answer.body
        assert vendors.body == speech


async def test_a_recording_of_next_web_is_transcribed_with_one_api() -> None:
    vendors = Vendors()
    async with mounted("oneapi", vendors) as (app, key):
        edge = "----WebKitFormBoundaryAbc"
        disposition = "Content-Disposition: form-data; name="
        form = (
            f'--{edge}\r\n{disposition}"file"; filename="audio.wav"\r\n'
            f"Content-Type: audio/wav\r\n\r\nRIFF\r\n"
            f'--{edge}\r\n{disposition}"model"\r\n\r\nwhisper-1\r\n--{edge}--\r\n'
        )
        headers = {
            "authorization": f"Bearer {key}",
            "content-type": f"multipart/form-data; boundary={edge}",
        }
        answer = await asgi.request(
            app, "POST", "/v1/audio/transcriptions", form.encode(), headers=headers
        )
        assert answer.status == 200, answer.body
        assert vendors.last.url.path == "/v1/audio/transcriptions"


async def test_pictures_of_lobechat_are_made_by_chatgpt_adapter_and_one_api() -> None:
    for kind in ("oneapi", "chatgpt_adapter"):
        vendors = Vendors()
        async with mounted(kind, vendors) as (app, key):
            body = {"model": "dall-e-3", "n": 1, "prompt": "a cat", "quality": "standard",
                    "response_format": "url", "size": "1024x1024", "style": "vivid"}  # fmt: skip
            headers = {**NODE, "authorization": f"Bearer {key}"}
            answer = await asgi.request(
                app, "POST", "/v1/images/generations", body, headers=headers
            )
            assert answer.status == 200, answer.body
            assert answer.json["data"] == [{"url": "https://pictures.example/1.png"}]
            assert vendors.body == body
