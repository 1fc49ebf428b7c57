"""Monthly statements of accounts."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.stores import Store
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.record import UsageRecord
from tests.admin.conftest import Client

pytestmark = pytest.mark.anyio


def at(*args: int) -> float:
    return datetime(*args, 12, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


async def test_a_statement_adds_up_what_an_account_used_in_a_month(
    store: Store, client: Client
) -> None:
    await client("POST", "/accounts", {"id": "acme", "name": "Acme & Co"})
    issued = await client("POST", "/tokens", {"name": "=team-1", "account": "acme"})
    token = issued.json["token"]["id"]
    ledger = Ledger(store)
    number = 0

    async def use(started: float, **fields: Any) -> None:
        nonlocal number
        number += 1
        plain = {"principal": token, "account": "acme", "upstream_model": "m/1", "cost": 1_500_000}
        usage = Usage(input=10, output=5)
        await ledger(
            UsageRecord(id=str(number), started=started, usage=usage, **{**plain, **fields})
        )

    await use(at(2026, 2, 1))
    await use(at(2026, 2, 28), upstream_model="m/2", cost=500_000)
    await use(at(2026, 2, 28), not_charged=True)
    await use(at(2026, 1, 31))
    await use(at(2026, 3, 1))
    await use(at(2026, 2, 1), account="other")
    await ledger.drain(30.0)

    answer = await client("GET", "/accounts/acme/statement?month=2026-02")
    assert answer.status == 200, answer.body
    statement = answer.json
    assert (statement["month"], statement["complete"]) == ("2026-02", True)
    assert statement["name"] == "Acme & Co"
    total = statement["total"]
    assert (total["requests"], total["input"], total["usd"]) == (3, 30, 2.0)
    assert total["not_charged_usd"] == 1.5
    assert len(statement["days"]) == 28
    assert statement["days"][27]["usd"] == 0.5
    assert [(line["name"], line["usd"]) for line in statement["models"]] == [
        ("m/1", 1.5),
        ("m/2", 0.5),
    ]
    assert [(line["label"], line["usd"]) for line in statement["tokens"]] == [("=team-1", 2.0)]

    export = await client("GET", "/accounts/acme/statement/export?month=2026-02")
    rows = list(csv.DictReader(io.StringIO(export.body.decode())))
    assert rows[0]["kind"] == "total"
    assert rows[0]["usd"] == "2.0"
    assert rows[-1]["label"] == "'=team-1"

    assert (await client("GET", "/accounts/none/statement")).status == 404
    for month in ("2026-13", "2999-01", "0000-01", "%D9%A2%D9%A0%D9%A2%D9%A6-01"):
        assert (await client("GET", f"/accounts/acme/statement?month={month}")).status == 400
    old = await client("GET", "/accounts/acme/statement?month=1000-01")
    assert (old.status, old.json["total"]["requests"]) == (200, 0)
    current = (await client("GET", "/accounts/acme/statement")).json
    assert (current["complete"], current["total"]["requests"]) == (False, 0)
