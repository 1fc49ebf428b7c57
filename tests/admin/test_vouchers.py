"""Vouchers over the admin API."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import pytest

from asgi_aiproxy.stores import Store
from tests.admin.conftest import Client

pytestmark = pytest.mark.anyio


async def make(client: Client, **fields: Any) -> list[str]:
    worth = {} if "units" in fields else {"usd": 5}
    answer = await client("POST", "/vouchers", {"count": 1, **worth, **fields})
    assert answer.status == 201, answer.body
    codes: list[str] = answer.json["codes"]
    return codes


async def token(client: Client, **fields: Any) -> str:
    answer = await client("POST", "/tokens", {"name": "t", **fields})
    return f"token/{answer.json['token']['id']}"


async def left(client: Client, target: str) -> float:
    found = (await client("GET", "/" + target.replace("token/", "tokens/"))).json
    limit: float = found["limits"]["budgets"][0]["left"]
    return limit


async def test_vouchers_are_created_in_batches_and_shown_once(store: Store, client: Client) -> None:
    codes = await make(client, count=1500, name="spring")
    assert len(set(codes)) == 1500
    page = await client("GET", "/vouchers?limit=1000")
    assert (len(page.json["data"]), page.json["next"] is None) == (1000, False)
    exported = await client("GET", "/vouchers/export?name=spring")
    assert exported.header("content-type") == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(exported.body.decode())))
    assert len(rows) == 1500
    assert {(row["name"], row["status"], row["amount"], row["unit"]) for row in rows} == {
        ("spring", "open", "5.0", "usd")
    }
    for answer in (page, exported):
        assert codes[0] not in answer.body.decode()
    assert b"\n" not in (await client("GET", "/vouchers/export?name=other")).body.strip()


async def test_a_voucher_is_paid_once_however_many_try(client: Client) -> None:
    (code,) = await make(client)
    targets = [await token(client, budgets=[{"usd": 1}]) for _ in range(8)]
    answers = await asyncio.gather(
        *(client("POST", "/vouchers/redeem", {"code": code, "target": t}) for t in targets * 3)
    )
    assert sum([await left(client, t) for t in targets]) == 8 + 5
    assert 200 in {answer.status for answer in answers} <= {200, 409}
    found = (await client("GET", "/vouchers")).json["data"][0]
    assert (found["status"], found["redeemed_by"] in targets) == ("redeemed", True)


async def test_a_voucher_in_units_goes_to_an_account(client: Client) -> None:
    await client("POST", "/accounts", {"id": "acme", "budgets": [{"units": 10}]})
    (code,) = await make(client, units=90)
    answer = await client(
        "POST", "/vouchers/redeem", {"code": code.lower(), "target": "account/acme"}
    )
    assert answer.status == 200, answer.body
    account = (await client("GET", "/accounts/acme")).json
    assert account["limits"]["budgets"][0]["left"] == 100


async def test_an_error_gives_the_reason_why_a_code_cannot_be_redeemed(client: Client) -> None:
    (code,) = await make(client)
    target = await token(client, budgets=[{"usd": 1}])
    bare = await token(client)

    async def refusal(**fields: Any) -> tuple[int, str | None]:
        body = {"code": code, "target": target, **fields}
        return (await client.error("POST", "/vouchers/redeem", body))[:2]

    assert await refusal(code="NO-SUCH-CODE") == (409, "code")
    assert await refusal(target=bare) == (409, "target")
    assert await refusal(target="token/none") == (400, "target")
    assert await refusal(target="somebody") == (400, "target")
    assert await refusal(amount=3) == (400, "amount")
    id = (await client("GET", "/vouchers")).json["data"][0]["id"]
    assert (await client("PATCH", f"/vouchers/{id}", {"enabled": False})).json[
        "status"
    ] == "disabled"
    assert await refusal() == (409, "code")
    assert (await client("PATCH", f"/vouchers/{id}", {"enabled": True})).json["status"] == "open"
    assert (
        await client("POST", "/vouchers/redeem", {"code": code, "target": target})
    ).status == 200
    assert await refusal() == (409, "code")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"usd": 5}, "count"),
        ({"count": 0, "usd": 5}, "count"),
        ({"count": 100_001, "usd": 5}, "count"),
        ({"count": 1}, "usd"),
        ({"count": 1, "usd": 0}, "usd"),
        ({"count": 1, "usd": -5}, "usd"),
        ({"count": 1, "usd": 1e-9}, "usd"),
        ({"count": 1, "usd": 5, "units": 5}, "usd"),
        ({"count": 1, "units": 0.5}, "units"),
        ({"count": 1, "usd": 5, "expires": 1_000_000_000}, "expires"),
        ({"count": 1, "usd": 5, "colour": 1}, "colour"),
    ],
)
async def test_invalid_vouchers_are_refused_with_the_name_of_the_field(
    client: Client, body: dict[str, Any], field: str
) -> None:
    assert (await client.error("POST", "/vouchers", body))[:2] == (400, field)
    assert (await client("GET", "/vouchers")).json["data"] == []


async def test_no_value_is_a_formula_in_a_spreadsheet(client: Client) -> None:
    await make(client, name="=HYPERLINK(1)")
    (row,) = csv.DictReader(io.StringIO((await client("GET", "/vouchers/export")).body.decode()))
    assert row["name"] == "'=HYPERLINK(1)"
