"""Settings of usage records, audit, receipts and budgets, in use."""

from __future__ import annotations

import asyncio
import json
import tomllib
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.testing import Answer, MockProvider, serve
from tests.quotas.test_webhook import Receiver
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


async def test_budget_alerts_of_the_configuration_reach_the_log_and_the_webhook(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver(204)
    text = """
budget_alerts.thresholds = [0.01]
budget_alerts.webhook = "{url}/alerts"
budget_alerts.webhook_signing_key = "a secret of the webhook"
budget_alerts.webhook_networks = ["127.0.0.0/8"]
[prices.gpt-4o]
input = 1
output = 100
[[tokens]]
token = "sk-the-token-of-a-team"
name = "team-1"
budgets = ["0.01/hour"]
"""
    async with serve(MockProvider(Answer(text="Hello " * 50))) as url, serve(receiver) as hook:
        app: Any = build(settings(text.replace("{url}", hook), url))
        async with app:
            headers = {"authorization": "Bearer sk-the-token-of-a-team"}
            body = {**CHAT, "max_tokens": 60}
            answer = await asgi.request(app, "POST", "/v1/chat/completions", body, headers=headers)
            assert answer.status == 200, answer.body
            assert answer.header("aiproxy-cost") is not None
            async with asyncio.timeout(30):
                while not receiver.requests:
                    await asyncio.sleep(0.02)
    event = json.loads(receiver.requests[0][1])
    assert (event["data"]["caller"], event["data"]["per"]) == ("team-1", "hour")
    assert "of a budget are spent: account=team-1" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('webhook = "https://example.com"', "set webhook_signing_key"),
        (
            'webhook = "ftp://x"\nwebhook_signing_key = "a secret of the webhook"',
            "budget_alerts: .*url",
        ),
        ('webhook = "https://x"\nwebhook_signing_key = "short"', "16 bytes"),
    ],
)
def test_invalid_budget_alerts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(settings(f"[budget_alerts]\n{text}"))
