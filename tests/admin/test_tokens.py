"""Tokens, groups and accounts over the admin API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy.accounts import stored_tokens
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import MemoryStore, Store
from tests.admin.conftest import Client

pytestmark = pytest.mark.anyio


async def issue(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client("POST", "/tokens", {"name": "team-1", **fields})
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json
    return found


async def test_a_token_is_shown_once_and_works(store: Store, client: Client) -> None:
    made = await issue(
        client, rpm=60, tpm=1000, concurrency=4, models=["gpt-*"], networks=["10.0.0.0/8"],
        budgets=[{"usd": 25, "per": "month"}, {"units": 1000}], may_choose_key=True,
    )  # fmt: skip
    principal = await stored_tokens(store)(made["secret"])
    assert principal is not None
    assert principal.models == ("gpt-*",)
    assert principal.limits == Limits(
        60, 1000, 4, (Budget(25_000_000, "month"), Budget(1000, "total", "units"))
    )
    id = made["token"]["id"]
    shown = await client("GET", f"/tokens/{id}")
    listed = await client("GET", "/tokens")
    for answer in (shown, listed):
        assert made["secret"] not in answer.body.decode()
        assert made["secret"][15:] not in answer.body.decode()
        assert b"digest" not in answer.body
    token = shown.json
    assert token == listed.json["data"][0] == made["token"]
    assert (token["status"], token["may_choose_key"]) == ("active", True)
    assert token["limits"]["rpm"] == {"limit": 60, "used": 0}
    month = token["limits"]["budgets"][0]
    assert (month["unit"], month["per"], month["limit"], month["left"]) == (
        "usd", "month", 25.0, 25.0,
    )  # fmt: skip
    assert 0 < month["resets"] - time.time() <= 31 * 86400 + 1


async def test_used_and_remaining_amounts_are_reported(store: Store, client: Client) -> None:
    made = await issue(client, budgets=[{"usd": 1.5}])
    id = made["token"]["id"]
    budget = Budget.usd(1.5)
    who = Principal(id, limits=Limits(budgets=(budget,)))
    await store.charge(reserve(who, budget, 400_000, time.time()), once="a")
    await store.admit("held", [reserve(who, budget, 100_000, time.time())])
    reported = (await client("GET", f"/tokens/{id}")).json
    assert reported["status"] == "active"
    found = reported["limits"]["budgets"][0]
    assert (found["limit"], found["spent"], found["held"], found["left"]) == (1.5, 0.4, 0.1, 1.0)
    await store.charge(reserve(who, budget, 2_000_000, time.time()), once="b")
    reported = (await client("GET", f"/tokens/{id}")).json
    assert (reported["status"], reported["limits"]["budgets"][0]["left"]) == ("exhausted", -1.0)


async def test_an_expired_or_disabled_token_is_shown_as_such(make: Callable[..., Client]) -> None:
    now = time.time()
    client = make(MemoryStore(), clock=lambda: now)
    made = await issue(client, expires=now + 60)
    assert made["token"]["status"] == "active"
    now += 61
    path = f"/tokens/{made['token']['id']}"
    assert (await client("GET", path)).json["status"] == "expired"
    assert (await client("PATCH", path, {"expires": now + 5})).json["status"] == "active"


async def test_a_token_is_edited_field_by_field(store: Store, client: Client) -> None:
    made = await issue(client, rpm=60, tpm=500, budgets=[{"usd": 1}], models=["a"])
    path = f"/tokens/{made['token']['id']}"
    expires = time.time() + 3600
    answer = await client("PATCH", path, {"rpm": None, "expires": expires, "name": "renamed"})
    assert answer.status == 200
    token = answer.json
    assert (token["name"], token["expires"], token["models"]) == ("renamed", expires, ["a"])
    assert "rpm" not in token["limits"]
    assert token["limits"]["tpm"] == {"limit": 500, "used": 0}
    assert len(token["limits"]["budgets"]) == 1
    token = (await client("PATCH", path, {"budgets": [], "expires": None, "enabled": False})).json
    assert (token["expires"], token["status"], token["limits"].get("budgets")) == (
        None, "disabled", None,
    )  # fmt: skip


async def test_a_rotated_token_has_a_new_secret_and_the_old_one_a_grace_period(
    store: Store, client: Client
) -> None:
    made = await issue(client)
    path = f"/tokens/{made['token']['id']}/rotate"
    second = (await client("POST", path, {"grace": 60})).json["secret"]
    third = (await client("POST", path)).json["secret"]
    verify = stored_tokens(store)
    known = [await verify(secret) is not None for secret in (made["secret"], second, third)]
    assert known == [True, False, True]


async def test_a_revoked_token_is_gone(store: Store, client: Client) -> None:
    made = await issue(client)
    path = f"/tokens/{made['token']['id']}"
    assert (await client("DELETE", path)).json == {"ok": True}
    assert await stored_tokens(store)(made["secret"]) is None
    for method, body in [("GET", b""), ("DELETE", b""), ("PATCH", {})]:
        assert (await client.error(method, path, body))[0] == 404
    assert (await client("POST", path + "/rotate", {})).status == 404


async def test_a_token_of_another_gateway_is_imported_once(store: Store, client: Client) -> None:
    made = await issue(client, secret="sk-of-another-gateway-123456")
    assert made["secret"] == "sk-of-another-gateway-123456"
    assert await stored_tokens(store)(made["secret"]) is not None
    answer = await client("POST", "/tokens", {"name": "again", "secret": made["secret"]})
    assert answer.status == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "t", "colour": "red"}, "colour"),
        ({"name": "t", "rpm": 0}, "rpm"),
        ({"name": "t", "rpm": 1.5}, "rpm"),
        ({"name": "t", "tpm": -1}, "tpm"),
        ({"name": "t", "concurrency": "many"}, "concurrency"),
        ({"name": "t", "budgets": [{"usd": -1}]}, "budgets[0].usd"),
        ({"name": "t", "budgets": [{"units": -1}]}, "budgets[0].units"),
        ({"name": "t", "budgets": [{"usd": 1, "units": 1}]}, "budgets"),
        ({"name": "t", "budgets": [{"per": "day"}]}, "budgets"),
        ({"name": "t", "budgets": [{"usd": 1, "per": "year"}]}, "budgets[0].per"),
        ({"name": "t", "budgets": [{"usd": 1, "limit": 2}]}, "budgets[0].limit"),
        ({"name": "t", "budgets": [{"usd": 1}, {"usd": 2}]}, "budgets"),
        ({"name": "t", "expires": 1.0}, "expires"),
        ({"name": "t", "expires": 4_000_000_000_000}, "expires"),
        ({"name": "t", "expires": "tomorrow"}, "expires"),
        ({"name": "t", "networks": ["10.0.0.0/99"]}, "networks"),
        ({"name": "t", "models": [""]}, "models[0]"),
        ({"name": "t", "models": "gpt-4o"}, "models"),
        ({"name": "t", "group": "nobody"}, "group"),
        ({"name": "t", "account": "nobody"}, "account"),
        ({"name": "t", "scopes": ["god"]}, "scopes[0]"),
        ({"name": "t", "secret": "short"}, "secret"),
    ],
)
async def test_an_invalid_field_is_named_and_nothing_is_created(
    client: Client, body: dict[str, Any], field: str
) -> None:
    status, param, message = await client.error("POST", "/tokens", body)
    assert (status, param) == (400, field), message
    assert (await client("GET", "/tokens")).json["data"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rpm": 0}, "rpm"),
        ({"expires": 1.0}, "expires"),
        ({"secret": "x" * 30}, "secret"),
        ({"account": "a"}, "account"),
        ({"budgets": [{"usd": -3}]}, "budgets[0].usd"),
        ({"group": "nobody"}, "group"),
        ({"name": ""}, "name"),
    ],
)
async def test_an_invalid_edit_changes_nothing(
    client: Client, body: dict[str, Any], field: str
) -> None:
    made = await issue(client, rpm=60)
    path = f"/tokens/{made['token']['id']}"
    assert (await client.error("PATCH", path, body))[:2] == (400, field)
    assert (await client("GET", path)).json == made["token"]


async def test_a_list_is_read_page_by_page(client: Client) -> None:
    ids = sorted([(await issue(client))["token"]["id"] for _ in range(7)])
    found: list[str] = []
    after, pages = "", 0
    while True:
        page = (await client("GET", f"/tokens?limit=3&after={after}")).json
        found += [token["id"] for token in page["data"]]
        pages += 1
        if page["next"] is None:
            break
        after = page["next"]
    assert (found, pages) == (ids, 3)


# ── groups and accounts ──────────────────────────────────────────────────────


async def test_a_group_is_stored_and_applies_to_its_tokens(store: Store, client: Client) -> None:
    new = {"name": "gold", "ratio": 0.5, "providers": ["openai"], "keys": ["team-*"]}
    answer = await client("POST", "/groups", new)
    assert (answer.status, answer.json) == (201, new)
    assert await client.error("POST", "/groups", new) == (
        409, "name", "name: the group 'gold' already exists.",
    )  # fmt: skip
    secret = (await issue(client, group="gold"))["secret"]
    principal = await stored_tokens(store)(secret)
    assert principal is not None
    assert (principal.price_ratio, principal.providers) == (0.5, ("openai",))
    assert (await client("PATCH", "/groups/gold", {"ratio": 2})).json["ratio"] == 2
    assert (await client("GET", "/groups")).json["data"][0]["keys"] == ["team-*"]
    assert (await client("DELETE", "/groups/gold")).status == 200
    assert (await client("GET", "/groups/gold")).status == 404


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/groups", {"name": "g", "ratio": -1}, "ratio"),
        ("/groups", {"name": "a b"}, "name"),
        ("/groups", {"name": "a/b"}, "name"),
        ("/groups", {"ratio": 1}, "name"),
        ("/groups", {"name": "g", "keys": "all"}, "keys"),
        ("/accounts", {"id": ""}, "id"),
        ("/accounts", {"id": "a", "budgets": [{"usd": -1}]}, "budgets[0].usd"),
        ("/accounts", {"id": "a", "credited": ["x"]}, "credited"),
    ],
)
async def test_invalid_groups_and_accounts_are_refused_with_the_name_of_the_field(
    client: Client, path: str, body: dict[str, Any], field: str
) -> None:
    assert (await client.error("POST", path, body))[:2] == (400, field)


async def test_an_accounts_budget_is_shared_by_its_tokens(store: Store, client: Client) -> None:
    new = {"id": "acme", "budgets": [{"usd": 10, "per": "month"}]}
    assert (await client("POST", "/accounts", new)).status == 201
    secret = (await issue(client, account="acme"))["secret"]
    principal = await stored_tokens(store)(secret)
    assert principal is not None
    budget = principal.limits.budgets[0]
    assert budget.shared
    await store.charge(reserve(principal, budget, 2_500_000, time.time()), once="x")
    found = (await client("GET", "/accounts/acme")).json["limits"]["budgets"][0]
    assert (found["spent"], found["left"], found["shared"]) == (2.5, 7.5, True)
    mine = (await client.by(secret)("GET", "/me")).json
    assert mine["limits"]["budgets"] == [found]
    changed = await client("PATCH", "/accounts/acme", {"budgets": [{"usd": 2}], "name": "Acme"})
    assert changed.json["limits"]["budgets"][0]["limit"] == 2
    assert (await client.error("POST", "/accounts", new))[:2] == (409, "id")
    assert (await client("DELETE", "/accounts/acme")).status == 200


# ── a caller's own ───────────────────────────────────────────────────────────


async def test_a_caller_sees_its_own_limits_and_usage(store: Store, client: Client) -> None:
    expires = time.time() + 3600
    made = await issue(client, rpm=5, budgets=[{"usd": 2}], models=["m"], expires=expires)
    id = made["token"]["id"]
    budget = Budget.usd(2)
    who = Principal(id, limits=Limits(budgets=(budget,)))
    await store.charge(reserve(who, budget, 500_000, time.time()), once="a")
    user = client.by(made["secret"])
    me = (await user("GET", "/me")).json
    assert (me["id"], me["name"], me["models"], me["expires"]) == (id, "team-1", ["m"], expires)
    assert me["limits"]["rpm"] == {"limit": 5, "used": 0}
    assert me["limits"]["budgets"][0]["left"] == 1.5
    for lead in ("", "/v1"):
        reported = (await user("GET", f"{lead}/dashboard/billing/subscription")).json
        assert (reported["object"], reported["hard_limit_usd"]) == ("billing_subscription", 2.0)
        assert reported["access_until"] == int(expires)
        query = "start_date=2026-01-01&end_date=2026-12-31"
        reported = (await user("GET", f"{lead}/dashboard/billing/usage?{query}")).json
        assert reported == {"object": "list", "total_usage": 50.0}


async def test_units_are_reported_as_dollars_and_no_budget_as_a_high_limit(client: Client) -> None:
    units = client.by((await issue(client, budgets=[{"units": 1_000_000}]))["secret"])
    assert (await units("GET", "/dashboard/billing/subscription")).json["hard_limit_usd"] == 2.0
    free = client.by((await issue(client))["secret"])
    assert (await free("GET", "/dashboard/billing/subscription")).json["hard_limit_usd"] == 1e8
    assert (await free("GET", "/dashboard/billing/usage")).json["total_usage"] == 0


@pytest.mark.parametrize("kind", ["tokens", "accounts"])
async def test_a_budget_is_raised_for_some_time(client: Client, kind: str) -> None:
    if kind == "tokens":
        id = (await issue(client, budgets=["5/month", "1"]))["token"]["id"]
    else:
        id = "acme"
        await client("POST", "/accounts", {"id": id, "budgets": ["5/month", "1"]})
    path = f"/{kind}/{id}/raise"
    answer = await client("POST", path, {"usd": 2.5, "per": "month", "seconds": 3600})
    assert answer.status == 200, answer.body
    month, total = answer.json["limits"]["budgets"]
    assert (month["limit"], month["raised"], month["left"]) == (7.5, 2.5, 7.5)
    assert 0 < month["raised_until"] - time.time() <= 3600
    assert (total["limit"], "raised" in total) == (1.0, False)
    for body, field in (
        ({"usd": 1, "per": "day", "seconds": 60}, "per"),
        ({"usd": 1, "until": 5}, "until"),
        ({"usd": 1, "until": time.time() * 1000}, "until"),
        ({"usd": 1, "until": 1e300}, "until"),
        ({"usd": 1}, "until"),
        ({"seconds": 60}, "usd"),
    ):
        status, param, _ = await client.error("POST", path, body)
        assert (status, param) == (400, field)
    (entry,) = (await client("GET", f"/audit?action={kind[:-1]}.raise")).json["data"]
    assert entry["target"] == f"{kind[:-1]}/{id}"
