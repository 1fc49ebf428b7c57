"""`[accounts]` in the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import build, load
from tests.console.support import Browser
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio
BASE = """
admin_token = "the-token-of-the-root-of-all"
console = true
[providers.openai]
keys = ["sk-1"]
"""
MAIL = '[accounts.mail]\nhost = "127.0.0.1"\nsender = "ai@example.com"\n'


def gateway(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "aiproxy.toml"
    path.write_text(text)
    return build(load(path))


async def test_users_are_off_by_default(tmp_path: Path) -> None:
    app = gateway(tmp_path, BASE)
    async with asgi.lifespan(app):
        browser = Browser(app, "/console", root_path="")
        assert (await browser.open("/sign-up")).status == 404
        assert "username" not in (await browser.open("/sign-in")).text


async def test_users_sign_up_and_have_the_credit_of_the_settings(tmp_path: Path) -> None:
    settings = '[accounts]\nenabled = true\nsign_up = "open"\ncredit = ["2"]\n'
    app = gateway(tmp_path, BASE + settings)
    async with asgi.lifespan(app):
        browser = Browser(app, "/console", root_path="")
        form = (await browser.open("/sign-up")).page.form("/sign-up")
        await browser.submit(form, username="ann", password="a long password")
        assert "$2.00" in (await browser.open("/")).text
        assert (await browser.open("/users")).status == 403


PROVIDERS = """
[accounts]
enabled = true
sign_up = "open"
url = "https://ai.example.com/console"
[accounts.providers.corp]
label = "Corp"
issuer = "https://login.example.com"
client_id = "gateway"
client_secret = "geheim"
[accounts.providers.github]
kind = "github"
client_id = "gateway"
client_secret = "geheim"
"""


async def test_identity_providers_are_those_of_the_settings(tmp_path: Path) -> None:
    app = gateway(tmp_path, BASE + PROVIDERS)
    async with asgi.lifespan(app):
        browser = Browser(app, "/console", root_path="")
        text = (await browser.open("/sign-in")).text
        assert "Continue with Corp" in text
        answer = await browser.submit(
            (await browser.open("/sign-in")).page.form("/sign-in/with/github")
        )
        assert "https://github.com/login/oauth/authorize?" in answer.text
        callback = "https%3A%2F%2Fai.example.com%2Fconsole%2Fsign-in%2Fwith%2Fgithub%2Fcallback"
        assert callback in answer.text
        assert "geheim" not in answer.text


async def test_the_check_of_persons_is_that_of_the_settings(tmp_path: Path) -> None:
    keys = '[accounts.turnstile]\nsite_key = "site-key"\nsecret = "geheim"\n'
    app = gateway(tmp_path, BASE + '[accounts]\nenabled = true\nsign_up = "open"\n' + keys)
    async with asgi.lifespan(app):
        page = await Browser(app, "/console", root_path="").open("/sign-up")
        assert 'data-sitekey="site-key"' in page.text
        assert "geheim" not in page.text


REDIS = BASE.replace("[providers", 'redis_url = "redis://127.0.0.1:1"\n[providers')
PASSKEYS = "[accounts]\nenabled = true\npasskeys = true\n"
SECOND = '[accounts]\nenabled = true\nsecond_factor = ["root"]\n'


async def test_second_factors_are_offered_where_their_secrets_are_safe(tmp_path: Path) -> None:
    file = f'store_file = "{tmp_path / "store.db"}"\n'
    stored = BASE.replace("[providers", file + "[providers")
    app = gateway(tmp_path, stored + "[accounts]\nenabled = true\n")
    async with asgi.lifespan(app):
        browser = Browser(app, "/console", root_path="")
        assert (await browser.send("GET", "/console/sign-in/code")).status == 404
    app = gateway(tmp_path, BASE + SECOND)
    async with asgi.lifespan(app):
        assert (await browser.send("GET", "/console/sign-in/code")).status == 404
        browser = Browser(app, "/console", root_path="")
        assert (await browser.send("GET", "/console/sign-in/code")).status == 400


async def test_users_sign_in_with_passkeys_where_they_are_enabled(tmp_path: Path) -> None:
    url = 'url = "https://ai.example.com/console"\n'
    for text, status in ((PASSKEYS + url, 200), (SECOND, 404)):
        app = gateway(tmp_path, BASE + text)
        async with asgi.lifespan(app):
            browser = Browser(app, "/console", root_path="")
            page = await browser.open("/sign-in")
            assert ("Sign in with a passkey" in page.text) is (status == 200)
            assert (await browser.open("/sign-in/passkey")).status == (
                400 if status == 200 else 404
            )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + PASSKEYS, "accounts.passkeys: Passkeys: url must be"),
        (REDIS + SECOND, "sealing_keys"),
        (BASE + PROVIDERS.replace("url =", "# url ="), "accounts.url"),
        (BASE + PROVIDERS.replace("https://login", "http://login"), "providers.corp: issuer"),
        (BASE + PROVIDERS.replace('kind = "github"', 'kind = "saml"'), "accounts.providers.github"),
        (BASE.replace("console = true\n", "") + "[accounts]\nenabled = true\n", "console = true"),
        (BASE + '[accounts]\nenabled = true\nsign_up = "domains"\n', "accounts.email_domains"),
        (BASE + "[accounts]\nenabled = true\n" + MAIL, "accounts.url"),
        (BASE + '[accounts]\nsign_up = "free"\n', "accounts.sign_up"),
        (BASE + '[accounts]\nurl = "ftp://x"\n', "accounts.url"),
        (BASE + '[accounts]\nsignup = "open"\n', "did you mean 'sign_up'"),
        (BASE + '[accounts]\ncredit = ["much"]\n', "accounts.credit"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace(".", r"\.")):
        gateway(tmp_path, text)
