"""Batches, until each is settled and recorded once: when its results are read, or without that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asgi_aiproxy import (
    AnthropicShim,
    Budget,
    KeyPool,
    Limits,
    Principal,
    ProviderRouter,
    Quota,
    UsageRecord,
)
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, OPENAI_CHAT
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.keys import Key
from asgi_aiproxy.open_batches import BatchWatch, OpenBatch
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import SCOPE_KEY
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.testing import serve
from asgi_aiproxy.upstream import HttpxTransport
from asgi_aiproxy.usage.recorder import Recorder
from asgi_aiproxy.vendor_resources import VendorResources
from tests.support import asgi_client as asgi
from tests.test_vendor_resources import Vendor, anthropic_result, line, openai_result

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600.0, 86_400.0
PRICES = Prices({"*": Price(input=0, output=1_000_000)}, listed=False)


class Gateway:
    """Workers over one store; a token of output costs $1, and half of that in a batch."""

    def __init__(self, url: str, *, budget: float | None, store: Store, workers: int = 2) -> None:
        self.now = 1_000_000.0
        self.store = store
        self.records: list[UsageRecord] = []
        budgets = () if budget is None else (Budget.usd(budget),)
        self.principal = Principal("ann", account="one", limits=Limits(budgets=budgets))
        self.workers: list[VendorResources] = []
        self.apps: list[Quota] = []
        for _ in range(workers):
            openai = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")], name="openai", store=store)
            anthropic = KeyPool([Key("sk-1", id="1")], name="anthropic", store=store)
            router = ProviderRouter(
                {
                    "gpt-*": OPENAI.using(openai, base_url=url + "/v1"),
                    "claude-*": ANTHROPIC.using(anthropic, base_url=url),
                }
            )
            resources = VendorResources(
                router,
                [OPENAI_CHAT, ANTHROPIC_MESSAGES],
                {"transport": HttpxTransport()},
                recorder=Recorder(self._record),
                clock=lambda: self.now,
            )
            self.workers.append(resources)
            self.apps.append(Quota(self._app(resources), store=store, prices=PRICES))

    @staticmethod
    def _app(resources: VendorResources) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert await resources(scope, receive, send)

        return app

    async def _record(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def call(self, method: str, path: str, body: Any = None, worker: int = 0) -> asgi.Answer:
        sent = b"" if body is None else body
        scope = {SCOPE_KEY: self.principal}
        return await asgi.request(self.apps[worker], method, path, sent, **scope)

    async def check(self, hours: float = 0.0) -> None:
        """All workers look at the batches at the same time, some hours later."""
        self.now += hours * HOUR
        await asyncio.gather(*(worker.open.check() for worker in self.workers))

    async def spent(self) -> float:
        (budget,) = self.principal.limits.budgets
        (level,) = await self.store.peek([reserve(self.principal, budget, 0, 0.0)])
        return level.used / 1_000_000

    async def written(self) -> list[UsageRecord]:
        """The usage records so far."""
        for worker in self.workers:
            await worker.open.aclose()
        return self.records


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture(params=[100.0, None], ids=["budget", "no-budget"])
async def gateway(vendor: Vendor, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with serve(vendor) as url, MemoryStore() as store:
        made = Gateway(url, budget=request.param, store=store)
        yield made
        await made.written()


async def openai_batch(gateway: Gateway, vendor: Vendor) -> str:
    file = (await gateway.call("POST", "/v1/files", {"x": 1})).json["id"]
    vendor.files[file] = vendor.files[file][0], line("gpt-x", 40) + line("gpt-x", 60)
    made = await gateway.call("POST", "/v1/batches", {"input_file_id": file})
    assert made.status == 200, made.body
    id: str = made.json["id"]
    results = openai_result("gpt-x", 10) + b"\n" + openai_result("gpt-x", 20)
    vendor.files[f"out-{id}"] = vendor.batches[id][0], results
    return id


async def anthropic_batch(gateway: Gateway, vendor: Vendor) -> str:
    params = {"model": "claude-x", "max_tokens": 30, "messages": []}
    calls = [{"custom_id": "1", "params": params}]
    made = await gateway.call("POST", "/v1/messages/batches", {"requests": calls})
    vendor.results = anthropic_result("claude-x", 4) + b"\n"
    id: str = made.json["id"]
    vendor.batches[id][1]["processing_status"] = "ended"
    return id


def check_record(record: UsageRecord, provider: str, model: str, output: int) -> None:
    assert (record.operation, record.provider, record.model) == ("batches", provider, model)
    assert (record.principal, record.account, record.status) == ("ann", "one", 200)
    assert record.usage is not None
    assert (record.usage.input, record.usage.output) == (0, output)
    assert record.cost == output * 500_000


async def test_a_batch_has_one_record_when_its_results_are_read_by_any_workers(
    gateway: Gateway, vendor: Vendor
) -> None:
    id = await openai_batch(gateway, vendor)
    gateway.now += 60
    await gateway.call("GET", f"/v1/batches/{id}", worker=1)
    path = f"/v1/files/out-{id}/content"
    read = [gateway.call("GET", path, worker=worker) for worker in (0, 1, 0)]
    assert {answer.status for answer in await asyncio.gather(*read)} == {200}
    (record,) = await gateway.written()
    check_record(record, "openai", "gpt-x", 30)
    assert record.duration == 60
    assert record.key_id == vendor.batches[id][0].removeprefix("sk-")


async def test_a_batch_that_ends_without_results_has_a_record_too(
    gateway: Gateway, vendor: Vendor
) -> None:
    id = await anthropic_batch(gateway, vendor)
    counts = {"succeeded": 0, "canceled": 1}
    vendor.batches[id][1].update({"status": "", "request_counts": counts})
    for worker in (0, 1):
        await gateway.call("GET", f"/v1/messages/batches/{id}", worker=worker)
    (record,) = await gateway.written()
    check_record(record, "anthropic", "", 0)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_a_batch_that_is_never_read_is_settled_by_one_of_the_workers(
    gateway: Gateway, vendor: Vendor, api: str
) -> None:
    make = openai_batch if api == "openai" else anthropic_batch
    await make(gateway, vendor)
    before = len(vendor.seen)
    await gateway.check(24)
    assert len(vendor.seen) == before  # the vendor may still work on it
    await gateway.check(2)
    await gateway.check(2)
    output, model = (30, "gpt-x") if api == "openai" else (4, "claude-x")
    if gateway.principal.limits.budgets:
        assert await gateway.spent() == output / 2
    (record,) = await gateway.written()
    check_record(record, api, model, output)
    assert len(vendor.seen) == before + 2  # the batch, and its results


async def test_a_batch_that_cannot_be_read_is_tried_again_and_stays_charged(
    gateway: Gateway, vendor: Vendor
) -> None:
    id = await openai_batch(gateway, vendor)
    key, batch = vendor.batches.pop(id)
    await gateway.check(26)
    seen = len(vendor.seen)
    await gateway.check(0.5)
    assert len(vendor.seen) == seen  # an hour later only
    vendor.batches[id] = key, batch
    await gateway.check(1)
    (record,) = await gateway.written()
    check_record(record, "openai", "gpt-x", 30)


async def test_a_batch_that_the_vendor_has_deleted_keeps_its_charge_and_has_no_usage(
    gateway: Gateway, vendor: Vendor
) -> None:
    id = await openai_batch(gateway, vendor)
    del vendor.batches[id]
    await gateway.check(31 * 24)
    await gateway.check(24)
    if gateway.principal.limits.budgets:
        assert await gateway.spent() == 50
    (record,) = await gateway.written()
    assert (record.provider, record.usage, record.cost) == ("openai", None, None)


async def test_a_batch_without_a_quota_is_priced_by_the_list_of_the_app(vendor: Vendor) -> None:
    records: list[UsageRecord] = []

    async def record(each: UsageRecord) -> None:
        if each.operation == "batches" and each.model == "claude-x":
            records.append(each)

    async with serve(vendor) as url:
        provider = ANTHROPIC.using("sk-1", base_url=url)
        app = AnthropicShim(provider, record=record, receipts=Receipts(prices=PRICES))
        params = {"model": "claude-x", "max_tokens": 30, "messages": []}
        body = {"requests": [{"custom_id": "1", "params": params}]}
        async with app:
            made = await asgi.request(app, "POST", "/v1/messages/batches", body)
            vendor.results = anthropic_result("claude-x", 4) + b"\n"
            path = f"/v1/messages/batches/{made.json['id']}/results"
            assert (await asgi.request(app, "GET", path)).status == 200
    (found,) = [each for each in records if each.usage is not None]
    assert found.cost == 2_000_000


class _Admission:
    """Counts what is given back."""

    limited = True

    def __init__(self) -> None:
        self.settled: list[bytes] = []

    async def settle(self, name: str, receipt: bytes, used: Any) -> dict[str, int | None]:
        self.settled.append(receipt)
        return {}


@pytest.mark.parametrize(
    ("status", "given_back"),
    [(400, True), (503, True), (200, False), (None, False)],
    ids=["refused", "failed", "interrupted", "client left"],
)
async def test_what_a_batch_was_charged_is_given_back_only_if_it_was_refused(
    status: int | None, given_back: bool
) -> None:
    async def send(message: Any) -> None:
        pass

    admission: Any = _Admission()
    opened: Any = None
    batch = OpenBatch(provider="p", id="", face="openai_chat", path="/v1/batches", receipt="r")
    async with MemoryStore() as store:
        watch = BatchWatch(send, opened, store, "p", admission=admission, made=batch)
        if status is not None:
            headers = [(b"content-type", b"application/json")]
            await watch({"type": "http.response.start", "status": status, "headers": headers})
            await watch({"type": "http.response.body", "body": b"{", "more_body": True})
        await watch.aclose()
    assert admission.settled == ([b"r"] if given_back else [])
