"""`ChatGPTAdapterRoutes`: clients of chatgpt-adapter go on unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import ProviderRouter
from asgi_aiproxy.compat import ChatGPTAdapterRoutes
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, COZE, GEMINI, OPENAI, openai_compatible
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio

HI = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


def routes(vendors: Vendors, **options: Any) -> ChatGPTAdapterRoutes:
    router = ProviderRouter(
        {
            "gpt-*": OPENAI.using("sk-openai"),
            "dall-e-*": OPENAI.using("sk-image", name="images"),
            "text-embedding-*": GEMINI.using("g-key", name="embedder"),
            "claude-*": ANTHROPIC.using("a-key"),
            "gemini-*": GEMINI.using("g-key"),
        },
        providers=[
            COZE.using("pat-1"),
            openai_compatible("https://own.example/v1", name="custom").using("c-key"),
        ],
    )
    interpreter = openai_compatible("http://127.0.0.1:8000/openai", name="interpreter")
    return ChatGPTAdapterRoutes(
        router, **{"interpreter": interpreter, **options}, transport=vendors.transport
    )


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/object/completions", "/proxies/v1/chat/completions"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_chat_paths(path: str, stream: bool) -> None:
    vendors = Vendors()
    answer = await asgi.request(
        routes(vendors), "POST", path, {**HI, "model": "gpt-5", "stream": stream, "stop": "x"}
    )
    assert answer.status == 200, answer.body
    assert vendors.last.url.path == "/v1/chat/completions"
    assert vendors.body["stop"] in ("x", ["x"])
    if stream:
        assert answer.events[-1] == "[DONE]"
        assert answer.events[0]["object"] == "chat.completion.chunk"
    else:
        assert answer.json["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/images/generations",
        "/proxies/v1/images/generations",
        "/v1/object/generations",
        "/v1/chat/generations",
        "/proxies/v1/chat/generations",
    ],
)
@pytest.mark.parametrize("model", [{}, {"model": "dall-e-3"}])
async def test_the_picture_paths(path: str, model: dict[str, str]) -> None:
    vendors = Vendors()
    answer = await asgi.request(routes(vendors), "POST", path, {"prompt": "a cat", **model})
    assert answer.status == 200, answer.body
    assert vendors.last.url.path == "/v1/images/generations"
    assert vendors.body == {"prompt": "a cat", "model": "dall-e-3"}


@pytest.mark.parametrize("path", ["/v1/embeddings", "/proxies/v1/embeddings"])
async def test_the_embedding_paths(path: str) -> None:
    vendors = Vendors()
    app = routes(vendors)
    await asgi.request(app, "POST", path, {"model": "text-embedding-x", "input": "a"})
    assert "text-embedding-x:" in vendors.last.url.path


@pytest.mark.parametrize("path", ["/v1/models", "/proxies/v1/models"])
async def test_the_model_list(path: str) -> None:
    answer = await asgi.request(routes(Vendors()), "GET", path)
    assert answer.json["object"] == "list"
    assert "open-interpreter" in [model["id"] for model in answer.json["data"]]


@pytest.mark.parametrize(
    ("model", "url", "sent"),
    [
        ("custom/my-model", "https://own.example/v1/chat/completions", "my-model"),
        ("claude-x", "https://api.anthropic.com/v1/messages", "claude-x"),
        ("open-interpreter", "http://127.0.0.1:8000/openai/chat/completions", "open-interpreter"),
        ("coze/7353052833752694791", "https://api.coze.com/v3/chat", "7353052833752694791"),
        ("coze/7353052833752694791-1712016747307-2", "https://api.coze.com/v3/chat",
         "7353052833752694791"),
    ],
)  # fmt: skip
async def test_models_by_prefix(model: str, url: str, sent: str) -> None:
    vendors = Vendors()
    answer = await asgi.request(
        routes(vendors), "POST", CHAT, {**HI, "model": model, "stream": True}
    )
    assert answer.status == 200, answer.body
    assert str(vendors.last.url).partition("?")[0] == url
    assert sent in (vendors.body.get("model"), vendors.body.get("bot_id"))


async def test_anthropics_path() -> None:
    vendors = Vendors()
    body = {**HI, "model": "claude-x", "max_tokens": 5, "stream": True}
    answer = await asgi.request(routes(vendors), "POST", "/anthropic/v1/messages", body)
    assert answer.status == 200
    assert b"event: message_start" in answer.body


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({"authorization": "Bearer own"}, "own"),
        ({"authorization": "own"}, "own"),
        ({"x-api-key": "first", "authorization": "Bearer second"}, "first"),
        ({}, "sk-openai"),
    ],
)
async def test_the_callers_own_key(headers: dict[str, str], secret: str) -> None:
    vendors = Vendors()
    await asgi.request(routes(vendors), "POST", CHAT, {**HI, "model": "gpt-5"}, headers=headers)
    assert vendors.keys == [secret]
    assert "x-api-key" not in vendors.last.headers


async def test_tokens_of_the_gateway() -> None:
    vendors = Vendors()
    app = routes(vendors, verify=static_tokens({"gateway-1": "p"}))
    body = {**HI, "model": "gpt-5"}
    assert (await asgi.request(app, "POST", CHAT, body)).status == 401
    await asgi.request(app, "POST", CHAT, body, headers={"authorization": "Bearer gateway-1"})
    both = {"x-api-key": "gateway-1", "authorization": "Bearer own"}
    await asgi.request(app, "POST", CHAT, body, headers=both)
    assert vendors.keys == ["sk-openai", "own"]


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("bing", 410, "provider_retired"),
        ("bing-online", 410, "provider_retired"),
        ("bing-vision", 410, "provider_retired"),
        ("lmsys/gpt-4o", 410, "provider_retired"),
        ("open-interpreter-ws", 410, "provider_retired"),
        ("you/gpt_4", 403, "unsupported_by_policy"),
        ("coze/websdk", 403, "unsupported_by_policy"),
        ("coze/1-2-4-o", 403, "unsupported_by_policy"),
        ("coze/1-xxx-1000-w", 403, "unsupported_by_policy"),
        ("unknown-model", 404, "model_not_found"),
    ],
)
async def test_models_that_are_not_served_say_why(model: str, status: int, code: str) -> None:
    vendors = Vendors()
    answer = await asgi.request(routes(vendors), "POST", CHAT, {**HI, "model": model})
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert vendors.requests == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("POST", "/v1/images/generations", {"authorization": "Bearer sk-prodia-sd"}, 410,
         "provider_retired"),
        ("POST", "/v1/images/generations", {"authorization": "sk-google-xl"}, 410,
         "provider_retired"),
        ("POST", "/v1/images/generations",
         {"authorization": "Bearer 01234567-89ab-cdef-0123-456789abcdef"}, 403,
         "unsupported_by_policy"),
        ("POST", CHAT, {"authorization": "sessionid=a; msToken=b"}, 403,
         "unsupported_by_policy"),
        ("POST", "/encipher", {}, 403, "not_enabled"),
        ("GET", "/log/helper", {}, 403, "unsupported_by_policy"),
        ("GET", "/socket.io/open-i/", {}, 410, "provider_retired"),
        ("GET", "/nothing", {}, 404, None),
    ],
)  # fmt: skip
async def test_what_is_not_served_says_so(
    method: str, path: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    vendors = Vendors()
    body = {"prompt": "a cat", "model": "dall-e-3", **HI} if method == "POST" else b""
    answer = await asgi.request(routes(vendors), method, path, body, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert vendors.requests == []


async def test_the_banner_and_preflight() -> None:
    app = routes(Vendors())
    assert (await asgi.request(app, "GET", "/")).status == 200
    answer = await asgi.request(app, "OPTIONS", CHAT)
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, "*")
