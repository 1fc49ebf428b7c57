"""Sums by tag, session and account; retention; CSV that holds no formulas."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.services.csv_export import csv_lines
from asgi_aiproxy.services.usage import UsageQuery, UsageService
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.usage.ledger import Ledger, Query
from asgi_aiproxy.usage.record import UsageRecord
from asgi_aiproxy.usage.sums import OTHER, By, DailySums

pytestmark = pytest.mark.anyio

START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
FIRST = date(2026, 3, 1)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("redis_url")
    async with RedisStore(url, prefix=f"test-{uuid.uuid4().hex}", timeout=5.0) as made:
        yield made


def record(**fields: Any) -> UsageRecord:
    plain: dict[str, Any] = {"usage": Usage(input=10, output=5), "cost": 7, "started": START}
    return UsageRecord(id=uuid.uuid4().hex, **{**plain, **fields})


async def kept(store: Store, *records: UsageRecord, **options: Any) -> Ledger:
    ledger = Ledger(store, **options)
    for each in records:
        await ledger(each)
    await ledger.drain(30.0)
    return ledger


async def test_costs_are_summed_up_by_session_tag_and_account(store: Store) -> None:
    ledger = await kept(
        store,
        record(session="s1", tags={"team": "a", "tier": "x"}, account="acme", principal="ann"),
        record(session="s1", tags={"team": "b"}, account="acme", upstream_model="m/1"),
        record(session="s2", tags={"team": "a"}, principal="ann", upstream_model="m/1"),
    )

    async def costs(by: By) -> dict[str, int]:
        found = await ledger.totals(by, since=FIRST, until=FIRST)
        return {name: totals.cost for name, totals in found.items()}

    assert await costs("session") == {"s1": 14, "s2": 7}
    assert await costs("tag") == {"team=a": 14, "team=b": 7, "tier=x": 7}
    assert await costs("account") == {"acme": 14}
    assert await costs("account_model") == {"acme/m/1": 7}
    assert await costs("account_principal") == {"acme/ann": 7, "acme/": 7}
    assert await costs("day") == {"2026-03-01": 21}
    assert len((await ledger.query(Query(session="s1"))).records) == 2
    assert len((await ledger.query(Query(tag="team=a"))).records) == 2
    assert (await ledger.query(Query(tag="team"))).records == []


def test_names_that_callers_invent_are_bounded() -> None:
    sums = DailySums("ledger", max_names=2)
    records = [
        record(session=f"s{n}", tags={"t": str(n)}, account="acme", upstream_model=f"m{n}")
        for n in range(5)
    ]
    found = sums.add_up("2026-03-01", records)
    assert (
        found["ledger:2026-03-01:session"]
        | {
            "requests/s0": 1,
            "requests/s1": 1,
            f"requests/{OTHER}": 3,
        }
        == found["ledger:2026-03-01:session"]
    )
    assert "requests/s2" not in found["ledger:2026-03-01:session"]
    assert found["ledger:2026-03-01:tag"][f"requests/{OTHER}"] == 3
    assert found["ledger:2026-03-01:account_model"][f"requests/acme/{OTHER}"] == 3
    assert found["ledger:2026-03-01:model"][f"cost/{OTHER}"] == 21
    assert found["ledger:2026-03-01:model:others"][f"input/{OTHER}"] == 30
    assert found["ledger:2026-03-01:account"]["cost/acme"] == 35
    # The next days begin with no names.
    found = sums.add_up("2026-03-02", records[4:])
    assert "requests/s4" in found["ledger:2026-03-02:session"]


async def test_records_are_removed_after_their_retention_and_sums_stay(store: Store) -> None:
    now = [START]
    options: Any = {"retention_seconds": 100.0, "clock": lambda: now[0]}
    ledger = await kept(store, record(request_id="old"), **options)
    now[0] += 101
    assert (await ledger.query()).records == []
    assert await ledger.find("old") is None
    await ledger(record(request_id="new", started=now[0]))
    await ledger.drain(30.0)
    everything = (await Ledger(store, clock=lambda: now[0]).query()).records
    assert [each.request_id for each in everything] == ["new"]
    assert (await ledger.totals("day", since=FIRST, until=FIRST))["2026-03-01"].requests == 2


async def test_a_record_is_found_by_its_request_id(store: Store) -> None:
    ledger = await kept(store, record(request_id="abc"), record(request_id="def"))
    found = await ledger.find("abc")
    assert found is not None
    assert found.request_id == "abc"


@pytest.mark.parametrize(
    "options",
    [{"max_records": 0}, {"retention_seconds": 0}, {"sums_retention_seconds": -1.0}],
)
def test_limits_must_be_positive(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be > 0"):
        Ledger(MemoryStore(), **options)


async def test_all_records_are_exported_as_csv(store: Store) -> None:
    hostile = '=HYPERLINK("http://x")'
    await kept(
        store,
        *(record(request_id=f"r{n}", session=hostile, tags={"t": "+1"}) for n in range(1500)),
        record(request_id="other"),
    )
    service = UsageService(store)
    pieces = [piece async for piece in service.export(UsageQuery(session=hostile))]
    rows = list(csv.DictReader(io.StringIO("".join(pieces))))
    assert [row["request_id"] for row in rows] == [f"r{n}" for n in reversed(range(1500))]
    assert {row["session"] for row in rows} == {f"'{hostile}"}
    assert (
        rows[0]
        | {
            "started": "2026-03-01T00:00:00+00:00",
            "input": "10",
            "output": "5",
            "usd": "0.000007",
            "tags": "t=+1",
        }
        == rows[0]
    )
    few = [piece async for piece in service.export(UsageQuery(), at_most=3)]
    assert len(list(csv.DictReader(io.StringIO("".join(few))))) == 3


@given(st.lists(st.lists(st.one_of(st.text(), st.integers(), st.floats(), st.none()), min_size=1)))
def test_no_text_begins_a_cell_as_a_formula(rows: list[list[Any]]) -> None:
    found = list(csv.reader(io.StringIO(csv_lines(rows), newline="")))
    for row, cells in zip([r for r in rows if r], found, strict=False):
        for value, cell in zip(row, cells, strict=False):
            if isinstance(value, str):
                assert cell.strip()[:1] not in ("=", "+", "-", "@")
                assert cell in (value, f"'{value}")
