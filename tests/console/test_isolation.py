"""A user never sees or changes a byte of another's, over any route of console and admin API.

Three users in two tenants have data with a marker of their own in every text. One of them sends
requests to all routes, with all ids and names of the others in paths, queries and bodies. No
response contains a marker of another, and the rows and sessions of the others stay as they are.

In one world they are bearers of tokens, whose tenants are accounts; in the other one they have
signed in with passwords, and their tenants are groups.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import AdminApp, Budget, Key, KeyPool, Ledger, MemoryStore, Tokens
from asgi_aiproxy.accounts import Account, Group
from asgi_aiproxy.accounts.passkey import Passkey
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.admin import TokenAllowance
from asgi_aiproxy.console import Console, SessionStore
from asgi_aiproxy.keys.encryption import NoEncryption
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.services.oidc import OIDCProvider
from asgi_aiproxy.services.passkeys import Passkeys
from asgi_aiproxy.services.second_factor import SecondFactors
from asgi_aiproxy.services.sign_in import SignInService
from asgi_aiproxy.services.users import UserNew, UserService
from asgi_aiproxy.usage.record import UsageRecord
from tests.console.support import ORIGIN, ROOT, Browser
from tests.support import asgi_client as asgi

TENANTS = {"ann": "acme", "ben": "acme", "cat": "umbra"}
NAMES = list(TENANTS)
TABLES = ("tokens", "accounts", "groups", "owners", "vouchers", "users", "site", "announcements")
PASSWORD = "a long enough password"
KINDS = ("tokens", "users")


@dataclass
class World:
    """The gateway, and of each user ids and names (`values`), what is in its texts (`markers`), and
    the names of its sessions. `numbers` are those of users with passwords.
    """

    store: MemoryStore
    admin: AdminApp
    console: Console
    secrets: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    markers: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, list[str]] = field(default_factory=dict)
    browsers: dict[str, Browser] = field(default_factory=dict)


async def form_token(client: Browser) -> str:
    form = (await client.open("/my/tokens")).page.form("/language")
    return dict(form.fields)["form_token"]


async def find_sessions(world: World, name: str) -> None:
    """What a user does may replace its own session."""
    if name in world.numbers:
        found = await SessionStore(world.store).of(str(world.numbers[name]))
        world.sessions[name] = list(found)


def exchange(name: str, index: int, principal: str, account: str) -> UsageRecord:
    return UsageRecord(
        id=f"mark-{name}-exchange-{index}",
        principal=principal,
        account=account,
        requested_model=f"mark-{name}-model",
        model=f"mark-{name}-model",
        error=f"mark-{name}-error",
        usage=Usage(input=3, output=4),
        cost=1000,
        started=time.time(),
        provider="openai",
        key_id="operators-key",
    )


async def build_with_users() -> World:
    store = MemoryStore()
    pool = KeyPool([Key("sk-vendor", id="operators-key")], name="openai")
    service = UserService(store, passwords=Passwords(time_cost=1, memory_cost=64))
    corp = OIDCProvider("corp", issuer="http://127.0.0.1:9", client_id="x", client_secret="y")
    factors = SecondFactors(service, cipher=NoEncryption())
    passkeys = Passkeys(service, url=ORIGIN)
    users = SignInService(service, providers=[corp], factors=factors, passkeys=passkeys)
    allowance = TokenAllowance(tokens=5, budgets=(Budget.usd(5),))
    admin = AdminApp(store, token=ROOT, pools=[pool], self_service=allowance, users=service)
    world = World(store, admin, Console(admin, users=users, confirm_seconds=None))
    tokens = Tokens(store)
    for tenant in set(TENANTS.values()):
        await tokens.groups.create(tenant, Group(name=tenant))
    async with Ledger(store) as ledger:
        for name, tenant in TENANTS.items():
            mark = f"mark-{name}"
            new = UserNew(username=mark, password=PASSWORD, email=f"{mark}@example.com",
                          group=tenant)  # fmt: skip
            user = (await service.create(new)).user
            signing = {
                "identities": (f"http://127.0.0.1:9 {mark}",),
                "passkeys": (
                    Passkey(
                        id=f"{mark}-passkey", public_key="", sign_count=0, name=mark, created=1
                    ),
                ),
            }
            await service.users.edit(
                user.id, lambda row, signing=signing: msgspec.structs.replace(row, **signing)
            )
            client = world.browsers[name] = Browser(world.console)
            form = (await client.open("/sign-in")).page.form("/sign-in")
            form.fields = [pair for pair in form.fields if pair[0] != "token"]
            await client.submit(form, username=mark, password=PASSWORD)
            form = (await client.open("/my/tokens")).page.form("/my/tokens")
            made = await client.submit(form, name=f"{mark}-second")
            world.secrets[name] = re.findall(r"sk-[\w-]{20,}", made.text)[0]
            [token] = (await tokens.owners.get(f"user/{user.account}")).tokens
            await ledger(exchange(name, 0, token, user.account))
            world.numbers[name] = user.id
            await find_sessions(world, name)
            world.values[name] = [token, user.account, str(user.id), mark, f"{mark}-exchange-0",
                                  f"{mark}@example.com", f"http://127.0.0.1:9 {mark}",
                                  f"{mark}-passkey"]  # fmt: skip
            world.markers[name] = [mark, token, user.account]
    return world


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
            client = world.browsers[name] = Browser(world.console)
            await client.sign_in(secret)
            form = (await client.open("/my/tokens")).page.form("/my/tokens")
            await client.submit(form, name=f"mark-{name}-second")
            owned = list((await tokens.owners.get(f"token/{row.id}")).tokens)
            world.secrets[name] = secret
            world.sessions[name] = []
            for index, principal in enumerate([row.id, *owned]):
                await ledger(exchange(name, index, principal, tenant))
            world.values[name] = [row.id, *owned, f"mark-{name}-exchange-0", f"mark-{name}"]
            world.markers[name] = [f"mark-{name}", row.id, *owned]
    return world


async def rows_of(world: World, name: str, chosen: str) -> dict[Any, Any]:
    """The rows that hold something of a user, and its sessions. `chosen` is a name that another one
    may have given to something of its own.
    """
    found: dict[Any, Any] = {}
    for table in TABLES:
        for key, value in (await world.store.rows(table)).items():
            text = key + value.decode().replace(f'"name":"{chosen}"', "")
            if any(each in text for each in world.markers[name]):
                found[table, key] = value
    for session in world.sessions[name]:
        found[session] = await world.store.get_entry(session)
        assert found[session] is not None
    return found


@cache
def world(kind: str) -> World:
    """Built once: each request leaves it as it was for the others."""
    return asyncio.run(build() if kind == "tokens" else build_with_users())


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    for kind in KINDS:
        world(kind)


@cache
def routes(kind: str) -> list[tuple[str, str, str]]:
    """All routes: app, method and path."""
    known = world(kind)
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
    "username",
    "email",
    "session",
    "identity",
    "passkey",
    "link",
)


@st.composite
def requests(draw: st.DrawFn, kind: str) -> tuple[str, str, str, str, str, dict[str, str]]:
    app, method, path = draw(st.sampled_from(routes(kind)))
    caller = draw(st.sampled_from(NAMES))
    victim = draw(st.sampled_from([name for name in NAMES if name != caller]))
    known = world(kind)
    value = draw(st.sampled_from([*known.values[victim], *known.sessions[victim], TENANTS[victim]]))
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True))
    return app, method, path, caller, value, dict.fromkeys(fields, value)


async def send(
    known: World, app: str, method: str, path: str, caller: str, value: str, fields: dict[str, str]
) -> asgi.Answer:
    url = re.sub(r"\{\w+\}", lambda _: quote(value, safe=""), path)
    if method == "GET" and fields:
        url += "?" + urlencode(fields)
    if app == "admin":
        headers = {"authorization": f"Bearer {known.secrets[caller]}"}
        body = json.dumps({"name": "x", **fields}).encode() if method != "GET" else b""
        return await asgi.request(known.admin, method, url, body, headers=headers)
    browser = known.browsers[caller]
    token = await form_token(browser) if method == "POST" else ""
    body = urlencode({"form_token": token, "name": "x", **fields}).encode()
    headers = {"sec-fetch-site": "same-origin", "origin": ORIGIN}
    answer = await browser.send(method, url, body if method == "POST" else b"", headers)
    return asgi.Answer(answer.status, [], answer.body)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(data=st.data())
def test_no_request_shows_or_changes_what_is_anothers(kind: str, data: st.DataObject) -> None:
    asyncio.run(check(world(kind), *data.draw(requests(kind))))


async def check(
    known: World,
    app: str,
    method: str,
    path: str,
    caller: str,
    value: str,
    fields: dict[str, str],
) -> None:
    others = [name for name in NAMES if name != caller]
    before = {name: await rows_of(known, name, value) for name in others}
    answer = await send(known, app, method, path, caller, value, fields)
    assert answer.status < 500, (path, answer.body)
    text = answer.body.decode()
    for sent in {value, quote(value, safe=""), quote_plus(value), *fields.values()}:
        text = text.replace(sent, "")  # what the caller sent may be repeated
    for name in others:
        for marker in known.markers[name]:
            assert marker not in text, (method, path)
    assert "operators-" not in text
    assert {name: await rows_of(known, name, value) for name in others} == before
    await find_sessions(known, caller)


@pytest.mark.parametrize("kind", KINDS)
def test_each_user_sees_its_own(kind: str) -> None:
    async def see() -> None:
        known = world(kind)
        for name in NAMES:
            browser = known.browsers[name]
            assert f"mark-{name}-model" in (await browser.open("/my/log")).text
            if kind == "users":
                assert f"mark-{name}@example.com" in (await browser.open("/my/account")).text

    asyncio.run(see())
