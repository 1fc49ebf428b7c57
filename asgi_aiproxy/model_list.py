"""The model list of `GET /v1/models`: the names in the router, and the models that providers
list.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

from asgi_aiproxy._cancellation import Deadline
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


class ModelCatalog:
    """Lists models. A provider's list is cached for `keep` seconds; a request for it may take
    `limit` seconds.

    A provider that cannot be requested offers its `catalogue`, which may be empty. The default
    `limit` is below the 3 seconds that Claude Code waits for the list.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        keep: float = 300.0,
        limit: float = 2.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._keep = keep
        self._limit = limit
        self._clock = clock
        self._known: dict[str, tuple[float, _Names]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def models(self, router: Router) -> list[ListedModel]:
        """Return all models of a router, each with the first provider that offers it."""
        offers: list[ModelOffer] = (
            list(router.model_offers()) if hasattr(router, "model_offers") else []
        )
        found = await asyncio.gather(*(self._of(offer.provider) for offer in offers))
        names = dict.fromkeys(router.models())
        for offer, offered in zip(offers, found, strict=True):
            names |= dict.fromkeys(
                _requestable_name(router, offer, name)
                for name in offered
                if matches_pattern(offer.pattern, name)
            )
        listed = (self.model(router, name) for name in names)
        return [model for model in listed if model is not None]

    def model(self, router: Router, name: str) -> ListedModel | None:
        """A model by the name that callers use; None if there is none of that name.

        It is called as the router says, or else as its provider did, if that listed it lately.
        """
        target = next(iter(router.targets(name)), None)
        if target is None:
            return None
        owner = target.provider.name
        display_name = getattr(router, "display_names", _NONE).get(name, "")
        if not display_name and name in (target.model, f"{owner}/{target.model}"):
            display_name = self._known.get(owner, (0.0, _NONE))[1].get(target.model, "")
        return ListedModel(name, owner, display_name)

    async def _of(self, provider: Provider) -> _Names:
        if provider.catalogue:
            return dict.fromkeys(provider.catalogue, "")
        async with self._asking.setdefault(provider.name, asyncio.Lock()):
            until, names = self._known.get(provider.name, (float("-inf"), _NONE))
            if self._clock() >= until:
                keep = self._keep
                try:
                    names = await self._ask(provider)
                except (APIError, NoKeyError, ValueError) as error:
                    logger.info("provider %s does not list its models: %s", provider.name, error)
                    keep = min(keep, _RETRY_SECONDS)
                self._known[provider.name] = (self._clock() + keep, names)
        return names

    async def _ask(self, provider: Provider) -> _Names:
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
        return {name: display_names.get(name, "") for name in language.decode_models(body)}


def _requestable_name(router: Router, offer: ModelOffer, name: str) -> str:
    """Return the name by which a client requests a provider's model: names like "groq/compound"
    need a prefix.
    """
    if "/" in name and not offer.prefix:
        target = next(iter(router.targets(name)), None)
        if target is not None and target.model != name:
            return f"{offer.provider.name}/{name}"
    return offer.prefix + name
