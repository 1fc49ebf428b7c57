"""`AdminApp`: the gateway's tokens, keys, budgets and books over HTTP, as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from asgi_aiproxy import __version__, _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy.admin.access import Access
from asgi_aiproxy.admin.billing import OwnDesk
from asgi_aiproxy.admin.groups import AccountDesk, GroupDesk
from asgi_aiproxy.admin.openapi import document
from asgi_aiproxy.admin.routes import Call, Done, Route
from asgi_aiproxy.admin.serve import respond
from asgi_aiproxy.admin.tokens import TokenDesk
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.tenants import StoredTokens
from asgi_aiproxy.tenants.tokens import TOKENS


class AdminApp:
    """An ASGI app to look after a gateway with, mounted anywhere.

    `token` is the administrator's, with all rights; there is none by default. Tokens of the store
    that have scopes (`read`, `write`, `root`) are let in by those, and so is whom a host's own
    `Authenticate(identify=...)` names with scopes. Who shows a wrong token `tries` times a minute
    has to wait. `units_per_usd` is what a quota unit is worth.

    ::

        app.mount("/ai-admin", AdminApp(store, token=os.environ["ADMIN"], pools=[keys]))

    It closes nothing that it was given.
    """

    def __init__(
        self,
        store: Store,
        *,
        token: str,
        tries: int = 10,
        units_per_usd: int = 500_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._access = Access(token, StoredTokens(store, clock=clock), tries=tries)
        desks = (
            TokenDesk(store, clock=clock),
            GroupDesk(store),
            AccountDesk(store, clock=clock),
            OwnDesk(store, units_per_usd=units_per_usd, clock=clock),
        )
        self._routes = [route for desk in desks for route in desk.routes()]
        self._routes += self._own_routes()

    def __repr__(self) -> str:
        return f"AdminApp({self._store!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        elif scope["type"] == "http":
            await respond(self._routes, self._access, scope, receive, send)
        elif scope["type"] == "websocket":
            await _asgi.refuse_websocket(receive, send)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def _own_routes(self) -> list[Route]:
        async def health(call: Call) -> Any:
            return Done()

        async def ready(call: Call) -> Any:
            await self._store.version(TOKENS)
            return Done()

        async def describe(call: Call) -> Any:
            server = call.scope.get("root_path", "")
            return document(self._routes, version=__version__, server=server)

        return [
            Route(method="GET", path="/health", need="nothing", run=health,
                  summary="Whether the process answers."),
            Route(method="GET", path="/ready", need="nothing", run=ready,
                  summary="Whether the store answers, too; if not, 503."),
            Route(method="GET", path="/openapi.json", need="nothing", run=describe,
                  answer=dict[str, Any], summary="This document."),
        ]  # fmt: skip
