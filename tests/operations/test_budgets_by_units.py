"""Budgets of operations that are not charged by tokens: reserved and settled in their units."""

from __future__ import annotations

import json

import pytest

from asgi_aiproxy import OpenAIShim, Principal
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.providers import COHERE, Provider
from asgi_aiproxy.stores import MemoryStore
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers

pytestmark = pytest.mark.anyio


class Gateway:
    """A gateway whose caller has a budget in micro-dollars."""

    def __init__(self, provider: Provider, price: Price, budget: int, *steps: Step) -> None:
        self.records: list[UsageRecord] = []
        self.upstream = Upstream(*steps)
        app = OpenAIShim(provider.using("k"), transport=self.upstream.transport, record=self._keep)
        prices = Prices({"*": price}, listed=False)
        caller = Principal("ann", limits=Limits(budgets=(Budget(budget),)))
        self.shim = app

        async def verify(token: str) -> Principal:
            return caller

        self.app = Authenticate(Quota(app, store=MemoryStore(), prices=prices), verify=verify)

    async def _keep(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def post(self, path: str, body: object) -> asgi.Answer:
        headers = {"authorization": "Bearer t"}
        async with self.shim:
            return await asgi.request(self.app, "POST", path, body, headers=headers)


RANKED = json.dumps(
    {
        "results": [{"index": 0, "relevance_score": 1}],
        "meta": {"billed_units": {"search_units": 3}},
    }
).encode()


async def test_search_units_are_reserved_by_the_request_and_settled_by_the_response() -> None:
    price = Price(search=0.002)
    gateway = Gateway(COHERE, price, 10_000, answers(RANKED))
    body = {"model": "m", "query": "q", "documents": ["d"] * 250}
    assert (await gateway.post("/v2/rerank", body)).status == 200
    (record,) = gateway.records
    assert record.usage == Usage(search_units=3)
    assert (record.cost, record.estimated) == (6000, False)
    # 4,000 are left, and 250 documents are three search units.
    refused = await gateway.post("/v2/rerank", body)
    assert refused.status == 429
    assert len(gateway.upstream.requests) == 1
    assert (await gateway.post("/v2/rerank", {**body, "documents": ["d"] * 150})).status == 200
