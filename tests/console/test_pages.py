"""Every link, form and asset of the console works below any mount, without JavaScript."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

import asgi_aiproxy.console as package
from asgi_aiproxy.console.rendering import Renderer
from asgi_aiproxy.console.site import Site
from tests.console.support import Browser, Page, filled
from tests.support.hosts import HOSTS, Host

pytestmark = pytest.mark.anyio

FOLDER = Path(package.__file__).parent
FOREIGN = re.compile(r"https?://(?!www\.w3\.org/2000/svg)")


async def crawl(browser: Browser) -> set[str]:
    """Open all that can be reached from the home page; returns the paths of forms and pages."""
    mount = browser.mount
    seen: set[str] = set()
    targets: set[str] = set()
    waiting = [f"{mount}/"]
    while waiting:
        url = waiting.pop()
        parts = urlsplit(url)
        key = parts.path + ("?" if parts.query else "")
        if key in seen:
            continue
        seen.add(key)
        answer = await browser.get(url)
        assert answer.status == 200, (url, answer.text[:500])
        kind = answer.headers["content-type"][0]
        if not kind.startswith("text/html"):
            continue
        page = answer.page
        assert page.inline == []
        assert len(set(page.ids)) == len(page.ids), url
        for found in (*page.links, *page.assets, *page.refreshed):
            if not found.startswith("#"):
                assert found.startswith(f"{mount}/"), (url, found)
                assert not found.startswith("//")
                waiting.append(found)
        for form in page.forms:
            assert form.action.startswith(f"{mount}/"), (url, form.action)
            targets.add(urlsplit(form.action).path.removeprefix(mount))
            if form.method == "POST":
                assert "form_token" in dict(form.fields), (url, form.action)
    return {path.rstrip("?").removeprefix(mount) for path in seen} | targets


@pytest.mark.parametrize("mount", ["", "/x", "/a/b/c", "/mit leer", "/ü"])
async def test_operators_and_users_reach_every_page_below_any_mount(mount: str) -> None:
    shop = await filled(site=Site(about="About us."))
    browser = Browser(shop.console, quote(mount), root_path=mount)
    assert (await browser.sign_in()).status == 200
    reached = await crawl(browser)
    user = Browser(shop.console, quote(mount), root_path=mount)
    await user.sign_in(shop.secrets["ann"])
    await user.submit((await user.open("/my/tokens")).page.form("/my/tokens"), name="laptop")
    reached |= await crawl(user)
    patterns = {
        (route.method, re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route.path)))
        for route in shop.console.routes
    }
    missing = {
        pattern
        for method, pattern in patterns
        if not any(re.fullmatch(pattern, path) for path in reached)
    }
    other_states = {"/sign-in", "/start/calls"}  # signed out; no call yet
    other_states |= {"/log/live", "/my/log/live"}  # by the script, see test_playground.py
    shown = {re.sub(r"\\(.)", r"\1", pattern) for pattern in missing} - other_states
    assert {path for path in shown if not path.endswith("/enable")} == set()


async def test_a_user_reaches_only_its_own_pages() -> None:
    shop = await filled()
    browser = shop.browser("/x")
    await browser.sign_in(shop.secrets["ann"])
    reached = await crawl(browser)
    assert "/my/tokens" in reached
    assert not any(path.startswith(("/tokens", "/log", "/providers")) for path in reached)


async def test_a_proxy_may_strip_the_prefix_or_keep_it() -> None:
    shop = await filled()

    for app in (without("/p", shop.console), shop.console):
        browser = Browser(app, "/p")
        await browser.sign_in()
        assert len(await crawl(browser)) > 20


async def test_two_consoles_of_one_host_have_sessions_of_their_own() -> None:
    shop = await filled()
    outer, inner = shop.browser("/x"), shop.browser("/x/y")
    inner.cookies = outer.cookies
    await outer.sign_in(shop.secrets["ann"])
    assert b"Sign in" in (await inner.open("/")).body
    await inner.sign_in(shop.secrets["ben"])
    assert "ann plain" in (await outer.open("/")).text
    assert "ben plain" in (await inner.open("/")).text
    page = (await outer.open("/")).page
    await outer.submit(page.form("/sign-out"))
    assert "ben plain" in (await inner.open("/")).text


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
async def test_every_host_serves_it(host: Host) -> None:
    shop = await filled()
    mount = f"{host.path}/console" if host.path else ""
    app = host.build({mount: shop.console} if mount else {"": shop.console})
    front = "/api" if host.name == "fastapi-root_path" else ""  # which a proxy removes
    browser = Browser(without(front, app), front + mount, root_path="")
    assert (await browser.sign_in()).status == 200
    assert len(await crawl(browser)) > 20


def without(front: str, app: Any) -> Any:
    """The app behind a proxy that removes a prefix."""

    async def proxied(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix(front)
        raw = scope["raw_path"].removeprefix(front.encode())
        await app({**scope, "path": path, "raw_path": raw}, receive, send)

    return proxied


BEHIND_PROXY = [
    (host, prefix)
    for host in HOSTS
    for prefix in ("kept", "stripped")
    if getattr(host, prefix) and host.name != "fastapi-root_path"  # that is tested above
]


@pytest.mark.parametrize(("host", "prefix"), BEHIND_PROXY, ids=str)
async def test_every_host_serves_it_behind_a_proxy(host: Host, prefix: str) -> None:
    shop = await filled()
    app = host.build({host.path: shop.console})

    proxied = without("/front", app) if prefix == "stripped" else app
    browser = Browser(proxied, "/front" + host.path, root_path="/front")
    assert (await browser.sign_in(shop.secrets["ann"])).status == 200
    assert "/my/log" in await crawl(browser)


async def test_pages_and_assets_name_no_other_host() -> None:
    shop = await filled()
    browser = shop.browser("/x")
    await browser.sign_in()
    for path in ("/", "/log", "/usage", "/providers", "/settings", "/my/tokens"):
        assert not FOREIGN.search((await browser.open(path)).text), path
    for name in ("console.css", "console.js"):
        assert not FOREIGN.search((FOLDER / "static" / name).read_text())


async def test_assets_may_be_kept_for_a_year_and_pages_not_at_all() -> None:
    shop = await filled()
    browser = shop.browser()
    page = await browser.sign_in()
    assert page.headers["cache-control"] == ["no-store"]
    for asset in page.page.assets:
        found = await browser.get(asset)
        assert "immutable" in found.headers["cache-control"][0]
        assert found.headers["x-content-type-options"] == ["nosniff"]
    assert (await browser.get("/static/console.css")).status == 404
    assert (await browser.get("/static/..%2Fapp.py")).status == 404


def test_the_front_end_is_smaller_than_60_kb() -> None:
    files = [path for path in (FOLDER / "static").iterdir() if path.suffix in (".js", ".css")]
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in files}
    assert sum(sizes.values()) < 60_000, sizes
    assert (FOLDER / "static" / "htmx.LICENSE.txt").is_file()


def test_every_text_has_a_translation_with_the_same_placeholders() -> None:
    used: set[str] = set()
    for path in [*FOLDER.glob("templates/*.html"), *FOLDER.glob("screens/*.py")]:
        for mark in "\"'":
            pattern = rf"\b_\(\s*{mark}((?:[^{mark}\\]|\\.)*){mark}"
            used |= set(re.findall(pattern, path.read_text("utf-8")))
    assert len(used) > 200
    for path in FOLDER.glob("strings/*.json"):
        table = json.loads(path.read_text("utf-8"))
        assert table.keys() == used, path.name
        for english, translated in table.items():
            assert re.findall(r"\{\w+\}", english) == re.findall(r"\{\w+\}", translated), english


async def test_the_language_is_that_of_the_browser_until_another_is_chosen() -> None:
    shop = await filled()
    browser = shop.browser("/x")
    browser.language = "zh-CN,zh;q=0.9,en;q=0.8"
    answer = await browser.sign_in()
    assert 'lang="zh"' in answer.text
    assert "我的令牌" in answer.text
    page = (await browser.open("/log?state=failed")).page
    answer = await browser.submit(page.form("/language"), language="en")
    assert "My tokens" in answer.text
    assert answer.url.endswith("/x/log?state=failed")
    assert Renderer(Site()).languages.choose(None, "fr, *;q=0.1").language == "en"


async def test_pages_have_one_heading_labels_and_the_language() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    for path in ("/", "/log", "/usage", "/tokens", "/providers/openai", "/start", "/settings"):
        text = (await browser.open(path)).text
        page = Page(text)
        assert page.tags.count("h1") == 1, path
        labels = set(re.findall(r'<label for="([^"]+)"', text))
        fields = set(re.findall(r'<(?:input|select|textarea) id="([^"]+)"', text))
        assert fields <= labels, path
        if path not in ("/",):
            assert "aria-current" in text, path
