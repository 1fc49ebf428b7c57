"""Settings of usage records, audit, receipts and budgets, in use."""

from __future__ import annotations

import asyncio
import tomllib
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.testing import Answer, MockProvider, serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

ADMIN = "the-token-of-the-administrator"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def settings(text: str, url: str = "http://127.0.0.1:9") -> Settings:
    provider = f'[providers.openai]\nbase_url = "{url}/v1"\nkeys = ["sk-1"]\n'
    return Settings(**tomllib.loads(f'admin_token = "{ADMIN}"\n{text}\n{provider}'))


async def admin(app: Any, path: str) -> asgi.Answer:
    headers = {"authorization": f"Bearer {ADMIN}"}
    return await asgi.request(app, "GET", f"/admin{path}", headers=headers)


TAGS = """
tag_headers = { x-team = "team" }
tag_metadata = ["feature"]
[[tokens]]
token = "sk-the-token-of-a-team"
name = "team-1"
tags = { tier = "gold" }
"""


async def test_tags_of_the_configuration_are_in_the_records() -> None:
    async with serve(MockProvider(Answer(text="Hello"))) as url:
        app: Any = build(settings(TAGS, url))
        async with app:
            headers = {"authorization": "Bearer sk-the-token-of-a-team", "x-team": "search"}
            body = {**CHAT, "metadata": {"feature": "chat", "other": "x"}}
            answer = await asgi.request(app, "POST", "/v1/chat/completions", body, headers=headers)
            assert answer.status == 200, answer.body
            found: list[Any] = []
            async with asyncio.timeout(30):  # records are written in the background
                while not found:
                    await asyncio.sleep(0.02)
                    found = (await admin(app, "/usage")).json["data"]
    assert found[0]["tags"] == {"team": "search", "feature": "chat", "tier": "gold"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('tag_metadata = [""]', "tag_headers, tag_metadata"),
        ('[[tokens]]\ntoken = "sk-1234567890"\nname = "a"\ntags = { "a=b" = "c" }', "tokens: 'a'"),
    ],
)
def test_invalid_settings_name_their_place(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(settings(text))
