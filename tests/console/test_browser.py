"""A real browser walks through the console, under the strict policy of its pages.

Screenshots are kept in `artefacts/`. With `AIPROXY_PICTURES=1` two of them are copied to `docs/`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_aiproxy import (
    AdminApp,
    Authenticate,
    Budget,
    Key,
    KeyPool,
    Ledger,
    MemoryStore,
    OpenAIShim,
    Price,
    Prices,
    Quota,
    lifespan,
    stored_tokens,
)
from asgi_aiproxy.admin import TokenAllowance
from asgi_aiproxy.console import Console
from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.testing import Answer, MockProvider
from asgi_aiproxy.testing.server import serve_in_thread
from asgi_aiproxy.usage.record import Outcome, UsageRecord
from tests.console.support import ROOT
from tests.support.webdriver import Driver, browser, missing

REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

REPOSITORY = Path(__file__).parents[2]
PICTURES = REPOSITORY / "artefacts"
AXE = REPOSITORY / ".browser" / "axe.min.js"
SERIOUS = ("serious", "critical")


@dataclass
class Site:
    """A served gateway: `ai` and `console` are URLs, `vendor` the mock behind it."""

    ai: str
    console: str
    vendor: MockProvider

    def chat(self, token: str, **body: Any) -> httpx2.Response:
        """A call of a program."""
        return httpx2.post(
            f"{self.ai}/v1/chat/completions",
            json={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], **body},
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
        )

    def admin(self, method: str, path: str, **body: Any) -> Any:
        found = httpx2.request(
            method,
            self.console.removesuffix("/console") + "/admin" + path,
            json=body,
            headers={"authorization": f"Bearer {ROOT}"},
            timeout=60,
        )
        assert found.status_code < 300, found.text
        return found.json()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    vendor = MockProvider(Answer(text="Good morning from the gateway.", pace=0.02), key="sk-good")
    store = MemoryStore()
    sealer = Sealer("a passphrase that is long enough")
    with serve_in_thread(vendor) as vendor_url:
        pool = KeyPool([Key("sk-bad", id="first")], name="openai", store=store, sealer=sealer)
        provider = OPENAI.using(pool, base_url=f"{vendor_url}/v1")
        ledger = Ledger(store)
        prices = Prices({"*": Price(input=2.5, output=10)})
        quota = Quota(OpenAIShim(provider, record=ledger), store=store, prices=prices)
        ai = Authenticate(quota, verify=stored_tokens(store))
        admin = AdminApp(
            store,
            token=ROOT,
            providers=[provider],
            self_service=TokenAllowance(tokens=5, budgets=(Budget.usd(5, "month"),)),
        )
        console = Console(admin, gateway=ai, gateway_url="../ai", name="Our gateway")
        mounts = [Mount("/shop/ai", ai), Mount("/shop/admin", admin)]
        app = Starlette(
            routes=[*mounts, Mount("/shop/console", console)],
            lifespan=lifespan(store, ledger, pool, ai, admin, console),
        )
        with serve_in_thread(app) as url:
            asyncio.run(fill(store))
            yield Site(f"{url}/shop/ai", f"{url}/shop/console", vendor)


@pytest.fixture
def page() -> Iterator[Driver]:
    with browser() as driver:
        yield driver


async def fill(store: MemoryStore) -> None:
    """Usage of a month, for the charts."""
    chance = random.Random(7)
    now = time.time()
    async with Ledger(store) as ledger:
        for number in range(600):
            age = chance.randrange(1, 29) * 86400
            model, price = chance.choice([("gpt-4o", 9), ("gpt-4o-mini", 1), ("claude-sonnet", 12)])
            size = chance.randrange(500, 6000)
            await ledger(
                UsageRecord(
                    id=f"earlier-{number}",
                    principal=chance.choice(["search", "support-bot", "reports"]),
                    provider="openai",
                    requested_model=model,
                    model=model,
                    upstream_model=model,
                    usage=Usage(input=size, output=size // 5),
                    outcome=Outcome.FAILED if chance.random() < 0.04 else Outcome.DONE,
                    status=200,
                    started=now - age,
                    first_byte=0.4,
                    duration=2.0,
                    cost=size * price,
                )
            )


def sign_in(page: Driver, site: Site, token: str) -> None:
    page.open(f"{site.console}/")
    page.type("#f-token", token)
    page.click("main form[action$='/sign-in'] button")
    page.wait("Home", "h1")


def press(page: Driver, action: str) -> None:
    """Send the form with this action."""
    page.click(f"main form[action$='{action}'] button:not([type=button])")


def check(page: Driver, site: Site, name: str) -> None:
    """Keep a picture; nothing was logged, no other host requested, axe finds nothing serious."""
    page.screenshot(PICTURES / f"{name}.png")
    # (A refused call is logged as an error of the network: it is what the step is about.)
    entries = [e for e in page.log("browser") if e["source"] != "network"]
    assert [e for e in entries if e["level"] in ("SEVERE", "WARNING")] == []
    local = ("data:", "chrome:")  # of the browser itself: its first tab
    hosts = {urlsplit(url).netloc for url in page.requested() if not url.startswith(local)}
    assert hosts <= {urlsplit(site.console).netloc}
    if AXE.is_file():
        page.script(AXE.read_text("utf-8") + "\nreturn 1")
        found = page.asynchronous("axe.run().then(arguments[arguments.length - 1])")
        problems = [
            (each["id"], [node["target"] for node in each["nodes"]])
            for each in found["violations"]
            if each["impact"] in SERIOUS
        ]
        assert problems == [], name
    wide = page.script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{name} is wider than the window"


def test_an_operator_and_a_user_walk_through_the_console(site: Site, page: Driver) -> None:
    # The operator: a token for a user whose budget is small, and what the vendor refuses.
    sign_in(page, site, ROOT)
    page.open(f"{site.console}/tokens")
    page.type("#f-name", "ann")
    page.type("#f-budgets", "2")
    check(page, site, "tokens")
    press(page, "/tokens")
    page.wait("shown only now")
    ann = page.text("#secret")
    check(page, site, "secret")
    assert site.chat(ann).status_code >= 500  # its only key is refused
    page.open(f"{site.console}/providers/openai")
    page.wait("quarantined")
    check(page, site, "provider-refused")

    # It adds a key that works, and the pool heals.
    page.type("#f-secret", "sk-good")
    page.type("#f-id", "second")
    press(page, "/keys")
    page.wait("Created.")
    assert site.chat(ann).status_code == 200
    page.click("main a[href$='/keys/second']")
    page.wait("second", "h1")
    press(page, "/test")
    page.wait("The key works.")
    check(page, site, "key")

    # The live log holds still, says what is new, and follows.
    page.open(f"{site.console}/log?principal=ann")
    page.find("#live:not([hidden])")
    rows = page.script("return document.querySelectorAll('#records tr').length")
    assert site.chat(ann).status_code == 200
    page.wait("1 new", "#newer")
    assert page.script("return document.querySelectorAll('#records tr').length") == rows
    page.click("#follow")
    page.find(f"#records tr:nth-child({rows + 1})")
    check(page, site, "log")
    page.click("#records tr:first-child a")
    page.wait("Exchange", "h1")
    check(page, site, "exchange")
    page.open(f"{site.console}/usage?by=principal")
    page.wait("ann")
    check(page, site, "usage")
    page.open(f"{site.console}/audit")
    page.wait("token.issue")
    check(page, site, "audit")
    names = ("groups", "accounts", "vouchers", "settings", "explain", "announcements")
    for name in (*names, "routes", "prices"):
        page.open(f"{site.console}/{name}")
        check(page, site, name)
    page.open(f"{site.console}/vouchers")
    page.type("#f-usd", "5")
    press(page, "/vouchers")
    page.wait("shown only now")
    code = page.text("#codes").split()[0]
    page.open(f"{site.console}/")
    page.wait("Requests per minute")
    check(page, site, "home")
    page.open(f"{site.console}/tokens")
    page.click("main table a")
    page.wait("ann", "h1")
    page.type("#f-budgets", "0.000001")
    press(page, "/edit")
    page.wait("exhausted")
    check(page, site, "token")
    page.click("header form[action$='/sign-out'] button")
    page.wait("Sign in", "h1")
    check(page, site, "sign-in")

    # The user: the budget is used up, which is explained; a voucher raises it.
    sign_in(page, site, ann)
    page.open(f"{site.console}/playground")
    page.type("#f-model", "gpt-4o")
    page.type("#f-prompt", "Say good morning.")
    page.click("#send")
    page.wait("429", "#status")
    page.wait("budget", "#answer")
    page.open(f"{site.console}/my/redeem")
    page.type("#f-code", code)
    press(page, "/my/redeem")
    page.wait("The voucher was redeemed.")
    check(page, site, "redeemed")

    # The playground streams, and shows the same call in code.
    page.open(f"{site.console}/playground")
    page.type("#f-model", "gpt-4o")
    page.type("#f-prompt", "Say good morning.")
    page.click("#send")
    page.wait("Good morning from the gateway.", "#answer")
    page.wait("Done.", "#state")
    assert "data: " in page.script("return document.getElementById('raw').textContent")
    assert "Say good morning." in page.text("#as-curl")
    assert re.fullmatch(r"\d+", page.text("#tokens-out"))
    check(page, site, "playground")


def test_a_user_makes_a_key_sees_its_first_call_and_rotates_it(site: Site, page: Driver) -> None:
    if not site.chat(site.admin("POST", "/tokens", name="trial")["secret"]).is_success:
        site.admin("POST", "/providers/openai/keys", id="third", secret="sk-good")
    site.admin("POST", "/accounts", id="team", budgets=["20"])
    bob = site.admin("POST", "/tokens", name="bob", account="team")["secret"]
    sign_in(page, site, bob)
    page.open(f"{site.console}/my/tokens")
    page.type("#f-name", "laptop")
    press(page, "/my/tokens")
    page.wait("shown only now")
    laptop = page.text("#secret")
    page.open(f"{site.console}/start")
    page.wait("Waiting for a call")
    check(page, site, "start")
    site.chat(laptop)
    page.wait("gpt-4o", "#first-call")
    check(page, site, "first-call")
    page.open(f"{site.console}/my/tokens")
    links = page.script(
        "return [...document.querySelectorAll('main table a')].filter("
        "a => a.textContent === 'laptop').map(a => a.href)"
    )
    page.open(links[0])
    page.script("document.getElementById('f-grace').value = '0'")
    press(page, "/rotate")
    page.wait("shown only now")
    rotated = page.text("#secret")
    assert rotated != laptop
    assert site.chat(laptop).status_code == 401
    assert site.chat(rotated).status_code == 200
    page.open(f"{site.console}/my/usage")
    check(page, site, "my-usage")

    # The language, and a narrow window.
    page.click("header button[lang=zh]")
    page.wait("我的用量", "h1")
    check(page, site, "my-usage-zh")
    page.resize(336, 700)
    for path in ("/", "/my/tokens", "/my/log", "/my/usage", "/start", "/playground"):
        page.open(f"{site.console}{path}")
        check(page, site, f"narrow{path.replace('/', '-')}")


def test_no_page_of_an_operator_scrolls_sideways_in_a_narrow_window(
    site: Site, page: Driver
) -> None:
    sign_in(page, site, ROOT)
    page.resize(336, 700)
    links = "return [...document.querySelectorAll('nav[aria-label] a')].map(a => a.href)"
    pages = page.script(links)
    assert len(pages) > 15
    for url in [*pages, f"{site.console}/usage?by=model&compare=yes", f"{site.console}/log?key=x"]:
        page.open(url)
        wide = page.script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{url} is wider than the window"
        # Of the menu, which scrolls by itself, the current page can be seen.
        seen = page.script(
            "const a = document.querySelector('nav a[aria-current]').getBoundingClientRect();"
            "return a.left >= 0 && a.right <= innerWidth"
        )
        assert seen, url


def test_the_dark_colours_have_enough_contrast(site: Site, page: Driver) -> None:
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    command = {"cmd": "Emulation.setEmulatedMedia", "params": dark}
    page.command("goog/cdp/execute", command)
    sign_in(page, site, ROOT)
    for path in ("/", "/usage?by=model&compare=yes", "/log", "/providers/openai", "/routes"):
        page.open(f"{site.console}{path}")
        check(page, site, f"dark{re.sub(r'[^a-z]+', '-', path)}")


def test_a_page_is_used_with_the_keyboard_alone(site: Site, page: Driver) -> None:
    sign_in(page, site, ROOT)
    page.open(f"{site.console}/groups")
    tab, enter = "\ue004", "\ue007"

    def press_keys(*keys: str) -> None:
        each = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        page.command("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": each}]})

    press_keys(tab)  # the first stop skips the menu
    assert page.script("return document.activeElement.className") == "skip"
    press_keys(enter)
    assert page.script("return document.activeElement.id") == "main"
    page.script("document.getElementById('f-name').focus()")
    press_keys(*"keyboard", enter)
    page.wait("Created.")
    page.wait("keyboard")
    outline = page.script(
        "document.querySelector('main a').focus({focusVisible: true});"
        "return getComputedStyle(document.activeElement).outlineStyle"
    )
    assert outline == "solid"  # the focus can be seen


def test_a_page_that_refreshes_itself_leads_to_the_sign_in_when_the_session_ends(
    site: Site, page: Driver
) -> None:
    sign_in(page, site, ROOT)
    page.command("cookie", method="DELETE")
    page.wait("Sign in", "h1")
    assert page.script("return document.querySelectorAll('h1').length") == 1
    assert page.url.endswith("/console/sign-in")


def test_the_pages_work_without_the_script_of_other_sites(site: Site, page: Driver) -> None:
    """The policy is enforced: what a page tries to load from elsewhere is blocked."""
    page.open(f"{site.console}/sign-in")
    page.log("browser")
    page.script(
        "const s = document.createElement('script'); s.textContent = 'window.injected = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.2:9/x';"
        "document.body.append(i)"
    )
    assert page.script("return window.injected ?? null") is None
    entries = json.dumps(page.log("browser"))
    assert "Content Security Policy" in entries


@pytest.mark.skipif(not os.environ.get("AIPROXY_PICTURES"), reason="AIPROXY_PICTURES is not set")
def test_pictures_for_the_readme_are_those_of_this_run() -> None:
    for name in ("home", "usage"):
        shutil.copy(PICTURES / f"{name}.png", REPOSITORY / "docs" / f"console-{name}.png")
