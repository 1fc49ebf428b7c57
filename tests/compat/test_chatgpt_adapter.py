"""`ChatGPTAdapterRoutes`: clients of chatgpt-adapter work unchanged."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from asgi_aiproxy import ProviderRouter
from asgi_aiproxy.compat import AdapterImages, ChatGPTAdapterRoutes
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, COZE, GEMINI, OPENAI, openai_compatible
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors
from tests.support.scripted_upstream import answers, chat_answer, refuses, streams

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
    assert answer.json["data"] == [{"url": "https://pictures.example/1.png"}]


PICTURE = "/v1/images/generations"


async def test_a_word_in_place_of_a_key_chooses_the_model_of_a_picture() -> None:
    vendors = Vendors()
    app = routes(vendors, images=AdapterImages(models={"sk-prodia-sd": "gpt-image"}))
    for word, model in (("sk-prodia-sd", "gpt-image"), ("sk-own", "dall-e-3")):
        headers = {"authorization": f"Bearer {word}"}
        answer = await asgi.request(app, "POST", PICTURE, {"prompt": "a cat"}, headers=headers)
        assert answer.status == 200, answer.body
        assert vendors.body["model"] == model
    assert vendors.keys == ["sk-openai", "sk-own"]
    named = AdapterImages(models={"sd.dall-e-3": "gpt-image"})
    body = {"prompt": "a cat", "model": "sd.dall-e-3"}
    answer = await asgi.request(routes(vendors, images=named), "POST", PICTURE, body)
    assert (answer.status, vendors.body["model"]) == (200, "gpt-image")
    other = {"authorization": "Bearer sk-prodia-xl"}
    answer = await asgi.request(app, "POST", PICTURE, {"prompt": "a cat"}, headers=other)
    assert answer.status == 410


async def test_with_tokens_the_word_is_sent_beside_one() -> None:
    vendors = Vendors()
    app = routes(
        vendors,
        images=AdapterImages(models={"sk-prodia-sd": "gpt-image"}),
        verify=static_tokens({"token-1": "p"}),
    )
    word = {"x-api-key": "sk-prodia-sd"}
    for headers, status in (({**word, "authorization": "Bearer token-1"}, 200), (word, 401)):
        answer = await asgi.request(app, "POST", PICTURE, {"prompt": "a cat"}, headers=headers)
        assert answer.status == status
    assert vendors.keys == ["sk-openai"]


async def test_answers_have_the_members_that_clients_of_chatgpt_adapter_read() -> None:
    app = routes(Vendors(), images=AdapterImages(styles=["anime"], samples=["Euler a"]))
    body = {"prompt": "a cat", "style": "anime", "quality": "Euler a"}
    found = (await asgi.request(app, "POST", PICTURE, body)).json
    assert found["created"] == 1
    assert (found["styles"], found["samples"]) == (["anime"], ["Euler a"])
    assert (found["currStyle"], found["currSamples"]) == ("anime", "Euler a")
    assert found["prompt"] == "a cat"


@pytest.mark.parametrize(
    ("prompt", "answered", "sent"),
    [
        ("a cat", 'Here:\n"""cat, fur"""', "cat, fur"),
        ("a cat", "```text\ncat, fur\n```", "cat, fur"),
        ("a cat", "cat, fur", "cat, fur"),
        ('a cat <tag content="oil" />', '"""cat"""', "cat, oil"),
        ('<tag content="oil"/> <tag content="sea" />', None, "oil, sea"),
        ("a cat <tag llm=false />", None, "a cat"),
        ("1 < 2 and <tags>", '"""one"""', "one"),
    ],
)
async def test_a_chat_model_rewrites_the_prompt(
    prompt: str, answered: str | None, sent: str
) -> None:
    words = answers(chat_answer(answered)) if answered is not None else None
    vendors = Vendors(*[words] if words else ())
    app = routes(vendors, images=AdapterImages(rewriter="gpt-5"))
    answer = await asgi.request(app, "POST", PICTURE, {"prompt": prompt})
    assert answer.status == 200, answer.body
    assert (vendors.body["prompt"], answer.json["prompt"]) == (sent, sent)
    assert len(vendors.requests) == (2 if words else 1)


async def test_the_callers_own_key_is_not_sent_to_the_model_that_rewrites() -> None:
    vendors = Vendors()
    app = routes(vendors, images=AdapterImages(rewriter="claude-x"))
    own = {"authorization": "Bearer sk-own"}
    await asgi.request(app, "POST", PICTURE, {"prompt": "a cat"}, headers=own)
    assert [request.url.host for request in vendors.requests] == ["api.openai.com"]


async def test_a_model_that_cannot_rewrite_is_an_error() -> None:
    for step, status in ((refuses(401), 502), (answers(chat_answer("  ")), 502)):
        vendors = Vendors(step)
        app = routes(vendors, images=AdapterImages(rewriter="gpt-5"))
        answer = await asgi.request(app, "POST", PICTURE, {"prompt": "a cat"})
        assert (answer.status, "error" in answer.json) == (status, True)
        assert len(vendors.requests) == 1


async def test_pictures_in_base64_are_stored_by_the_host() -> None:
    stored = []

    async def store(data: bytes, media_type: str) -> str:
        stored.append((data, media_type))
        return f"https://files.example/{len(stored)}"

    png, jpeg = b"\x89PNG 1", b"\xff\xd8\xff 2"
    data = [{"b64_json": base64.b64encode(each).decode()} for each in (png, jpeg)]
    step = answers(json.dumps({"created": 1, "data": data}).encode())
    app = routes(Vendors(step, step), images=AdapterImages(store=store))
    answer = await asgi.request(app, "POST", PICTURE, {"prompt": "a cat"})
    assert answer.json["data"] == [
        {"url": "https://files.example/1"},
        {"url": "https://files.example/2"},
    ]
    assert stored == [(png, "image/png"), (jpeg, "image/jpeg")]
    body = {"prompt": "a cat", "response_format": "b64_json"}
    assert (await asgi.request(app, "POST", PICTURE, body)).json["data"] == data
    assert len(stored) == 2


async def test_a_stream_of_pictures_passes_unchanged() -> None:
    event = b'event: image_generation.completed\ndata: {"type":"image_generation.completed"}\n\n'
    app = routes(Vendors(streams(event)), images=AdapterImages(styles=["anime"]))
    body = {"prompt": "a cat", "model": "gpt-image", "stream": True}
    answer = await asgi.request(app, "POST", PICTURE, body)
    assert answer.body == event


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
