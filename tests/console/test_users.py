"""Users with passwords in the console: sign-up, mail, sign-in, sessions, and what attacks it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from asgi_aiproxy import AdminApp, Authenticate, Budget, MemoryStore, Quota, stored_tokens
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.admin import TokenAllowance
from asgi_aiproxy.console import Console
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.services.base import CODE, Actor
from asgi_aiproxy.services.mail import Mail
from asgi_aiproxy.services.passkeys import Passkeys
from asgi_aiproxy.services.second_factor import SecondFactors
from asgi_aiproxy.services.sign_in import SignInService
from asgi_aiproxy.services.sign_up import SignUpRules
from asgi_aiproxy.services.turnstile import Turnstile
from asgi_aiproxy.services.users import UserEdit, UserNew, UserService
from asgi_aiproxy.services.vouchers import VoucherService, VouchersNew
from asgi_aiproxy.stores import Store
from tests.admin.conftest import store
from tests.console.support import HTML, ORIGIN, ROOT, SEALER, Answer, Browser
from tests.support import asgi_client as asgi

__all__ = ["store"]
pytestmark = pytest.mark.anyio
PASSWORD = "a long enough password"
KEY = ("/c", "aiproxy_console")


@dataclass
class Site:
    """A console with users, and the mail that it has sent."""

    store: Store
    console: Console
    users: SignInService
    mails: list[Mail] = field(default_factory=list)

    def browser(self) -> Browser:
        return Browser(self.console, "/c")

    async def link(self) -> str:
        """Return the path of the link in the last mail."""
        await self.users.drain()
        found = re.search(r"https://gateway\.test(\S+)", self.mails[-1].text)
        assert found
        return found[1]


def site(
    store: Store | None = None,
    *,
    mail: bool = True,
    providers: Any = (),
    factors: dict[str, Any] | None = None,
    turnstile: Turnstile | None = None,
    confirm_seconds: float | None = 600.0,
    passkeys: bool = False,
    **rules: Any,
) -> Site:
    store = store if store is not None else MemoryStore()
    mails: list[Mail] = []

    async def mailer(message: Mail) -> None:
        mails.append(message)

    passwords = Passwords(time_cost=1, memory_cost=64)
    service = UserService(store, passwords=passwords)
    rules = {"mode": "open", "verify": mail, **rules}
    users = SignInService(
        service,
        rules=SignUpRules(**rules),
        mailer=mailer if mail else None,
        url=f"{ORIGIN}/c",
        providers=providers,
        turnstile=turnstile,
        factors=None if factors is None else SecondFactors(service, cipher=SEALER, **factors),
        passkeys=Passkeys(service, url=f"{ORIGIN}/c") if passkeys else None,
    )
    admin = AdminApp(store, token=ROOT, users=service, self_service=TokenAllowance(tokens=3))
    console = Console(admin, users=users, confirm_seconds=confirm_seconds)
    return Site(store, console, users, mails)


async def sign_up(browser: Browser, name: str = "ann", **fields: str) -> Answer:
    form = (await browser.open("/sign-up")).page.form("/sign-up")
    email = f"{name}@example.com"
    return await browser.submit(form, **{"username": name, "password": PASSWORD, "email": email,
                                         **fields})  # fmt: skip


async def sign_in(browser: Browser, name: str = "ann", password: str = PASSWORD) -> Answer:
    form = (await browser.open("/sign-in")).page.form("/sign-in")
    form.fields = [pair for pair in form.fields if pair[0] != "token"]
    return await browser.submit(form, username=name, password=password)


async def signed_in_as_root(site: Site) -> Browser:
    browser = site.browser()
    forms = (await browser.open("/sign-in")).page.forms
    with_token = next(form for form in forms if "token" in dict(form.fields))
    assert (await browser.submit(with_token, token=ROOT)).status == 200
    return browser


async def verified(site: Site, name: str = "ann") -> Browser:
    """Return a browser in which a new user has signed in."""
    browser = site.browser()
    await sign_up(browser, name)
    await browser.submit((await browser.get(await site.link())).page.form("/verify-email"))
    assert (await sign_in(browser, name)).status == 200
    return browser


async def test_from_sign_up_to_the_first_call_and_a_voucher(store: Store) -> None:
    found = site(store)
    browser = found.browser()
    answer = await sign_up(browser)
    assert "An e-mail was sent" in answer.text
    assert (await sign_in(browser)).status == 403
    page = (await browser.get(await found.link())).page
    assert "is verified" in (await browser.submit(page.form("/verify-email"))).text
    assert (await sign_in(browser)).url == "/c/"
    page = (await browser.open("/my/tokens")).page
    made = await browser.submit(page.form("/my/tokens"), name="laptop")
    secret = re.search(r"sk-[\w-]{20,}", made.text)
    assert secret

    async def model(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    app = Authenticate(Quota(model, store=store), verify=stored_tokens(store))
    headers = {"authorization": f"Bearer {secret[0]}"}

    async def call() -> int:
        return (await asgi.request(app, "GET", "/v1/models", headers=headers)).status

    assert await call() == 200
    codes = (await VoucherService(store).create(VouchersNew(count=1, usd=3))).codes
    page = (await browser.open("/my/redeem")).page
    assert "was redeemed" in (await browser.submit(page.form("/my/redeem"), code=codes[0])).text
    assert "$3.00" in (await browser.open("/")).text
    user = await found.users.service.users.by_name("ann")
    assert user is not None
    await found.users.service.edit(user.id, UserEdit(enabled=False))
    assert (await browser.send("GET", "/c/")).status == 303


async def test_unknown_names_wrong_passwords_and_disabled_users_get_the_same_answer() -> None:
    found = site()
    service = found.users.service
    await service.create(UserNew(username="ann", password=PASSWORD))
    made = await service.create(UserNew(username="off", password=PASSWORD))
    await service.create(UserNew(username="new"))
    await service.edit(made.user.id, UserEdit(enabled=False))
    seen = set()
    for name, password in (("ann", "wrong"), ("off", PASSWORD), ("new", ""), ("x", PASSWORD)):
        answer = await sign_in(found.browser(), name, password)
        text = re.sub(r'name="username"[^>]*value="[^"]*"', "", answer.text)
        seen.add((answer.status, re.sub(r'value="[^"]*"', "", text)))
    assert len(seen) == 1
    assert next(iter(seen))[0] == 401


async def test_mail_does_not_show_to_others_whether_an_address_is_known() -> None:
    found = site()
    await verified(found)
    answers = set()
    for email in ("ann@example.com", "other@example.com"):
        browser = found.browser()
        page = (await browser.open("/reset-password")).page
        answer = await browser.submit(page.form("/reset-password"), email=email)
        await found.users.drain()
        answers.add((answer.status, answer.text))
    assert len(answers) == 1
    assert [mail.to for mail in found.mails] == ["ann@example.com"] * 2
    first = await sign_up(found.browser(), "ben")
    second = await sign_up(found.browser(), "cat", email="ann@example.com")
    assert (first.status, first.text) == (second.status, second.text)
    assert "has an account" in found.mails[-1].text
    assert "link=" not in found.mails[-1].text


async def test_guesses_are_limited_in_all_workers_and_stop_the_guesser_before_the_user(
    store: Store,
) -> None:
    workers = [site(store), site(store)]
    await workers[0].users.service.create(UserNew(username="ann", password=PASSWORD))

    async def guess(n: int, address: str, password: str = "wrong") -> int:
        try:
            await workers[n % 2].users.verify("Ann", password, Actor(CODE.principal, "x", address))
        except APIError as error:
            return error.status
        return 200

    assert [await guess(n, "192.0.2.1") for n in range(12)] == [401] * 10 + [429] * 2
    assert await guess(0, "192.0.2.1", PASSWORD) == 429
    assert await guess(1, "198.51.100.7", PASSWORD) == 200
    network = [await guess(n, f"2001:db8::{n}") for n in range(12)]
    assert network == [401] * 10 + [429] * 2


async def test_guesses_of_one_name_are_counted_together_however_it_is_written() -> None:
    found = site()
    await found.users.service.create(UserNew(username="ann", password=PASSWORD))
    spellings = ["ann", "ANN", " ann ", "\uff41nn", "a\uff4en", "an\uff4e", "\u24d0nn"] * 2
    seen = []
    for name in spellings:
        with pytest.raises(APIError) as error:
            await found.users.verify(name, "wrong", CODE)
        seen.append(error.value.status)
    assert seen == [401] * 10 + [429] * 4


async def test_signing_in_often_with_the_right_password_is_not_limited() -> None:
    found = site()
    await found.users.service.create(UserNew(username="ann", password=PASSWORD))
    for _ in range(15):
        await found.users.verify("ann", PASSWORD, CODE)


async def test_a_session_from_before_the_sign_in_is_worth_nothing() -> None:
    found = site()
    browser = await verified(found)
    first = browser.cookies[KEY]
    await browser.submit((await browser.open("/")).page.form("/sign-out"))
    browser.cookies[KEY] = first
    assert (await browser.send("GET", "/c/")).status == 303
    await sign_in(browser)
    assert browser.cookies[KEY] != first


async def test_users_see_and_end_their_sessions_and_only_theirs(store: Store) -> None:
    found = site(store)
    ann, ben = await verified(found), await verified(found, "ben")
    phone = site(store).browser()
    await sign_in(phone)
    page = await ann.open("/my/account")
    forms = [form for form in page.page.forms if form.action.endswith("/sessions/end")]
    assert len(forms) == 1
    token = dict((await ben.open("/my/account")).page.forms[0].fields)["form_token"]
    await ben.submit(forms[0], form_token=token)
    assert (await phone.send("GET", "/c/")).status == 200
    await ann.submit(forms[0])
    assert (await phone.send("GET", "/c/")).status == 303
    assert (await ann.send("GET", "/c/")).status == 200


async def test_a_new_password_ends_all_other_sessions() -> None:
    found = site()
    ann = await verified(found)
    phone = found.browser()
    await sign_in(phone)
    page = (await ann.open("/my/account")).page
    wrong = await ann.submit(page.form("/password"), old="wrong", password="another password")
    assert wrong.status == 401
    await ann.submit(page.form("/password"), old=PASSWORD, password="another password")
    assert (await ann.send("GET", "/c/my/account")).status == 200
    assert (await phone.send("GET", "/c/")).status == 303
    assert (await sign_in(phone)).status == 401
    assert (await sign_in(phone, password="another password")).status == 200


async def test_a_forgotten_password_is_replaced_by_a_link_that_works_once() -> None:
    found = site()
    await verified(found)
    ann = found.browser()
    page = (await ann.open("/reset-password")).page
    await ann.submit(page.form("/reset-password"), email="ANN@example.com")
    form = (await ann.get(await found.link())).page.form("/password")
    assert (await ann.submit(form, password="short")).status == 400
    assert "is set" in (await ann.submit(form, password="another password")).text
    assert "no longer valid" in (await ann.submit(form, password="third password")).text
    assert (await sign_in(found.browser(), "ann@example.com", "another password")).status == 200


async def test_a_link_to_an_address_that_the_user_has_no_more_does_not_work() -> None:
    found = site()
    await verified(found)
    ann = found.browser()
    page = (await ann.open("/reset-password")).page
    await ann.submit(page.form("/reset-password"), email="ann@example.com")
    form = (await ann.get(await found.link())).page.form("/password")
    user = await found.users.service.users.by_name("ann")
    assert user is not None
    await found.users.service.edit(user.id, UserEdit(email="new@example.com"))
    assert "no longer valid" in (await ann.submit(form, password="another password")).text


async def test_opening_a_link_changes_nothing() -> None:
    found = site()
    browser = found.browser()
    await sign_up(browser)
    link = await found.link()
    for _ in range(3):  # such as a scanner of mail
        await browser.get(link)
    assert (await sign_in(browser)).status == 403


async def test_one_address_is_not_flooded_with_mail() -> None:
    found = site()
    await verified(found)
    for _ in range(8):
        browser = found.browser()
        page = (await browser.open("/reset-password")).page
        await browser.submit(page.form("/reset-password"), email="ann@example.com")
        await found.users.drain()
    assert len(found.mails) == 5


async def test_sign_up_that_is_closed_is_refused_and_not_offered() -> None:
    found = site(mode="closed")
    browser = found.browser()
    assert "/sign-up" not in (await browser.open("/sign-in")).text
    form = (await browser.open("/sign-in")).page.form("/sign-in")
    form.action = "/c/sign-up"
    assert (await browser.submit(form, username="ann", password=PASSWORD)).status == 403
    assert [user async for user in found.users.service.users.all()] == []


async def test_an_invitation_lets_as_many_users_sign_up_as_it_says() -> None:
    found = site(mode="invitation", mail=False)
    root = await signed_in_as_root(found)
    page = (await root.open("/users")).page
    shown = await root.submit(page.form("/invitations"), uses="2")
    code = re.search(r'<code id="secret">([^<]+)<', shown.text)
    assert code
    assert (await sign_up(found.browser(), "eve", code="guessed")).status == 400
    assert (await sign_up(found.browser(), "ann", code=code[1])).status == 200
    assert (await sign_up(found.browser(), "Ann", code=code[1])).status == 409
    assert (await sign_up(found.browser(), "ben", code=code[1])).status == 200
    assert (await sign_up(found.browser(), "cat", code=code[1])).status == 400


async def test_only_addresses_of_the_allowed_domains_sign_up() -> None:
    found = site(mode="domains", domains=("example.com",))
    for email in ("x@evil.test", "x@sub.example.com", "x@example.com.evil.test", ""):
        assert (await sign_up(found.browser(), "eve", email=email)).status == 400
    assert (await sign_up(found.browser(), "ann", email="ann@EXAMPLE.com")).status == 200


async def test_an_invitation_by_a_user_is_rewarded_once() -> None:
    credit = Budget.usd(2, shared=True)
    found = site(inviter_credit=credit, invited_credit=Budget.usd(1, shared=True))
    ann = await verified(found)
    code = re.search(r"<code>(\w+)</code>", (await ann.open("/my/account")).text)
    assert code
    browser = found.browser()
    await sign_up(browser, "ben", code=code[1])
    assert "$2.00" not in (await ann.open("/")).text
    await browser.submit((await browser.get(await found.link())).page.form("/verify-email"))
    await sign_in(browser, "ben")
    assert "$1.00" in (await browser.open("/")).text
    assert "$2.00" in (await ann.open("/")).text


async def test_forms_of_another_site_are_refused() -> None:
    found = site()
    browser = await verified(found)
    posts = [
        route.path.replace("{id}", "1") for route in found.console.routes if route.method == "POST"
    ]
    for path in posts:
        for headers in ({"sec-fetch-site": "cross-site", "origin": "https://evil.test"}, {}):
            answer = await browser.send("POST", "/c" + path, b"username=x&password=y", headers)
            assert answer.status == 403, path


async def test_names_and_browsers_are_shown_as_text() -> None:
    found = site()
    made = await found.users.service.create(
        UserNew(username="ann", password=PASSWORD, display_name=HTML)
    )
    browser = found.browser()
    form = (await browser.open("/sign-in")).page.form("/sign-in")
    headers = {"user-agent": HTML, "sec-fetch-site": "same-origin", "origin": ORIGIN}
    token = dict(form.fields)["form_token"]
    body = f"username=ann&password={PASSWORD.replace(' ', '+')}&form_token={token}".encode()
    await browser.send("POST", form.action, body, headers)
    root = await signed_in_as_root(found)
    for page in (
        await browser.open("/my/account"),
        await root.open("/users"),
        await root.open(f"/users/{made.user.id}"),
    ):
        assert page.status == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text


async def test_operators_manage_users_below_them_in_the_console() -> None:
    found = site()
    service = found.users.service
    for name, role in (
        ("boss", "operator"),
        ("peer", "operator"),
        ("top", "root"),
        ("low", "user"),
    ):
        await service.create(UserNew(username=name, role=role, password=PASSWORD))  # type: ignore[arg-type]
    boss = found.browser()
    await sign_in(boss, "boss")
    numbers = {user.username: user.id async for user in service.users.all()}
    for name, status in (("peer", 403), ("top", 403), ("boss", 403), ("low", 200)):
        form = (await boss.open(f"/users/{numbers[name]}")).page.form("/disable")
        assert (await boss.submit(form)).status == status, name
    page = (await boss.open("/users")).page
    assert (await boss.submit(page.form("/users"), username="new", role="operator")).status == 403
    made = await boss.submit(page.form("/users"), username="new")
    link = re.search(r"https://gateway\.test(\S+?)<", made.text)
    assert link
    new = found.browser()
    form = (await new.get(link[1].replace("&amp;", "&"))).page.form("/password")
    await new.submit(form, password=PASSWORD)
    await sign_in(new, "new")
    assert (await new.send("GET", "/c/users")).status == 403


async def test_errors_of_signing_in_are_in_the_language_of_the_page() -> None:
    found = site()
    browser = found.browser()
    browser.language = "zh"
    assert "用户名或密码错误" in (await sign_in(browser)).text
    assert (
        "此链接已失效"
        in (
            await browser.submit(
                (await browser.open("/password?link=x")).page.form("/password"), password=PASSWORD
            )
        ).text
    )


async def test_pages_of_users_are_complete_in_chinese_without_inline_code() -> None:
    found = site()
    browser = await verified(found)
    browser.language = "zh"
    for path in ("/my/account", "/sign-up", "/reset-password", "/password?link=x"):
        page = await browser.open(path)
        assert page.page.inline == []
        assert 'lang="zh"' in page.text
        assert "Password" not in page.text
