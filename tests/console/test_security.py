"""What pages protect from: other sites, injected text, stolen and fixed sessions, other callers."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import time
from functools import cache
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import (
    AdminApp,
    ConfigurationError,
    Ledger,
    MemoryStore,
    Price,
    Prices,
    ProviderRouter,
    Tokens,
)
from asgi_aiproxy.console import Console
from asgi_aiproxy.console.security import is_local_path, is_same_origin, mount_path
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores.base import StoreUnavailableError
from asgi_aiproxy.usage.record import UsageRecord
from tests.console.support import ORIGIN, ROOT, Answer, Browser, filled, record
from tests.console.test_pages import crawl
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

HTML = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{7*7}}"
SAME = {"sec-fetch-site": "same-origin"}


async def test_no_text_of_the_store_or_of_providers_becomes_html() -> None:
    shop = await filled(text=HTML)
    browser = shop.browser("/x")
    await browser.sign_in()
    seen = ["/", "/now", "/log", "/usage?by=model", "/usage?by=principal", "/tokens", "/accounts"]
    seen += ["/vouchers", "/groups", "/providers/openai", f"/tokens/{shop.ids['ann']}"]
    log = await browser.open("/log")
    seen += [link.removeprefix("/x") for link in log.page.links if "near=" in link]
    hostile = urlencode({"model": HTML, "principal": HTML, "done": HTML, "client": HTML})
    seen += [f"/log?{hostile}", f"/start?{hostile}", f"/usage?by=model&name={HTML}"]
    for path in seen:
        answer = await browser.open(path)
        assert answer.status == 200, path
        assert "<script>alert" not in answer.text, path
        assert "<img" not in answer.text, path
        assert answer.page.inline == [], path
        assert "49" not in re.findall(r"\b49\b", HTML)
    assert "&lt;script&gt;alert(1)" in log.text
    user = shop.browser("/x")
    await user.sign_in(shop.secrets["ann"])
    for path in ("/", "/my/log", "/my/usage", "/my/tokens"):
        assert "<script>alert" not in (await user.open(path)).text


async def test_a_form_with_too_many_fields_is_refused_before_they_are_read() -> None:
    shop = await filled()
    headers = {**SAME, "content-type": "application/x-www-form-urlencoded"}
    answer = await shop.browser("/x").send("POST", "/x/sign-in", b"a=&" * 1_000_000, headers)
    assert answer.status == 400
    assert "more than 2000 fields" in answer.text


class Inspecting(Browser):
    """Looks for injected HTML in each response."""

    async def send(
        self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        answer = await super().send(method, url, body, headers)
        if answer.headers.get("content-type", [""])[0].startswith("text/html"):
            assert "<script>alert" not in answer.text, url
            assert "<img src=x" not in answer.text, url
            assert answer.page.inline == [], url
        return answer


async def test_no_page_that_can_be_reached_has_injected_html() -> None:
    shop = await filled(text=HTML)
    browser = Inspecting(shop.console, "/x")
    await browser.sign_in()
    form = (await browser.open("/groups")).page.form("/groups")
    await browser.submit(form, name=HTML, ratio="1", models=HTML)
    reached = await crawl(browser)
    assert {"/routes", "/prices", "/usage", "/log/rows", "/now"} <= reached
    await browser.open("/usage?by=model&compare=yes")
    for field in ("ids", "action", "days"):
        token = (await browser.open("/tokens")).page.form("/tokens/selection")
        await browser.submit(token, **{"action": "revoke", "ids": "x", field: HTML})
    user = Inspecting(shop.console, "/x")
    await user.sign_in(shop.secrets["ann"])
    await crawl(user)


async def test_routes_and_prices_show_hostile_names_as_text() -> None:
    provider = OPENAI.using("sk-1")
    router = ProviderRouter({HTML: (provider, HTML)}, display_names={HTML: HTML})
    admin = AdminApp(
        MemoryStore(),
        token=ROOT,
        providers=[provider],
        router=router,
        prices=Prices({HTML: Price(input=1)}, listed=False),
    )
    browser = Inspecting(Console(admin), "")
    await browser.sign_in()
    for path in ("/routes", "/prices"):
        assert "&lt;script&gt;alert(1)" in (await browser.open(path)).text


async def test_no_cell_of_a_csv_file_of_the_console_is_a_formula() -> None:
    for hostile in ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"):
        shop = await filled()
        async with Ledger(shop.store) as ledger:
            found = record(shop, 900, "ann", time.time(), "plain")
            await ledger(msgspec.structs.replace(found, upstream_model=hostile))
        browser = shop.browser()
        await browser.sign_in()
        text = (await browser.open("/usage.csv?by=model")).text
        names = [row[0] for row in csv.reader(io.StringIO(text, newline=""))]
        assert f"'{hostile}" in names


async def test_a_missing_page_and_an_error_do_not_repeat_html() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    answer = await browser.open("/%3Cscript%3Ealert(1)%3C/script%3E")
    assert answer.status == 404
    assert "<script>alert" not in answer.text
    form = (await browser.open("/tokens")).page.form("/tokens")
    answer = await browser.submit(form, name=HTML, group=HTML)
    assert answer.status == 400
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "https://evil.test", "sec-fetch-site": "same-origin"},
        {"referer": "https://evil.test/https://gateway.test/"},
        {},
    ],
)
async def test_a_form_of_another_site_changes_nothing(headers: dict[str, str]) -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/tokens")).page.form("/tokens")
    body = urlencode({**dict(form.fields), "name": "evil"}).encode()
    answer = await browser.send("POST", "/tokens", body, headers)
    assert answer.status == 403
    assert "evil" not in (await browser.open("/tokens")).text
    login = urlencode({"token": ROOT, **dict(form.fields)}).encode()
    assert (await Browser(shop.console).send("POST", "/sign-in", login, headers)).status == 403


async def test_a_form_needs_the_token_of_its_own_session() -> None:
    shop = await filled()
    browser, other = shop.browser(), shop.browser()
    await browser.sign_in()
    await other.sign_in(shop.secrets["ann"])
    stolen = dict((await other.open("/my/tokens")).page.form("/my/tokens").fields)["form_token"]
    for token in (
        "",
        "0" * 64,
        stolen,
        dict((await Browser(shop.console).open("/sign-in")).page.form("/sign-in").fields)[
            "form_token"
        ],
    ):
        body = urlencode({"form_token": token, "name": "evil"}).encode()
        answer = await browser.send("POST", "/tokens", body, {**SAME, "origin": ORIGIN})
        assert answer.status == 403


async def test_a_form_of_an_earlier_sign_in_is_shown_again_as_it_was_filled_in() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    old = (await browser.open("/groups")).page.form("/groups")
    await browser.submit((await browser.open("/")).page.form("/sign-out"))
    ended = await browser.submit(old, name="gold", ratio="0.25")
    assert ended.status == 401
    assert "/sign-in" in ended.page.links
    await browser.sign_in()
    shown = await browser.submit(old, name="gold", ratio="0.25")  # the page is loaded again
    assert shown.status == 403
    fields = dict(shown.page.form("/groups").fields)
    assert (fields["name"], fields["ratio"]) == ("gold", "0.25")
    assert "gold" not in await shop.store.rows("groups")
    assert (await browser.submit(shown.page.form("/groups"))).status == 200
    assert "gold" in await shop.store.rows("groups")


async def test_what_another_site_has_entered_in_a_form_is_not_shown() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    body = urlencode({"name": "entered-elsewhere"}).encode()
    answer = await browser.send("POST", "/groups", body, {"origin": "https://evil.test"})
    assert answer.status == 403
    assert "entered-elsewhere" not in answer.text


async def test_a_part_of_a_page_does_not_become_the_sign_in() -> None:
    shop = await filled()
    answer = await shop.browser().send("GET", "/now", headers={"hx-request": "true"})
    assert (answer.status, answer.headers["hx-refresh"], answer.body) == (401, ["true"], b"")


QUERY = ("since", "until", "by", "name", "after", "near", "compare", "model", "size", "output",
         "id", "provider", "key_id", "key", "principal", "client", "cost", "state", "first_byte",
         "limit", "request", "session", "tag", "status", "actor", "done", "scan")  # fmt: skip
VALUES = ("nan", "-inf", "1e999", "0001-01-01", "9999-12-31", "\x00", "\ud800", "-1", "9" * 30, "é",
          "../x", "x" * 3000, "%ff", "")  # fmt: skip


@cache
def operators_browser() -> Browser:
    async def made() -> Browser:
        browser = (await filled()).browser()
        await browser.sign_in()
        return browser

    return asyncio.run(made())


@settings(max_examples=120, deadline=None)
@given(
    number=st.integers(0, 99),
    query=st.dictionaries(st.sampled_from(QUERY), st.sampled_from(VALUES), max_size=3),
)
def test_no_query_of_a_page_is_an_internal_error(number: int, query: dict[str, str]) -> None:
    paths = [
        route.path
        for route in operators_browser().app.routes
        if route.method == "GET" and "live" not in route.path
    ]
    check_query(paths[number % len(paths)], query)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/start/calls", {"since": "nan"}),
        ("/start/calls", {"since": "1e999"}),
        ("/usage", {"compare": "1", "since": "0001-01-01", "until": "0001-02-01"}),
        ("/usage", {"by": "model", "compare": "1", "since": "0001-01-01", "until": "0001-02-01"}),
    ],
)
def test_times_that_are_infinite_or_before_the_calendar_are_not_one(
    path: str, query: dict[str, str]
) -> None:
    check_query(path, query)


def check_query(path: str, query: dict[str, str]) -> None:
    url = re.sub(r"\{\w+\}", "openai", path) + "?" + urlencode(query, errors="surrogatepass")
    assert asyncio.run(operators_browser().send("GET", url)).status < 500, url


async def test_an_error_page_says_what_it_is_and_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = await filled()
    browser = shop.browser("/x")
    await browser.sign_in()
    assert "Not found" in (await browser.open("/nope")).text

    async def unavailable(*_: object) -> None:
        raise StoreUnavailableError("it does not answer")

    monkeypatch.setattr(shop.store, "get_entry", unavailable)
    answer = await browser.open("/log?state=failed")
    assert answer.status == 503
    assert "Not available at the moment" in answer.text
    assert "/x/log?state=failed" in answer.page.links
    monkeypatch.undo()
    assert (await browser.open("/log?state=failed")).status == 200


async def test_reading_a_page_changes_nothing() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    for route in shop.console.routes:
        if route.method == "POST":
            path = re.sub(r"\{\w+\}", "x", route.path)
            also_page = any(r.method == "GET" and r.path == route.path for r in shop.console.routes)
            if not also_page:
                assert (await browser.open(path)).status in (404, 405), path


async def test_signing_in_gives_a_new_session_and_signing_out_ends_it() -> None:
    shop = await filled()
    browser = shop.browser("/x")
    key = ("/x", "aiproxy_console")
    browser.cookies[key] = "chosen-by-an-attacker"
    await browser.sign_in()
    first = browser.cookies[key]
    assert first != "chosen-by-an-attacker"
    assert len(first) >= 40
    page = (await browser.open("/")).page
    await browser.submit(page.form("/sign-out"))
    assert key not in browser.cookies
    browser.cookies[key] = first
    assert (await browser.send("GET", "/x/")).status == 303


async def test_a_session_ends_when_its_token_is_disabled_rotated_or_removed() -> None:
    shop = await filled()
    tokens = Tokens(shop.store)
    for name in ("ann", "ben", "cat"):
        browser = shop.browser()
        await browser.sign_in(shop.secrets[name])
        assert (await browser.send("GET", "/")).status == 200
        if name == "ann":
            await tokens.edit(shop.ids[name], enabled=False)
        elif name == "ben":
            await tokens.rotate(shop.ids[name])
        else:
            await tokens.revoke(shop.ids[name])
        assert (await browser.send("GET", "/")).status == 303


async def test_the_session_of_an_administrator_ends_when_its_token_is_changed() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    browser.app = Console(AdminApp(shop.store, token="another-token-of-the-root"))
    assert (await browser.send("GET", "/")).status == 303


async def test_guesses_are_limited_and_a_wrong_token_is_not_repeated() -> None:
    shop = await filled()
    browser = shop.browser()
    answers = [await browser.sign_in(f"sk-wrong-{n}") for n in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert "sk-wrong" not in answers[0].text
    assert (await browser.sign_in()).status == 200


@pytest.mark.parametrize(
    "target",
    ["https://evil.test/", "//evil.test/", "/\\evil.test", "/x/../../evil", "javascript:alert(1)",
     "/other", "/x%0d%0aset-cookie: a=b", "\r\nset-cookie: a=b", "/x/\tfoo", "/x/%2e%2e/y"],
)  # fmt: skip
async def test_sign_in_continues_only_to_pages_of_this_console(target: str) -> None:
    shop = await filled()
    browser = shop.browser("/x")
    page = (await browser.send("GET", "/x/sign-in?" + urlencode({"next": target}))).page
    form = page.form("/sign-in")
    assert dict(form.fields)["next"] == "/x/"
    body = urlencode({**dict(form.fields), "next": target, "token": ROOT}).encode()
    answer = await browser.send("POST", "/x/sign-in", body, {**SAME, "origin": ORIGIN})
    assert answer.status == 303
    assert answer.headers["location"] == ["/x/"]
    assert len(answer.headers["set-cookie"]) == 1


async def test_sign_in_continues_with_the_page_that_was_wanted() -> None:
    shop = await filled()
    browser = shop.browser("/x")
    page = (await browser.open("/log?model=a%26b")).page
    answer = await browser.submit(page.form("/sign-in"), token=ROOT)
    assert answer.url == "/x/log?model=a%26b"


async def test_no_header_is_made_of_a_path_or_a_query() -> None:
    shop = await filled()
    browser = shop.browser()
    for path in ("/log?a=%0d%0aset-cookie:%20a=b", "/tokens/%0d%0aset-cookie:%20a=b"):
        answer = await browser.send("GET", path)
        assert "set-cookie" not in answer.headers
        assert "\n" not in "".join(v for values in answer.headers.values() for v in values)


async def test_every_page_forbids_frames_scripts_and_storage() -> None:
    shop = await filled()
    browser = shop.browser()
    for path in ("/", "/sign-in", "/nowhere"):
        headers = (await browser.send("GET", path)).headers
        policy = headers["content-security-policy"][0]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == ["DENY"]
        assert headers["cache-control"] == ["no-store"]
        assert headers["referrer-policy"] == ["same-origin"]


async def test_secrets_are_shown_once_and_never_kept() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    stored = repr(vars(shop.store))
    assert browser.cookies[("/", "aiproxy_console")] not in stored
    assert ROOT not in stored
    for path in ("/providers/openai", "/providers/openai/keys/added", "/tokens", "/settings"):
        text = (await browser.open(path)).text
        assert "sk-very-secret" not in text
        assert ROOT not in text


async def test_a_user_is_refused_on_pages_of_operators() -> None:
    shop = await filled()
    user = shop.browser()
    await user.sign_in(shop.secrets["ann"])
    root = shop.browser()
    await root.sign_in()
    token = dict((await user.open("/my/tokens")).page.form("/my/tokens").fields)["form_token"]
    for route in shop.console.routes:
        if route.need in ("read", "write", "root"):
            path = re.sub(r"\{\w+\}", "x", route.path)
            body = urlencode({"form_token": token}).encode() if route.method == "POST" else b""
            answer = await user.send(route.method, path, body, {**SAME, "origin": ORIGIN})
            assert answer.status == 403, path


def test_a_mount_never_begins_with_two_slashes() -> None:
    for root in ("//evil.test", "//", "/x//y/", "x"):
        scope = asgi.scope_of("GET", "/", root_path=root)
        assert not mount_path(scope).startswith("//")
    assert mount_path(asgi.scope_of("GET", "/", root_path='/a"><b')) == "/a%22%3E%3Cb"
    assert mount_path(asgi.scope_of("GET", "/", root_path="/a;b")) == "/a%3Bb"  # of a cookie, too
    assert is_local_path("/a", "")
    assert not is_local_path("//evil.test", "")


def test_the_origin_is_compared_with_the_host_and_its_port() -> None:
    def check(**headers: str) -> bool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return is_same_origin(asgi.scope_of("POST", "/", headers=named))

    assert check(host="a.test:81", origin="http://A.test:81")
    assert check(host="a.test", referer="https://a.test/x")
    assert not check(host="a.test:81", origin="http://a.test:82")
    assert not check(host="a.test", origin="http://a.test.evil")
    assert not check(host="", origin="http://")
    assert not check(host="a.test", origin="http://[bad")


def test_invalid_arguments_are_refused_when_it_is_built() -> None:
    with pytest.raises(ConfigurationError, match="admin must be an AdminApp"):
        Console(MemoryStore())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="identify must be a function"):
        Console(AdminApp(MemoryStore(), token=ROOT), identify="x")  # type: ignore[arg-type]


async def test_the_console_makes_only_so_many_pages_at_the_same_time() -> None:
    store = SlowStore()
    shop = await filled(store, max_concurrent=1)
    browser = shop.browser()
    await browser.sign_in()
    store.may_go.clear()
    slow = asyncio.get_running_loop().create_task(browser.send("GET", "/groups"))
    await store.waits.wait()
    busy = await browser.send("GET", "/settings")
    assert busy.status == 503
    assert busy.headers["retry-after"] == ["1"]
    assert (await browser.get((await browser.send("GET", "/nowhere")).page.assets[0])).status == 200
    store.may_go.set()
    assert (await slow).status == 200
    assert (await browser.send("GET", "/settings")).status == 200


class SlowStore(MemoryStore):
    """Holds the lists of rows back, until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.may_go = asyncio.Event(), asyncio.Event()
        self.may_go.set()

    async def page(self, *arguments: Any, **options: Any) -> dict[str, bytes]:
        if not self.may_go.is_set():
            self.waits.set()
            await self.may_go.wait()
        return await super().page(*arguments, **options)


async def test_a_page_of_the_log_examines_a_bounded_number_of_records() -> None:
    store = CountingStore()
    shop = await filled(store)
    for _ in range(12_000):
        await store.append("ledger", RECORD)
    browser = shop.browser()
    await browser.sign_in()
    store.read_rows = 0
    answer = await browser.open("/log?model=nothing")
    assert store.read_rows <= 6000
    assert "Older exchanges have not been searched yet" in answer.text
    [following] = [link for link in answer.page.links if "after=" in link]
    assert "model=nothing" in following


class CountingStore(MemoryStore):
    """Counts the rows of logs that are read."""

    read_rows = 0

    async def read(self, *arguments: Any, **options: Any) -> list[tuple[str, bytes]]:
        found = await super().read(*arguments, **options)
        self.read_rows += len(found)
        return found


RECORD = msgspec.json.encode(UsageRecord(id="x", started=1.0))
