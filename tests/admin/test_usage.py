"""Usage records over the admin API, and the live tail."""

from __future__ import annotations

import csv
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from anyio import to_thread

from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.testing import serve
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.record import Outcome, UsageRecord
from tests.admin.conftest import ROOT, Client
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

NOW = time.time()


def record(number: int, **fields: Any) -> UsageRecord:
    usual: dict[str, Any] = {
        "principal": "ann", "requested_model": "m", "provider": "openai", "key_id": "k",
        "usage": Usage(input=10, output=5), "cost": 1500, "started": NOW + number / 1000,
    }  # fmt: skip
    return UsageRecord(id=f"r{number}", **{**usual, **fields})


async def keep(store: Store, *records: UsageRecord) -> None:
    async with Ledger(store) as ledger:
        for one in records:
            await ledger(one)


async def test_exchanges_are_read_newest_first_and_page_by_page(
    store: Store, client: Client
) -> None:
    await keep(store, *(record(n) for n in range(7)))
    found, after = [], ""
    while after is not None:
        page = (await client("GET", f"/usage?limit=3&after={after}")).json
        found += [one["id"] for one in page["data"]]
        after = page["next"]
    assert found == [f"r{n}" for n in reversed(range(7))]
    first = (await client("GET", "/usage?limit=1")).json["data"][0]
    assert (first["usd"], first["cost"], first["usage"]["input"]) == (0.0015, 1500, 10)


async def test_exchanges_are_filtered_and_summed(store: Store, client: Client) -> None:
    await keep(
        store,
        record(1),
        record(2, principal="bob", requested_model="x"),
        record(3, principal="bob", outcome=Outcome.FAILED, usage=None, cost=None),
    )
    page = (await client("GET", "/usage?principal=bob")).json
    assert [one["id"] for one in page["data"]] == ["r3", "r2"]
    assert len((await client("GET", "/usage?state=failed")).json["data"]) == 1
    assert (await client("GET", f"/usage?until={NOW}")).json["data"] == []
    total = (await client("GET", "/usage/total?principal=bob")).json
    assert (total["requests"], total["failed"], total["input"], total["usd"]) == (2, 1, 10, 0.0015)


async def test_sums_are_grouped_as_requested_the_most_expensive_first(
    store: Store, client: Client
) -> None:
    await keep(
        store,
        record(1),
        record(2, principal="bob", cost=9_000_000),
        record(3, principal="cid", cost=5000),
    )
    page = (await client("GET", "/usage/sums?by=principal&limit=2")).json
    assert [(one["name"], one["usd"]) for one in page["data"]] == [("bob", 9.0), ("cid", 0.005)]
    rest = (await client("GET", f"/usage/sums?by=principal&limit=2&after={page['next']}")).json
    assert ([one["name"] for one in rest["data"]], rest["next"]) == (["ann"], None)
    days = (await client("GET", "/usage/sums")).json["data"]
    assert sum(day["requests"] for day in days) == 3
    keys = (await client("GET", "/usage/sums?by=key")).json["data"]
    assert [key["name"] for key in keys] == ["openai/k"]
    one = (await client("GET", "/usage/sums?by=principal&name=ann")).json["data"]
    assert [(found["name"], found["label"]) for found in one] == [("ann", "ann")]
    token = (await client("POST", "/tokens", {"name": "team-1"})).json["token"]["id"]
    await keep(store, record(4, principal=token))
    one = (await client("GET", f"/usage/sums?by=principal&name={token}")).json["data"]
    assert [found["label"] for found in one] == ["team-1"]
    assert (await client("GET", "/usage/sums?until=2020-01-02")).json["data"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("/usage?state=odd", "state"),
        ("/usage?since=yesterday", "since"),
        ("/usage?who=me", "who"),
        ("/usage?limit=1001", "limit"),
        ("/usage?after=x", "after"),
        ("/usage/live?after=x", "after"),
        ("/usage/live?after=1%0A", "after"),
        ("/usage/live?since=1", "since"),
        ("/usage/sums?by=colour", "by"),
        ("/usage/sums?since=2026-13-01", "since"),
        ("/usage/sums?since=2026-02-01&until=2026-01-01", "since"),
        ("/usage/sums?since=2020-01-01&until=2026-01-01", "since"),
    ],
)
async def test_an_invalid_query_is_refused_with_the_name_of_the_parameter(
    client: Client, query: str, field: str
) -> None:
    assert (await client.error("GET", query))[:2] == (400, field)


# ── live ─────────────────────────────────────────────────────────────────────


class Tail:
    """Reads an event stream from a real server, event by event."""

    def __init__(self, url: str, token: str = ROOT, **headers: str) -> None:
        headers["authorization"] = f"Bearer {token}"
        request = urllib.request.Request(url, headers=headers)
        self.stream = urllib.request.urlopen(request, timeout=60)

    async def event(self) -> dict[str, str]:
        return await to_thread.run_sync(self._event)

    def _event(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while line := self.stream.readline().decode().rstrip("\r\n"):
            if not line.startswith(":"):
                name, _, value = line.partition(": ")
                found[name] = value
        return found


async def test_exchanges_are_sent_as_they_end_and_none_is_missed(
    redis_url: str, make: Callable[..., Client]
) -> None:
    import uuid

    from asgi_aiproxy.stores.redis import RedisStore

    prefix = f"test-{uuid.uuid4().hex}"
    async with RedisStore(redis_url, prefix=prefix) as store:
        await keep(store, record(0))
        served = AdminApp(RedisStore(redis_url, prefix=prefix), token=ROOT)
        async with serve(served) as url:
            tail = await to_thread.run_sync(Tail, url + "/usage/live?principal=ann")
            assert tail.stream.headers["content-type"].startswith("text/event-stream")
            await keep(store, record(1), record(2, principal="bob"), record(3))
            first, second = await tail.event(), await tail.event()
            assert first["event"] == "exchange"
            assert [json.loads(e["data"])["id"] for e in (first, second)] == ["r1", "r3"]
            await to_thread.run_sync(tail.stream.close)
            await keep(store, record(4))
            again = await to_thread.run_sync(
                lambda: Tail(url + "/usage/live", **{"last-event-id": first["id"]})
            )
            reported = [json.loads((await again.event())["data"])["id"] for _ in range(3)]
            assert reported == ["r2", "r3", "r4"]
            await to_thread.run_sync(again.stream.close)


async def test_a_tail_ends_when_its_token_is_revoked() -> None:
    store = MemoryStore()
    client = Client(AdminApp(store, token=ROOT))
    made = (await client("POST", "/tokens", {"name": "eye", "scopes": ["read"]})).json
    headers = {"authorization": f"Bearer {made['secret']}"}
    async with asgi.opened(client.app, "GET", "/usage/live", headers=headers) as exchange:
        exchange.send_body(b"")
        start = await exchange.message()
        assert start["status"] == 200
        await client("DELETE", f"/tokens/{made['token']['id']}")
        await exchange.ended()


async def test_a_tail_needs_a_token() -> None:
    app = AdminApp(MemoryStore(), token=ROOT)
    async with serve(app) as url:
        with pytest.raises(urllib.error.HTTPError) as caught:
            await to_thread.run_sync(lambda: Tail(url + "/usage/live", token="wrong"))
        caught.value.close()
    assert caught.value.code == 401


async def test_records_and_sums_are_exported_as_csv(store: Store, client: Client) -> None:
    ledger = Ledger(store)
    await ledger(UsageRecord(id="1", request_id="r1", started=time.time(), tags={"team": "@a"}))
    await ledger.drain(30.0)
    records = await client("GET", "/usage/export?tag=team=@a")
    sums = await client("GET", "/usage/sums/export?by=tag")
    for answer in (records, sums):
        assert answer.status == 200
        assert answer.header("content-type") == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(records.body.decode()))
    assert (row["request_id"], row["tags"]) == ("r1", "team=@a")
    (row,) = csv.DictReader(io.StringIO(sums.body.decode()))
    assert (row["name"], row["requests"]) == ("team=@a", "1")
    assert (await client("GET", "/usage/export?after=x")).status == 400
    assert (await client("GET", "/usage/export?state=x")).status == 400
