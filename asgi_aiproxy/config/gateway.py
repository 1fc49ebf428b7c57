"""The app of a configuration, with the resources that it owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.hosting import Dispatcher
from asgi_aiproxy.stores import Store

Resource = AbstractAsyncContextManager[Any]


class Gateway:
    """A gateway and the resources it owns: store, key pools, ledger and connections.

    They are opened and closed with it. `admin` is mounted below `/admin`, `console` below
    `/console`, `metrics` at `/metrics`, `compat` at its paths; an app at `/` takes the place of
    `app`.
    """

    def __init__(
        self,
        app: ASGIApp,
        parts: Sequence[Resource],
        admin: ASGIApp | None = None,
        *,
        store: Store | None = None,
        metrics: ASGIApp | None = None,
        compat: Mapping[str, ASGIApp] | None = None,
        console: ASGIApp | None = None,
    ) -> None:
        self.app = app
        self.store = store
        self.admin = admin
        self._parts = parts
        mounted = {
            "/admin": admin,
            "/metrics": metrics,
            "/console": console,
            **(compat or {}),
        }
        apps = {path: each for path, each in mounted.items() if each is not None}
        host = apps.pop("/", app)
        self._front = Dispatcher(host, apps) if apps else host
        self._open = AsyncExitStack()
        self._users = 0

    def __repr__(self) -> str:
        return f"Gateway({self.app!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        else:
            await self._front(scope, receive, send)

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._users == 1:
            async with AsyncExitStack() as stack:
                for part in self._parts:
                    await stack.enter_async_context(part)
                self._open = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._users -= 1
        if self._users == 0:
            await self._open.aclose()
