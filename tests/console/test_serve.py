"""`serve` with `console = true`: the console at `/console/`, with the settings in effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import build, load
from tests.console.support import Browser
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

CONFIG = """
admin_token = "the-token-of-the-root-of-all"
console = true
console_name = "Our <gateway>"
redis_prefix = "x"
[providers.openai]
base_url = "http://user:geheim@127.0.0.1:1/v1"
keys = ["sk-geheim"]
[providers.openai.headers]
x-extra = "also-geheim"
[self_service]
tokens = 2
budgets = ["5/month"]
"""


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "aiproxy.toml"
    path.write_text(CONFIG)
    monkeypatch.setenv("AIPROXY_ATTEMPTS", "2")
    return build(load(path))


async def test_serve_has_the_console_beside_the_gateway(gateway: Any) -> None:
    async with asgi.lifespan(gateway):
        browser = Browser(gateway, "/console", root_path="")
        page = await browser.sign_in()
        assert page.status == 200
        assert "Our &lt;gateway&gt;" in page.text
        assert "https://gateway.test/v1" in (await browser.open("/start")).text
        assert "openai" in (await browser.open("/providers")).text


async def test_settings_are_shown_masked_with_their_origin(gateway: Any) -> None:
    async with asgi.lifespan(gateway):
        browser = Browser(gateway, "/console", root_path="")
        await browser.sign_in()
        text = (await browser.open("/settings")).text
    assert "geheim" not in text
    assert "the-token-of-the-root" not in text
    rows = {
        name: row
        for row in text.split("<tr>")
        for name in ("attempts", "redis_prefix", "drain", "providers.openai.keys[0].secret")
        if f"<code>{name}</code>" in row
    }
    assert "environment" in rows["attempts"]
    assert "file" in rows["redis_prefix"]
    assert "default" in rows["drain"]
    assert "********" in rows["providers.openai.keys[0].secret"]


async def test_an_operator_reads_what_would_happen_to_a_request(gateway: Any) -> None:
    async with asgi.lifespan(gateway):
        browser = Browser(gateway, "/console", root_path="")
        await browser.sign_in()
        form = (await browser.open("/explain")).page.form("/explain")
        answer = await browser.submit(form, model="gpt-4o", size="1000")
        assert "It would be served by openai." in answer.text
        assert "$" in answer.text
        unknown = await browser.submit(form, model="gpt-4o", provider="nowhere")
        assert "It would be refused:" in unknown.text


def test_a_console_without_an_administrators_token_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "aiproxy.toml"
    path.write_text('console = true\n[providers.openai]\nkeys = ["sk-1"]\n')
    with pytest.raises(ConfigurationError, match="admin_token"):
        build(load(path))
