"""Attachments are refused by number, size, type and language, in every client API."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from asgi_aiproxy import AIShim, ConfigurationError, Key, KeyPool, ProviderRouter
from asgi_aiproxy.hooks import AttachmentGuard, TextGuard, find_exact
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, chat_answer

pytestmark = pytest.mark.anyio

PNG = base64.b64encode(b"\x89PNG" + b"x" * 96).decode()
URL = f"data:image/png;base64,{PNG}"


def chat(*parts: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, *parts]}],
    }


def chat_image(url: str = URL) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


REQUESTS = {
    "chat": chat(chat_image()),
    "responses": (
        "/v1/responses",
        {
            "model": "m",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}],
        },
    ),
    "messages": (
        "/v1/messages",
        {
            "model": "m",
            "max_tokens": 9,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                        }
                    ],
                }
            ],
        },
    ),
    "gemini": (
        "/v1beta/models/m:generateContent",
        {
            "contents": [
                {
                    "role": "user",
                    "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
                }
            ]
        },
    ),
}


async def post(guard: Any, request: tuple[str, dict[str, Any]]) -> asgi.Answer:
    upstream = Upstream(answers())
    router = ProviderRouter({"m": OPENAI.using("sk-1")})
    shim = AIShim(router, transport=upstream.transport, hooks=[guard])
    answer = await asgi.request(shim, "POST", *request)
    assert bool(upstream.requests) == (answer.status != 403)
    return answer


@pytest.mark.parametrize("api", REQUESTS)
async def test_an_attachment_is_checked_in_every_client_api(api: str) -> None:
    small = AttachmentGuard(max_bytes=99)
    assert "100 bytes" in (await post(small, REQUESTS[api])).body.decode()
    documents = AttachmentGuard(media_types=["application/pdf", "text/*"])
    assert (await post(documents, REQUESTS[api])).status == 403
    allowed = AttachmentGuard(max_bytes=100, max_count=1, media_types=["image/*"])
    assert (await post(allowed, REQUESTS[api])).status != 403


async def test_number_and_references_are_limited() -> None:
    one = AttachmentGuard(max_count=1)
    assert (await post(one, chat(chat_image(), chat_image()))).status == 403
    own = AttachmentGuard(references=False)
    assert (await post(own, chat(chat_image("https://x.example/a.png")))).status == 403
    assert (await post(own, chat(chat_image()))).status == 200


async def test_documents_have_an_allowed_language() -> None:
    guard = AttachmentGuard(languages=["en"], detect=lambda text: "de" if "und" in text else "en")

    def document(text: str) -> tuple[str, dict[str, Any]]:
        source = {"type": "text", "media_type": "text/plain", "data": text}
        content = [{"type": "document", "source": source}]
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
        return "/v1/messages", body

    assert "'de'" in (await post(guard, document("dies und das"))).body.decode()
    assert (await post(guard, document("this"))).status == 200


@pytest.mark.parametrize(
    "options",
    [{"max_bytes": -1}, {"media_types": "image/*"}, {"languages": ["en"]}, {"detect": str}],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AttachmentGuard(**options)


async def test_the_keys_of_a_pool_never_reach_a_client_also_those_added_later() -> None:
    pool = KeyPool([Key("odd-key-one")])
    guard = TextGuard(find_exact(lambda: [key.secret for key in pool.keys.values()]))
    for text, status in (("odd-key-one", 403), ("odd-key-two", 200)):
        upstream = Upstream(answers(chat_answer(f"It is {text}.")))
        shim = AIShim(
            ProviderRouter({"m": OPENAI.using("sk-1")}),
            transport=upstream.transport,
            hooks=[guard],
        )
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        answer = await asgi.request(shim, "POST", "/v1/chat/completions", body)
        assert answer.status == status
        assert text.encode() not in answer.body or status == 200
    await pool.add(Key("odd-key-two"))
    assert [*find_exact(lambda: [key.secret for key in pool.keys.values()])("odd-key-two")]
    assert not [*find_exact(list)("odd-key-two")]
