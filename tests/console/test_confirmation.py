"""Actions of weight require that the visitor has confirmed lately that it is the same person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from asgi_aiproxy.console.pages import PageRoute
from asgi_aiproxy.services.oidc import OIDCProvider
from asgi_aiproxy.services.users import UserNew
from tests.console.support import ROOT, Browser, Form, filled
from tests.console.test_external import ANN, leads_to, visit
from tests.console.test_second_factor import Clock, set_up
from tests.console.test_users import KEY, PASSWORD, Site, sign_in, site
from tests.support.identity_provider import CLIENT, SECRET, Provider, identity_provider

pytestmark = pytest.mark.anyio


def weighty(routes: Any) -> list[PageRoute]:
    return [route for route in routes if route.confirm]


def is_target(route: PageRoute, form: Form) -> bool:
    path = re.sub(r"\{\w+\}", "[^/]+", route.path)
    return form.method == "POST" and bool(re.fullmatch(path, form.action.partition("?")[0]))


async def test_each_form_of_an_action_of_weight_has_the_field_when_it_is_needed() -> None:
    shop = await filled(confirm_seconds=0)
    browser = shop.browser()
    await browser.sign_in()
    root = await browser.open("/vouchers")
    [code] = [f for f in root.page.forms if f.action.endswith("/disable")][:1]
    await browser.submit(code)
    paths = [
        "/site",
        "/tokens",
        "/groups",
        "/groups/vip",
        "/accounts",
        "/accounts/acme",
        "/vouchers",
    ]
    paths += ["/providers/openai", "/providers/openai/keys/added", f"/tokens/{shop.ids['ben']}"]
    seen = set()
    for path in paths:
        for form in (await browser.open(path)).page.forms:
            for route in weighty(shop.console.routes):
                if is_target(route, form):
                    assert "confirm_secret" in dict(form.fields), (path, form.action)
                    seen.add(route.path)
    assert seen == {route.path for route in weighty(shop.console.routes)}


async def test_no_action_of_weight_happens_without_the_secret() -> None:
    shop = await filled(confirm_seconds=0)
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/groups")).page.form("/groups")
    before = {table: await shop.store.rows(table) for table in ("tokens", "groups", "accounts")}
    for route in weighty(shop.console.routes):
        path = re.sub(r"\{\w+\}", "vip", route.path)
        for secret in ("", "wrong", "sk-wrong-token"):
            sent = Form("POST", path, form.fields)
            answer = await browser.submit(sent, confirm_secret=secret, name="new", id="new")
            assert answer.status in (401, 403, 404, 429), (path, answer.status)
    assert {table: await shop.store.rows(table) for table in before} == before


def test_each_action_of_weight_has_a_page_to_show_again() -> None:
    """Else the cookie of the new session would be lost when the action fails."""
    routes = site(
        factors={}, providers=[provider_at("https://issuer.test")], passkeys=True
    ).console.routes
    assert len(weighty(routes)) > 15
    assert all(route.again is not None for route in weighty(routes))


def provider_at(url: str) -> OIDCProvider:
    return OIDCProvider("corp", issuer=url, client_id=CLIENT, client_secret=SECRET)


async def operator(found: Site, name: str = "boss") -> Browser:
    await found.users.service.create(UserNew(username=name, role="operator", password=PASSWORD))
    browser = found.browser()
    await sign_in(browser, name)
    return browser


async def create(browser: Browser, **fields: str) -> int:
    form = (await browser.open("/users")).page.form("/users")
    return (await browser.submit(form, username="new", **fields)).status


async def test_the_password_confirms_and_gives_a_new_session() -> None:
    found = site(confirm_seconds=0)
    browser = await operator(found)
    first = browser.cookies[KEY]
    assert await create(browser) == 403
    assert await create(browser, confirm_secret="wrong password") == 401
    assert await found.users.service.users.by_name("new") is None
    assert browser.cookies[KEY] == first
    assert await create(browser, confirm_secret=PASSWORD) == 200
    assert await found.users.service.users.by_name("new") is not None
    second = browser.cookies[KEY]
    assert second != first
    browser.cookies[KEY] = first
    assert (await browser.send("GET", "/c/")).status == 303
    browser.cookies[KEY] = second
    # An action that fails keeps the new session as well.
    assert await create(browser, confirm_secret=PASSWORD) == 409
    assert browser.cookies[KEY] != second
    assert (await browser.send("GET", "/c/")).status == 200


async def test_what_was_entered_stays_in_the_form() -> None:
    found = site(confirm_seconds=0)
    browser = await operator(found)
    form = (await browser.open("/users")).page.form("/users")
    answer = await browser.submit(form, username="new-user", confirm_secret="secret-typo")
    assert 'value="new-user"' in answer.text
    assert "secret-typo" not in answer.text


async def test_a_sign_in_of_the_last_minutes_is_enough() -> None:
    found = site(confirm_seconds=600)
    browser = await operator(found)
    assert "confirm_secret" not in (await browser.open("/users")).text
    assert await create(browser) == 200
    never = site(confirm_seconds=None)
    assert await create(await operator(never)) == 200


async def test_a_user_with_a_second_factor_confirms_with_a_code() -> None:
    clock = Clock()
    found = site(factors={"clock": clock}, confirm_seconds=600)
    browser = await operator(found)
    secret, _ = await set_up(browser, clock)
    browser.app = console_of(found, clock)
    assert await create(browser, confirm_secret=PASSWORD) == 401
    code = clock.code(secret)
    assert await create(browser, confirm_secret=code) == 200
    form = (await browser.open("/my/account")).page.form("/second-factor/remove")
    assert (await browser.submit(form, confirm_secret=code)).status == 401  # it was used


def console_of(found: Site, clock: Clock) -> Any:
    """The same users in a console that always requires a confirmation."""
    return site(found.store, factors={"clock": clock}, confirm_seconds=0).console


async def test_a_token_confirms_only_its_own_session() -> None:
    shop = await filled(confirm_seconds=0)
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/groups")).page.form("/groups")
    other = await browser.submit(form, name="new", confirm_secret=shop.secrets["ann"])
    assert other.status == 401
    assert ROOT not in other.text
    assert (await browser.submit(form, name="new", confirm_secret=ROOT)).status == 200


async def test_own_tokens_need_no_confirmation() -> None:
    shop = await filled(confirm_seconds=0)
    browser = shop.browser()
    await browser.sign_in(shop.secrets["ann"])
    form = (await browser.open("/my/tokens")).page.form("/my/tokens")
    assert (await browser.submit(form, name="laptop")).status == 200


@pytest.fixture
def provider() -> Iterator[Provider]:
    with identity_provider() as found:
        found.person = dict(ANN)
        yield found


async def test_a_user_with_a_password_does_not_confirm_at_a_provider() -> None:
    """Where a provider is still signed in, an unlocked screen would be enough."""
    found = site(providers=[provider_at("http://127.0.0.1:9")], confirm_seconds=0)
    browser = await operator(found)
    form = (await browser.open("/confirm")).page.form("/confirm/with/corp")
    assert (await browser.submit(form)).status == 403


async def test_who_signs_in_at_a_provider_confirms_there(provider: Provider) -> None:
    found = site(providers=[provider_at(provider.url)], confirm_seconds=0)
    browser = found.browser()

    async def go(form: Form) -> Any:
        back = await visit(leads_to(await browser.submit(form)))
        return await browser.send("GET", back, from_another_site=True)

    answer = await go((await browser.open("/sign-in")).page.form("/with/corp"))
    assert answer.status == 200
    account = await browser.open("/my/account")
    assert "/c/confirm?next=%2Fc%2Fmy%2Faccount" in account.page.links
    refused = await browser.submit(account.page.form("/my/account/password"), password=PASSWORD)
    assert refused.status == 403
    confirm = (await browser.open("/confirm?next=/c/my/account")).page.form("/confirm/with/corp")
    for time in (1, None):  # the provider did not have the user sign in again
        provider.claims = {"auth_time": time}
        assert (await go(confirm)).status == 401
    provider.claims = {"sub": "another"}
    assert (await go(confirm)).status == 403
    provider.claims = {}
    first = browser.cookies[KEY]
    assert leads_to(await go(confirm)) == "/c/my/account"
    assert browser.cookies[KEY] != first
    assert provider.requests[-1]["prompt"] == "login"
