"""`[compat]`: a stand-alone gateway serves the paths of earlier gateways."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.testing import MockProvider, serve_in_thread
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

HI = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def mock() -> MockProvider:
    return MockProvider()


@pytest.fixture(scope="module")
def url(mock: MockProvider) -> Iterator[str]:
    with serve_in_thread(mock) as url:
        yield url


def gateway(text: str, url: str) -> Any:
    return build(Settings(**tomllib.loads(text.replace("URL", url))))


PROVIDERS = """
anonymous = true
[providers.openai]
base_url = "URL/v1"
keys = [{secret = "sk-1", id = "1000001"}]
[providers.gemini]
base_url = "URL"
keys = [{secret = "g-1", id = "100001", attributes = {version = "v1"}}]
[providers.interpreter]
kind = "openai-compatible"
base_url = "URL/v1"
[providers.coze]
base_url = "URL"
keys = [{secret = "pat", attributes = {bot_id = "1", user = "u"}}]
[routes]
"gpt-*" = "openai"
"""


async def test_all_four_apps_are_mounted_over_the_configured_providers(
    url: str, mock: MockProvider
) -> None:
    text = (
        PROVIDERS
        + """
    [compat]
    aiproxy = "/old"
    chatgpt_to_api = "/web"
    chatgpt_adapter = "/adapter/"
    oneapi = "/"
    root_password = "the-password-of-root"
    admin_password = "the-password"
    proxies = []
    """
    )
    app = gateway(text, url)
    async with asgi.lifespan(app):
        assert (await asgi.request(app, "GET", "/old/ping")).json == {"ping": "ok"}
        assert (await asgi.request(app, "GET", "/web/ping")).json == {"message": "pong"}
        answer = await asgi.request(
            app, "POST", "/old/c/v1/chat/completions", HI, headers={"x-auth-id": "1000001"}
        )
        assert (answer.status, answer.header("x-auth-id")) == (200, "1000001")
        body = {**HI, "provider": "gemini"}
        answer = await asgi.request(app, "POST", "/old/c/v1/chat/completions", body)
        assert answer.events[0]["gemini"] == {"type": "api", "index": "100001"}
        assert mock.requests[-1].path.startswith("/v1/models/")
        for path in ("/web/v1/chat/completions", "/adapter/v1/object/completions"):
            assert (await asgi.request(app, "POST", path, HI)).status == 200
        body = {**HI, "model": "open-interpreter"}
        answer = await asgi.request(app, "POST", "/adapter/v1/chat/completions", body)
        assert answer.status == 200
        status = await asgi.request(app, "GET", "/api/status")
        assert status.json["data"]["system_name"] == "One API"
        root = {"authorization": "the-password-of-root"}
        channel = {"type": 1, "key": "sk-9", "models": "gpt-4", "group": "default"}
        channel |= {"base_url": url, "name": "c"}
        assert (await asgi.request(app, "POST", "/api/channel/", channel, headers=root)).json[
            "success"
        ]
        token = {"name": "t", "unlimited_quota": True}
        made = await asgi.request(app, "POST", "/api/token/", token, headers=root)
        key = {"authorization": f"Bearer sk-{made.json['data']['key']}"}
        answer = await asgi.request(app, "POST", "/v1/chat/completions", HI, headers=key)
        assert answer.status == 200, answer.body
        assert mock.requests[-1].headers["authorization"] == "Bearer sk-9"


async def test_tokens_of_the_gateway_are_required_and_charged(url: str) -> None:
    text = """
    [providers.openai]
    base_url = "URL/v1"
    keys = ["sk-1"]
    [[tokens]]
    name = "team"
    token = "gateway-token-1"
    rpm = 1
    [compat]
    aiproxy = "/old"
    """
    app = gateway(text, url)
    headers = {"authorization": "Bearer gateway-token-1"}
    async with asgi.lifespan(app):
        path = "/old/c/v1/chat/completions"
        assert (await asgi.request(app, "POST", path, HI)).status == 401
        assert (await asgi.request(app, "POST", path, HI, headers=headers)).status == 200
        assert (await asgi.request(app, "POST", path, HI, headers=headers)).status == 429


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('oneapi = "/one"', "compat.root_password"),
        ('chatgpt_to_api = "/c"', "compat.admin_password"),
        ('aiproxy = "/a"\nchatgpt_adapter = "/a"', "compat.chatgpt_adapter"),
        ('aiproxy = "/admin"', "compat.aiproxy"),
        ('aiproxy = "no-slash"', "aiproxy"),
        ('one_api = "/"', "one_api"),
    ],
)
def test_mistakes_name_the_setting(text: str, message: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match=message):
        gateway(f'[providers.openai]\nkeys = ["sk-1"]\n[compat]\n{text}', "http://x")


def test_keys_of_channels_are_not_stored_without_encryption(tmp_path: Any) -> None:
    text = f'store_file = "{tmp_path}/state"\n[compat]\noneapi = "/"\nroot_password = "password-1"'
    with pytest.raises(ConfigurationError, match="sealing_keys"):
        gateway(text, "http://x")
