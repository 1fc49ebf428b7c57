"""A console with something to show, and a browser without JavaScript for it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from asgi_aiproxy import AdminApp, Budget, Key, KeyPool, Ledger, Limits, MemoryStore, Tokens
from asgi_aiproxy.accounts import Account, Group
from asgi_aiproxy.admin import TokenAllowance
from asgi_aiproxy.console import Console
from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.stores import Store
from asgi_aiproxy.usage.record import Attempt, Outcome, UsageRecord
from tests.support import asgi_client as asgi

ROOT = "the-token-of-the-root-of-all"
ORIGIN = "https://gateway.test"
SEALER = Sealer("a passphrase that is long enough")


@dataclass
class Form:
    """A form of a page."""

    method: str
    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """What a browser finds in a page: links, assets, forms, ids, inline code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.refreshed: list[str] = []
        self.forms: list[Form] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self._inside = tag
        self.tags.append(tag)
        self.inline += [f"{tag} {name}" for name in known if name == "style" or name[:2] == "on"]
        if "id" in known:
            self.ids.append(known["id"])
        if tag == "a":
            self.links.append(known["href"])
        if tag in ("script", "img") and "src" in known:
            self.assets.append(known["src"])
        if tag == "link":
            self.assets.append(known["href"])
        if tag == "script" and "src" not in known:
            self.inline.append("script")
        if tag == "style":
            self.inline.append("style")
        self.refreshed += [known[name] for name in ("hx-get", "data-rows") if name in known]
        if tag == "form":
            self.forms.append(Form(known.get("method", "get").upper(), known.get("action", "")))
        if tag in ("input", "select", "textarea", "button") and "name" in known and self.forms:
            checked = known.get("type") not in ("checkbox", "radio") or "checked" in known
            if checked and tag != "button":
                value = known.get("value", "on" if known.get("type") == "checkbox" else "")
                self.forms[-1].fields.append((known["name"], value))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def form(self, action: str) -> Form:
        """Return the form whose action ends with this."""
        found = [form for form in self.forms if form.action.partition("?")[0].endswith(action)]
        assert found, f"no form {action} among {[form.action for form in self.forms]}"
        return found[0]


@dataclass
class Answer:
    """A response, as the browser sees it."""

    url: str
    status: int
    headers: dict[str, list[str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def page(self) -> Page:
        return Page(self.text)


class Browser:
    """A browser without JavaScript: cookies by path, redirects, forms, same-origin headers.

    `root_path` is what the server reports as root, `path_prefix` what is in front of the path that
    reaches the app (empty behind a proxy that strips it).
    """

    def __init__(self, app: Any, mount: str = "", *, root_path: str | None = None) -> None:
        self.app = app
        self.mount = mount
        self.root_path = mount if root_path is None else root_path
        self.cookies: dict[tuple[str, str], str] = {}
        self.strict: set[tuple[str, str]] = set()
        self.language = ""

    async def send(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        from_another_site: bool = False,
    ) -> Answer:
        parts = urlsplit(urljoin(ORIGIN + "/", url))
        assert f"{parts.scheme}://{parts.netloc}" == ORIGIN, url
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {"host": "gateway.test"}
        if self.language:
            sent["accept-language"] = self.language
        cookies = [
            f"{name}={value}"
            for (at, name), value in sorted(self.cookies.items(), key=lambda item: -len(item[0][0]))
            if parts.path == at or parts.path.startswith(at.rstrip("/") + "/")
            if not (from_another_site and (at, name) in self.strict)
        ]
        if cookies:
            sent["cookie"] = "; ".join(cookies)
        if body:
            sent["content-type"] = "application/x-www-form-urlencoded"
        options = {"root_path": self.root_path, "scheme": "https"}
        found = await asgi.request(
            self.app, method, path, body, headers={**sent, **(headers or {})}, **options
        )
        seen: dict[str, list[str]] = {}
        for name, value in found.headers:
            seen.setdefault(name, []).append(value)
        for cookie in seen.get("set-cookie", ()):
            self._keep(cookie)
        return Answer(url, found.status, seen, found.body)

    def _keep(self, cookie: str) -> None:
        pair, *attributes = cookie.split("; ")
        name, _, value = pair.partition("=")
        known = dict(each.partition("=")[::2] for each in attributes)
        assert {"HttpOnly", "Secure", "SameSite"} <= known.keys(), cookie
        if known["Max-Age"] == "0":
            self.cookies.pop((known["Path"], name), None)
        else:
            self.cookies[known["Path"], name] = value
            if known["SameSite"] == "Strict":
                self.strict.add((known["Path"], name))

    async def get(self, url: str) -> Answer:
        """Open a URL, and follow redirects."""
        answer = await self.send("GET", url, headers={"sec-fetch-site": "same-origin"})
        for _ in range(5):
            if answer.status != 303:
                return answer
            answer = await self.send("GET", answer.headers["location"][0])
        raise AssertionError("too many redirects")

    async def open(self, path: str) -> Answer:
        """Open a page of the console."""
        return await self.get(self.mount + path)

    async def submit(self, form: Form, **fields: str) -> Answer:
        """Fill in a form and send it, and follow the redirect."""
        values = dict(form.fields)
        values.update(fields)
        if form.method == "GET":
            return await self.get(f"{form.action}?{urlencode(values)}")
        headers = {"sec-fetch-site": "same-origin", "origin": ORIGIN}
        answer = await self.send("POST", form.action, urlencode(values).encode(), headers)
        if answer.status == 303:
            return await self.get(answer.headers["location"][0])
        return answer

    async def sign_in(self, token: str = ROOT) -> Answer:
        page = (await self.open("/sign-in")).page
        return await self.submit(page.form("/sign-in"), token=token)


HTML = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@dataclass
class Shop:
    """A gateway with something in it: two users with tokens, an account, a group, exchanges."""

    store: Store
    admin: AdminApp
    console: Console
    secrets: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def browser(self, mount: str = "") -> Browser:
        return Browser(self.console, mount)


async def filled(store: Store | None = None, *, text: str = "plain", **options: Any) -> Shop:
    """Return a console over a store with a row of each kind; `text` is in all texts of them."""
    store = store if store is not None else MemoryStore()
    pool = KeyPool(
        [Key("sk-very-secret-1", id="main/1")], name="openai", store=store, sealer=SEALER
    )
    await pool.add(Key("sk-very-secret-2", id="added"))
    admin = AdminApp(
        store,
        token=ROOT,
        pools=[pool],
        self_service=TokenAllowance(tokens=3, budgets=(Budget.usd(5, "month"),)),
    )
    shop = Shop(store, admin, Console(admin, **options))
    tokens = Tokens(store)
    await tokens.groups.create("vip", Group(name="vip", ratio=0.5))
    await tokens.accounts.create(
        "acme", Account(id="acme", name=text, budgets=(Budget.usd(9, shared=True),))
    )
    for name, limits, account in (
        ("ann", Limits(), "acme"),
        ("ben", Limits(rpm=5, budgets=(Budget.usd(3),)), ""),
        ("cat", Limits(), ""),
    ):
        secret, row = await tokens.issue(name=f"{name} {text}", limits=limits, account=account)
        shop.secrets[name], shop.ids[name] = secret, row.id
    root = await root_of(shop)
    shop.secrets["code"] = (await root("POST /vouchers", body={"count": 2, "usd": 4}))[0]
    await root("POST /announcements", body={"text": f"Maintenance {text}", "level": "warning"})
    now = time.time()
    async with Ledger(store) as ledger:
        for number, name in enumerate(["ann", "ben", "ann", "cat"]):
            await ledger(record(shop, number, name, now, text))
    return shop


async def root_of(shop: Shop) -> Any:
    from asgi_aiproxy.services.base import ROOT as CALLER

    async def call(operation: str, **request: Any) -> Any:
        found = await shop.admin.call(CALLER, operation, **request)
        return getattr(found, "codes", found)

    return call


def record(shop: Shop, number: int, name: str, now: float, text: str) -> UsageRecord:
    return UsageRecord(
        id=f"{name}-{number}-{re.sub(r'[^a-z]', '', text)[:8]}",
        principal=shop.ids[name],
        face="openai",
        operation="chat",
        provider="openai",
        requested_model=f"model-{text}",
        upstream_model=f"model-{text}",
        model=f"model-{text}",
        key_id="main/1",
        usage=Usage(input=1000 + number, output=50),
        outcome=Outcome.FAILED if number == 2 else Outcome.DONE,
        status=502 if number == 2 else 200,
        error=f"refused {text}" if number == 2 else "",
        attempts=2,
        attempt_details=(Attempt("openai", key_id="main/1", status=429, error=text),),
        started=now - 10 + number,
        first_byte=0.2,
        duration=1.5,
        account="acme" if name == "ann" else "",
        cost=12345 + number,
        units=7,
    )
