"""What all middlewares share: they open and close with the app they wrap."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Self

from asgi_aiproxy._asgi import ASGIApp


class Wrapper:
    """Holds the wrapped app; entering it enters the app, if that can be entered."""

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
