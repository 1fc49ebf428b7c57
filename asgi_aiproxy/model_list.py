"""The model list of `GET /v1/models`: the names in the router, and the models that providers
list.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol

import msgspec

from asgi_aiproxy._cancellation import Deadline
from asgi_aiproxy.dialects.model_facts import NOTHING, ModelFacts, merged, read_facts
from asgi_aiproxy.dialects.model_lists import ListedModel
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.keys import NoKeyError, matches_pattern
from asgi_aiproxy.providers.base import ModelOffer, Provider, Router
from asgi_aiproxy.upstream.base import Transport, fetch

logger = logging.getLogger("asgi_aiproxy")

_MAX_LIST = 8 * 1024 * 1024
# Seconds after which a provider that failed to answer is requested again.
_RETRY_SECONDS = 15.0

_Names = Mapping[str, str]  # models with their names for people, which may be empty
_NONE: _Names = {}


class _List(msgspec.Struct, frozen=True):
    """What a provider listed: names, and what it says of its models."""

    until: float = float("-inf")
    names: _Names = _NONE
    facts: Mapping[str, ModelFacts] = {}


_UNKNOWN = _List()


class FactsSource(Protocol):
    """Where limits and prices of models are known from, such as `Prices`."""

    def facts(self, provider: str, model: str) -> ModelFacts:
        """What is known of a model at a provider; may read a file the first time."""


class ModelCatalog:
    """Lists models. A provider's list is cached for `keep` seconds; a request for it may take
    `limit` seconds.

    A provider that cannot be requested offers its `catalogue`, which may be empty. The default
    `limit` is below the 3 seconds that Claude Code waits for the list. `prices` adds prices and
    limits that providers do not list.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        keep: float = 300.0,
        limit: float = 2.5,
        prices: FactsSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._keep = keep
        self._limit = limit
        self._clock = clock
        self._prices = prices
        self._known: dict[str, _List] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def models(self, router: Router, *, everywhere: bool = False) -> list[ListedModel]:
        """Return all models of a router, each with the first provider that offers it.

        With `everywhere`, providers are requested that serve only models known by name, too.
        """
        offers: list[ModelOffer] = (
            list(router.model_offers()) if hasattr(router, "model_offers") else []
        )
        found = await asyncio.gather(*(self._of(offer.provider) for offer in offers))
        names = dict.fromkeys(router.models())
        if everywhere:
            serving = {t.provider.name: t.provider for name in names for t in router.targets(name)}
            await asyncio.gather(*map(self._of, serving.values()))
        for offer, offered in zip(offers, found, strict=True):
            names |= dict.fromkeys(
                _requestable_name(router, offer, name)
                for name in offered
                if matches_pattern(offer.pattern, name)
            )
        # (In a thread: the first look into a price list reads it, which takes long.)
        return await asyncio.to_thread(self._listed, router, list(names))

    async def configured(self, router: Router) -> list[ListedModel]:
        """Return the models that are known without a request to a provider."""
        offers = router.model_offers() if hasattr(router, "model_offers") else ()
        names = dict.fromkeys(router.models())
        for offer in offers:
            names |= dict.fromkeys(
                _requestable_name(router, offer, name)
                for name in offer.provider.catalogue
                if matches_pattern(offer.pattern, name)
            )
        return await asyncio.to_thread(self._listed, router, list(names))

    async def find(self, router: Router, name: str) -> ListedModel | None:
        """Return a model by the name that callers use; None if there is none of that name."""
        return await asyncio.to_thread(self.model, router, name)

    def _listed(self, router: Router, names: Sequence[str]) -> list[ListedModel]:
        listed = (self.model(router, name) for name in names)
        return [model for model in listed if model is not None]

    def model(self, router: Router, name: str) -> ListedModel | None:
        """A model by the name that callers use; None if there is none of that name.

        Its display name is that of the router, or else the one in its provider's latest list.
        """
        target = next(iter(router.targets(name)), None)
        if target is None:
            return None
        owner = target.provider.name
        known = self._known.get(owner, _UNKNOWN)
        facts = known.facts.get(target.model, NOTHING)
        if self._prices is not None:
            facts = merged(facts, self._prices.facts(owner, target.model))
        display_name = getattr(router, "display_names", _NONE).get(name, "")
        if not display_name and name in (target.model, f"{owner}/{target.model}"):
            display_name = known.names.get(target.model, "")
        return ListedModel(name, owner, display_name, facts)

    async def _of(self, provider: Provider) -> _Names:
        if provider.catalogue:
            return dict.fromkeys(provider.catalogue, "")
        async with self._asking.setdefault(provider.name, asyncio.Lock()):
            known = self._known.get(provider.name, _UNKNOWN)
            if self._clock() >= known.until:
                keep = self._keep
                try:
                    known = await self._ask(provider)
                except (APIError, NoKeyError, ValueError) as error:
                    logger.info("provider %s does not list its models: %s", provider.name, error)
                    keep = min(keep, _RETRY_SECONDS)
                known = msgspec.structs.replace(known, until=self._clock() + keep)
                self._known[provider.name] = known
        return known.names

    async def _ask(self, provider: Provider) -> _List:
        language = provider.dialect
        draft = provider.transform_request(language.models_request())
        free = nullcontext() if provider.keys is None else await provider.keys.acquire()
        with free as lease, Deadline(self._limit, "it took too long"):
            key = await provider.with_credential(lease.key if lease is not None else None)
            request = provider.request("GET", draft, key, streamed=False)
            status, body = await fetch(self._transport, request, _MAX_LIST)
        if status != 200:
            raise ValueError(f"HTTP {status}")
        display_names = language.decode_display_names(body)
        names = {name: display_names.get(name, "") for name in language.decode_models(body)}
        return _List(names=names, facts=read_facts(body))


def _requestable_name(router: Router, offer: ModelOffer, name: str) -> str:
    """Return the name by which a client requests a provider's model: names like "groq/compound"
    need a prefix.
    """
    if "/" in name and not offer.prefix:
        target = next(iter(router.targets(name)), None)
        if target is not None and target.model != name:
            return f"{offer.provider.name}/{name}"
    return offer.prefix + name
