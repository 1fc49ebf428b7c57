"""In another language no page and no error of a form has an English sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import asgi_aiproxy
from asgi_aiproxy.connect import CLIENTS, GatewayAccess
from asgi_aiproxy.console.messages import Messages
from asgi_aiproxy.services.explain import explain_record
from tests.console.support import ROOT, Answer, Browser, Form, filled, record
from tests.console.test_users import signed_in_as_root, site, verified
from tests.support.messages import messages_of

pytestmark = pytest.mark.anyio

PACKAGE = Path(asgi_aiproxy.__file__).parent
TABLES = sorted((PACKAGE / "console" / "strings" / "messages").glob("*.json"))
REQUESTS = ("services", "admin", "console", "accounts")
VALUES = (
    "accounts/groups.py",
    "accounts/token.py",
    "accounts/tokens.py",
    "accounts/vouchers.py",
    "principal.py",
    "ip_ranges.py",
    "keys/key.py",
    "keys/key_set.py",
    "keys/key_store.py",
    "keys/shared_pool.py",
    "keys/wait_queue.py",
    "quotas/grants.py",
    "exchange/error_mapping.py",
    "upstream/socket_transport.py",
)
# Of arguments in code, which no form has.
IN_CODE = re.compile(r"keepalive_expiry|AuditLog|AdminApp requires")
ENGLISH = re.compile(r"\b[A-Za-z]{2,}(?: [a-z]{2,}){2,}")
# Names and syntax that are the same in all languages.
SAME = re.compile(r"Bearer <token>|pip install '[^']*'|\d+ units/day|'usd'|Claude Code|Codex CLI")
ITEM = re.compile(r"/(tokens|keys|announcements|accounts|groups|vouchers|users)/[^/]+")
BAD = ("", "not valid", "-1", "x" * 2_000)
TIMES = ("expires", "since", "until")
PAST = "2020-01-01T00:00"


def english_text(text: str) -> bool:
    return ENGLISH.search(SAME.sub("", text)) is not None


def known_messages() -> set[str]:
    found: set[str] = set()
    for package in REQUESTS:
        for path in sorted((PACKAGE / package).rglob("*.py")):
            found |= messages_of(path)
    for name in VALUES:
        found |= messages_of(PACKAGE / name, values=True)
    for client in CLIENTS.values():
        found |= set(client.setup(GatewayAccess(url="https://x", model="m")).notes)
    return {text for text in found if not IN_CODE.search(text)}


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_message_of_the_gateway_is_translated(path: Path) -> None:
    table = json.loads(path.read_text("utf-8"))
    translate = Messages(table)
    shown = {text: translate(text.replace("{}", "0")) for text in known_messages()}
    assert len(shown) > 200
    left = {text: found for text, found in shown.items() if english_text(found)}
    assert left == {}
    for english, translated in table.items():
        names = [sorted(re.findall(r"\{\w+\}", text)) for text in (english, translated)]
        assert names[0] == names[1], english


def test_each_message_of_a_list_is_translated() -> None:
    translate = Messages(json.loads(TABLES[0].read_text("utf-8")))
    rows = "; ".join(f"row-{n}: There is no token 'row-{n}'." for n in range(5))
    assert not english_text(translate(f"5 of 6 were not changed. {rows}"))
    lines = "; ".join(f"line {n}: the key 'k{n}' already exists" for n in range(20))
    assert not english_text(translate(f"Nothing was imported: {lines}."))


def test_values_of_messages_are_kept_and_messages_within_them_are_translated() -> None:
    translate = Messages(
        {
            "{field}: {message}": "{field} > {message}",
            "The group {name} does not exist.": "Kein {name}.",
            "networks": "Netze",
        }
    )
    assert translate("networks: The group 'a: b' does not exist.") == "Netze > Kein 'a: b'."
    assert translate("The group {name} does not exist.") == "Kein {name}."
    assert translate("Words of a vendor.") == "Words of a vendor."
    long = translate(f"The group '{'x' * 70_000}' does not exist.")
    assert re.fullmatch(r"Kein 'x+ … x+'\.", long)
    assert len(long) < 1_000


async def test_what_happened_to_a_request_is_explained_in_the_language_of_the_page() -> None:
    shop = await filled()
    browser = chinese(shop.browser())
    await browser.sign_in()
    found = record(shop, 2, "ann", 1.0, "plain")
    sentences = [explain_record(found).cause, *explain_record(found).steps]
    page = await browser.open(f"/explain/request?id={found.id}")
    assert page.status == 200
    assert not any(sentence in page.text for sentence in sentences)
    assert "客户端" in page.text or "失败" in page.text


class Text(HTMLParser):
    """The sentences of a page: all text but code, and attributes that are read to people."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag in ("code", "pre")
        shown = ("title", "aria-label", "placeholder", "alt", "data-text")
        self.found += [value for name, value in attrs if name in shown and value]

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre")

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.found.append(data)


def chinese(browser: Browser) -> Browser:
    browser.language = "zh"
    return browser


def english(answer: Answer) -> list[str]:
    """The English sentences of a page."""
    return [text for text in Text(answer.text).found if english_text(text)]


async def pages(browser: Browser) -> dict[str, Answer]:
    """All pages that can be reached by links."""
    found: dict[str, Answer] = {}
    waiting = [f"{browser.mount}/"]
    while waiting:
        path = waiting.pop()
        key = re.sub(r"(client|near|since)=[^&]*", r"\1", path)
        if key in found or "/static/" in path or ".csv" in path:
            continue
        answer = await browser.get(path)
        if answer.headers["content-type"][0].startswith("text/html"):
            found[key] = answer
            waiting += [link for link in answer.page.links if link.startswith("/")]
    return found


def spoiled(form: Form) -> Iterator[dict[str, str]]:
    """The values to send in a form: each field with each bad value, the others as they are."""
    for name, _ in form.fields:
        if name not in ("form_token", "next", "back", "language", "confirm_secret"):
            yield from ({name: value} for value in BAD)
            if name in TIMES:
                yield {name: PAST}


async def check_forms(
    browser: Browser, shown: dict[str, Answer], only: str
) -> tuple[int, dict[str, Any]]:
    """Send every form below `only` with bad values; returns how many errors were shown, and those
    that are English.
    """
    forms = {
        ITEM.sub(r"/\1/_", form.action): form
        for answer in shown.values()
        for form in answer.page.forms
        if form.method == "POST" and not form.action.endswith(("/sign-out", "/language"))
        if re.match(only, form.action)
    }
    errors, found = 0, {}
    for form in forms.values():
        for fields in spoiled(form):
            answer = await browser.submit(form, **fields)
            errors += answer.status >= 400
            if answer.status >= 400 and english(answer):
                (name, value), *_ = fields.items()
                found[form.action, name, value[:20]] = english(answer)
    return errors, found


async def visitor(who: str) -> Browser:
    """A browser with a visitor: signed out, or one of the kinds that pages distinguish."""
    if who in ("token", "operator"):
        shop = await filled()
        browser = chinese(shop.browser())
        await browser.sign_in(ROOT if who == "operator" else shop.secrets["ann"])
        return browser
    found = site(factors={}, passkeys=True)
    user = await verified(found)
    known = {"user": user, "root": await signed_in_as_root(found), "signed-out": found.browser()}
    return chinese(known[who])


# How many errors they see at least, and which of their forms others do not have.
VISITORS = {
    "operator": (60, "/"),
    "token": (10, "/my/"),
    "root": (20, "/c/(users|site|invitations|my)"),
    "user": (5, "/c/my/account"),
    "signed-out": (10, "/c/"),
}


@pytest.mark.parametrize("who", VISITORS)
async def test_no_page_and_no_error_of_a_form_is_english(who: str) -> None:
    least, only = VISITORS[who]
    browser = await visitor(who)
    shown = await pages(browser)
    assert {path: english(answer) for path, answer in shown.items() if english(answer)} == {}
    errors, found = await check_forms(browser, shown, only)
    assert errors > least
    assert found == {}
