"""The playground calls the gateway as its visitor; the live log shows what the visitor may see."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from asgi_aiproxy import (
    AdminApp,
    Authenticate,
    Budget,
    Ledger,
    Limits,
    MemoryStore,
    OpenAIShim,
    Price,
    Prices,
    Quota,
    RedisStore,
    Tokens,
    stored_tokens,
)
from asgi_aiproxy.console import Console
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.testing import Answer, MockProvider, serve
from examples.starlette_app.faults import faulty_gateways, faulty_vendors
from tests.console.support import ORIGIN, ROOT, Browser, filled, record
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

SAME = {"sec-fetch-site": "same-origin", "origin": ORIGIN}


async def call(browser: Browser, **fields: str) -> Any:
    form = (await browser.open("/playground")).page.form("/playground/call")
    values = {**dict(form.fields), "model": "gpt-4o", "prompt": "Hi", **fields}
    body = urlencode({name: value for name, value in values.items() if value}).encode()
    return await browser.send("POST", form.action, body, SAME)


async def test_a_call_is_the_visitors_own_with_its_limits_and_records() -> None:
    store = MemoryStore()
    ledger = Ledger(store)
    prices = Prices({"*": Price(input=1, output=1)})
    async with serve(MockProvider(Answer(text="Good morning"))) as url, ledger:
        shim = OpenAIShim(OPENAI.using("sk-1", base_url=f"{url}/v1"), record=ledger)
        quota = Quota(shim, store=store, prices=prices)
        gateway = Authenticate(quota, verify=stored_tokens(store))
        async with gateway:
            console = Console(AdminApp(store, token=ROOT), gateway=gateway)
            secret, _ = await Tokens(store).issue(name="ann")
            browser = Browser(console, "/x")
            await browser.sign_in(secret)
            streamed = await call(browser)
            assert streamed.headers["content-type"][0].startswith("text/event-stream")
            assert streamed.headers["content-security-policy"]
            assert "Good" in streamed.text
            assert '"usage"' in streamed.text
            whole = await call(browser, stream="")
            assert json.loads(whole.text)["choices"][0]["message"]["content"] == "Good morning"
            id = whole.headers["aiproxy-request-id"][0]
            while (shown := await browser.open(f"/my/log/{id}")).status == 404:
                await asyncio.sleep(0.01)  # records are written in the background
            assert "gpt-4o" in shown.text
            poor, _ = await Tokens(store).issue(name="ben", limits=Limits(budgets=(Budget.usd(0),)))
            other = Browser(console, "/x")
            await other.sign_in(poor)
            refused = await call(other)
            assert refused.status == 429
            assert "budget" in refused.text
            assert (await other.open(f"/my/log/{id}")).status == 404


async def test_the_playground_shows_what_callers_get_when_a_vendor_fails() -> None:
    mocks = faulty_vendors(Answer(text="Good morning from the gateway."))
    async with serve(mocks) as url:
        playgrounds = faulty_gateways(url)
        shop = await filled(gateway=MockProvider(Answer(text="x")), playgrounds=playgrounds)
        browser = shop.browser()
        await browser.sign_in(shop.secrets["ann"])
        assert "429 with retry-after" in (await browser.open("/playground")).text
        limited = await call(browser, gateway="429 with retry-after")
        assert (limited.status, limited.headers["retry-after"]) == (429, ["30"])
        cut = await call(browser, gateway="the connection is cut after three events")
        assert '"error"' in cut.text
        unknown = await call(browser, gateway="<script>")
        assert unknown.status == 400
        assert "<script>" not in unknown.text
        for playground in playgrounds.values():
            await playground.__aexit__(None, None, None)


async def test_a_call_of_another_site_is_refused() -> None:
    shop = await filled(gateway=MockProvider(Answer(text="x")))
    browser = shop.browser()
    await browser.sign_in(shop.secrets["ann"])
    body = urlencode({"model": "m", "prompt": "p", "form_token": "0" * 64}).encode()
    assert (await browser.send("POST", "/playground/call", body, SAME)).status == 403


async def events(shop: Any, path: str, secret: str, produce: Any) -> list[dict[str, Any]]:
    """The events of a live log until the one with the id `last`."""
    browser = shop.browser()
    await browser.sign_in(secret)
    cookie = "; ".join(f"{name}={value}" for (_, name), value in browser.cookies.items())
    found: list[dict[str, Any]] = []
    async with asgi.opened(shop.console, "GET", path, headers={"cookie": cookie}) as exchange:
        exchange.send_body(b"")
        start = await exchange.message()
        assert start["status"] == 200
        await produce()
        text = ""
        while not any(each["id"].startswith("last") for each in found):
            text += (await exchange.message()).get("body", b"").decode().replace("\r\n", "\n")
            *blocks, text = text.split("\n\n")
            found += [
                json.loads(line[6:])
                for block in blocks
                for line in block.split("\n")
                if line.startswith("data: ")
            ]
        exchange.disconnect()
    return found


@pytest.mark.parametrize(("path", "who"), [("/log/live", "root"), ("/my/log/live", "ann")])
async def test_the_live_log_shows_what_the_visitor_may_see(path: str, who: str) -> None:
    shop = await filled()
    ids = {"ben": "ben-50-plain", "ann": "ann-51-plain"}

    async def produce() -> None:
        async with Ledger(shop.store) as ledger:
            for number, name in ((50, "ben"), (51, "ann")):
                await ledger(record(shop, number, name, time.time(), "plain"))
            last = record(shop, 52, "ann", time.time(), "plain")
            await ledger(_renamed(last))

    found = await events(shop, path, ROOT if who == "root" else shop.secrets[who], produce)
    seen = [each["id"] for each in found]
    assert seen == ([*ids.values(), "last"] if who == "root" else [ids["ann"], "last"])
    assert ("key_id" in found[0]) is (who == "root")


def _renamed(found: Any) -> Any:
    return msgspec.structs.replace(found, id="last")


async def test_the_live_log_ends_with_the_session() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in(shop.secrets["ann"])
    cookie = "; ".join(f"{name}={value}" for (_, name), value in browser.cookies.items())
    headers = {"cookie": cookie}
    async with asgi.opened(shop.console, "GET", "/my/log/live", headers=headers) as exchange:
        exchange.send_body(b"")
        await exchange.message()
        await browser.submit((await browser.open("/")).page.form("/sign-out"))
        assert exchange.task is not None
        await asyncio.wait_for(exchange.task, 30)


async def test_every_change_in_the_console_is_in_its_audit_log() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/groups")).page.form("/groups")
    await browser.submit(form, name="gold", ratio="0.5")
    shown = await browser.open("/audit?source=console")
    assert "group" in shown.text
    assert "gold" in shown.text
    assert "127.0.0.1" in shown.text


async def test_what_one_worker_changes_the_page_of_another_shows(redis_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    async with (
        RedisStore(redis_url, prefix=prefix, timeout=5.0) as first,
        RedisStore(redis_url, prefix=prefix, timeout=5.0) as second,
    ):
        shop = await filled(first)
        other = Console(AdminApp(second, token=ROOT))
        browser, elsewhere = shop.browser("/x"), Browser(other, "/x")
        await browser.sign_in()
        elsewhere.cookies = browser.cookies  # one session, in all workers
        form = (await elsewhere.open("/groups")).page.form("/groups")
        await elsewhere.submit(form, name="made-elsewhere", ratio="1")
        assert "made-elsewhere" in (await browser.open("/groups")).text
        cookie = "; ".join(f"{name}={value}" for (_, name), value in browser.cookies.items())
        headers = {"cookie": cookie, "host": "gateway.test"}
        async with asgi.opened(
            other, "GET", "/x/log/live", headers=headers, root_path="/x"
        ) as exchange:
            exchange.send_body(b"")
            await exchange.message()
            for store, number in ((first, 61), (second, 62)):
                async with Ledger(store) as ledger:
                    await ledger(record(shop, number, "ann", time.time(), "plain"))
            seen = ""
            while not ("ann-61" in seen and "ann-62" in seen):
                seen += (await exchange.message()).get("body", b"").decode()
            exchange.disconnect()
        await browser.submit((await browser.open("/")).page.form("/sign-out"))
        assert (await elsewhere.send("GET", "/x/")).status == 303
