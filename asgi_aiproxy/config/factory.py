"""Build the app that settings describe, with the public constructors.

From the inside out: providers with their key pools, a router, an `AIShim`; around it, if tokens or
a store are configured, `Quota`, `Billing` and `Authenticate`; beside it the admin app at `/admin`
and the console at `/console`. What must be opened and closed (store, key pools, ledger,
connections) belongs to the `Gateway`, unless the caller passes a store of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.accounts import stored_tokens
from asgi_aiproxy.admin import Billing
from asgi_aiproxy.config.accounting import (
    make_attribution,
    make_budget_callbacks,
    make_ledger,
    make_receipts,
)
from asgi_aiproxy.config.administration import check_console, make_admin, make_console
from asgi_aiproxy.config.callers import (
    configured_tokens,
    has_limits,
    has_usd_budget,
    limits_of,
)
from asgi_aiproxy.config.compat import CompatBuilder
from asgi_aiproxy.config.error_messages import convert_table, toml_path
from asgi_aiproxy.config.gateway import Gateway, Resource
from asgi_aiproxy.config.hooks import make_hooks
from asgi_aiproxy.config.providers import (
    make_continuation,
    make_providers,
    make_sealer,
    secret_value,
)
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.exchange.explain import explain_call
from asgi_aiproxy.keys import Key, ResourceOwnership
from asgi_aiproxy.middleware import (
    Authenticate,
    LoadShedder,
    first_of,
    priority_by_name,
    static_tokens,
)
from asgi_aiproxy.middleware.auth import Verify
from asgi_aiproxy.middleware.quota import Quota
from asgi_aiproxy.prices import Price, Prices, PriceUpdates, Ratio, Ratios
from asgi_aiproxy.prices.price_list import list_installed
from asgi_aiproxy.providers import Provider, Target
from asgi_aiproxy.providers.discovery import discover_apis
from asgi_aiproxy.request_limits import RequestLimits
from asgi_aiproxy.responses_state import ResponseState
from asgi_aiproxy.router import ProviderRouter, Route
from asgi_aiproxy.services.key_test import check_key
from asgi_aiproxy.shim import AIShim
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.telemetry.metrics import Metrics
from asgi_aiproxy.upstream import Timeouts, Transport, default_transport
from asgi_aiproxy.usage.log import log_usage
from asgi_aiproxy.usage.recorder import UsageSink, discard, tee

if TYPE_CHECKING:
    from asgi_aiproxy.config.limit_settings import LoadSheddingSettings
    from asgi_aiproxy.config.provider_settings import TargetSettings
    from asgi_aiproxy.config.settings import Settings


class PriceListWarmup:
    """Load a price list at start, so that the first request does not wait for it."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._prices.find, "", "")
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


def build_app(
    settings: Settings, *, store: Store | None = None, metrics_folder: str | None = None
) -> ASGIApp:
    """Build the app that `settings` describe. Raises ConfigurationError.

    `store` keeps state that outlives the app; the caller opens and closes it. By default the app
    has a store of its own, if the settings need one. `metrics_folder` holds the metrics of several
    worker processes.
    """
    check_console(settings)
    given_store = store
    durable = settings.redis_url is not None or settings.store_file is not None
    keep_records = settings.ledger and (durable or settings.admin_token is not None)
    oneapi = settings.compat.oneapi is not None
    if not (durable or settings.admin_token is not None or has_limits(settings) or oneapi):
        store = None
    elif given_store is None:
        store = make_store(settings) or MemoryStore()
    providers = make_providers(settings, store)
    router = make_router(settings, providers)
    timeouts = Timeouts(**settings.timeouts.model_dump())
    transport = make_transport(settings)
    parts: list[Resource] = [aclosing(transport)]
    if store is not None and given_store is None:
        parts.append(store)
    parts += [provider.keys for provider in providers.values() if provider.keys is not None]
    _start_health_checks(settings, providers, transport)
    prices, ratios = make_prices(settings), make_ratios(settings)
    sinks: list[UsageSink] = [log_usage] if settings.log_usage else []
    ledger = make_ledger(settings, store, prices, ratios) if keep_records else None
    if ledger is not None:
        parts.append(ledger)
        sinks.append(ledger)
    metrics = None
    if settings.metrics:
        metrics = Metrics(
            router=router,
            providers=providers.values(),
            store=store,
            ledger=ledger,
            prices=prices,
            multiprocess=metrics_folder,
        )
        parts.append(metrics)
        sinks.append(metrics.record)
    record = tee(*sinks) if len(sinks) > 1 else (*sinks, discard)[0]
    shim = AIShim(
        router,
        transport=transport,
        timeouts=timeouts,
        attempts=settings.attempts,
        max_body=settings.max_body,
        limits=RequestLimits(**settings.request_limits.model_dump()),
        keepalive_seconds=settings.keepalive,
        strict=settings.strict,
        allow_client_keys=settings.allow_client_keys,
        hooks=make_hooks(settings),
        record=record,
        response_state=_response_state(settings, store),
        websockets=settings.responses.websockets,
        websocket_idle=settings.responses.websocket_idle,
        attribution=make_attribution(settings),
        receipts=make_receipts(settings, prices),
        conversations=make_continuation(settings),
        prices=prices,
        apis=discover_apis(),
        ownership=ResourceOwnership(settings.resource_owners, settings.shared_resources, store),
    )
    app: ASGIApp = shim
    quota: Quota | None = None
    callbacks, webhooks = make_budget_callbacks(settings, store)
    thresholds = settings.budget_alerts.thresholds
    parts += [PriceUpdates(prices)] if settings.price_updates else []
    quota_options: dict[str, Any] = {"prices": prices, "ratios": ratios}
    quota_options |= {"thresholds": thresholds, "on_threshold": callbacks}
    verify = _verify(settings, store)
    if store is not None and verify is not None:
        parts.append(PriceListWarmup(prices))
        parts += webhooks
        app = quota = Quota(shim, store=store, **quota_options)
        app = Billing(app, store=store, units_per_usd=settings.units_per_usd)
    app = _shedding(app, settings.load_shedding, metrics)
    if verify is not None:
        app = Authenticate(app, verify=verify)
    if metrics is not None:
        app = metrics.track(app)
    compat = CompatBuilder(
        settings,
        providers=providers,
        router=router,
        store=store,
        verify=verify,
        transport=transport,
        record=record,
        prices=prices,
        quota_options=quota_options,
    ).apps()
    parts += compat.values()
    if (
        store is None
        and given_store is None
        and metrics is None
        and not compat
        and not _has_background_work(settings)
    ):
        return app  # it owns nothing that must be closed
    admin = None
    if store is not None:
        explain = partial(explain_call, router, limits=quota.explain if quota is not None else None)
        admin = make_admin(settings, store, providers.values(), transport, explain, router, prices)
    console = make_console(settings, admin, app)
    if isinstance(app, AbstractAsyncContextManager):
        parts.append(app)
    guarded = _guarded(settings, metrics)
    return Gateway(app, parts, admin, store=store, metrics=guarded, compat=compat, console=console)


def _shedding(app: ASGIApp, given: LoadSheddingSettings | None, metrics: Metrics | None) -> ASGIApp:
    """The app behind what refuses requests while the process is overloaded, if that is set."""
    if given is None:
        return app
    shedder = LoadShedder(
        app,
        max_lag=given.max_lag,
        max_in_flight=given.max_in_flight,
        max_held_bytes=given.max_held_bytes,
        priority=priority_by_name(groups=given.groups, principals=given.principals),
        retry_after=given.retry_after,
    )
    if metrics is not None:
        metrics.watch(shedder)
    return shedder


def _has_background_work(settings: Settings) -> bool:
    """Whether key pools do something while the app runs: test keys, follow a source of keys."""
    return settings.price_updates or any(
        given.health_check_interval is not None or given.keys_file or given.keys_command
        for given in settings.providers.values()
    )


def _guarded(settings: Settings, metrics: Metrics | None) -> ASGIApp | None:
    """The metrics behind the token that reads them, if one is set."""
    if metrics is None or settings.metrics_token is None:
        return metrics
    tokens = static_tokens({settings.metrics_token.get_secret_value(): "metrics"})
    return Authenticate(metrics, verify=tokens)


def make_store(settings: Settings) -> Store | None:
    """The store that outlives a process; None if none is configured. Raises ConfigurationError."""
    if settings.redis_url is None:
        return MemoryStore(file=settings.store_file) if settings.store_file is not None else None
    if settings.store_file is not None:
        raise ConfigurationError(
            "store_file: cannot be combined with redis_url; remove one of them."
        )
    try:
        from asgi_aiproxy.stores.redis import RedisStore
    except ImportError as error:
        raise ConfigurationError(f"redis_url: redis-py cannot be imported: {error}.") from error
    try:
        return RedisStore(settings.redis_url.get_secret_value(), prefix=settings.redis_prefix)
    except ConfigurationError as error:
        raise ConfigurationError(f"redis_url: {error}") from error


def make_transport(settings: Settings) -> Transport:
    """The transport that sends requests to providers. Raises ConfigurationError."""
    if settings.ca_file is not None and not Path(settings.ca_file).is_file():
        raise ConfigurationError(f"ca_file: the file {settings.ca_file!r} does not exist.")
    return default_transport(
        timeouts=Timeouts(**settings.timeouts.model_dump()),
        proxy=secret_value(settings.proxy),
        ca=settings.ca_file,
        http2=settings.http2,
    )


def _response_state(settings: Settings, store: Store | None) -> ResponseState:
    """What requests of the Responses API may refer to."""
    given = settings.responses
    sealer = make_sealer(settings)
    if given.stash and store is None:
        store = MemoryStore()  # for nothing else: a store of the app would require tokens
    if given.stash and sealer is None and not isinstance(store, MemoryStore):
        raise ConfigurationError(
            "responses.stash: conversations must be encrypted before they leave the process; set "
            "sealing_keys."
        )
    return ResponseState(
        store,
        stash=given.stash,
        sealer=sealer,
        seconds=given.stash_seconds,
        max_bytes=given.stash_max_bytes,
    )


def make_router(settings: Settings, providers: dict[str, Provider]) -> ProviderRouter:
    """The router of the configuration. Raises ConfigurationError."""
    if not providers and settings.compat.oneapi is None:
        raise ConfigurationError(
            "providers: no provider is configured. Add one, for example:\n\n"
            '    [providers.openai]\n    keys = ["env:OPENAI_API_KEY"]\n\n'
            "to the file of --config (or AIPROXY_CONFIG)."
        )
    routes = {name: _route(name, given, providers) for name, given in settings.routes.items()}
    if not routes and len(providers) == 1:
        routes = {"*": list(providers.values())}
    return ProviderRouter(
        routes, providers=providers.values(), display_names=settings.display_names
    )


def _route(
    route: str, given: Sequence[TargetSettings], providers: Mapping[str, Provider]
) -> list[Route]:
    routes: list[Route] = []
    for wanted in given:
        name, _, model = wanted.target.partition("/")
        try:
            emulate = wanted.emulate.make() if wanted.emulate is not None else None
        except ConfigurationError as error:
            raise ConfigurationError(f"{toml_path(('routes', route))}.emulate: {error}") from None
        routes.append(Target(providers[name], model, wanted.weight, wanted.priority, emulate))
    return routes


def _verify(settings: Settings, store: Store | None) -> Verify | None:
    """A verifier of the tokens of the configuration, the store and the identity provider; None if
    every request is accepted."""
    if settings.anonymous:
        for name, given in (("[[tokens]]", settings.tokens), ("[jwt]", settings.jwt)):
            if given:
                raise ConfigurationError(
                    f"anonymous: cannot be combined with {name}; remove one of them."
                )
        return None
    verifiers: list[Verify] = []
    if settings.tokens:
        verifiers.append(static_tokens(configured_tokens(settings.tokens)))
    if store is not None:
        verifiers.append(stored_tokens(store))
    if settings.jwt is not None:
        verifiers.append(settings.jwt.verifier())
    if len(verifiers) > 1:
        return first_of(*verifiers)
    return verifiers[0] if verifiers else None


def make_prices(settings: Settings) -> Prices:
    """The prices of the configuration, and the price list if its package is installed."""
    own = {
        name: convert_table(toml_path(("prices", name)), fields, Price)
        for name, fields in settings.prices.items()
    }
    groups = settings.jwt.groups.values() if settings.jwt is not None else ()
    for where, limits in (
        ("tokens.budget_usd", map(limits_of, settings.tokens)),
        ("jwt.groups.budgets", (group.limits for group in groups)),
    ):
        if any(map(has_usd_budget, limits)) and not has_prices(settings):
            raise ConfigurationError(
                f"{where}: no model has a price: pip install 'asgi-aiproxy[prices]', or set your "
                "own prices in [prices]."
            )
    return Prices(own, listed=list_installed())


def has_prices(settings: Settings) -> bool:
    """Whether any model has a price in dollars."""
    return bool(settings.prices) or list_installed()


def make_ratios(settings: Settings) -> Ratios | None:
    """The ratios of the configuration, which budgets in quota units need; None without any."""
    made = {
        name: convert_table(toml_path(("ratios", name)), fields, Ratio)
        for name, fields in settings.ratios.items()
    }
    return Ratios(made, units_per_usd=settings.units_per_usd) if made else None


def _start_health_checks(
    settings: Settings, providers: Mapping[str, Provider], transport: Transport
) -> None:
    """Test rejected keys regularly, where the settings say so."""
    for name, given in settings.providers.items():
        if given.health_check_interval is not None:
            _start_health_check(providers[name], transport, given.health_check_interval)


def _start_health_check(provider: Provider, transport: Transport, interval: float) -> None:
    """Test rejected keys of a provider every `interval` seconds."""

    async def test(key: Key) -> int:
        trial = await check_key(provider, key, transport)
        if not trial.status:
            raise APIError(ErrorKind.UPSTREAM, trial.error)
        return trial.status

    if provider.keys is not None:
        provider.keys.start_health_checks(test, interval=interval)
