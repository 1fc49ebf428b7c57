"""`Health`: liveness and readiness for load balancers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.stores.base import Store, StoreUnavailableError

_STATE_MAX_AGE_SECONDS = 1.0  # seconds for which the state of the store is cached
_STORE_TIMEOUT_SECONDS = 2.0  # seconds that the store may take to answer


class Health(Middleware):
    """Answers `GET /health` and `GET /ready` for load balancers; other requests go to `app`.

    Both paths need no authentication, so put it outside `Authenticate`. `/health` is 200 as long as
    the process answers. `/ready` is 200, and 503 once `draining` is set, which closing the app
    does, too. It reports the state of `store`: `ok`, `away` (unavailable), or `none` without a
    store. An unavailable store does not make a worker less ready: what happens then is decided by
    `away`, `limits_away` and `budgets_away`, and is the same in all workers. `health` and `ready`
    are the paths below the mount.

    ::

        app = Health(Authenticate(ai, verify=verify), store=store)
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: Store | None = None,
        health: str = "/health",
        ready: str = "/ready",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(app)
        self.draining = False
        self._store = store
        self._health = health
        self._ready = ready
        self._clock = clock
        self._state = "none"
        self._state_expires_at = float("-inf")

    async def __aexit__(self, *exc: object) -> None:
        self.draining = True
        await super().__aexit__(*exc)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope, or pass it to the app."""
        if scope["type"] != "http":
            await self._pass_other_scope(scope, receive, send)
            return
        path = scope["path"]
        is_probe = path.endswith((self._health, self._ready)) and scope["method"] in ("GET", "HEAD")
        path_below_mount = _asgi.local_path(scope) if is_probe else None
        if path_below_mount not in (self._health, self._ready):
            await self.app(scope, receive, send)
            return
        status, body = 200, b'{"status":"ok"}'
        if path_below_mount == self._ready:
            store = await self._store_state()
            state = "draining" if self.draining else "ready"
            status = 503 if self.draining else 200
            body = f'{{"status":"{state}","store":"{store}"}}'.encode()
        headers = [(b"cache-control", b"no-store")]
        with suppress(ClientGoneError):
            await _asgi.send_response(send, status, body, headers, head=scope["method"] == "HEAD")

    async def _store_state(self) -> str:
        now = self._clock()
        if self._store is not None and now >= self._state_expires_at:
            self._state_expires_at = now + _STATE_MAX_AGE_SECONDS
            try:
                async with asyncio.timeout(_STORE_TIMEOUT_SECONDS):
                    await self._store.version("health")
                self._state = "ok"
            except (StoreUnavailableError, TimeoutError):
                self._state = "away"
        return self._state
