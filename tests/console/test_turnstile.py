"""Turnstile: sign-up and mail for persons only, refused in doubt; other pages load none of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.services.turnstile import Turnstile
from asgi_aiproxy.testing.server import serve_in_thread
from tests.console.support import Answer
from tests.console.test_users import PASSWORD, Site, sign_in, site, verified

pytestmark = pytest.mark.anyio
ORIGIN = "https://challenges.cloudflare.com"


class Cloudflare:
    """Verifies the token `person` for the right secret; `answer` replaces its answer."""

    def __init__(self) -> None:
        self.url = ""
        self.action = "sign-up"
        self.answer: Any = None
        self.requests: list[dict[str, str]] = []

    async def verify(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.requests.append(form)
        good = form.get("secret") == "geheim" and form.get("response") == "person"
        found = {"success": good, "hostname": "gateway.test", "action": self.action}
        if not good:
            found["error-codes"] = ["invalid-input-response"]
        if self.answer is not None:
            return Response(self.answer, 502)
        return Response(json.dumps(found))


@pytest.fixture(scope="module")
def served() -> Iterator[Cloudflare]:
    cloudflare = Cloudflare()
    app = Starlette(routes=[Route("/siteverify", cloudflare.verify, methods=["POST"])])
    with serve_in_thread(app) as url:
        cloudflare.url = f"{url}/siteverify"
        yield cloudflare


@pytest.fixture
def cloudflare(served: Cloudflare) -> Cloudflare:
    vars(served).update(vars(Cloudflare()) | {"url": served.url})
    return served


def guarded(cloudflare: Cloudflare, host: str = "gateway.test") -> Site:
    check = Turnstile("site-key", "geheim", host=host, url=cloudflare.url)
    return site(turnstile=check)


async def sign_up(found: Site, token: str) -> Answer:
    browser = found.browser()
    form = (await browser.open("/sign-up")).page.form("/sign-up")
    fields = {"username": "ann", "password": PASSWORD, "email": "ann@example.com"}
    return await browser.submit(form, **{"cf-turnstile-response": token, **fields})


async def test_a_person_signs_up_and_a_program_does_not(cloudflare: Cloudflare) -> None:
    found = guarded(cloudflare)
    for token in ("", "program", "x" * 3000):
        answer = await sign_up(found, token)
        assert answer.status == 403
        assert "person" in answer.text
        assert 'value="ann"' in answer.text
    assert found.mails == []
    assert [user async for user in found.users.service.users.all()] == []
    assert "An e-mail was sent" in (await sign_up(found, "person")).text
    assert cloudflare.requests[-1]["remoteip"]
    await found.users.aclose()


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"success": 1}'])
async def test_what_is_not_confirmed_is_refused(cloudflare: Cloudflare, answer: bytes) -> None:
    found = guarded(cloudflare)
    cloudflare.answer = answer
    refused = await sign_up(found, "person")
    assert refused.status == 503
    assert "not available" in refused.text
    await found.users.aclose()


async def test_without_cloudflare_sign_up_is_refused() -> None:
    check = Turnstile("site-key", "geheim", url="http://127.0.0.1:9/siteverify")
    assert (await sign_up(site(turnstile=check), "person")).status == 503


async def test_a_token_of_another_form_or_site_is_refused(cloudflare: Cloudflare) -> None:
    cloudflare.action = "mail"
    assert (await sign_up(guarded(cloudflare), "person")).status == 403
    cloudflare.action = "sign-up"
    assert (await sign_up(guarded(cloudflare, "other.test"), "person")).status == 403


async def test_mail_to_reset_a_password_is_for_persons_too(cloudflare: Cloudflare) -> None:
    found = site()
    await verified(found)
    found.users.turnstile = Turnstile("site-key", "geheim", url=cloudflare.url)
    cloudflare.action = "mail"
    browser = found.browser()
    for token, count in (("program", 1), ("person", 2)):
        page = (await browser.open("/reset-password")).page
        form = page.form("/reset-password")
        fields = {"email": "ann@example.com", "cf-turnstile-response": token}
        await browser.submit(form, **fields)
        await found.users.drain()
        assert len(found.mails) == count


async def test_only_pages_with_the_check_may_load_it(cloudflare: Cloudflare) -> None:
    found = guarded(cloudflare)
    browser = found.browser()
    for path in ("/sign-up", "/reset-password"):
        page = await browser.open(path)
        policy = page.headers["content-security-policy"]
        assert len(policy) == 1
        assert f"script-src 'self' {ORIGIN};" in policy[0]
        assert policy[0].endswith(f"frame-src {ORIGIN}")
        assert f"{ORIGIN}/turnstile/v0/api.js" in page.page.assets
        assert 'data-sitekey="site-key"' in page.text
        assert "geheim" not in page.text
    for app in (found, site()):
        for path in ("/sign-in", "/verify-email", "/nowhere"):
            page = await app.browser().open(path)
            assert ORIGIN not in page.headers["content-security-policy"][0] + page.text
    assert (
        ORIGIN
        not in (await site().browser().open("/sign-up")).headers["content-security-policy"][0]
    )


async def test_signing_in_needs_no_check(cloudflare: Cloudflare) -> None:
    found = site()
    await verified(found)
    found.users.turnstile = Turnstile("site-key", "geheim", url=cloudflare.url)
    assert (await sign_in(found.browser())).status == 200
    assert "geheim" not in repr(found.users.turnstile)


def test_keys_are_required() -> None:
    for keys in (("", "x"), ("x", "")):
        with pytest.raises(ConfigurationError, match="site_key and secret"):
            Turnstile(*keys)
