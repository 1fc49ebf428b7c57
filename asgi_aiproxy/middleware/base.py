"""The base class of middlewares: they open and close together with the app they wrap."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Self

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Message, Receive, Scope, Send


class Middleware:
    """Holds the wrapped app; entering the middleware enters the app if it is an async context
    manager.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.app!r})"

    async def __aenter__(self) -> Self:
        if isinstance(self.app, AbstractAsyncContextManager):
            await self.app.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if isinstance(self.app, AbstractAsyncContextManager):
            await self.app.__aexit__(None, None, None)

    async def _pass_other_scope(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer scopes other than requests; `lifespan` opens and closes the middleware."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
        elif isinstance(self.app, AbstractAsyncContextManager):
            await _asgi.serve_lifespan(self, receive, send)
        else:
            await self._serve_app_lifespan(scope, receive, send)

    async def _serve_app_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer `lifespan`; close the middleware before the shutdown message is sent.

        After that message the server may end the process at once.
        """
        entered = True

        async def sending(message: Message) -> None:
            nonlocal entered
            if entered and message["type"].startswith("lifespan.shutdown"):
                entered = False
                await self.__aexit__()
            await send(message)

        await self.__aenter__()
        try:
            await self.app(scope, receive, sending)
        finally:
            if entered:
                await self.__aexit__()
