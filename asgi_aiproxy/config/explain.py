"""What explains requests, in a process that does not serve the gateway."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from asgi_aiproxy.config.factory import make_prices, make_ratios, make_router
from asgi_aiproxy.config.providers import make_providers
from asgi_aiproxy.config.settings import Settings
from asgi_aiproxy.exchange.explain import explain_call
from asgi_aiproxy.middleware import Quota
from asgi_aiproxy.services.explain import Explain
from asgi_aiproxy.stores import Store


async def open_explainer(settings: Settings, store: Store, stack: AsyncExitStack) -> Explain:
    """Make it; `stack` closes it. Raises ConfigurationError."""
    providers = make_providers(settings, store)
    for provider in providers.values():
        if provider.keys is not None:
            await stack.enter_async_context(provider.keys)
    router = make_router(settings, providers)
    quota = Quota(router, store=store, prices=make_prices(settings), ratios=make_ratios(settings))
    return partial(explain_call, router, limits=None if settings.anonymous else quota.explain)
