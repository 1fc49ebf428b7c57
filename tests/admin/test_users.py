"""Users over the admin API."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import Tokens
from asgi_aiproxy.stores import Store
from tests.admin.conftest import Client

pytestmark = pytest.mark.anyio


async def test_users_are_created_listed_changed_and_removed(client: Client) -> None:
    made = await client("POST", "/users", {"username": "ann", "role": "operator"})
    assert made.status == 201
    assert made.json["link"]
    user = made.json["user"]
    path = f"/users/{user['id']}"
    assert (await client("GET", path)).json == user
    edited = await client("PATCH", path, {"enabled": False, "email": "ann@example.com"})
    assert (edited.json["enabled"], edited.json["email_verified"]) == (False, True)
    assert (await client("POST", "/users", {"username": "Ann"})).status == 409
    await client("POST", "/users", {"username": "ben"})
    page = (await client("GET", "/users?limit=1")).json
    assert [row["username"] for row in page["data"]] == ["ann"]
    rest = (await client("GET", f"/users?after={page['next']}")).json
    assert [row["username"] for row in rest["data"]] == ["ben"]
    assert (await client("DELETE", path)).status == 200
    assert (await client("GET", path)).status == 404
    for wrong in ("x", "-1", "\u00b2", "9" * 30):
        assert (await client("GET", f"/users/{wrong}")).status == 400


async def test_answers_have_no_hash_and_no_digest(client: Client) -> None:
    body = {"username": "ann", "password": "a long password"}
    made = await client("POST", "/users", body)
    assert made.json["link"] == ""
    for text in (made.body.decode(), (await client("GET", "/users")).body.decode()):
        assert "argon2" not in text
        assert "digest" not in text


@pytest.mark.parametrize(("scope", "status"), [("read", 403), ("write", 403), ("root", 403)])
async def test_a_token_cannot_make_users_with_its_own_rights(
    client: Client, store: Store, scope: Any, status: int
) -> None:
    secret, _ = await Tokens(store).issue(name="operator", scopes=(scope,))
    role = "root" if scope == "root" else "operator"
    made = await client.by(secret)("POST", "/users", {"username": "ann", "role": role})
    assert made.status == status
    assert (await client("GET", "/users")).json["data"] == []


async def test_operators_manage_only_what_belongs_to_users_with_a_lower_role(
    client: Client, store: Store
) -> None:
    ids = {}
    for role in ("user", "operator", "root"):
        made = await client("POST", "/users", {"username": f"a-{role}", "role": role})
        ids[role] = made.json["user"]["account"]
    secret, _ = await Tokens(store).issue(name="op", scopes=("write",), account=ids["operator"])
    operator = client.by(secret)
    budgets = {"budgets": ["5/month"]}
    raised = {"usd": 1, "per": "month", "seconds": 60}
    for role, allowed in (("user", True), ("operator", False), ("root", False)):
        account = ids[role]
        token = (await client("POST", "/tokens", {"name": role, "account": account})).json["token"]
        expected = 200 if allowed else 403
        path = f"/accounts/{account}"
        assert (await operator("PATCH", path, budgets)).status == expected, role
        raises = await operator("POST", f"{path}/raise", raised)
        assert (raises.status == 403) is not allowed, raises.body
        own = allowed or role == "operator"  # one's own tokens
        for method, to, body in (
            ("PATCH", f"/tokens/{token['id']}", {"name": "x"}),
            ("POST", f"/tokens/{token['id']}/rotate", {}),
            ("DELETE", f"/tokens/{token['id']}", b""),
        ):
            answer = await operator(method, to, body)
            assert (answer.status == 403) is not own, (role, method, answer.body)
        issued = await operator("POST", "/tokens", {"name": "n", "account": account})
        assert (issued.status == 201) is own, (role, issued.body)
        assert (await operator("DELETE", path)).status == expected, role
    assert (await operator("POST", "/accounts", {"id": "user-99"})).status == 400
    assert (await operator("POST", "/accounts", {"id": "team"})).status == 201
    assert (await operator("PATCH", "/accounts/team", budgets)).status == 200
    for account in (ids["operator"], ids["root"]):
        assert (await client("PATCH", f"/accounts/{account}", budgets)).status == 200
