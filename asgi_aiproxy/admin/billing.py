"""`Billing`: `GET /me` and the billing paths of OpenAI's dashboard, for callers with a token."""

from __future__ import annotations

import time
from collections.abc import Callable

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.admin.own_routes import own_exchange_routes
from asgi_aiproxy.admin.routing import Need, Route
from asgi_aiproxy.admin.serve import AdminAPI
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.services.own_tokens import OwnTokenService, TokenAllowance
from asgi_aiproxy.services.own_usage import OwnUsageService
from asgi_aiproxy.services.self_service import Dates, Me, SelfService, Subscription, TotalUsage
from asgi_aiproxy.services.tokens import TokenService
from asgi_aiproxy.services.usage import UsageService
from asgi_aiproxy.services.vouchers import VoucherService
from asgi_aiproxy.stores.base import Store

_EXCHANGES = ("/me/exchanges/", "/v1/me/exchanges/")


def billing_routes(service: SelfService) -> list[Route]:
    """Return the routes of what a caller may read about itself.

    Clients call the dashboard's paths with and without `/v1`, so each path exists twice.
    """
    routes = []
    for prefix in ("", "/v1"):
        routes += [
            Route(
                method="GET",
                path=f"{prefix}/me",
                need="token",
                run=lambda call: service.me(call.caller),
                answer=Me,
                summary="The caller, its limits, and their current usage.",
            ),
            Route(
                method="GET",
                path=f"{prefix}/dashboard/billing/subscription",
                need="token",
                run=lambda call: service.subscription(call.caller),
                answer=Subscription,
                summary="The caller's budget, in the format of OpenAI's dashboard.",
            ),
            Route(
                method="GET",
                path=f"{prefix}/dashboard/billing/usage",
                need="token",
                run=lambda call: service.usage(call.caller),
                query=Dates,
                answer=TotalUsage,
                summary="The caller's spending, in the format of OpenAI's dashboard.",
            ),
        ]
    return routes


class Billing(Middleware):
    """Middleware that answers callers about themselves: `GET /me` and OpenAI's
    `dashboard/billing/...`.

    These paths are below the base URL of `app`; all other requests go to `app`. Put it inside
    `Authenticate` and outside `Quota`, so that these requests are not counted. `units_per_usd` is
    the number of quota units per US dollar; `clock` returns Unix time. `GET /me/exchanges/{id}`
    answers with an exchange of the caller and its receipt, from the ledger named `ledger`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: Store,
        units_per_usd: int = 500_000,
        ledger: str = "ledger",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(app)
        routes = billing_routes(SelfService(store, units_per_usd=units_per_usd, clock=clock))
        own = OwnTokenService(TokenService(store, clock=clock), TokenAllowance(), clock=clock)
        usage = UsageService(store, ledger, clock=clock)
        vouchers = VoucherService(store, clock=clock)
        exchanges = own_exchange_routes(OwnUsageService(own, usage, vouchers))
        self._api = AdminAPI([*routes, *exchanges], self)
        self._paths = frozenset(route.path for route in routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope, or pass it to the app."""
        path: str | None = None
        if scope["type"] == "http" and SCOPE_KEY in scope:
            path = _asgi.local_path(scope)
        if path is not None and (path in self._paths or path.startswith(_EXCHANGES)):
            await self._api.handle(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def caller(self, scope: Scope, need: Need) -> Principal:
        """Return the principal in the scope. Raises APIError (401) if there is none."""
        caller: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        if not caller.id:
            raise APIError(ErrorKind.UNAUTHORIZED, "Authentication required: send an API key.")
        return caller
