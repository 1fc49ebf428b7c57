"""What an operator adds to the pages: logo, texts, links, and the unit of money; low balances."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import AdminApp, Budget, ConfigurationError, MemoryStore, Principal
from asgi_aiproxy.accounts.users import User, Users
from asgi_aiproxy.config.settings import build, load
from asgi_aiproxy.console import Console, Site
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.quotas.alerts import BudgetAlert
from asgi_aiproxy.services.low_balance import LowBalanceMail
from asgi_aiproxy.services.mail import Mail
from asgi_aiproxy.stores import Store
from tests.admin.conftest import store
from tests.console.support import HTML, ROOT, Browser, filled, root_of
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio
__all__ = ["store"]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


async def test_texts_are_markdown_and_links_are_shown_to_users() -> None:
    site = Site(
        home="# Welcome\n\nRead *this*.",
        about="| a | b |\n|---|---|\n| 1 | 2 |",
        footer="[Imprint](https://example.com/imprint)",
        top_up_url="https://pay.example.com/",
        chat_url="https://chat.example.com/",
        logo=PNG,
    )
    shop = await filled(site=site)
    browser = shop.browser("/x")
    page = await browser.open("/sign-in")
    assert "<h1>Welcome</h1>" in page.text
    assert "<em>this</em>" in page.text
    assert 'src="data:image/png;base64,' in page.text
    assert "pay.example.com" not in page.text
    assert "<table>" in (await browser.open("/about")).text
    home = await browser.sign_in()
    assert 'href="https://pay.example.com/"' in home.text
    assert 'href="https://chat.example.com/"' in home.text
    assert 'href="https://example.com/imprint"' in home.text


@pytest.mark.parametrize(
    "text",
    [HTML, "[x](javascript:alert(1))", "[x](data:text/html,<script>)", "![x](https://evil.test/)",
     "<javascript:alert(1)>", "[x](vbscript:x)", "<div onclick=x>",
     "[x]: javascript:alert(1)\n\n[x]"],
)  # fmt: skip
async def test_no_text_becomes_code_or_loads_from_another_host(text: str) -> None:
    shop = await filled(site=Site(home=text, about=text, footer=text))
    browser = shop.browser()
    for path in ("/sign-in", "/about"):
        page = await browser.open(path)
        assert page.page.inline == []
        assert "img" not in page.page.tags
        schemes = {link.partition(":")[0] for link in page.page.links if ":" in link}
        assert schemes <= {"https"}, page.page.links


@pytest.mark.parametrize(
    "options",
    [{"logo": b"<svg onload=x>"}, {"logo": PNG + bytes(70_000)}, {"top_up_url": "javascript:x"},
     {"chat_url": "//evil.test"}],
)  # fmt: skip
def test_a_logo_or_link_that_is_unsafe_is_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="Site"):
        Site(**options)


TEXTS = {
    "name": "Ours",
    "home": "# Hello",
    "about": "**Us**",
    "footer": "Below <script>alert(1)</script>",
    "top_up_url": "https://pay.example.com/",
    "chat_url": "https://chat.example.com/",
}


async def test_a_root_user_changes_the_texts_of_all_workers_in_the_console(store: Store) -> None:
    shop = await filled(store, site=Site(home="Configured"), name="Before")
    other = Console(AdminApp(store, token=ROOT), name="Before")
    browser = shop.browser("/x")
    await browser.sign_in()
    form = (await browser.open("/site")).page.form("/site")
    assert dict(form.fields)["name"] == "Before"
    logo = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert (await browser.submit(form, logo=logo, **TEXTS)).status == 200
    for app in (shop.console, other):
        page = await Browser(app, "/x").open("/sign-in")
        assert "<h1>Hello</h1>" in page.text
        assert "· Ours</title>" in page.text
        assert "data:image/png;base64," in page.text
        assert "<script>alert" not in page.text
        assert "<strong>Us</strong>" in (await Browser(app, "/x").open("/about")).text
    assert 'href="https://pay.example.com/"' in (await browser.open("/")).text
    form = (await browser.open("/site")).page.form("/site")
    await browser.submit(form, home="Configured", about="", name="Before")
    page = await Browser(shop.console, "/x").open("/sign-in")
    assert "<p>Configured</p>" in page.text
    assert (await Browser(shop.console, "/x").open("/about")).status == 404
    root = await root_of(shop)
    stored = await root("GET /site")
    assert (stored.home, stored.about, stored.name) == (None, None, None)
    [last, first] = (await root("GET /audit", query={"action": "site"})).data
    assert last.before["home"] == "# Hello"
    assert "iVBOR" not in repr(first)


async def test_only_root_changes_texts_and_what_is_unsafe_is_refused() -> None:
    shop = await filled()
    root = await root_of(shop)
    for change in (
        {"top_up_url": "javascript:alert(1)"},
        {"chat_url": "//evil.test"},
        {"logo": base64.b64encode(b"<svg onload=x>").decode()},
        {"logo": base64.b64encode(PNG + bytes(70_000)).decode()},
        {"logo": "%%"},
        {"name": ""},
        {"name": "a\r\nb"},
        {"home": "x" * 20_001},
        {"unknown": "x"},
    ):
        with pytest.raises(APIError):
            await root("PATCH /site", body=change)
    writer = Principal("op", scopes=("write",))
    with pytest.raises(APIError, match="scope"):
        await shop.admin.call(writer, "PATCH /site", body={"name": "x"})
    browser = Browser(Console(shop.admin, identify=lambda scope: writer))
    assert (await browser.open("/site")).status == 403
    assert "/site" not in (await browser.open("/")).page.links


@pytest.mark.parametrize(
    "text",
    [HTML, "[x](javascript:alert(1))", "![x](https://evil.test/)", "<div onclick=x>"],
)  # fmt: skip
async def test_stored_texts_do_not_become_code(text: str) -> None:
    shop = await filled()
    root = await root_of(shop)
    await root("PATCH /site", body={"home": text, "about": text, "footer": text, "name": text[:99]})
    browser = shop.browser()
    for page in (await browser.open("/sign-in"), await browser.open("/about")):
        assert page.page.inline == []
        assert "<img" not in page.text
        assert "<script>alert" not in page.text
        assert not any(link.startswith("javascript:") for link in page.page.links)


async def test_amounts_are_shown_in_units_if_the_operator_says_so() -> None:
    shop = await filled(site=Site(currency="units", units_per_usd=1000))
    browser = shop.browser()
    await browser.sign_in(shop.secrets["ben"])
    page = await browser.open("/")
    assert "3,000 units" in page.text
    assert "$" not in page.text


async def test_settings_add_to_the_pages(tmp_path: Path) -> None:
    (tmp_path / "about.md").write_text("# About **us**")
    (tmp_path / "logo.png").write_bytes(PNG)
    path = tmp_path / "aiproxy.toml"
    path.write_text(f"""
admin_token = "the-token-of-the-root-of-all"
console = true
[providers.openai]
keys = ["sk-1"]
[site]
logo = "{tmp_path}/logo.png"
about = "file:{tmp_path}/about.md"
""")
    app = build(load(path))
    async with asgi.lifespan(app):
        browser = Browser(app, "/console", root_path="")
        page = await browser.open("/about")
    assert "<strong>us</strong>" in page.text
    assert "data:image/png" in page.text
    path.write_text(path.read_text().replace("logo.png", "missing.png"))
    with pytest.raises(ConfigurationError, match=r"site\.logo"):
        build(load(path))


def alert(**fields: Any) -> BudgetAlert:
    known: dict[str, Any] = {"account": "user-2", "caller": "", "unit": "usd", "per": "total",
                             "period": "", "threshold": 0.95, "limit": 10_000_000,
                             "spent": 9_500_000, "at": 1.0}  # fmt: skip
    return BudgetAlert(**{**known, **fields})


async def test_a_user_is_sent_a_mail_when_its_balance_is_low_and_no_other_is() -> None:
    store, mails = MemoryStore(), []

    async def send(mail: Mail) -> None:
        mails.append(mail)

    users = Users(store)
    budgets = (Budget.usd(10, shared=True),)
    ann = User(id=2, username="ann", email="ann@example.com", email_verified=True)
    await users.create(ann, budgets)
    await users.create(User(id=3, username="ben", email="x@example.com"), budgets)
    notify = LowBalanceMail(store, send, link="https://pay.example.com/")
    for other in ({"threshold": 0.5}, {"account": "user-3"}, {"account": "acme"},
                  {"account": "user-x"}, {"account": "user-99"}, {"caller": "token"}):  # fmt: skip
        await notify(alert(**other))
    assert mails == []
    await notify(alert())
    assert [(mail.to, "$0.50" in mail.text) for mail in mails] == [("ann@example.com", True)]
    assert "https://pay.example.com/" in mails[0].text
