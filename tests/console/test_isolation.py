"""A user never sees or changes a byte of another's, over any route of console and admin API.

Three users in two tenants (accounts) have data with a marker of their own in every text. One of
them sends requests to all routes, with all ids and names of the others in paths, queries and
bodies. No response contains a marker of another, and the rows of the others stay as they are.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import AdminApp, Budget, Key, KeyPool, Ledger, MemoryStore, Tokens
from asgi_aiproxy.accounts import Account, Group
from asgi_aiproxy.admin import TokenAllowance
from asgi_aiproxy.console import Console
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.usage.record import UsageRecord
from tests.console.support import ORIGIN, ROOT, Browser
from tests.support import asgi_client as asgi

TENANTS = {"ann": "acme", "ben": "acme", "cat": "umbra"}
NAMES = list(TENANTS)
TABLES = ("tokens", "accounts", "groups", "owners", "vouchers")


@dataclass
class World:
    """The gateway, and of each user ids and names (`values`), what is in its texts (`markers`)."""

    store: MemoryStore
    admin: AdminApp
    console: Console
    secrets: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    markers: dict[str, list[str]] = field(default_factory=dict)
    browsers: dict[str, tuple[Browser, str]] = field(default_factory=dict)


async def build() -> World:
    store = MemoryStore()
    pool = KeyPool([Key("sk-vendor", id="operators-key")], name="openai")
    allowance = TokenAllowance(tokens=5, budgets=(Budget.usd(5),))
    admin = AdminApp(store, token=ROOT, pools=[pool], self_service=allowance)
    world = World(store, admin, Console(admin))
    tokens = Tokens(store)
    await tokens.groups.create("operators-group", Group(name="operators-group"))
    for tenant in set(TENANTS.values()):
        account = Account(
            id=tenant, name=f"name-of-{tenant}", budgets=(Budget.usd(9, shared=True),)
        )
        await tokens.accounts.create(tenant, account)
    async with Ledger(store) as ledger:
        for name, tenant in TENANTS.items():
            secret, row = await tokens.issue(name=f"mark-{name}", account=tenant)
            client = Browser(world.console)
            await client.sign_in(secret)
            form = (await client.open("/my/tokens")).page.form("/my/tokens")
            await client.submit(form, name=f"mark-{name}-second")
            world.browsers[name] = client, dict(form.fields)["form_token"]
            owned = list((await tokens.owners.get(f"token/{row.id}")).tokens)
            world.secrets[name] = secret
            for index, principal in enumerate([row.id, *owned]):
                await ledger(
                    UsageRecord(
                        id=f"mark-{name}-exchange-{index}",
                        principal=principal,
                        account=tenant,
                        requested_model=f"mark-{name}-model",
                        model=f"mark-{name}-model",
                        error=f"mark-{name}-error",
                        usage=Usage(input=3, output=4),
                        cost=1000,
                        started=time.time(),
                        provider="openai",
                        key_id="operators-key",
                    )
                )
            world.values[name] = [row.id, *owned, f"mark-{name}-exchange-0", f"mark-{name}"]
            world.markers[name] = [f"mark-{name}", row.id, *owned]
    return world


async def rows_of(world: World, name: str) -> dict[str, Any]:
    """The rows that hold something of a user."""
    own = world.values[name]
    found = {}
    for table in TABLES:
        for key, value in (await world.store.rows(table)).items():
            if any(each in key or each.encode() in value for each in own):
                found[table, key] = value
    return found


@cache
def world() -> World:
    """Built once: each request leaves it as it was for the others."""
    return asyncio.run(build())


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    world()


def routes() -> list[tuple[str, str, str]]:
    """All routes: app, method and path."""
    known = world()
    pages = [("console", route.method, route.path) for route in known.console.routes]
    document = asyncio.run(
        asgi.request(known.admin, "GET", "/openapi.json", headers={"host": "x"})
    ).json
    api = [
        ("admin", method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if "live" not in path
    ]
    unneeded = ("live", "playground", "/sign-")
    return [each for each in pages if not any(word in each[2] for word in unneeded)] + api


FIELDS = (
    "id",
    "name",
    "account",
    "group",
    "owner",
    "principal",
    "target",
    "code",
    "model",
    "after",
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, str, str, dict[str, str]]:
    app, method, path = draw(st.sampled_from(routes()))
    caller = draw(st.sampled_from(NAMES))
    victim = draw(st.sampled_from([name for name in NAMES if name != caller]))
    value = draw(st.sampled_from([*world().values[victim], TENANTS[victim]]))
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True))
    return app, method, path, caller, value, dict.fromkeys(fields, value)


async def send(
    app: str, method: str, path: str, caller: str, value: str, fields: dict[str, str]
) -> asgi.Answer:
    known = world()
    url = re.sub(r"\{\w+\}", lambda _: quote(value, safe=""), path)
    if method == "GET" and fields:
        url += "?" + urlencode(fields)
    if app == "admin":
        headers = {"authorization": f"Bearer {known.secrets[caller]}"}
        body = json.dumps({"name": "x", **fields}).encode() if method != "GET" else b""
        return await asgi.request(known.admin, method, url, body, headers=headers)
    browser, token = known.browsers[caller]
    body = urlencode({"form_token": token, "name": "x", **fields}).encode()
    headers = {"sec-fetch-site": "same-origin", "origin": ORIGIN}
    answer = await browser.send(method, url, body if method == "POST" else b"", headers)
    return asgi.Answer(answer.status, [], answer.body)


@settings(max_examples=120)
@given(requests())
def test_no_request_shows_or_changes_what_is_anothers(
    request: tuple[str, str, str, str, str, dict[str, str]],
) -> None:
    asyncio.run(check(*request))


async def check(
    app: str, method: str, path: str, caller: str, value: str, fields: dict[str, str]
) -> None:
    others = [name for name in NAMES if name != caller]
    before = {name: await rows_of(world(), name) for name in others}
    answer = await send(app, method, path, caller, value, fields)
    assert answer.status < 500, (path, answer.body)
    text = answer.body.decode()
    for sent in {value, quote(value, safe=""), *fields.values()}:
        text = text.replace(sent, "")  # what the caller sent may be repeated
    for name in others:
        for marker in world().markers[name]:
            assert marker not in text, (method, path)
    assert "operators-" not in text
    assert {name: await rows_of(world(), name) for name in others} == before


def test_each_user_sees_its_own() -> None:
    async def see() -> None:
        for name in NAMES:
            browser = Browser(world().console)
            await browser.sign_in(world().secrets[name])
            assert f"mark-{name}-model" in (await browser.open("/my/log")).text
            assert f"mark-{name}-second" in (await browser.open("/my/tokens")).text

    asyncio.run(see())
