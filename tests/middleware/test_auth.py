"""Authentication: which requests reach the app, and what is in their scope."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from asgi_aiproxy import (
    Authenticate,
    ConfigurationError,
    Key,
    KeyPool,
    OpenAIShim,
    Principal,
    ProviderRouter,
)
from asgi_aiproxy.accounts import Tokens
from asgi_aiproxy.credentials import find_credential
from asgi_aiproxy.middleware import static_tokens, stored_tokens
from asgi_aiproxy.principal import SCOPE_KEY
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import MemoryStore
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

ALICE = Principal("alice", models=("gpt-*",))


class Inner:
    """An app behind a middleware; keeps the scopes it gets."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.log: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"in"})

    async def __aenter__(self) -> Inner:
        self.log.append("in")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.log.append("out")


def guarded(**options: Any) -> tuple[Authenticate, Inner]:
    inner = Inner()
    options = options or {"verify": static_tokens({"tok-1": ALICE, "tok-2": "bob"})}
    return Authenticate(inner, **options), inner


# ── where a credential may be ────────────────────────────────────────────────

PLACES: list[tuple[str, Mapping[str, str], str | None]] = [
    ("/", {"authorization": "Bearer tok-1"}, "tok-1"),
    ("/", {"authorization": "bearer tok-1"}, "tok-1"),
    ("/", {"authorization": "BEARER   tok-1 "}, "tok-1"),
    ("/", {"authorization": "Bearer two words"}, "two words"),
    ("/", {"authorization": "Bearer"}, None),
    ("/", {"authorization": "Bearer "}, None),
    ("/", {"authorization": "Basic dG9rLTE="}, None),
    ("/", {"authorization": "tok-1"}, None),
    ("/", {"x-api-key": "tok-1"}, "tok-1"),
    ("/", {"x-goog-api-key": "tok-1"}, "tok-1"),
    ("/", {"api-key": "tok-1"}, "tok-1"),
    ("/", {"x-api-key": " tok-1 "}, "tok-1"),
    ("/", {"x-api-key": "", "api-key": "tok-1"}, "tok-1"),
    ("/", {"authorization": "Basic x", "x-api-key": "tok-1"}, "tok-1"),
    ("/", {"authorization": "Bearer tok-1", "x-api-key": "tok-2"}, "tok-1"),
    ("/?key=tok-1", {}, "tok-1"),
    ("/?a=b&key=tok-1&alt=sse", {}, "tok-1"),
    ("/?key=tok%2D1", {}, "tok-1"),
    ("/?key=", {}, None),
    ("/?monkey=tok-1", {}, None),
    ("/?key=tok-1&key=tok-2", {}, "tok-1"),
    ("/?key=tok-1", {"x-api-key": "tok-2"}, "tok-2"),
    # A text that would break the header it is sent in is not a credential.
    ("/?key=tok%0D%0Ax-evil:1", {}, None),
    ("/?key=%00", {}, None),
    ("/", {}, None),
]


@pytest.mark.parametrize(("path", "headers", "token"), PLACES)
def test_a_credential_is_found_where_the_vendors_clients_put_it(
    path: str, headers: Mapping[str, str], token: str | None
) -> None:
    assert find_credential(asgi.scope_of("GET", path, headers=headers)) == token


@pytest.mark.parametrize(("path", "headers", "token"), PLACES)
async def test_only_callers_with_a_known_token_get_through(
    path: str, headers: Mapping[str, str], token: str | None
) -> None:
    app, inner = guarded()
    answer = await asgi.request(app, "GET", path, headers=headers)
    if token in ("tok-1", "tok-2"):
        assert (answer.status, answer.body) == (200, b"in")
        assert inner.scopes[0][SCOPE_KEY].id == {"tok-1": "alice", "tok-2": "bob"}[token]
    else:
        assert answer.status == 401
        assert inner.scopes == []


@pytest.mark.parametrize(
    ("headers", "words"),
    [({}, "No API key was sent"), ({"x-api-key": "wrong"}, "is invalid")],
)
async def test_a_refusal_has_openais_format_and_says_what_to_do(
    headers: Mapping[str, str], words: str
) -> None:
    app, _ = guarded()
    answer = await asgi.request(app, "POST", "/v1/chat/completions", b"{}", headers=headers)
    assert answer.status == 401
    assert answer.header("www-authenticate") == "Bearer"
    assert answer.header("content-type") == "application/json"
    error = answer.json["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert words in error["message"]
    assert "wrong" not in answer.body.decode()


async def test_a_refusal_for_a_disconnected_client_does_no_harm() -> None:
    app, _ = guarded()
    async with asgi.opened(app, "GET", "/") as exchange:
        exchange.drop()
        await exchange.ended()


# ── the host's own users ─────────────────────────────────────────────────────


def of_session(scope: Any) -> Principal | None:
    return Principal(scope["session"]) if scope.get("session") else None


async def test_identify_is_called_before_verify() -> None:
    requested: list[str] = []

    async def verify(token: str) -> Principal | None:
        requested.append(token)
        return ALICE if token == "tok-1" else None

    app, inner = guarded(verify=verify, identify=of_session)
    headers = {"x-api-key": "tok-1"}
    await asgi.request(app, "GET", "/", headers=headers, session="carol")
    assert (inner.scopes[0][SCOPE_KEY].id, requested) == ("carol", [])
    await asgi.request(app, "GET", "/", headers=headers)
    assert (inner.scopes[1][SCOPE_KEY].id, requested) == ("alice", ["tok-1"])
    answer = await asgi.request(app, "GET", "/", headers={"x-api-key": "other"})
    assert answer.status == 401


async def test_the_hosts_users_alone_are_enough() -> None:
    app, inner = guarded(identify=of_session)
    assert (await asgi.request(app, "GET", "/", session="carol")).status == 200
    answer = await asgi.request(app, "GET", "/", headers={"x-api-key": "tok-1"})
    assert answer.status == 401
    assert "API key" not in answer.json["error"]["message"]  # a key would not help
    assert len(inner.scopes) == 1


@pytest.mark.parametrize("wanted", ["verify", "identify"])
async def test_either_function_may_be_async_or_not(wanted: str) -> None:
    async def later(_: Any) -> Principal:
        return ALICE

    def at_once(_: Any) -> Principal:
        return ALICE

    for function in (later, at_once):
        app, inner = guarded(**{wanted: function})
        await asgi.request(app, "GET", "/", headers={"x-api-key": "any"})
        assert inner.scopes[0][SCOPE_KEY] is ALICE


@pytest.mark.parametrize("slip", [False, True, "alice", {}, 0])
@pytest.mark.parametrize("wanted", ["verify", "identify"])
async def test_an_error_in_identify_refuses_the_request(wanted: str, slip: Any) -> None:
    async def function(_: Any) -> Any:
        return slip

    app, inner = guarded(**{wanted: function})
    with pytest.raises(ConfigurationError, match="must return a Principal"):
        await asgi.request(app, "GET", "/", headers={"x-api-key": "any"})
    assert inner.scopes == []


async def test_an_error_in_verify_refuses_the_request() -> None:
    async def verify(token: str) -> Principal | None:
        raise ConnectionError("the database is away")

    app, inner = guarded(verify=verify)
    with pytest.raises(ConnectionError):
        await asgi.request(app, "GET", "/", headers={"x-api-key": "any"})
    assert inner.scopes == []


# ── scopes ───────────────────────────────────────────────────────────────────


async def test_the_callers_scope_is_not_changed() -> None:
    app, inner = guarded()
    scope = asgi.scope_of("GET", "/v1/models", headers={"x-api-key": "tok-1"})
    before = copy.deepcopy(scope)
    async with asgi.Exchange(app, scope) as exchange:
        await exchange.answer()
    assert scope == before
    assert inner.scopes[0] is not scope
    assert inner.scopes[0] == {**before, SCOPE_KEY: ALICE}


async def test_other_scopes_pass_unchanged() -> None:
    app, inner = guarded()
    scope = {"type": "mystery"}
    async with asgi.Exchange(app, scope) as exchange:
        await exchange.ended()
    assert inner.scopes[0] is scope


async def test_a_websocket_needs_a_token_too() -> None:
    app, inner = guarded()
    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    async with asgi.Exchange(app, scope) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        assert (await exchange.message())["type"] == "websocket.close"
        await exchange.ended()
    assert inner.scopes == []
    async with asgi.Exchange(app, {**scope, "query_string": b"key=tok-1"}) as exchange:
        await exchange.ended()
    assert inner.scopes[0][SCOPE_KEY] is ALICE


async def test_entering_it_enters_the_wrapped_app() -> None:
    app, inner = guarded()
    async with app as entered:
        assert entered is app
        assert inner.log == ["in"]
    assert inner.log == ["in", "out"]

    async def plain(scope: Any, receive: Any, send: Any) -> None: ...

    async with Authenticate(plain, identify=of_session):
        pass  # an app without `__aenter__` is not entered


async def test_lifespan_reaches_the_wrapped_app() -> None:
    shim = OpenAIShim(OPENAI.using("sk"))
    async with asgi.lifespan(Authenticate(shim, identify=of_session)):
        assert shim._users == 1
    assert shim._users == 0


async def test_a_callers_models_are_enforced_by_the_wrapped_app() -> None:
    upstream = Upstream(answers())
    app = Authenticate(
        OpenAIShim(OPENAI.using("sk"), transport=upstream.transport),
        verify=static_tokens({"tok-1": ALICE}),
    )
    headers = {"authorization": "Bearer tok-1"}
    assert (await asgi.chat(app, model="gpt-5", headers=headers)).status == 200
    assert (await asgi.chat(app, model="claude", headers=headers)).status == 403
    assert len(upstream.requests) == 1
    assert "tok-1" not in repr(upstream.requests[0].headers)


# ── principals, tokens, mistakes ─────────────────────────────────────────────


def test_a_principal_may_use_what_its_patterns_say() -> None:
    assert Principal("x").may_use("anything")
    assert ALICE.may_use("gpt-5")
    assert not ALICE.may_use("claude")
    # A text is one pattern, and not its letters, one of which is "*".
    one = Principal("x", models="gpt-*")  # type: ignore[arg-type]
    assert one.models == ("gpt-*",)
    assert not one.may_use("claude")
    assert Principal("x", models=["a", "b"]).models == ("a", "b")  # type: ignore[arg-type]


def test_principals_can_be_kept_in_sets() -> None:
    assert len({ALICE, Principal("alice", models=("gpt-*",)), Principal("bob")}) == 2


def test_no_token_is_in_a_repr() -> None:
    tokens = {"tok-secret": "alice"}
    app = Authenticate(OpenAIShim(OPENAI.using("sk-secret")), verify=static_tokens(tokens))
    assert "secret" not in repr(app)
    assert repr(app).startswith("Authenticate(OpenAIShim(")


async def test_unusual_tokens_are_refused_like_any_invalid_one() -> None:
    verify = static_tokens({"tok": "alice", "ключ": "bob"})
    for token in ("\ud800", "", "to", "tok\x00", "k" * 100_000):
        assert await verify(token) is None
    assert (await verify("ключ")) == Principal("bob", "bob")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Authenticate(Inner()), "requires verify=, identify=, or both"),
        (lambda: Authenticate(Inner(), verify={"tok": "x"}), "not dict.*static_tokens"),  # type: ignore[arg-type]
        (lambda: Authenticate(Inner(), identify="x"), "not str"),  # type: ignore[arg-type]
        (lambda: static_tokens(["tok"]), "a mapping"),  # type: ignore[arg-type]
        (lambda: static_tokens({"": "x"}), "must not be empty"),
        (lambda: static_tokens({"tok": None}), "a string, not NoneType"),  # type: ignore[dict-item]
    ],
)
def test_a_mistake_is_reported_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


# ── tokens of a store ────────────────────────────────────────────────────────


async def doorkeeper(**fields: Any) -> tuple[str, Authenticate, Inner]:
    store = MemoryStore()
    secret, _ = await Tokens(store).issue(**fields)
    inner = Inner()
    return secret, Authenticate(inner, verify=stored_tokens(store)), inner


async def ask(app: Any, token: str, *, path: str = "/v1/chat/completions", **more: Any) -> Any:
    headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
    return await asgi.request(app, "POST", path, b"{}", headers=headers, **more)


async def test_stored_tokens_are_accepted() -> None:
    secret, app, inner = await doorkeeper(name="team")
    assert (await ask(app, secret)).status == 200
    assert inner.scopes[0][SCOPE_KEY].name == "team"
    assert (await ask(app, secret[:-1])).status == 401


async def test_the_reason_of_a_refusal_is_given_in_the_callers_dialect() -> None:
    secret, app, inner = await doorkeeper(enabled=False)
    answer = await ask(app, secret)
    assert (answer.status, answer.json["error"]["code"]) == (401, "api_key_disabled")
    assert answer.header("www-authenticate") == "Bearer"
    answer = await ask(app, secret, path="/ai/v1/messages")
    assert (answer.status, answer.json["type"]) == (401, "error")
    assert answer.json["error"]["type"] == "authentication_error"
    answer = await ask(app, secret, path="/v1beta/models/gemini-2.5-pro:generateContent")
    assert answer.json["error"]["status"] == "UNAUTHENTICATED"
    answer = await ask(app, secret, path="/odd", headers={"anthropic-version": "2023-06-01"})
    assert answer.json["type"] == "error"
    answer = await ask(app, secret, path="/odd", headers={"x-goog-api-key": "x"})
    assert answer.json["error"]["status"] == "UNAUTHENTICATED"
    assert inner.scopes == []


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("10.1.2.3", 1), 200),
        (("11.1.2.3", 1), 403),
        (("::ffff:10.1.2.3", 1), 200),
        (("unix:", 0), 403),
        (None, 403),
    ],
)
async def test_calls_from_other_addresses_are_refused(client: Any, status: int) -> None:
    secret, app, _ = await doorkeeper(networks=("10.0.0.0/8",))
    answer = await ask(app, secret, client=client)
    assert answer.status == status
    if status == 403:
        assert answer.json["error"]["code"] == "address_not_allowed"


def pins(inner: Inner) -> list[bytes]:
    names = (b"aiproxy-key", b"x-auth-id")
    return [value for name, value in inner.scopes[-1]["headers"] if name in names]


async def test_only_callers_with_permission_can_select_a_key() -> None:
    secret, app, inner = await doorkeeper(may_choose_key=True)
    await ask(app, f"{secret}-team-a")
    assert pins(inner) == [b"team-a"]
    await ask(app, f"{secret}-team-a", headers={"x-auth-id": "other"})
    assert pins(inner) == [b"team-a"]
    await ask(app, secret, headers={"x-auth-id": "other"})
    assert pins(inner) == [b"other"]
    secret, app, inner = await doorkeeper()
    for name in ("aiproxy-key", "x-auth-id"):
        await ask(app, secret, headers={name: "other"})
        assert pins(inner) == []
    assert (await ask(app, f"{secret}-team-a")).status == 403


async def test_a_pinned_token_is_served_with_its_key_and_no_other() -> None:
    upstream = Upstream(answers())
    store = MemoryStore()
    secret, _ = await Tokens(store).issue(may_choose_key=True)
    keys = KeyPool([Key("sk-a", id="a"), Key("sk-b", id="b")])
    shim = OpenAIShim(OPENAI.using(keys), transport=upstream.transport)
    app = Authenticate(shim, verify=stored_tokens(store))
    for _ in range(3):
        answer = await asgi.chat(app, headers={"authorization": f"Bearer {secret}-b"})
        assert answer.header("x-auth-id") == "b"
    assert upstream.keys == ["sk-b"] * 3
    wrong = await asgi.chat(app, headers={"authorization": f"Bearer {secret}-c"})
    assert wrong.status == 401
    assert "no key 'c'" in wrong.json["error"]["message"]


async def test_a_groups_providers_and_keys_serve_its_callers() -> None:
    upstream = Upstream(answers())
    keys = KeyPool([Key("sk-a", id="a"), Key("sk-vip", id="vip-1")])
    one = OPENAI.using(keys, name="one")
    two = OPENAI.using("sk-two", name="two")
    who = [Principal("x", providers=("one",), keys=("vip-*",))]
    app = Authenticate(
        OpenAIShim(ProviderRouter({"m": [two, one]}), transport=upstream.transport),
        identify=lambda scope: who[0],
    )
    for _ in range(4):
        assert (await asgi.chat(app)).header("aiproxy-provider") == "one"
    assert upstream.keys == ["sk-vip"] * 4
    assert (await asgi.request(app, "GET", "/v1/models")).json["data"][0]["id"] == "m"
    assert (await asgi.request(app, "GET", "/v1/models/m")).status == 200
    who[0] = Principal("x", providers=("three",))
    assert (await asgi.chat(app)).status == 404
    assert (await asgi.request(app, "GET", "/v1/models")).json["data"] == []
    assert (await asgi.request(app, "GET", "/v1/models/m")).status == 404
    who[0] = Principal("x", providers=("one",), keys=("none-*",))
    assert (await asgi.chat(app)).status == 404
