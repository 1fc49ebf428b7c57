"""`ChatGPTToAPIRoutes`: clients and scripts of ChatGPT-to-API work unchanged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy import ConfigurationError, KeyPool, MemoryStore
from asgi_aiproxy.compat import ChatGPTToAPIRoutes, parse_proxies
from asgi_aiproxy.compat.outbound_proxies import RotatingProxies
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio

ADMIN = "a-long-admin-password"
BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


def routes(vendors: Vendors, keys: Any = ("sk-one", "sk-two"), **options: Any) -> Any:
    pool = KeyPool(list(keys), name="openai", strategy="round_robin")
    return ChatGPTToAPIRoutes(
        OPENAI.using(pool), admin_password=ADMIN, transport=vendors.transport, **options
    )


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_ping() -> None:
    answer = await asgi.request(routes(Vendors()), "GET", "/ping")
    assert (answer.status, answer.json) == (200, {"message": "pong"})


async def test_chat_takes_the_tokens_in_turn_and_names_the_real_model() -> None:
    vendors = Vendors()
    app = routes(vendors)
    for _ in range(4):
        answer = await asgi.request(app, "POST", CHAT, BODY)
        assert answer.status == 200
        assert answer.json["usage"]["total_tokens"] == 5
    assert vendors.keys in (["sk-one", "sk-two"] * 2, ["sk-two", "sk-one"] * 2)
    streamed = await asgi.request(app, "POST", CHAT, {**BODY, "stream": True})
    assert streamed.events[-1] == "[DONE]"
    assert [e["choices"][0]["finish_reason"] for e in streamed.events[:-1] if e["choices"]][
        -1
    ] == "stop"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/engines"])
async def test_models_and_engines_list_the_models(path: str) -> None:
    vendors = Vendors()
    answer = await asgi.request(routes(vendors), "GET", path)
    assert (answer.status, answer.json["object"]) == (200, "list")


async def test_a_mapping_table_renames_models() -> None:
    vendors = Vendors()
    app = routes(vendors, models={"text-davinci-002-render-sha": "gpt-5-mini"})
    await asgi.request(app, "POST", CHAT, {**BODY, "model": "text-davinci-002-render-sha"})
    assert vendors.body["model"] == "gpt-5-mini"


@pytest.mark.parametrize(
    ("headers", "status", "secret"),
    [
        (bearer("caller-1"), 200, "sk-one"),
        ({"authorization": "caller-1"}, 200, "sk-one"),
        (bearer("eyJhbGciOi.own"), 200, "eyJhbGciOi.own"),
        (bearer("sk-official"), 401, None),
        (bearer("someone"), 401, None),
        ({}, 401, None),
    ],
)
async def test_the_keys_of_api_keys_txt_are_required(
    headers: dict[str, str], status: int, secret: str | None
) -> None:
    vendors = Vendors()
    app = routes(vendors, ["sk-one"], api_keys=["caller-1", "caller-2"])
    answer = await asgi.request(app, "POST", CHAT, BODY, headers=headers)
    assert answer.status == status
    assert vendors.keys == ([secret] if secret else [])


async def test_without_a_list_an_official_key_is_ignored() -> None:
    vendors = Vendors()
    await asgi.request(
        routes(vendors, ["sk-one"]), "POST", CHAT, BODY, headers=bearer("sk-official")
    )
    assert vendors.keys == ["sk-one"]


async def test_tokens_of_the_gateway_are_accepted_and_others_refused() -> None:
    vendors = Vendors()
    app = routes(vendors, verify=static_tokens({"gateway-1": "p"}))
    assert (await asgi.request(app, "POST", CHAT, BODY, headers=bearer("gateway-1"))).status == 200
    assert (await asgi.request(app, "POST", CHAT, BODY, headers=bearer("else"))).status == 401
    assert (await asgi.request(app, "POST", CHAT, BODY)).status == 401


async def test_a_json_web_token_of_the_gateway_is_not_sent_to_the_vendor() -> None:
    vendors = Vendors()
    known = {"eyJhbGciOi.gateway": "p"}
    app = routes(vendors, ["sk-one"], verify=static_tokens(known), api_keys=["eyJ-listed"])
    for token in (*known, "eyJ-listed", "eyJhbGciOi.own"):
        assert (await asgi.request(app, "POST", CHAT, BODY, headers=bearer(token))).status == 200
    assert vendors.keys == ["sk-one", "sk-one", "eyJhbGciOi.own"]


async def test_plugins_are_retired() -> None:
    answer = await asgi.request(
        routes(Vendors()), "POST", CHAT, {**BODY, "plugin_ids": ["plugin-1"]}
    )
    assert (answer.status, answer.json["error"]["code"]) == (410, "provider_retired")


# ── administration ───────────────────────────────────────────────────────────


async def patch(app: Any, path: str, body: Any, password: str = ADMIN) -> asgi.Answer:
    return await asgi.request(app, "PATCH", path, body, headers={"authorization": password})


@pytest.mark.parametrize(
    ("tokens", "sent"),
    [
        (["new-1"], ["new-1"]),
        ([{"token": "new-2", "puid": "user-1"}], ["new-2"]),
        (["same", "same"], ["same"]),
    ],
)
async def test_patch_tokens_replaces_the_pool(tokens: Any, sent: list[str]) -> None:
    vendors = Vendors()
    app = routes(vendors)
    answer = await patch(app, "/admin/tokens", tokens)
    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/plain")
    assert not any(token in answer.body.decode() for token in sent)
    await asgi.request(app, "POST", CHAT, BODY)
    assert vendors.keys == sent


async def test_an_empty_list_clears_the_pool() -> None:
    vendors = Vendors()
    app = routes(vendors)
    assert (await patch(app, "/admin/tokens", [])).status == 200
    assert (await asgi.request(app, "POST", CHAT, BODY)).status >= 400
    assert vendors.requests == []


@pytest.mark.parametrize(
    ("path", "body", "password", "status"),
    [
        ("/admin/tokens", ["x"], "wrong", 401),
        ("/admin/tokens", ["x"], f"Bearer {ADMIN}", 401),
        ("/admin/tokens", ["x"], "", 401),
        ("/admin/tokens", b"[", ADMIN, 400),
        ("/admin/tokens", {"a": 1}, ADMIN, 400),
        ("/admin/tokens", ["ok", 7], ADMIN, 400),
        ("/admin/tokens", ["not sendable\n.x y"], ADMIN, 400),
        ("/admin/password", {}, ADMIN, 400),
        ("/admin/password", {"password": "new"}, "wrong", 401),
        ("/admin/openai", {"official_api_key": "sk-9"}, "wrong", 401),
        ("/admin/openai", {"openai_email": "a", "openai_password": "b"}, ADMIN, 403),
        ("/admin/puid", {"puid": "x"}, ADMIN, 403),
    ],
)
async def test_invalid_admin_requests_change_nothing(
    path: str, body: Any, password: str, status: int
) -> None:
    vendors = Vendors()
    app = routes(vendors, ["sk-one"])
    assert (await patch(app, path, body, password)).status == status
    await asgi.request(app, "POST", CHAT, BODY)
    assert vendors.keys == ["sk-one"]


async def test_the_password_and_the_official_key_can_be_changed() -> None:
    vendors = Vendors()
    app = routes(vendors)
    assert (await patch(app, "/admin/password", {"password": "another-one"})).status == 200
    assert (await patch(app, "/admin/tokens", ["x"])).status == 401
    key = {"official_api_key": "sk-official"}
    assert (await patch(app, "/admin/openai", key, "another-one")).status == 200
    await asgi.request(app, "POST", CHAT, BODY)
    assert vendors.keys == ["sk-official"]


async def test_the_admin_password_cannot_be_guessed_and_success_is_not_counted() -> None:
    store = MemoryStore()
    workers = [routes(Vendors(), store=store) for _ in range(2)]
    for _ in range(20):
        assert (await patch(workers[0], "/admin/tokens", ["k"])).status == 200
    answers = [await patch(workers[n % 2], "/admin/tokens", ["k"], "wrong") for n in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert (await patch(workers[1], "/admin/password", {"password": "x"})).status == 429


def test_an_admin_password_is_required() -> None:
    with pytest.raises(ConfigurationError, match="admin_password"):
        ChatGPTToAPIRoutes(admin_password=" ")


# ── proxies.txt ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("10.0.0.1:1080", "socks5://10.0.0.1:1080"),
        ("10.0.0.1:1080:me:p@ss", "socks5://me:p%40ss@10.0.0.1:1080"),
        ("me:secret:proxy.example:1080", "socks5://me:secret@proxy.example:1080"),
        ("http://u:p@proxy.example:3128", "http://u:p@proxy.example:3128"),
        ("socks5://proxy.example:1080", "socks5://proxy.example:1080"),
    ],
)
def test_lines_of_proxies_txt(line: str, url: str) -> None:
    assert parse_proxies(f"\ufeff# list\n\n{line}\r\n") == [url]


@pytest.mark.parametrize("line", ["host", "host:99999", "a:b:c", "ftp://x:1", "a:b:c:d", ":1080"])
def test_an_invalid_line_is_named_and_not_quoted(line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^Line 2: ") as raised:
        parse_proxies(f"10.0.0.1:1080\n{line}-secret")
    assert "secret" not in str(raised.value)


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    try:
        urls = parse_proxies(text)
    except ConfigurationError:
        return
    assert all("://" in url for url in urls)


def test_each_request_uses_the_next_proxy() -> None:
    router = RotatingProxies(OPENAI.using("sk-1"), ["socks5://a:1", "socks5://b:2"])
    used = [router.targets("m")[0].provider.proxy for _ in range(4)]
    assert used == ["socks5://a:1", "socks5://b:2"] * 2
    assert {t.provider.keys for t in (*router.targets("m"), *router.targets("m"))} == {
        router.targets("m")[0].provider.keys
    }
