"""`Billing`: `GET /me` and the billing paths of OpenAI's dashboard, for callers with a token."""

from __future__ import annotations

import time
from collections.abc import Callable

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.admin.routing import Need, Route
from asgi_aiproxy.admin.serve import AdminAPI
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.services.self_service import Dates, Me, SelfService, Subscription, TotalUsage
from asgi_aiproxy.stores.base import Store


def billing_routes(service: SelfService) -> list[Route]:
    """Routes of what a caller may read about itself.

    Clients call the dashboard's paths with and without `/v1`, so each path exists twice.
    """
    found = []
    for lead in ("", "/v1"):
        found += [
            Route(
                method="GET",
                path=f"{lead}/me",
                need="token",
                run=lambda call: service.me(call.caller),
                answer=Me,
                summary="Who I am, my limits, and how much of them is used.",
            ),
            Route(
                method="GET",
                path=f"{lead}/dashboard/billing/subscription",
                need="token",
                run=lambda call: service.subscription(call.caller),
                answer=Subscription,
                summary="My budget, as OpenAI's dashboard tells it.",
            ),
            Route(
                method="GET",
                path=f"{lead}/dashboard/billing/usage",
                need="token",
                run=lambda call: service.usage(call.caller),
                query=Dates,
                answer=TotalUsage,
                summary="My spending, as OpenAI's dashboard tells it.",
            ),
        ]
    return found


class Billing(Middleware):
    """Answers callers of `app` what they may see of themselves: `GET /me` and the `dashboard/
    billing/...` of OpenAI's API, below the same base URL. All else goes to `app`.

    It stands behind `Authenticate`, and before `Quota`, so that asking costs nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: Store,
        units_per_usd: int = 500_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(app)
        routes = billing_routes(SelfService(store, units_per_usd=units_per_usd, clock=clock))
        self._api = AdminAPI(routes, self)
        self._paths = frozenset(route.path for route in routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        known = scope["type"] == "http" and SCOPE_KEY in scope
        if known and _asgi.local_path(scope) in self._paths:
            await self._api.handle(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def caller(self, scope: Scope, need: Need) -> Principal:
        """Whoever is in the scope."""
        caller: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        if not caller.id:
            raise APIError(ErrorKind.UNAUTHORIZED, "Authentication required: send an API key.")
        return caller
