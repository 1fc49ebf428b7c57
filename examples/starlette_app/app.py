"""An existing Starlette service with an AI gateway mounted under /ai.

    uvicorn examples.starlette_app.app:app

Clients of the OpenAI API take http://127.0.0.1:8000/ai/v1 as their base URL, and `demo-token`.

With a Redis, many workers behave as one: tokens that are issued, and their limits, hold in all.

    export REDIS_URL=redis://127.0.0.1:6379/0 AIPROXY_REDIS_URL=redis://127.0.0.1:6379/0
    uvicorn --workers 2 examples.starlette_app.app:app
    python -m asgi_aiproxy tokens issue --name team-1 --rpm 60 --budget 25

Vendors without a key in the environment (OPENAI_API_KEY ...) are answered by mocks, if MOCK_URL
says where these are: `python -m examples.starlette_app.mock` serves them.

With ADMIN_TOKEN set, the same and more can be done over HTTP, below /ai-admin, and in a browser,
at /ai-console/ (sign in with that token, or with one that was issued). Keys that are added there
are encrypted with SEALING_KEY; with a Redis, set it to what `Sealer.generate()` returns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_aiproxy import (
    AdminApp,
    Authenticate,
    Budget,
    KeyPool,
    Ledger,
    MemoryStore,
    OpenAIShim,
    Prices,
    ProviderRouter,
    Quota,
    RedisStore,
    lifespan,
    log_usage,
    stored_tokens,
    tee,
)
from asgi_aiproxy.admin import Billing, TokenAllowance
from asgi_aiproxy.console import Console
from asgi_aiproxy.keys import NoEncryption, Sealer
from asgi_aiproxy.middleware import first_of, static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI, Provider
from asgi_aiproxy.stores import Store


def sealer(redis_url: str | None) -> Sealer | NoEncryption | None:
    """Return what encrypts keys in the store; keys in memory are not encrypted."""
    if key := os.environ.get("SEALING_KEY"):
        return Sealer(key)
    return None if redis_url else NoEncryption()


def vendor(
    row: Provider,
    variable: str,
    store: Store,
    mock_url: str | None,
    seals: Sealer | NoEncryption | None,
) -> Provider:
    """A vendor with the key from the environment, or else the mock in its place."""
    key = os.environ.get(variable)
    pool = KeyPool(key or "no-key-set", name=row.name, store=store, sealer=seals)
    if key or mock_url is None:
        return row.using(pool)
    return row.using(pool, base_url=mock_url + ("/v1" if row is OPENAI else ""))


def create_app(
    mock_url: str | None = None,
    redis_url: str | None = None,
    admin_token: str | None = None,
    playgrounds: Mapping[str, OpenAIShim] | None = None,
) -> Starlette:
    """The whole service: its own routes, the gateway, and with `admin_token`
    (by default, ADMIN_TOKEN) its admin API and console, whose playground may also call
    `playgrounds`."""
    store: Store = RedisStore(redis_url) if redis_url else MemoryStore()
    seals = sealer(redis_url)
    openai = vendor(OPENAI, "OPENAI_API_KEY", store, mock_url, seals)
    anthropic = vendor(ANTHROPIC, "ANTHROPIC_API_KEY", store, mock_url, seals)
    gemini = vendor(GEMINI, "GEMINI_API_KEY", store, mock_url, seals)
    router = ProviderRouter(
        {
            "gpt-*": openai,
            "claude-*": anthropic,
            "gemini-*": gemini,
            # The second answers when the first cannot.
            "smart": [(anthropic, "claude-sonnet-4-5"), (openai, "gpt-4o")],
        }
    )
    ledger = Ledger(store)
    shim = OpenAIShim(router, record=tee(log_usage, ledger))
    demo_token = {} if redis_url else {"demo-token": "demo"}
    verify = first_of(static_tokens(demo_token), stored_tokens(store))
    prices = Prices()
    quota = Quota(shim, store=store, prices=prices)
    ai = Authenticate(Billing(quota, store=store), verify=verify)

    async def home(request: Request) -> JSONResponse:
        return JSONResponse({"service": "yours", "ai": "/ai/v1"})

    providers = [openai, anthropic, gemini]
    routes = [Route("/", home), Mount("/ai", ai)]
    admins: list[AdminApp] = []
    if admin_token := admin_token or os.environ.get("ADMIN_TOKEN"):
        allowance = TokenAllowance(tokens=5, budgets=(Budget.usd(5, "month"),))
        admin = AdminApp(
            store,
            token=admin_token,
            providers=providers,
            self_service=allowance,
            explain=partial(shim.explain, limits=quota.explain),
            router=router,
            prices=prices,
        )
        admins.append(admin)
        console = Console(admin, gateway=ai, gateway_url="../ai", playgrounds=playgrounds)
        routes += [Mount("/ai-admin", admin), Mount("/ai-console", console)]
    pools = [provider.keys for provider in providers if provider.keys is not None]
    return Starlette(routes=routes, lifespan=lifespan(store, ledger, *pools, ai, *admins))


app = create_app(os.environ.get("MOCK_URL"), os.environ.get("REDIS_URL"))
