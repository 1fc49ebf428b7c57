"""Callers manage tokens of their own within what the operator allows, and see only their own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from asgi_aiproxy import AdminApp, Authenticate, Budget, Ledger, MemoryStore, Principal, Tokens
from asgi_aiproxy.accounts import StoredTokenVerifier
from asgi_aiproxy.admin import TokenAllowance
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.principal import Limits
from asgi_aiproxy.stores import Store
from asgi_aiproxy.usage.record import Attempt, UsageRecord
from tests.admin.conftest import ROOT, Client

pytestmark = pytest.mark.anyio

ALLOWED = TokenAllowance(tokens=3, models=("gpt-*",), budgets=(Budget.usd(5, "month"),), days=30)


def client_of(store: Store, secret: str, allowance: TokenAllowance = ALLOWED) -> Client:
    return Client(AdminApp(store, token=ROOT, self_service=allowance), secret)


async def issued(store: Store, **fields: Any) -> tuple[str, str]:
    """Issue a token as an operator does; returns its id and secret."""
    secret, row = await Tokens(store).issue(**{"name": "user", **fields})
    return row.id, secret


async def test_a_token_creates_changes_rotates_and_removes_its_own(store: Store) -> None:
    _, secret = await issued(store)
    client = client_of(store, secret)
    made = (await client("POST", "/me/tokens", {"name": "laptop"})).json
    id = made["token"]["id"]
    assert made["token"]["models"] == ["gpt-*"]
    assert made["token"]["limits"]["budgets"][0]["limit"] == 5
    assert made["token"]["expires"] == pytest.approx(time.time() + 30 * 86400, abs=100)
    principal = await StoredTokenVerifier(store)(made["secret"])
    assert principal is not None
    assert principal.id == id
    changed = await client("PATCH", f"/me/tokens/{id}", {"name": "desktop", "budgets": ["1/month"]})
    assert changed.json["name"] == "desktop"
    assert changed.json["limits"]["budgets"][0]["limit"] == 1
    rotated = (await client("POST", f"/me/tokens/{id}/rotate", {})).json["secret"]
    assert await StoredTokenVerifier(store)(made["secret"]) is None
    assert await StoredTokenVerifier(store)(rotated) is not None
    assert (await client("DELETE", f"/me/tokens/{id}")).status == 200
    assert await StoredTokenVerifier(store)(rotated) is None
    assert [row["name"] for row in (await client("GET", "/me/tokens")).json["data"]] == ["user"]


async def test_by_default_callers_create_no_tokens(store: Store) -> None:
    _, secret = await issued(store)
    client = client_of(store, secret, TokenAllowance())
    status, _, message = await client.error("POST", "/me/tokens", {"name": "x"})
    assert status == 403
    assert "not enabled" in message
    assert (await client("GET", "/me/allowed")).json["reason"] == message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"models": ["claude-3"]}, "models"),
        ({"models": ["*"]}, "models"),
        ({"budgets": ["6/month"]}, "budgets"),
        ({"expires": 4_000_000_000}, "expires"),
        ({"scopes": ["root"]}, "scopes"),
        ({"group": "vip"}, "group"),
    ],
)
async def test_a_token_gets_nothing_beyond_the_allowance(body: dict[str, Any], field: str) -> None:
    store = MemoryStore()
    _, secret = await issued(store)
    status, param, _ = await client_of(store, secret).error(
        "POST", "/me/tokens", {"name": "x", **body}
    )
    assert (status, param) == (400, field)


async def test_a_new_token_gets_no_model_that_its_owner_lacks(store: Store) -> None:
    _, secret = await issued(store, models=("gpt-4o", "claude-*"))
    client = client_of(store, secret)
    made = (await client("POST", "/me/tokens", {"name": "x"})).json["token"]
    assert made["models"] == ["gpt-4o"]
    assert (await client("POST", "/me/tokens", {"name": "y", "models": ["gpt-5"]})).status == 400


async def test_concurrent_requests_do_not_exceed_the_number_of_tokens(store: Store) -> None:
    _, secret = await issued(store)
    client = client_of(store, secret)
    answers = await asyncio.gather(
        *(client("POST", "/me/tokens", {"name": f"t{n}"}) for n in range(10))
    )
    assert sorted(answer.status for answer in answers) == [201] * 3 + [403] * 7
    assert len((await client("GET", "/me/tokens")).json["data"]) == 4


@pytest.mark.parametrize(
    "limits", [Limits(rpm=1), Limits(budgets=(Budget.usd(1),)), Limits(concurrency=1)]
)
async def test_limits_of_a_caller_cannot_be_evaded_with_more_tokens(limits: Limits) -> None:
    store = MemoryStore()
    _, secret = await issued(store, limits=limits)
    status, _, message = await client_of(store, secret).error("POST", "/me/tokens", {"name": "x"})
    assert status == 403
    assert "limits of your own" in message


async def test_a_token_made_by_its_user_manages_only_itself(store: Store) -> None:
    _, secret = await issued(store)
    client = client_of(store, secret)
    first = (await client("POST", "/me/tokens", {"name": "a"})).json
    second = (await client("POST", "/me/tokens", {"name": "b"})).json
    by = client.by(first["secret"])
    assert [row["id"] for row in (await by("GET", "/me/tokens")).json["data"]] == [
        first["token"]["id"]
    ]
    assert (await by("POST", "/me/tokens", {"name": "c"})).status == 403
    assert (await by("DELETE", f"/me/tokens/{second['token']['id']}")).status == 404


async def test_a_token_is_refused_once_its_owner_is_disabled_or_removed(store: Store) -> None:
    owner, secret = await issued(store)
    made = (await client_of(store, secret)("POST", "/me/tokens", {"name": "a"})).json["secret"]
    await Tokens(store).edit(owner, enabled=False)
    by = Client(AdminApp(store, token=ROOT), made)
    assert (await by.error("GET", "/me"))[0] == 401
    await Tokens(store).edit(owner, enabled=True)
    by = Client(AdminApp(store, token=ROOT), made)
    assert (await by("GET", "/me")).status == 200
    await Tokens(store).revoke(owner)
    by = Client(AdminApp(store, token=ROOT), made)
    assert (await by.error("GET", "/me"))[0] == 401


async def test_a_user_of_the_host_has_tokens_of_its_own(store: Store) -> None:
    admin = AdminApp(store, token=ROOT, self_service=ALLOWED)

    def by(name: str) -> Client:
        return Client(Authenticate(admin, identify=lambda scope: Principal(name)), None)

    made = (await by("ann")("POST", "/me/tokens", {"name": "ann's"})).json
    assert [row["name"] for row in (await by("ann")("GET", "/me/tokens")).json["data"]] == ["ann's"]
    assert (await by("ben")("GET", "/me/tokens")).json["data"] == []
    assert (await by("ben")("GET", f"/me/tokens/{made['token']['id']}")).status == 404
    assert made["token"]["owner"] == "user/ann"


async def test_callers_see_their_own_exchanges_without_keys_and_attempts(store: Store) -> None:
    _, secret = await issued(store)
    client = client_of(store, secret)
    made = (await client("POST", "/me/tokens", {"name": "a"})).json["token"]["id"]
    me = (await client("GET", "/me")).json["id"]
    async with Ledger(store) as ledger:
        for number, principal in enumerate([me, "somebody", made]):
            await ledger(
                UsageRecord(
                    id=f"x{number}",
                    principal=principal,
                    key_id="secret-key",
                    usage=Usage(input=3, output=4),
                    cost=70,
                    started=time.time(),
                    attempt_details=(Attempt("p", key_id="secret-key", status=429),),
                )
            )
    page = await client("GET", "/me/usage")
    assert [row["id"] for row in page.json["data"]] == ["x2", "x0"]
    assert b"secret-key" not in page.body
    near = page.json["data"][1]["near"]
    assert (await client("GET", f"/me/usage/x0?near={near}")).json["id"] == "x0"
    assert (await client("GET", f"/me/usage/x2?near={near}")).status == 404  # it is newer
    assert (await client("GET", "/me/usage/x1")).status == 404
    assert (await client.error("GET", "/me/usage?principal=somebody"))[:2] == (400, "principal")
    days = (await client("GET", "/me/usage/daily")).json["data"]
    assert len(days) == 30
    assert days[-1]["requests"] == 2
    assert (await client.by(ROOT)("GET", "/usage/x1")).json["principal"] == "somebody"


async def test_a_caller_redeems_a_voucher_for_its_own_budget(store: Store) -> None:
    id, secret = await issued(store, limits=Limits(budgets=(Budget.usd(1),)))
    client = client_of(store, secret)
    root = client.by(ROOT)
    code = (await root("POST", "/vouchers", {"count": 1, "usd": 4})).json["codes"][0]
    redeemed = (await client("POST", "/me/vouchers/redeem", {"code": code})).json
    assert redeemed["redeemed_by"] == f"token/{id}"
    assert (await client("GET", "/me")).json["limits"]["budgets"][0]["limit"] == 5
    assert (await client.error("POST", "/me/vouchers/redeem", {"code": code}))[0] == 409
