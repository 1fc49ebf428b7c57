"""The ledger: every exchange once, and their sums."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgi_aiproxy import OpenAIShim, tee
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.applied import AppliedPrice
from asgi_aiproxy.prices.price import Rates
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import MemoryStore, Store, StoreUnavailableError
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.usage.ledger import Ledger, Query, record_states
from asgi_aiproxy.usage.log import log_usage
from asgi_aiproxy.usage.record import Outcome, UsageRecord
from asgi_aiproxy.usage.sinks import JSONLinesSink
from asgi_aiproxy.usage.sums import Totals
from tests.support import asgi_client as asgi
from tests.support.metered_gateway import COST, PRICES
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

DAY = 86400.0
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


def record(number: int = 0, **fields: Any) -> UsageRecord:
    plain = {
        "id": uuid.uuid4().hex,
        "principal": "alice",
        "provider": "openai",
        "requested_model": "m",
        "upstream_model": "m",
        "model": "m-2026",
        "key_id": "k1",
        "usage": Usage(input=10, output=5),
        "cost": 100,
        "started": START + number,
    }
    return UsageRecord(**{**plain, **fields})


async def kept(store: Store, *records: UsageRecord, **options: Any) -> Ledger:
    ledger = Ledger(store, **options)
    for one in records:
        await ledger(one)
    await ledger.drain()
    return ledger


async def test_every_exchange_is_kept_once_and_the_newest_comes_first(store: Store) -> None:
    records = [record(number) for number in range(5)]
    ledger = await kept(store, *records)
    assert (await ledger.query()).records == records[::-1]


async def test_pages_continue_where_the_previous_one_ended(store: Store) -> None:
    records = [record(number, principal="ab"[number % 2]) for number in range(25)]
    ledger = await kept(store, *records)
    seen: list[UsageRecord] = []
    after, pages = "", 0
    while pages == 0 or after:
        page = await ledger.query(Query(principal="a"), after=after, limit=5)
        seen += page.records
        after, pages = page.after, pages + 1
    assert seen == [one for one in records[::-1] if one.principal == "a"]


async def test_only_the_latest_records_are_kept_but_all_are_in_the_sums(store: Store) -> None:
    records = [record(number) for number in range(3000)]
    ledger = await kept(store, *records, max_records=500)
    found = (await ledger.query(limit=10_000)).records
    assert 500 <= len(found) < 1500  # a server may keep some more
    assert found[0] == records[-1]
    totals = await ledger.totals("principal", since=FIRST, until=FIRST)
    assert totals["alice"].requests == 3000


async def test_sums_are_by_principal_model_provider_key_and_day(store: Store) -> None:
    ledger = await kept(
        store,
        record(),
        record(principal="bob", upstream_model="n", key_id="k2", cost=7, units=3),
        record(account="acme", started=START + DAY),
        record(outcome=Outcome.FAILED, usage=None, cost=None),
        record(provider="groq", not_charged=True, estimated=True, outcome=Outcome.FAILED),
        record(started=START + 9 * DAY),
    )
    since, until = FIRST, FIRST + timedelta(days=1)

    async def by(what: Any, **more: Any) -> dict[str, Totals]:
        return await ledger.totals(what, since=since, until=until, **more)

    one = Totals(requests=1, input=10, output=5, cost=100)
    bob = Totals(requests=1, input=10, output=5, cost=7, units=3)
    assert (await by("principal"))["bob"] == bob
    assert (await by("principal"))["alice"] == Totals(
        requests=4, failed=2, input=30, output=15, cost=200, not_charged=100
    )
    assert await by("account") == {"acme": one}
    assert (await by("model"))["n"] == bob
    assert (await by("provider"))["groq"].not_charged == 100
    assert (await by("key"))["openai/k2"] == bob
    days = await by("day")
    assert sorted(days) == ["2026-03-01", "2026-03-02"]
    assert days["2026-03-02"] == one
    assert sum(total.requests for total in days.values()) == 5
    assert await by("principal", names=["bob", "nobody"]) == {"bob": bob}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (Query(), "abcd"),
        (Query(principal="bob"), "b"),
        (Query(model="m-2026"), "abcd"),
        (Query(model="n"), "b"),
        (Query(key="k2"), "c"),
        (Query(provider="groq"), "d"),
        (Query(account="acme"), "c"),
        (Query(group="vip"), "d"),
        (Query(state="done"), "a"),
        (Query(state="cut"), "b"),
        (Query(state="estimated"), "bd"),
        (Query(state="not_charged"), "d"),
        (Query(state="failed"), "d"),
        (Query(state="refused"), "c"),
        (Query(since=START + 1, until=START + 3), "bc"),
        (Query(principal="bob", state="done"), ""),
    ],
)
async def test_a_query_finds_and_sums_the_matching_records(query: Query, ids: str) -> None:
    ledger = await kept(
        MemoryStore(),
        record(0, id="a"),
        record(1, id="b", principal="bob", requested_model="n", outcome=Outcome.CLIENT_DISCONNECTED,
               estimated=True),
        record(2, id="c", account="acme", key_id="k2", outcome=Outcome.REFUSED),
        record(3, id="d", provider="groq", group="vip", outcome=Outcome.FAILED, not_charged=True,
               estimated=True),
    )  # fmt: skip
    page = await ledger.query(query)
    assert "".join(sorted(one.id for one in page.records)) == ids
    assert (await ledger.total(query)).requests == len(ids)


def test_an_exchange_has_every_state_that_applies() -> None:
    assert record_states(record()) == {"done"}
    cut = record(outcome=Outcome.CLIENT_DISCONNECTED, estimated=True, not_charged=True)
    assert record_states(cut) == {"cut", "estimated", "not_charged"}


async def test_it_prices_records_without_a_cost() -> None:
    records = [record(cost=None), record(cost=5), record(usage=None, cost=None)]
    ledger = await kept(MemoryStore(), *records, prices=PRICES)
    found = (await ledger.query()).records
    assert [one.cost for one in found] == [None, 5, 10 + 50]


class Away(MemoryStore):
    """Is unavailable for its first calls: before it executes them, or after."""

    def __init__(self, calls: int, *, late: bool) -> None:
        super().__init__()
        self.left = calls
        self.late = late

    async def _trouble(self, work: Any) -> Any:
        self.left -= 1
        if self.left >= 0 and not self.late:
            work.close()
            raise StoreUnavailableError("away")
        done = await work
        if self.left >= 0:
            raise StoreUnavailableError("away")
        return done

    async def append(self, *args: Any, **options: Any) -> None:
        await self._trouble(super().append(*args, **options))

    async def add(self, *args: Any, **options: Any) -> dict[str, int]:
        return await self._trouble(super().add(*args, **options))  # type: ignore[no-any-return]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("calls", [1, 3, 12])
async def test_nothing_is_lost_or_counted_twice_while_the_store_is_unavailable(
    calls: int, late: bool
) -> None:
    store = Away(calls, late=late)
    records = [record(number) for number in range(5)]
    ledger = await kept(store, *records)
    found = (await ledger.query()).records
    assert sorted(one.id for one in found) == sorted(one.id for one in records)
    totals = await ledger.totals("principal", since=FIRST, until=FIRST)
    assert totals["alice"] == Totals(requests=5, input=50, output=25, cost=500)


async def test_a_record_is_on_one_page_only_after_a_store_was_unavailable() -> None:
    store = Away(8, late=True)
    records = [record(number) for number in range(5)]
    ledger = await kept(store, *records)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await ledger.query(after=after, limit=2)
        found += [one.id for one in page.records]
        after = page.after or None
    assert sorted(found) == sorted(one.id for one in records)


async def test_a_shim_writes_to_the_ledger_and_waits_for_it_when_it_closes(store: Store) -> None:
    ledger = Ledger(store, prices=PRICES)
    seen: list[UsageRecord] = []

    async def callback(one: UsageRecord) -> None:
        seen.append(one)

    upstream = Upstream(answers())
    shim = OpenAIShim(
        OPENAI.using("sk"), transport=upstream.transport, record=tee(ledger, callback, log_usage)
    )
    async with shim:
        await asyncio.gather(*(asgi.chat(shim) for _ in range(20)))
    found = (await ledger.query()).records
    assert len(found) == len(seen) == 20
    assert {one.cost for one in found} == {COST}
    today = datetime.now(UTC).date()
    totals = await ledger.totals("day", since=today - timedelta(days=1), until=today)
    assert sum(total.cost for total in totals.values()) == 20 * COST


async def test_the_log_line_has_the_cost_and_the_price_with_the_ratio_of_the_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "asgi_aiproxy.usage"):
        await log_usage(record(cost=1_234))
        await log_usage(record(cost=None))
        price = AppliedPrice("gpt 4o", "genai-prices", Rates(input=1), ratio=1_250_000)
        await log_usage(msgspec.structs.replace(record(cost=7), price=price))
    assert "cost=$0.001234 " in caplog.text
    assert "cost=- " in caplog.text
    assert "cost=$0.000007 price='gpt 4o@genai-prices' ratio=1.25 status=" in caplog.text


# ── a file of lines ──────────────────────────────────────────────────────────


async def test_a_file_gets_a_line_for_each_exchange(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    records = [record(number) for number in range(500)]
    async with JSONLinesSink(path) as first, JSONLinesSink(path) as second:
        for one in records:
            await (first if one.started % 2 else second)(one)
    lines = path.read_bytes().splitlines()
    found = [msgspec.json.decode(line, type=UsageRecord) for line in lines]
    assert sorted(found, key=lambda one: one.started) == records
    assert json.loads(lines[0])["usage"]["input"] == 10
    assert path.stat().st_mode & 0o077 == 0  # for its owner's eyes


async def test_lines_wait_while_the_file_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = JSONLinesSink(folder / "usage.jsonl")
    folder.rmdir()
    await sink(record())
    await asyncio.sleep(0.1)
    folder.mkdir()
    await sink.drain()
    assert len((folder / "usage.jsonl").read_bytes().splitlines()) == 1


async def test_lines_cut_off_by_a_full_disk_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usage.jsonl"
    write, room = os.write, [25]

    def tight(file: int, data: bytes) -> int:
        if not room[0]:
            room[0] = 10_000
            raise OSError("full")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("asgi_aiproxy.usage.sinks.os.write", tight)
    async with JSONLinesSink(path) as sink:
        for number in range(3):
            await sink(record(number))
    found = [msgspec.json.decode(line, type=UsageRecord) for line in path.read_bytes().splitlines()]
    assert [one.started - START for one in found] == [0, 1, 2]


def test_a_missing_folder_is_reported_when_the_sink_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        JSONLinesSink(tmp_path / "nowhere" / "usage.jsonl")
