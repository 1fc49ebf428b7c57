"""One format everywhere, null to remove restrictions, names in place of ids, helpful errors."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy import Budget
from asgi_aiproxy.config.provider_settings import TokenSettings
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.services import groups, keys, tokens, vouchers
from asgi_aiproxy.stores import Store
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.record import UsageRecord
from tests.admin.conftest import Client

pytestmark = pytest.mark.anyio

SPELLED = [
    ("25", Budget.usd(25)),
    ("25.50", Budget.usd(25.5)),
    ("$5/day", Budget.usd(5, "day")),
    ("100/month", Budget.usd(100, "month")),
    ("1_000/total", Budget.usd(1000)),
    ("0.000001", Budget(1)),
    ("5000 units", Budget.units(5000)),
    ("5000 units/day", Budget.units(5000, "day")),
    ("1 unit/month", Budget.units(1, "month")),
    ("2/hour", Budget.usd(2, "hour")),
    ("7 units/week", Budget.units(7, "week")),
    ("9/2026-12-01..2099-12-31", Budget.usd(9, "2026-12-01..2099-12-31")),
]
BAD = ["", "x", "-5", "5/year", "5 / day", "1e9", "inf", "nan", "5.5 units", "25 eur", "5/day/day"]
BAD += ["0.0000001", "9" * 17, "٣"]


@pytest.mark.parametrize(("text", "budget"), SPELLED)
async def test_a_budget_has_one_spelling_in_code_over_http_and_in_the_configuration(
    client: Client, text: str, budget: Budget
) -> None:
    assert Budget.parse(text) == budget
    assert TokenSettings(token="t", name="n", budgets=[text]).budgets == [text]  # type: ignore[arg-type]
    issued = await client("POST", "/tokens", {"name": "t", "budgets": [text]})
    (shown,) = issued.json["token"]["limits"]["budgets"]
    scale = 1_000_000 if budget.unit == "usd" else 1
    assert (shown["unit"], shown["limit"] * scale) == (budget.unit, budget.limit)
    assert shown.get("per", "total") == budget.per
    account = await client("POST", "/accounts", {"id": f"a{len(text)}", "budgets": [text]})
    assert account.json["limits"]["budgets"][0]["limit"] == shown["limit"]


@pytest.mark.parametrize("text", BAD)
async def test_an_invalid_budget_is_refused_with_the_right_format(
    client: Client, text: str
) -> None:
    with pytest.raises(ConfigurationError):
        Budget.parse(text)
    status, param, message = await client.error("POST", "/tokens", {"name": "t", "budgets": [text]})
    assert (status, param) == (400, "budgets")
    assert "100/month" in message or "integers" in message
    with pytest.raises(ValueError, match=r"budget|integers"):
        TokenSettings(token="t", name="n", budgets=[text])  # type: ignore[arg-type]


@given(st.text(max_size=20))
def test_any_text_is_a_budget_or_a_configuration_error(text: str) -> None:
    try:
        assert Budget.parse(text).limit >= 0
    except ConfigurationError:
        pass


async def test_null_removes_any_restriction(client: Client) -> None:
    await client("POST", "/groups", {"name": "g", "providers": ["a"], "keys": ["k"]})
    await client("POST", "/accounts", {"id": "acme", "name": "Acme", "budgets": ["5"]})
    new = {
        "name": "t", "rpm": 6, "tpm": 9, "concurrency": 2, "models": ["m"], "group": "g",
        "networks": ["10.0.0.0/8"], "budgets": ["5"], "expires": 4e9, "account": "acme",
        "scopes": ["read"],
    }  # fmt: skip
    id = (await client("POST", "/tokens", new)).json["token"]["id"]
    gone: dict[str, Any] = {name: None for name in new if name != "name"}
    for name in gone:
        assert (await client("PATCH", f"/tokens/{id}", {name: None})).status == 200, name
    token = (await client("GET", f"/tokens/{id}")).json
    assert (token["models"], token["networks"], token["scopes"]) == ([], [], [])
    assert (token["group"], token["account"], token["expires"]) == ("", "", None)
    assert token["limits"] == {}
    account = await client("PATCH", "/accounts/acme", {"budgets": None, "name": None})
    assert (account.json["limits"], account.json["name"]) == ({}, "")
    group = await client("PATCH", "/groups/g", {"providers": None, "keys": None})
    assert (group.json["providers"], group.json["keys"]) == ([], [])


async def test_the_account_of_a_token_can_be_changed_and_its_spending_moves_with_it(
    client: Client, store: Store
) -> None:
    from asgi_aiproxy.accounts import Tokens
    from asgi_aiproxy.accounts.token_verifier import make_principal
    from asgi_aiproxy.quotas.grants import reserve

    await client("POST", "/accounts", {"id": "acme"})
    id = (await client("POST", "/tokens", {"name": "t", "budgets": ["5"]})).json["token"]["id"]
    row = await Tokens(store).get(id)
    grant = reserve(make_principal(row, None, None), row.limits.budgets[0], 2_000_000, 0.0)
    await store.charge(grant, once="x")
    for account in ("acme", None, "acme", ""):
        changed = await client("PATCH", f"/tokens/{id}", {"account": account})
        assert changed.json["account"] == (account or "")
        assert changed.json["limits"]["budgets"][0]["spent"] == 2.0, account
    assert (await client.error("PATCH", f"/tokens/{id}", {"account": "nobody"}))[:2] == (
        400, "account",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "param", "allowed"),
    [
        ("GET", "/usage/sums?by=x", b"", "by", "principal, provider"),
        ("GET", "/usage?state=x", b"", "state", "done, estimated"),
        ("POST", "/tokens", {"name": "t", "scopes": ["x"]}, "scopes", "read, root, write"),
        ("POST", "/tokens", {"name": "t", "budgets": [{"usd": 1, "per": "x"}]}, "budgets", "day"),
    ],
)
async def test_an_unknown_value_is_refused_with_the_list_of_valid_ones(
    client: Client, method: str, path: str, body: Any, param: str, allowed: str
) -> None:
    status, named, message = await client.error(method, path, body)
    assert status == 400
    assert (named or "").startswith(param)
    assert "it must be one of " in message
    assert set(allowed.split(", ")) <= set(message.rstrip(".").split("one of ")[1].split(", "))


async def test_usage_is_found_by_the_name_of_a_token_too(client: Client, store: Store) -> None:
    ids = [
        (await client("POST", "/tokens", {"name": name})).json["token"]["id"]
        for name in ("team-1", "team-2", "twin", "twin")
    ]
    ledger = Ledger(store)
    started = datetime.now(UTC).timestamp()
    for number, principal in enumerate((*ids[:2], "of-the-file")):
        await ledger(UsageRecord(id=str(number), principal=principal, started=started))
    await ledger.drain()
    for name, wanted in (("team-1", "0"), (ids[1], "1"), ("of-the-file", "2")):
        (record,) = (await client("GET", f"/usage?principal={name}")).json["data"]
        assert record["id"] == wanted
        assert (await client("GET", f"/usage/total?principal={name}")).json["requests"] == 1
        sums = (await client("GET", f"/usage/sums?by=principal&name={name}")).json["data"]
        assert [row["requests"] for row in sums] == [1]
    status, param, message = await client.error("GET", "/usage?principal=twin")
    assert (status, param) == (400, "principal")
    assert ids[2] in message
    assert ids[3] in message


def test_every_member_of_a_body_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "admin.md").read_text("utf-8")
    bodies = page.partition("## Bodies")[2].partition("\n## ")[0]
    assert bodies
    for kind in (
        *(tokens.TokenNew, tokens.TokenEdit, tokens.Rotation, groups.GroupNew, groups.AccountNew),
        *(keys.KeyNew, keys.KeyEdit, vouchers.VouchersNew, vouchers.VoucherEdit),
        vouchers.Redemption,
    ):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.encode_name}`" in bodies, (kind.__name__, field.encode_name)
