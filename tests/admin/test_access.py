"""Authentication and the scopes of the admin API, and its other responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy import Authenticate, ConfigurationError, Principal
from asgi_aiproxy.admin import AdminApp, auth
from asgi_aiproxy.stores import MemoryStore
from tests.admin.conftest import ROOT, Client
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio


async def issued(client: Client, **fields: Any) -> str:
    answer = await client("POST", "/tokens", {"name": "t", **fields})
    assert answer.status == 201, answer.body
    secret: str = answer.json["secret"]
    return secret


@pytest.mark.parametrize("token", ["", "  ", None])
def test_there_is_no_token_by_default(token: Any) -> None:
    with pytest.raises(ConfigurationError, match="requires a token"):
        AdminApp(MemoryStore(), token=token)


async def test_a_missing_or_invalid_token_is_a_401(client: Client) -> None:
    for token in (None, "wrong", ROOT[:-1], ROOT + "x", ROOT.upper()):
        answer = await client.by(token)("GET", "/tokens")
        assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
        assert "message" in answer.json["error"]
    assert (await client("GET", "/tokens")).status == 200


async def test_a_token_in_the_query_is_ignored(client: Client) -> None:
    assert (await client.by(None)("GET", f"/tokens?key={ROOT}")).status == 401


async def test_a_gateway_token_may_read_about_itself_only(client: Client) -> None:
    user = client.by(await issued(client, rpm=5))
    assert (await user("GET", "/me")).status == 200
    for method, path in [("GET", "/tokens"), ("POST", "/tokens"), ("GET", "/groups")]:
        answer = await user(method, path)
        assert (answer.status, answer.json["error"]["code"]) == (403, "scope")


async def test_scopes_grant_read_write_and_root_access(client: Client) -> None:
    reader = client.by(await issued(client, scopes=["read"]))
    writer = client.by(await issued(client, scopes=["write"]))
    root = client.by(await issued(client, scopes=["root"]))
    new = {"name": "plain"}
    assert [(await who("GET", "/tokens")).status for who in (reader, writer, root)] == [200] * 3
    assert [(await who("POST", "/tokens", new)).status for who in (reader, writer, root)] == [
        403, 201, 201,
    ]  # fmt: skip


async def test_only_root_may_grant_scopes_or_change_tokens_with_scopes(client: Client) -> None:
    writer = client.by(await issued(client, scopes=["write"]))
    target = (await client("POST", "/tokens", {"name": "r", "scopes": ["read"]})).json["token"][
        "id"
    ]
    plain = (await client("POST", "/tokens", {"name": "p"})).json["token"]["id"]
    for method, path, body in [
        ("POST", "/tokens", {"name": "x", "scopes": ["root"]}),
        ("PATCH", f"/tokens/{plain}", {"scopes": ["root"]}),
        ("PATCH", f"/tokens/{target}", {"enabled": False}),
        ("POST", f"/tokens/{target}/rotate", {}),
        ("DELETE", f"/tokens/{target}", b""),
    ]:
        assert (await writer(method, path, body)).status == 403, path
    assert (await writer("PATCH", f"/tokens/{plain}", {"rpm": 7})).status == 200
    assert (await client("DELETE", f"/tokens/{target}")).status == 200


async def test_too_many_invalid_tokens_are_a_429_and_logged_and_do_not_block_a_valid_one(
    store: Any, make: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = make(store, max_failures_per_minute=3)
    reader, user = await issued(client, scopes=["read"]), await issued(client)
    answers = [await client.by(f"wrong-{n}")("GET", "/tokens") for n in range(9)]
    assert [answer.status for answer in answers] == [401] * 3 + [429] * 6
    assert 1 <= int(answers[-1].header("retry-after") or 0) <= 60
    assert caplog.text.count("3 invalid tokens from 127.0.0.1 within a minute") == 1
    for token in (ROOT, reader):
        assert (await client.by(token)("GET", "/tokens")).status == 200
    assert (await client.by(user)("GET", "/tokens")).status == 403  # known, and not allowed
    assert (await client.by("wrong-0")("GET", "/tokens")).status == 429
    assert (await client.by(None)("GET", "/tokens")).status == 401
    assert (await client.by(None)("GET", "/health")).status == 200
    elsewhere = await asgi.request(
        client.app, "GET", "/tokens", client=("10.0.0.9", 1),
        headers={"authorization": "Bearer wrong"},
    )  # fmt: skip
    assert elsewhere.status == 401  # the address that the server reports


async def test_a_flood_of_guesses_uses_no_memory_and_blocks_no_valid_token(
    make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_MAX_ADDRESSES", 50)
    client = make(MemoryStore(), max_failures_per_minute=2)

    async def guess(number: int) -> int:
        return (
            await asgi.request(
                client.app, "GET", "/tokens", client=(f"10.0.{number % 200}.1", 1),
                headers={"authorization": f"Bearer guess-{number}"},
            )
        ).status  # fmt: skip

    answers = await asyncio.gather(*map(guess, range(1000)), client("GET", "/tokens"))
    assert set(answers[:-1]) <= {401, 429}
    assert answers[-1].status == 200
    assert len(client.app.access._failure_times) <= 50


def test_a_short_administrator_token_causes_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    AdminApp(MemoryStore(), token=ROOT)
    assert caplog.text == ""
    AdminApp(MemoryStore(), token="s3cret")
    assert "may be guessed" in caplog.text
    assert "s3cret" not in caplog.text


async def test_many_valid_tokens_at_the_same_time_are_all_accepted(client: Client) -> None:
    reader = client.by(await issued(client, scopes=["read"]))
    answers = await asyncio.gather(*(reader("GET", "/tokens") for _ in range(60)))
    assert {answer.status for answer in answers} == {200}


async def test_users_of_the_host_have_access_according_to_their_scopes() -> None:
    def identify(scope: Any) -> Principal | None:
        name = asgi_header(scope, b"x-user")
        return Principal(name, scopes=("read",) if name == "ann" else ()) if name else None

    app = Authenticate(AdminApp(MemoryStore(), token=ROOT), identify=identify)
    statuses = [
        (await asgi.request(app, method, "/tokens", {}, headers={"x-user": user})).status
        for user, method in [("ann", "GET"), ("ann", "POST"), ("bob", "GET"), ("", "GET")]
    ]
    assert statuses == [200, 403, 403, 401]


def asgi_header(scope: Any, name: bytes) -> str:
    return next((value.decode() for key, value in scope["headers"] if key == name), "")


async def test_a_token_is_bound_to_its_networks_here_too(client: Client) -> None:
    away = client.by(await issued(client, scopes=["read"], networks=["10.0.0.0/8"]))
    at_home = client.by(await issued(client, scopes=["read"], networks=["127.0.0.1"]))
    assert (await away("GET", "/tokens")).status == 403
    assert (await at_home("GET", "/tokens")).status == 200


# ── paths ────────────────────────────────────────────────────────────────────


async def test_it_can_be_mounted_anywhere(store: Any) -> None:
    client = Client(AdminApp(store, token=ROOT), root_path="/behind/ai-admin")
    assert (await client("GET", "/tokens")).status == 200
    document = (await client.by(None)("GET", "/openapi.json")).json
    assert document["servers"] == [{"url": "/behind/ai-admin"}]


async def test_unknown_paths_are_a_404_and_wrong_methods_a_405(client: Client) -> None:
    for path in ("/", "/token", "/tokens/", "/tokens//", "/tokens/a/b", "/..", "/%2Ftokens"):
        assert (await client("GET", path)).status == 404, path
    status, _, message = await client.error("PUT", "/tokens")
    assert (status, "Allowed methods: GET, POST" in message) == (405, True)
    for method, path, allowed in [
        ("PUT", "/tokens", "GET, POST"),
        ("POST", "/health", "GET"),
        ("POST", "/tokens/a", "GET, PATCH, DELETE"),
        ("GET", "/tokens/a/rotate", "POST"),
    ]:
        answer = await client(method, path)
        assert (answer.status, answer.header("allow")) == (405, allowed)


async def test_unexpected_members_and_parameters_are_named(client: Client) -> None:
    assert (await client.error("GET", "/tokens?limt=3"))[:2] == (400, "limt")
    assert (await client.error("GET", "/tokens?limit=0"))[:2] == (400, "limit")
    assert (await client.error("GET", "/tokens?limit=x"))[:2] == (400, "limit")
    assert (await client.error("GET", "/tokens?limit=1&limit=2"))[:2] == (400, "limit")
    assert (await client.error("GET", "/me?x=1"))[:2] == (400, "x")
    assert (await client.error("GET", "/tokens", {"a": 1}))[0] == 400
    assert (await client.error("POST", "/tokens", b"{"))[0] == 400
    assert (await client.error("POST", "/tokens", b"[]"))[0] == 400
    assert (await client.error("POST", "/tokens", b"\xff"))[0] == 400
    assert (await client.error("POST", "/tokens", b" " * (8 * 1024 * 1024 + 1)))[0] == 413


async def test_responses_may_not_be_cached(client: Client) -> None:
    answer = await client("GET", "/tokens")
    assert answer.header("cache-control") == "no-store"
    assert answer.header("content-type") == "application/json"


# ── health, and the document ─────────────────────────────────────────────────


class Away(MemoryStore):
    async def version(self, name: str) -> int:
        from asgi_aiproxy.stores import StoreUnavailableError

        raise StoreUnavailableError("redis://:password@host is away")

    page = version  # type: ignore[assignment]


async def test_health_is_about_the_process_and_readiness_about_the_store(client: Client) -> None:
    unknown = client.by(None)
    assert (await unknown("GET", "/health")).json == {"ok": True}
    assert (await unknown("GET", "/ready")).json == {"ok": True}
    away = Client(AdminApp(Away(), token=ROOT), None)
    assert (await away("GET", "/health")).status == 200
    answer = await away("GET", "/ready")
    assert (answer.status, b"password" in answer.body) == (503, False)


async def test_lifespan_is_answered(client: Client) -> None:
    async with asgi.lifespan(client.app):
        assert (await client("GET", "/tokens")).status == 200


async def test_the_openapi_document_describes_every_operation(client: Client) -> None:
    document = (await client.by(None)("GET", "/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    issue = document["paths"]["/tokens"]["post"]
    assert issue["security"] == [{"token": []}]
    name = issue["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = document["components"]["schemas"][name]
    assert schema["properties"]["rpm"]["anyOf"][0]["minimum"] == 1
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    names = [p["name"] for p in document["paths"]["/tokens/{id}"]["get"]["parameters"]]
    assert names == ["id"]
    ids = [entry["operationId"] for path in document["paths"].values() for entry in path.values()]
    assert len(set(ids)) == len(ids)


async def test_every_reference_in_the_openapi_document_is_defined(client: Client) -> None:
    document = (await client.by(None)("GET", "/openapi.json")).json

    def references(value: Any) -> Any:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    found = set(references(document))
    assert len(found) > 10
    for reference in found:
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"]


async def test_addresses_of_one_ipv6_network_count_as_one(
    make: Callable[..., Client],
) -> None:
    client = make(MemoryStore(), max_failures_per_minute=2)

    async def status(address: str, token: str = "wrong") -> int:
        headers = {"authorization": f"Bearer {token}"}
        return (
            await asgi.request(client.app, "GET", "/tokens", headers=headers, client=(address, 1))
        ).status

    assert [await status("2001:db8::1"), await status("2001:db8::2")] == [401, 401]
    assert await status("2001:db8::3") == 429
    assert await status("2001:db8::3", ROOT) == 200
    assert await status("2001:db8:0:1::1", ROOT) == 200
    assert [await status(f"::ffff:10.0.0.{n}") for n in (1, 2, 3)] == [401, 401, 401]
    assert await status("2001:db8:0:1::1") == 401
    assert await status("no-address", ROOT) == 200


def test_zero_attempts_are_refused_as_a_limit() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        AdminApp(MemoryStore(), token=ROOT, max_failures_per_minute=0)


class Broken(MemoryStore):
    async def page(self, table: str, after: str = "", limit: int = 100) -> dict[str, bytes]:
        raise RuntimeError("redis://:password@host")


async def test_an_internal_error_is_in_the_log_and_not_in_the_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await Client(AdminApp(Broken(), token=ROOT))("GET", "/tokens")
    assert (answer.status, b"password" in answer.body) == (500, False)
    assert "the admin API failed" in caplog.text


async def test_a_disconnect_is_not_logged_as_an_error(client: Client) -> None:
    headers = {"authorization": f"Bearer {ROOT}"}
    async with asgi.opened(client.app, "POST", "/tokens", headers=headers) as exchange:
        exchange.disconnect()
        await exchange.ended()
    assert (await client("GET", "/tokens")).json["data"] == []


async def test_websockets_are_refused(client: Client) -> None:
    scope = {**asgi.scope_of("GET", "/tokens"), "type": "websocket", "subprotocols": []}
    async with asgi.Exchange(client.app, scope) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        assert (await exchange.message())["type"] == "websocket.close"
