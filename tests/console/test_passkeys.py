"""Passkeys: added with a name, used to sign in, removed; and what is not accepted."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.services.base import CODE
from asgi_aiproxy.services.passkeys import Passkeys
from asgi_aiproxy.services.users import UserEdit, UserNew, UserService
from asgi_aiproxy.stores import MemoryStore, Store
from tests.admin.conftest import store
from tests.console.support import HTML, ORIGIN, Answer, Browser
from tests.console.test_second_factor import Clock, set_up
from tests.console.test_users import KEY, Site, sign_in, signed_in_as_root, site, verified
from tests.support.authenticator import PRESENT, Authenticator

__all__ = ["store"]
pytestmark = pytest.mark.anyio
STEP = ("/c", "aiproxy_sign_in")


def with_passkeys(store: Store | None = None, **options: Any) -> Site:
    return site(store, passkeys=True, **options)


def options_of(answer: Answer) -> dict[str, Any]:
    found = re.search(r'data-options="([^"]+)"', answer.text)
    assert found, answer.text
    parsed: dict[str, Any] = json.loads(html.unescape(found[1]))
    return parsed


async def add(browser: Browser, device: Authenticator, name: str = "laptop") -> Answer:
    """Add a passkey at one's own account."""
    form = (await browser.open("/my/account")).page.form("/my/account/passkeys")
    page = await browser.submit(form, name=name)
    made = device.create(options_of(page))
    return await browser.submit(page.page.form("/response"), credential=made)


async def challenged(browser: Browser) -> Answer:
    form = (await browser.open("/sign-in")).page.form("/sign-in/passkey")
    return await browser.submit(form)


async def sign_in_with(browser: Browser, device: Authenticator) -> Answer:
    page = await challenged(browser)
    signed = device.sign(options_of(page))
    return await browser.submit(page.page.form("/response"), credential=signed)


@pytest.fixture
def device() -> Authenticator:
    return Authenticator(ORIGIN)


async def test_a_user_adds_passkeys_signs_in_with_each_and_removes_one(
    store: Store, device: Authenticator
) -> None:
    found = with_passkeys(store)
    browser = await verified(found)
    phone = found.browser()
    await sign_in(phone)
    assert "Created." in (await add(browser, device, HTML[:40])).text
    assert (await phone.send("GET", "/c/")).status == 303  # its session is from before
    page = await add(browser, device, "phone")
    assert html.escape(HTML[:20]) in page.text
    assert HTML[:20] not in page.text

    for held in device.held:
        other = found.browser()
        shown = await challenged(other)
        assert options_of(shown)["userVerification"] == "required"
        signed = device.sign(options_of(shown), held)
        answer = await other.submit(shown.page.form("/response"), credential=signed)
        assert answer.url == "/c/"
        assert STEP not in other.cookies
        assert "ann@example.com" in (await other.open("/my/account")).text

    page = await browser.open("/my/account")
    assert (await browser.submit(page.page.form("/passkeys/remove"))).status == 200
    assert "phone" in (await browser.open("/my/account")).text
    assert (await sign_in_with(found.browser(), device)).url == "/c/"
    gone = Authenticator(ORIGIN, held=device.held[:1])
    assert (await sign_in_with(found.browser(), gone)).status == 401


async def test_a_passkey_is_two_factors_in_one(device: Authenticator) -> None:
    clock = Clock()
    found = with_passkeys(factors={"clock": clock})
    browser = await verified(found)
    await set_up(browser, clock)
    await add(browser, device)
    assert (await sign_in(found.browser())).url == "/c/sign-in/code"
    assert (await sign_in_with(found.browser(), device)).url == "/c/"


async def test_a_challenge_is_for_one_browser_and_counts_once(device: Authenticator) -> None:
    found = with_passkeys()
    await add(await verified(found), device)
    browser, other = found.browser(), found.browser()
    page = await challenged(browser)
    signed = device.sign(options_of(page))
    form = page.page.form("/response")
    assert (await other.submit(form, credential=signed)).status == 400  # without its cookie
    cookies = dict(browser.cookies)
    assert (await browser.submit(form, credential=signed)).url == "/c/"
    copied = found.browser()
    copied.cookies = cookies
    assert (await copied.submit(form, credential=signed)).status == 400
    page = await challenged(copied)  # an earlier response does not sign a new challenge
    answer = await copied.submit(page.page.form("/response"), credential=signed)
    assert answer.status == 401
    assert KEY not in copied.cookies


async def test_a_response_to_add_a_passkey_is_no_sign_in_and_the_reverse(
    device: Authenticator,
) -> None:
    found = with_passkeys()
    browser = await verified(found)
    await add(browser, device)
    form = (await browser.open("/my/account")).page.form("/my/account/passkeys")
    page = await browser.submit(form, name="other")
    signing = {**options_of(page), "rpId": "gateway.test"}
    stranger = found.browser()
    sign_in_page = await challenged(stranger)
    stranger.cookies[STEP] = browser.cookies[STEP]
    signed = device.sign(signing)
    answer = await stranger.submit(sign_in_page.page.form("/response"), credential=signed)
    assert answer.status == 400
    assert KEY not in stranger.cookies


def of_another_site(device: Authenticator) -> None:
    device.origin = "https://evil.test"


def not_unlocked(device: Authenticator) -> None:
    device.flags = PRESENT


def with_an_old_counter(device: Authenticator) -> None:
    device.held[-1].count -= 1


def of_another_user(device: Authenticator) -> None:
    device.held[-1].handle = "Mg"  # the number 2


def of_another_console(device: Authenticator) -> None:
    device.held[-1].handle = "MS4wMDAwMDAwMDAwMDAwMDAw"


def with_another_key(device: Authenticator) -> None:
    mallory = Authenticator(ORIGIN)
    mallory.create({"user": {"id": ""}, "rp": {"id": ""}, "challenge": ""})
    device.held[-1].key = mallory.held[-1].key


WRONG = [of_another_site, not_unlocked, with_an_old_counter, of_another_user, of_another_console,
         with_another_key]  # fmt: skip


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
async def test_a_response_is_refused(
    device: Authenticator, spoil: Callable[[Authenticator], None]
) -> None:
    found = with_passkeys()
    await add(await verified(found), device)
    assert (await sign_in_with(found.browser(), device)).status == 200
    spoil(device)
    browser = found.browser()
    answer = await sign_in_with(browser, device)
    assert answer.status == 401
    assert "This passkey was not accepted" in answer.text
    assert KEY not in browser.cookies


@pytest.mark.parametrize("spoil", [of_another_site, not_unlocked], ids=lambda each: each.__name__)
async def test_a_passkey_that_is_not_genuine_is_not_added(
    device: Authenticator, spoil: Callable[[Authenticator], None]
) -> None:
    found = with_passkeys()
    browser = await verified(found)
    spoil(device)
    assert (await add(browser, device)).status == 401
    user = await found.users.service.users.by_name("ann")
    assert user is not None
    assert user.passkeys == ()


@pytest.mark.parametrize(
    "text", ["", "{}", "[" * 60_000, '{"id":"x"}', "\ud800", '{"id":"","rawId":"","response":{}}']
)
async def test_what_is_no_response_is_refused(device: Authenticator, text: str) -> None:
    found = with_passkeys()
    browser = await verified(found)
    await add(browser, device)
    other = found.browser()
    page = await challenged(other)
    encodable = text.encode("utf-8", "replace").decode()
    answer = await other.submit(page.page.form("/response"), credential=encodable)
    assert answer.status == 401
    form = (await browser.open("/my/account")).page.form("/my/account/passkeys")
    page = await browser.submit(form, name="x")
    answer = await browser.submit(page.page.form("/response"), credential=encodable)
    assert answer.status == 401


async def test_a_disabled_user_does_not_sign_in(device: Authenticator) -> None:
    found = with_passkeys()
    await add(await verified(found), device)
    user = await found.users.service.users.by_name("ann")
    assert user is not None
    await found.users.service.edit(user.id, UserEdit(enabled=False), CODE)
    assert (await sign_in_with(found.browser(), device)).status == 401


async def test_an_operator_removes_the_passkeys_of_a_user(device: Authenticator) -> None:
    found = with_passkeys()
    browser = await verified(found)
    await add(browser, device)
    root = await signed_in_as_root(found)
    user = await found.users.service.users.by_name("ann")
    assert user is not None
    form = (await root.open(f"/users/{user.id}")).page.form("/passkeys")
    assert (await root.submit(form)).status == 200
    assert "Remove all passkeys" not in (await root.open(f"/users/{user.id}")).text
    assert (await sign_in_with(found.browser(), device)).status == 401
    assert (await browser.send("GET", "/c/")).status == 303  # its session is from before


async def test_guesses_are_limited_by_address(device: Authenticator) -> None:
    found = with_passkeys()
    await add(await verified(found), device)
    device.origin = "https://evil.test"
    statuses = [(await sign_in_with(found.browser(), device)).status for _ in range(31)]
    assert statuses == [401] * 30 + [429]


async def test_adding_and_removing_requires_a_recent_sign_in(device: Authenticator) -> None:
    found = with_passkeys(confirm_seconds=0.0)
    browser = await verified(found)
    form = (await browser.open("/my/account")).page.form("/my/account/passkeys")
    assert "confirm_secret" in dict(form.fields)
    assert (await browser.submit(form, name="x")).status == 403


async def test_a_passkey_has_a_name_and_an_account_at_most_ten(device: Authenticator) -> None:
    found = with_passkeys()
    browser = await verified(found)
    form = (await browser.open("/my/account")).page.form("/my/account/passkeys")
    for name in ("", "  ", "x" * 51):
        assert "must have 1 to 50 characters" in (await browser.submit(form, name=name)).text
    for number in range(10):
        assert (await add(browser, device, f"key {number}")).status == 200
    answer = await add(browser, device, "one more")
    assert answer.status == 400
    assert "at most 10 passkeys" in answer.text


@pytest.mark.parametrize(
    "url",
    [
        *("", "/console", "http://ai.example.com", "https://192.0.2.1/c", "http://127.0.0.1/c"),
        *("https://b\u00fccher.example", "https://ai.example.com:port"),
    ],
)
def test_passkeys_need_the_url_of_a_host_with_tls(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Passkeys: url"):
        Passkeys(UserService(MemoryStore()), url=url)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://AI.Example.com/console", "https://ai.example.com"),
        ("https://ai.example.com:443/console/", "https://ai.example.com"),
        ("https://name@ai.example.com", "https://ai.example.com"),
        ("https://ai.example.com:8443", "https://ai.example.com:8443"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:8000/c", "http://localhost:8000"),
    ],
)
async def test_the_url_is_understood_as_by_browsers(
    url: str, origin: str, device: Authenticator
) -> None:
    service = UserService(MemoryStore())
    await service.create(UserNew(username="ada"))
    user = await service.users.by_name("ada")
    assert user is not None
    passkeys = Passkeys(service, url=url)
    begun = passkeys.registration(user, "laptop")
    device.origin = origin
    made = device.create(json.loads(begun.options))
    added = await passkeys.add(user, begun.challenge, made, "laptop", CODE)
    assert [each.name for each in added.passkeys] == ["laptop"]


async def test_without_passkeys_there_are_no_pages_for_them() -> None:
    found = site()
    browser = found.browser()
    assert "passkey" not in (await browser.open("/sign-in")).text
    assert (await browser.open("/sign-in/passkey")).status == 404
