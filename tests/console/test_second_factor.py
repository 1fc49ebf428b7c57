"""The second factor: set up, required at sign-in, recovered from its loss; guesses, replays."""

from __future__ import annotations

import asyncio
import re

import pyotp
import pytest

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.services.base import CODE, Actor
from asgi_aiproxy.services.second_factor import SecondFactors
from asgi_aiproxy.services.users import UserNew
from asgi_aiproxy.stores import Store
from tests.admin.conftest import store
from tests.console.support import Answer, Browser
from tests.console.test_users import (
    KEY,
    PASSWORD,
    sign_in,
    signed_in_as_root,
    site,
    verified,
)

__all__ = ["store"]
pytestmark = pytest.mark.anyio
STEP = ("/c", "aiproxy_sign_in")


class Clock:
    """The time of authenticator and server."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def code(self, secret: str) -> str:
        """The next code: the authenticator shows a new one every 30 seconds."""
        self.now += 30
        return pyotp.TOTP(secret).at(self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def set_up(browser: Browser, clock: Clock) -> tuple[str, list[str]]:
    """Set up a second factor at one's own account; returns its secret and the recovery codes."""
    form = (await browser.open("/my/account")).page.form("/second-factor")
    return await enable(browser, await browser.submit(form), clock)


async def enable(browser: Browser, page: Answer, clock: Clock) -> tuple[str, list[str]]:
    secret = re.search(r'id="secret">(\w+)<', page.text)
    assert secret, page.text
    assert "<svg" in page.text
    form = page.page.forms[-1]
    assert (await browser.submit(form, code="000000")).status == 400
    shown = await browser.submit(form, code=clock.code(secret[1]))
    codes = re.findall(r"(?:\w{4}-){3}\w{4}", shown.text)
    assert len(codes) == 10, shown.text
    return secret[1], codes


async def enter(browser: Browser, code: str, name: str = "ann") -> Answer:
    """Sign in with the password, and enter a code."""
    page = await sign_in(browser, name)
    return await browser.submit(page.page.form("/sign-in/code"), code=code)


async def test_a_user_sets_up_a_second_factor_and_needs_it_from_then_on(
    store: Store, clock: Clock
) -> None:
    found = site(store, factors={"clock": clock})
    browser = await verified(found)
    phone = found.browser()
    await sign_in(phone)
    secret, _ = await set_up(browser, clock)
    assert (await browser.send("GET", "/c/")).status == 200
    assert (await phone.send("GET", "/c/")).status == 303  # its session is from before

    other = found.browser()
    page = await sign_in(other)
    assert page.url == "/c/sign-in/code"
    assert KEY not in other.cookies
    assert (await other.send("GET", "/c/my/account")).status == 303
    wrong = await other.submit(page.page.form("/sign-in/code"), code="123456")
    assert wrong.status == 401
    assert KEY not in other.cookies
    form = page.page.form("/sign-in/code")
    assert (await other.submit(form, code=f" {clock.code(secret)} ")).url == "/c/"
    assert STEP not in other.cookies


async def test_a_code_counts_once(store: Store, clock: Clock) -> None:
    found = site(store, factors={"clock": clock})
    secret, _ = await set_up(await verified(found), clock)
    code = clock.code(secret)
    pages = [(browser, await sign_in(browser)) for browser in (found.browser(), found.browser())]
    answers = await asyncio.gather(
        *(each.submit(page.page.form("/sign-in/code"), code=code) for each, page in pages)
    )
    assert sorted(answer.status for answer in answers) == [200, 401]
    assert (await enter(found.browser(), code)).status == 401
    clock.now -= 30
    assert (await enter(found.browser(), pyotp.TOTP(secret).at(clock.now))).status == 401


async def test_guesses_of_codes_are_limited_in_all_workers(store: Store, clock: Clock) -> None:
    workers = [site(store, factors={"clock": clock}) for _ in range(2)]
    browser = await verified(workers[0])
    secret, codes = await set_up(browser, clock)
    user = await workers[0].users.service.users.by_name("ann")
    assert user is not None

    async def guess(n: int, code: str) -> int:
        by = Actor(CODE.principal, "x", f"192.0.2.{n}")
        try:
            await workers[n % 2].users.second_factors.check(user, code, by)
        except APIError as error:
            return error.status
        return 200

    assert [await guess(n, "000000") for n in range(12)] == [401] * 10 + [429] * 2
    assert await guess(1, clock.code(secret)) == 429
    assert await guess(0, codes[0]) == 200  # guesses do not lock out who has a recovery code
    assert [await guess(n, "A" * 16) for n in range(12)] == [401] * 10 + [429] * 2


async def test_signing_in_often_with_the_right_code_is_not_limited(clock: Clock) -> None:
    found = site(factors={"clock": clock})
    secret, _ = await set_up(await verified(found), clock)
    for _ in range(15):
        assert (await enter(found.browser(), clock.code(secret))).status == 200


async def test_a_recovery_code_counts_once_and_is_not_kept(store: Store, clock: Clock) -> None:
    found = site(store, factors={"clock": clock})
    browser = await verified(found)
    secret, codes = await set_up(browser, clock)
    rows = b"".join((await store.rows("users")).values())
    assert not any(code.replace("-", "").encode() in rows for code in codes)
    assert not any(code.encode() in rows for code in codes)
    assert secret.encode() not in rows
    assert (await enter(found.browser(), codes[0].lower())).url == "/c/"
    assert (await enter(found.browser(), codes[0])).status == 401
    fresh = await browser.submit((await browser.open("/my/account")).page.form("/codes"))
    new = re.findall(r"(?:\w{4}-){3}\w{4}", fresh.text)
    assert (await enter(found.browser(), codes[1])).status == 401
    assert (await enter(found.browser(), new[1].replace("-", ""))).url == "/c/"


async def test_a_role_may_require_a_second_factor(clock: Clock) -> None:
    found = site(factors={"clock": clock, "required": ("operator", "root")})
    await found.users.service.create(UserNew(username="boss", role="operator", password=PASSWORD))
    browser = found.browser()
    page = await sign_in(browser, "boss")
    assert KEY not in browser.cookies
    secret, _ = await enable(browser, page, clock)
    assert (await browser.send("GET", "/c/users")).status == 200
    account = await browser.open("/my/account")
    assert "/second-factor/remove" not in account.text
    form = account.page.form("/codes")
    form.action = form.action.replace("/codes", "/remove")
    assert (await browser.submit(form)).status == 403
    assert (await enter(found.browser(), clock.code(secret), "boss")).url == "/c/"


async def test_sessions_without_a_factor_end_when_the_role_requires_one(clock: Clock) -> None:
    store = site().store
    before = site(store, factors={"clock": clock})
    await before.users.service.create(UserNew(username="boss", role="root", password=PASSWORD))
    browser = before.browser()
    await sign_in(browser, "boss")
    assert (await browser.send("GET", "/c/")).status == 200
    browser.app = site(store, factors={"clock": clock, "required": ("root",)}).console
    assert (await browser.send("GET", "/c/")).status == 303


async def test_a_factor_is_never_ignored_because_of_the_configuration(clock: Clock) -> None:
    store = site().store
    found = site(store, factors={"clock": clock})
    secret, _ = await set_up(await verified(found), clock)
    without = site(store)
    browser = without.browser()
    await sign_in(browser)
    assert KEY not in browser.cookies
    assert (await browser.send("GET", "/c/")).status == 303

    other = site(store, factors={"clock": clock})
    other.users.factors = SecondFactors(
        other.users.service, cipher=Sealer("another passphrase, also long"), clock=clock
    )
    browser = other.browser()
    assert (await enter(browser, clock.code(secret))).status == 500
    assert KEY not in browser.cookies


async def test_a_new_password_does_not_go_around_the_factor(clock: Clock) -> None:
    found = site(factors={"clock": clock})
    await set_up(await verified(found), clock)
    browser = found.browser()
    page = (await browser.open("/reset-password")).page
    await browser.submit(page.form("/reset-password"), email="ann@example.com")
    form = (await browser.get(await found.link())).page.form("/password")
    await browser.submit(form, password="another password")
    shown = await sign_in(browser, password="another password")
    assert shown.url == "/c/sign-in/code"
    assert KEY not in browser.cookies


async def test_a_step_ends_when_the_password_changes_and_works_in_its_browser_only(
    clock: Clock,
) -> None:
    found = site(factors={"clock": clock})
    ann = await verified(found)
    secret, _ = await set_up(ann, clock)
    late = found.browser()
    form = (await sign_in(late)).page.form("/sign-in/code")
    stranger = found.browser()
    assert (await stranger.submit(form, code=clock.code(secret))).status == 400
    change = (await ann.open("/my/account")).page.form("/my/account/password")
    await ann.submit(change, old=PASSWORD, password="another password")
    assert (await late.submit(form, code=clock.code(secret))).status == 400


async def test_a_step_leads_to_one_session(clock: Clock) -> None:
    found = site(factors={"clock": clock})
    secret, _ = await set_up(await verified(found), clock)
    browser = found.browser()
    form = (await sign_in(browser)).page.form("/sign-in/code")
    step = browser.cookies[STEP]
    assert (await browser.submit(form, code=clock.code(secret))).url == "/c/"
    again = found.browser()
    again.cookies[STEP] = step
    assert (await again.submit(form, code=clock.code(secret))).status == 400


async def test_operators_remove_the_factor_of_users_below_them(clock: Clock) -> None:
    found = site(factors={"clock": clock})
    await found.users.service.create(UserNew(username="boss", role="operator", password=PASSWORD))
    await found.users.service.create(UserNew(username="peer", role="operator", password=PASSWORD))
    numbers = {user.username: user.id async for user in found.users.service.users.all()}
    ann = await verified(found)
    await set_up(ann, clock)
    peer = found.browser()
    await sign_in(peer, "peer")
    await set_up(peer, clock)
    numbers = {user.username: user.id async for user in found.users.service.users.all()}
    boss = found.browser()
    await sign_in(boss, "boss")
    for name, status in (("peer", 403), ("ann", 200)):
        form = (await boss.open(f"/users/{numbers[name]}")).page.form("/second-factor")
        assert (await boss.submit(form)).status == status, name
    assert (await ann.send("GET", "/c/")).status == 303
    assert (await sign_in(found.browser())).url == "/c/"
    root = await signed_in_as_root(found)
    form = (await root.open(f"/users/{numbers['peer']}")).page.form("/second-factor")
    assert (await root.submit(form)).status == 200


async def test_actions_of_users_with_a_factor_are_in_the_audit_log(clock: Clock) -> None:
    found = site(factors={"clock": clock})
    browser = await verified(found)
    secret, codes = await set_up(browser, clock)
    await enter(found.browser(), codes[0])
    await browser.submit((await browser.open("/my/account")).page.form("/second-factor/remove"))
    assert (await sign_in(found.browser())).url == "/c/"
    from asgi_aiproxy.services.audit import AuditQuery

    entries = (await found.users.service.audit.page(AuditQuery())).data
    actions = [entry.action for entry in entries]
    assert {"user.second_factor", "user.recovery_code", "user.second_factor.remove"} <= set(actions)
    assert secret not in repr(entries)
    assert not any(code in repr(entries) for code in codes)


async def test_pages_of_the_factor_are_complete_in_chinese(clock: Clock) -> None:
    found = site(factors={"clock": clock})
    browser = await verified(found)
    browser.language = "zh"
    page = await browser.submit((await browser.open("/my/account")).page.form("/second-factor"))
    assert page.page.inline == []
    assert "Scan" not in page.text
    assert "二维码" in page.text
