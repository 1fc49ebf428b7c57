"""The command `models`: what a configuration serves, with limits and prices."""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack

from asgi_aiproxy.cli import output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import Commands, add_command
from asgi_aiproxy.config.factory import make_prices, make_router, make_store, make_transport
from asgi_aiproxy.config.providers import make_providers
from asgi_aiproxy.config.settings import Settings, load
from asgi_aiproxy.dialects.model_lists import ListedModel
from asgi_aiproxy.model_list import ModelCatalog
from asgi_aiproxy.services.unpriced import UnpricedQuery, unpriced_models
from asgi_aiproxy.services.usage import UsageService

_REFRESH_SECONDS = 30.0  # for each provider
_DAYS = 30


def add(commands: Commands) -> None:
    """Add the command."""
    models = add_command(
        commands, "models", "list the configured models with limits and prices", _models
    )
    models.add_argument(
        "--refresh", action="store_true", help="request the lists of the providers, too"
    )
    models.add_argument(
        "--unpriced",
        action="store_true",
        help=f"list instead the models without a price in the traffic of {_DAYS} days",
    )


def _models(arguments: argparse.Namespace) -> int:
    if arguments.unpriced:
        return run_command(arguments, lambda context: _unpriced(arguments, context))
    listed = asyncio.run(_listed(load(arguments.config), refresh=arguments.refresh))
    if arguments.json:
        output.as_json(listed)
        return 0
    heads = ("MODEL", "PROVIDER", "CONTEXT", "OUTPUT", "INPUT $/M", "OUTPUT $/M", "PRICE FROM")
    output.table(heads, [_row(model) for model in listed], "No model is configured by its name.")
    if not arguments.refresh:
        output.print_error("With --refresh also those that the providers list.")
    return 0


def _row(model: ListedModel) -> tuple[object, ...]:
    facts, price = model.facts, model.facts.price
    prices = (None, None, None) if price is None else (price.input, price.output, price.source)
    return (model.name, model.owner, facts.context, facts.max_output, *prices)


async def _listed(settings: Settings, *, refresh: bool) -> list[ListedModel]:
    async with AsyncExitStack() as stack:
        store = make_store(settings) if refresh and settings.redis_url is not None else None
        if store is not None:
            await stack.enter_async_context(store)
        providers = make_providers(settings, store)
        for provider in providers.values():
            if provider.keys is not None and store is not None:
                await stack.enter_async_context(provider.keys)
        transport = make_transport(settings)
        stack.push_async_callback(transport.aclose)
        catalog = ModelCatalog(transport, limit=_REFRESH_SECONDS, prices=make_prices(settings))
        router = make_router(settings, providers)
        if refresh:
            return await catalog.models(router, everywhere=True)
        return await catalog.configured(router)


async def _unpriced(arguments: argparse.Namespace, context: CommandContext) -> None:
    since = time.time() - _DAYS * 86_400
    page = await unpriced_models(UsageService(context.store), UnpricedQuery(since=since))
    if arguments.json:
        output.as_json(page)
        return
    heads = ("PROVIDER", "MODEL", "REQUESTS", "INPUT", "OUTPUT", "LAST")
    rows = [
        (m.provider, m.model, m.requests, m.input, m.output, output.format_time(m.last))
        for m in page.data
    ]
    output.table(heads, rows, "All models in the latest traffic have a price.")
