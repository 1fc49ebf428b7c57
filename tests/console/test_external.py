"""Sign in at identity providers: a real provider of OpenID Connect on this machine, and attacks."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.services.github import GitHubProvider
from asgi_aiproxy.services.oidc import OIDCProvider
from asgi_aiproxy.services.users import UserEdit, UserNew
from asgi_aiproxy.stores import Store
from tests.admin.conftest import store
from tests.console.support import ORIGIN, Answer, Browser
from tests.console.test_second_factor import Clock, set_up
from tests.console.test_users import KEY, PASSWORD, Site, sign_in, signed_in_as_root, site, verified
from tests.support.identity_provider import CLIENT, SECRET, Provider, identity_provider

__all__ = ["store"]
pytestmark = pytest.mark.anyio
ANN = {
    "sub": "subject-1",
    "email": "ann@example.com",
    "email_verified": True,
    "preferred_username": "ann",
    "name": "Ann",
}
TLS = ssl.create_default_context()
STEP = ("/c", "aiproxy_sign_in")


@pytest.fixture(scope="module")
def served() -> Iterator[Provider]:
    with identity_provider() as provider:
        yield provider


@pytest.fixture
def provider(served: Provider) -> Provider:
    """The provider as it is at first, where Ann has signed in."""
    fresh = Provider(url=served.url, person=dict(ANN))
    vars(served).update(vars(fresh))
    return served


def with_provider(
    provider: Provider, *, options: dict[str, Any] | None = None, **rules: Any
) -> Site:
    given = {"client_id": CLIENT, "client_secret": SECRET, "ssl_context": TLS, **(options or {})}
    corp = OIDCProvider("corp", label="Corp", issuer=provider.url, **given)
    hub = GitHubProvider(url=provider.url, api_url=f"{provider.url}/api", **given)
    return site(providers=[corp, hub], **rules)


async def leave(browser: Browser, *, name: str = "corp", form: Any = None, **fields: str) -> str:
    """Press the button of a provider; returns the URL to which the page leads."""
    form = form or (await browser.open("/sign-in")).page.form(f"/sign-in/with/{name}")
    answer = await browser.submit(form, **fields)
    return leads_to(answer)


def leads_to(answer: Answer) -> str:
    assert answer.status == 200, answer.text
    found = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', answer.text)
    assert found, answer.text
    return found[1].replace("&amp;", "&")


async def visit(url: str) -> str:
    """What the browser does at the provider; returns the URL at which it comes back."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        answer = await client.get(url)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


async def come_back(browser: Browser, url: str) -> Answer:
    return await browser.send("GET", url, from_another_site=True)


async def through(browser: Browser, **options: Any) -> Answer:
    """Sign in at the provider; returns the page to which it leads, or the refusal."""
    answer = await come_back(browser, await visit(await leave(browser, **options)))
    return await browser.get(leads_to(answer)) if answer.status == 200 else answer


async def test_a_new_user_signs_up_at_the_provider_and_signs_in_again(provider: Provider) -> None:
    found = with_provider(provider)
    browser = found.browser()
    assert (await through(browser)).url == "/c/"
    user = await found.users.service.users.by_name("ann")
    assert user is not None
    assert (user.email, user.email_verified, user.password) == ("ann@example.com", True, "")
    assert user.identities == (f"{provider.url} subject-1",)
    first = browser.cookies[KEY]
    await browser.submit((await browser.open("/")).page.form("/sign-out"))
    provider.person |= {"email": "new@example.com", "preferred_username": "other"}
    assert (await through(browser)).url == "/c/"
    assert browser.cookies[KEY] != first
    assert len([each async for each in found.users.service.users.all()]) == 1


async def test_the_request_has_state_nonce_and_pkce_and_only_this_mount_as_its_end(
    provider: Provider,
) -> None:
    found = with_provider(provider)
    seen = []
    for _ in range(2):
        query = parse_qs(urlsplit(await leave(found.browser())).query)
        assert query["response_type"] == ["code"]
        assert query["code_challenge_method"] == ["S256"]
        assert query["redirect_uri"] == [f"{ORIGIN}/c/sign-in/with/corp/callback"]
        assert set(query["scope"][0].split()) == {"openid", "email", "profile"}
        seen += [query[name][0] for name in ("state", "nonce", "code_challenge")]
    assert len(set(seen)) == 6
    assert min(map(len, seen)) >= 43
    assert SECRET not in str(seen)


async def test_it_works_below_any_path_without_a_configured_url(provider: Provider) -> None:
    found = with_provider(provider)
    found.users.url = ""
    for mount in ("", "/a/b/c"):
        browser = Browser(found.console, mount)
        assert (await through(browser)).url == f"{mount}/"


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"]},
        {"azp": "another-client"},
        {"iss": "https://evil.test"},
        {"exp": timedelta(hours=-1)},
        {"exp": None},
        {"iat": timedelta(hours=1)},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"at_hash": "AAAA"},
    ],
    ids=str,
)
async def test_an_id_token_with_a_wrong_claim_is_refused(
    provider: Provider, claims: dict[str, Any]
) -> None:
    found = with_provider(provider)
    now = time.time()
    provider.claims = {
        name: int(now + value.total_seconds()) if isinstance(value, timedelta) else value
        for name, value in claims.items()
    }
    browser = found.browser()
    answer = await through(browser)
    assert answer.status == 401, answer.text
    assert KEY not in browser.cookies
    assert [user async for user in found.users.service.users.all()] == []


@pytest.mark.parametrize("how", ["other key", "client secret", "none"])
async def test_an_id_token_that_the_provider_has_not_signed_is_refused(
    provider: Provider, how: str
) -> None:
    found = with_provider(provider)
    if how == "other key":
        provider.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        provider.key, provider.algorithm = {
            "client secret": (SECRET + " long enough for SHA-256", "HS256"),
            "none": ("", "none"),
        }[how]
    assert (await through(found.browser())).status == 401


async def test_an_answer_counts_once_in_the_browser_that_has_begun(provider: Provider) -> None:
    found = with_provider(provider)
    browser = found.browser()
    back = await visit(await leave(browser))
    step = browser.cookies[STEP]
    assert (await come_back(found.browser(), back)).status == 400  # a victim of a link
    assert (await come_back(browser, back)).status == 200
    browser.cookies[STEP] = step
    assert (await come_back(browser, back)).status == 400  # replayed

    other = found.browser()
    await leave(other)  # with a state of its own
    assert (await come_back(other, back)).status == 400


async def test_a_code_is_worth_nothing_in_another_sign_in(provider: Provider) -> None:
    """A stolen code is refused by the provider, because its verifier is another one."""
    found = with_provider(provider)
    victim, attacker = found.browser(), found.browser()
    stolen = parse_qs(urlsplit(await visit(await leave(victim))).query)["code"][0]
    back = await visit(await leave(attacker))
    own = parse_qs(urlsplit(back).query)["code"][0]
    assert (await come_back(attacker, back.replace(own, stolen))).status == 401
    assert KEY not in attacker.cookies


async def test_one_of_two_first_sign_ins_at_the_same_time_makes_the_user(
    provider: Provider, store: Store
) -> None:
    found = with_provider(provider, store=store)
    browsers = [found.browser() for _ in range(2)]
    backs = [await visit(await leave(browser)) for browser in browsers]
    answers = await asyncio.gather(*map(come_back, browsers, backs))
    assert {answer.status for answer in answers} <= {200, 409}
    assert len([user async for user in found.users.service.users.all()]) == 1


async def test_a_code_is_accepted_once(provider: Provider) -> None:
    found = with_provider(provider)
    browser = found.browser()
    back = await visit(await leave(browser))
    code = parse_qs(urlsplit(back).query)["code"][0]
    provider.grants[code].used = True
    assert (await come_back(browser, back)).status == 401


async def test_answers_of_another_issuer_and_failures_are_refused(provider: Provider) -> None:
    found = with_provider(provider)
    provider.answer = {"iss": "https://evil.test"}
    assert (await through(found.browser())).status == 401
    provider.answer = {"error": "<script>alert(1)</script>"}
    answer = await through(found.browser())
    assert answer.status == 401
    assert "script>alert" not in answer.text
    provider.answer = {"code": ""}
    assert (await through(found.browser())).status == 401


async def test_a_provider_that_cannot_be_reached_or_is_another_one_is_named() -> None:
    nowhere = Provider(url="http://127.0.0.1:9")
    found = with_provider(nowhere)
    form = (await found.browser().open("/sign-in")).page.form("/sign-in/with/corp")
    answer = await found.browser().submit(form)
    assert answer.status == 503
    assert "Corp cannot be reached" in answer.text


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_an_answer_without_an_end_is_not_kept(
    provider: Provider, path: str, coding: str
) -> None:
    found = with_provider(provider)
    browser = found.browser()
    form = (await browser.open("/sign-in")).page.form("/sign-in/with/corp")
    provider.endless, provider.coding, provider.sent = path, coding, 0
    try:
        answer = await browser.submit(form)
        if answer.status == 200:  # it was sent to the provider
            answer = await come_back(browser, await visit(leads_to(answer)))
    finally:
        provider.endless, provider.coding = "", ""
    assert answer.status == 503
    assert provider.sent < 16 * 1024 * 1024


async def test_the_discovery_document_must_be_of_the_issuer(provider: Provider) -> None:
    found = with_provider(provider)
    served, provider.url = provider.url, "https://evil.test"
    try:
        form = (await found.browser().open("/sign-in")).page.form("/sign-in/with/corp")
        assert (await found.browser().submit(form)).status == 401
    finally:
        provider.url = served


async def test_a_verified_address_signs_in_the_user_that_has_verified_it(
    provider: Provider,
) -> None:
    found = with_provider(provider)
    await verified(found)
    assert (await through(found.browser())).url == "/c/"
    users = [user async for user in found.users.service.users.all()]
    assert [user.identities for user in users] == [(f"{provider.url} subject-1",)]


async def test_an_unverified_address_never_leads_to_a_user(provider: Provider) -> None:
    found = with_provider(provider, verify=False)
    await verified_user(found, "ann")
    for claim in (False, None, "false", "yes", 1):
        provider.person |= {"sub": f"attacker-{claim}", "email_verified": claim}
        browser = found.browser()
        await through(browser)
        user = await found.users.service.users.by_name("ann")
        assert user is not None
        assert user.identities == ()
        assert "ann@example.com" not in (await browser.open("/my/account")).text


async def verified_user(found: Site, name: str) -> None:
    """A user whose address an operator vouches for."""
    new = UserNew(username=name, password=PASSWORD, email=f"{name}@example.com")
    await found.users.service.create(new)


async def test_who_claims_an_address_here_does_not_get_the_identity_of_its_owner(
    provider: Provider,
) -> None:
    """An attacker signs up with the address of Ann before her, and cannot verify it."""
    found = with_provider(provider)
    attacker = found.browser()
    form = (await attacker.open("/sign-up")).page.form("/sign-up")
    await attacker.submit(form, username="eve", password=PASSWORD, email="ann@example.com")
    await through(found.browser())
    users = {user.username: user async for user in found.users.service.users.all()}
    assert users["eve"].identities == ()
    assert users["ann"].identities == (f"{provider.url} subject-1",)


async def test_an_operator_may_forbid_that_addresses_link(provider: Provider) -> None:
    found = with_provider(provider, options={"link_by_email": False})
    await verified_user(found, "ann")
    answer = await through(found.browser())
    assert answer.status == 409
    assert "another user has this address" in answer.text


@pytest.mark.parametrize(
    ("rules", "person", "status"),
    [
        ({"mode": "closed"}, {}, 403),
        ({"mode": "invitation"}, {}, 400),
        ({"mode": "domains", "domains": ("example.com",)}, {}, 200),
        ({"mode": "domains", "domains": ("example.org",)}, {}, 400),
        ({"mode": "domains", "domains": ("example.com",)}, {"email_verified": False}, 403),
        ({"mode": "open"}, {"email_verified": False}, 403),
        ({"mode": "open", "verify": False}, {"email_verified": False}, 200),
        ({"mode": "domains", "domains": ("example.com",), "verify": False},
         {"email_verified": False}, 400),
    ],
    ids=str,
)  # fmt: skip
async def test_the_rules_for_sign_up_hold_at_the_provider_too(
    provider: Provider, rules: dict[str, Any], person: dict[str, Any], status: int
) -> None:
    found = with_provider(provider, **rules)
    provider.person |= person
    assert (await through(found.browser())).status == status


async def test_an_invitation_counts_at_the_provider(provider: Provider) -> None:
    found = with_provider(provider, mode="invitation")
    root = await signed_in_as_root(found)
    shown = await root.submit((await root.open("/users")).page.form("/invitations"), uses="1")
    code = re.search(r'<code id="secret">([^<]+)<', shown.text)
    assert code
    browser = found.browser()
    form = (await browser.open("/sign-up")).page.form("/sign-up")
    form.action = "/c/sign-in/with/corp"
    assert (await through(browser, form=form, code=code[1])).url == "/c/"
    provider.person |= {"sub": "subject-2", "email": "ben@example.com"}
    assert (await through(found.browser(), form=form, code=code[1])).status in (400, 403)


async def test_only_the_domains_of_a_provider_sign_in(provider: Provider) -> None:
    found = with_provider(provider, options={"email_domains": ("example.org",)})
    for person in ({}, {"email": "x@example.org.evil.test"}, {"email": "x@sub.example.org"},
                   {"email": "x@example.org", "email_verified": False}):  # fmt: skip
        provider.person = {**ANN, **person}
        assert (await through(found.browser())).status == 403
    provider.person |= {"email_verified": True}
    assert (await through(found.browser())).status == 200


async def test_a_disabled_user_does_not_sign_in_at_a_provider(provider: Provider) -> None:
    found = with_provider(provider)
    await through(found.browser())
    user = await found.users.service.users.by_name("ann")
    assert user is not None
    await found.users.service.edit(user.id, UserEdit(enabled=False))
    assert (await through(found.browser())).status == 403


async def test_the_address_of_the_user_information_is_used_if_the_token_has_none(
    provider: Provider,
) -> None:
    found = with_provider(provider)
    provider.person = {"sub": "subject-1"}
    provider.userinfo = {"email": "ann@example.com", "email_verified": True}
    assert (await through(found.browser())).url == "/c/"
    provider.userinfo["sub"] = "subject-2"
    assert (await through(found.browser())).status == 401


@pytest.mark.parametrize("target", ["https://evil.test/", "//evil.test/x", "/other", "/c/../x"])
async def test_it_continues_only_to_pages_of_this_console(provider: Provider, target: str) -> None:
    found = with_provider(provider)
    assert (await through(found.browser(), next=target)).url == "/c/"


async def test_it_continues_with_the_page_that_was_wanted(provider: Provider) -> None:
    found = with_provider(provider)
    browser = found.browser()
    form = (await browser.open("/my/usage?by=model")).page.form("/sign-in/with/corp")
    assert (await through(browser, form=form)).url == "/c/my/usage?by=model"


async def test_the_cookie_of_the_way_is_sent_on_the_way_back_and_the_session_is_not(
    provider: Provider,
) -> None:
    found = with_provider(provider)
    browser = found.browser()
    await through(browser)
    assert browser.strict == {KEY}
    assert STEP in browser.cookies


async def test_a_user_links_and_unlinks_accounts_which_ends_other_sessions(
    provider: Provider,
) -> None:
    found = with_provider(provider)
    browser = await verified(found, "cat")
    phone = found.browser()
    await sign_in(phone, "cat")
    form = (await browser.open("/my/account")).page.form("/link/corp")
    assert (await through(browser, form=form)).url == "/c/my/account"
    assert (await phone.send("GET", "/c/")).status == 303
    assert "Corp" in (await browser.open("/my/account")).text
    other = found.browser()
    assert (await through(other)).url == "/c/"
    assert "cat" in (await other.open("/my/account")).text

    ben = await verified(found, "ben")
    form = (await ben.open("/my/account")).page.form("/link/corp")
    taken = await through(ben, form=form)
    assert taken.status == 409
    assert "Another user" in taken.text

    form = (await browser.open("/my/account")).page.form("/unlink")
    assert (await browser.submit(form)).url.startswith("/c/my/account")
    assert (await other.send("GET", "/c/")).status == 303
    assert (await browser.send("GET", "/c/")).status == 200


async def test_a_second_factor_is_required_after_the_provider_too(provider: Provider) -> None:
    clock = Clock()
    found = with_provider(provider, factors={"clock": clock})
    browser = found.browser()
    await through(browser)
    secret, _ = await set_up(browser, clock)
    other = found.browser()
    page = await through(other)
    assert page.url == "/c/sign-in/code"
    assert KEY not in other.cookies
    code = clock.code(secret)
    assert (await other.submit(page.page.form("/sign-in/code"), code=code)).url == "/c/"


async def test_the_only_way_to_sign_in_is_not_removed(provider: Provider) -> None:
    found = with_provider(provider)
    browser = found.browser()
    await through(browser)
    form = (await browser.open("/my/account")).page.form("/unlink")
    assert (await browser.submit(form)).status == 400
    form = (await browser.open("/my/account")).page.form("/my/account/password")
    assert (await browser.submit(form, password=PASSWORD)).status == 200
    form = (await browser.open("/my/account")).page.form("/unlink")
    assert (await browser.submit(form)).status == 200
    assert (await sign_in(found.browser())).url == "/c/"


async def test_github_signs_in_with_its_primary_verified_address(provider: Provider) -> None:
    found = with_provider(provider)
    provider.emails = [
        {"email": "old@example.com", "verified": True, "primary": False},
        {"email": "cat@example.com", "verified": False, "primary": True},
    ]
    assert (await through(found.browser(), name="github")).status == 403
    provider.emails[1]["verified"] = True
    assert (await through(found.browser(), name="github")).url == "/c/"
    user = await found.users.service.users.by_email("cat@example.com")
    assert user is not None
    assert user.username == "octo_cat"
    assert user.identities == (f"{provider.url} 583231",)


async def test_names_at_a_provider_become_names_here(provider: Provider) -> None:
    found = with_provider(provider)
    await verified_user(found, "zoe")
    names = {"Zoé": "Zoe-", "../etc": "etc", "\u202e": "user", "": "ann", "x" * 300: "x" * 40}
    for number, (given, expected) in enumerate(names.items()):
        email = f"ann@{number}.example.com"
        provider.person = {**ANN, "sub": str(number), "preferred_username": given, "email": email}
        assert (await through(found.browser())).status == 200
        user = await found.users.service.users.by_email(email)
        assert user is not None
        assert user.username.startswith(expected)


async def test_a_secret_of_the_client_is_in_no_page_url_and_repr(provider: Provider) -> None:
    found = with_provider(provider)
    assert SECRET not in repr(list(found.users.external.providers.values()))
    url = await leave(found.browser())
    assert "secret" not in url


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://issuer.test"},
        {"issuer": "ftp://issuer.test"},
        {"issuer": "https://"},
        {"client_id": ""},
        {"client_secret": ""},
        {"scopes": ("email",)},
    ],
    ids=str,
)
def test_invalid_providers_are_refused_when_they_are_made(wrong: dict[str, Any]) -> None:
    good = {"issuer": "https://issuer.test", "client_id": "x", "client_secret": "y"}
    OIDCProvider("corp", **good)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        OIDCProvider("corp", **{**good, **wrong})
    with pytest.raises(ConfigurationError):
        OIDCProvider("a/b", **good)  # type: ignore[arg-type]
