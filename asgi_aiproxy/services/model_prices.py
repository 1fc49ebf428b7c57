"""Prices of the models that a gateway serves: those of its routes, and those in its traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from asgi_aiproxy.dialects.model_facts import NOTHING, ModelFacts, ModelPrice
from asgi_aiproxy.prices.updates import PriceChange
from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.routes import RouteTable
from asgi_aiproxy.services.shared import SharedResults
from asgi_aiproxy.services.usage import UsageService
from asgi_aiproxy.usage.ledger import Query
from asgi_aiproxy.usage.record import UsageRecord

_MAX_MODELS = 1000
_PAGES, _PAGE = 10, 500  # of the log that are examined, newest first
_KEEP_SECONDS = 5.0

Pair = tuple[str, str]  # provider and model


class PriceTable(Protocol):
    """Prices of models, such as `Prices`."""

    def facts(self, provider: str, model: str) -> ModelFacts:
        """What is known of a model at a provider; may read a file the first time."""

    @property
    def changes(self) -> Sequence[PriceChange]:
        """The changes of list prices since the start, newest first."""


class ModelPriceOut(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a provider: its price, and its traffic among the latest 5,000 exchanges.

    `routed`: a route names it. `requests` were counted, `unpriced` of them have no cost although
    they used tokens; `last` is the Unix time of the latest.
    """

    provider: str
    model: str
    price: ModelPrice | None
    context: int | None
    max_output: int | None
    routed: bool
    requests: int = 0
    unpriced: int = 0
    last: float | None = None


class _Traffic(msgspec.Struct):
    requests: int = 0
    unpriced: int = 0
    last: float = 0.0


class ModelPriceService:
    """Prices from `prices` of the models in the routes of `router` and in the log of `usage`.

    Raises StoreUnavailableError.
    """

    def __init__(
        self, prices: PriceTable | None, router: RouteTable | None, usage: UsageService
    ) -> None:
        self._prices = prices
        self._router = router
        self._usage = usage
        self._results: SharedResults[list[ModelPriceOut]] = SharedResults(_KEEP_SECONDS)

    @property
    def changes(self) -> Sequence[PriceChange]:
        """The changes of list prices since the start, newest first."""
        return self._prices.changes if self._prices is not None else ()

    async def page(self) -> Page[ModelPriceOut]:
        """Return the models; those with traffic that is not priced come first."""
        return Page(await self._results.get("", self._models))

    async def _models(self) -> list[ModelPriceOut]:
        traffic = await self._traffic()
        routed = set(self._routed())
        pairs = sorted({*traffic, *routed})[:_MAX_MODELS]
        # (The price list is read from a file the first time.)
        facts = await asyncio.to_thread(self._facts, pairs)
        found = [
            ModelPriceOut(
                provider=provider,
                model=model,
                price=known.price,
                context=known.context,
                max_output=known.max_output,
                routed=(provider, model) in routed,
                requests=seen.requests,
                unpriced=seen.unpriced,
                last=seen.last or None,
            )
            for (provider, model), known in facts.items()
            for seen in [traffic.get((provider, model), _Traffic())]
        ]
        return sorted(found, key=lambda each: (-each.unpriced, -each.requests))

    def _facts(self, pairs: Iterable[Pair]) -> dict[Pair, ModelFacts]:
        prices = self._prices
        return {pair: prices.facts(*pair) if prices is not None else NOTHING for pair in pairs}

    def _routed(self) -> Iterable[Pair]:
        if self._router is not None:
            for targets in self._router.routes.values():
                for target in targets:
                    if target.model:
                        yield target.provider.name, target.model

    async def _traffic(self) -> dict[Pair, _Traffic]:
        found: dict[Pair, _Traffic] = {}
        after = ""
        for _ in range(_PAGES):
            page = await self._usage.ledger.query(Query(), after=after, limit=_PAGE)
            for record in page.records:
                _count(found, record)
            after = page.after
            if not after:
                break
        return found


def _count(found: dict[Pair, _Traffic], record: UsageRecord) -> None:
    model = record.upstream_model or record.model or record.requested_model
    if not model or not record.provider:
        return
    seen = found.setdefault((record.provider, model), _Traffic())
    seen.requests += 1
    seen.unpriced += record.usage is not None and record.cost is None
    seen.last = max(seen.last, record.started)
