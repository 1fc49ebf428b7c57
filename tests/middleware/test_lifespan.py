"""A middleware opens and closes with the app that it wraps."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette

from asgi_aiproxy import Authenticate, OpenAIShim, Principal
from asgi_aiproxy.middleware import Quota
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import MemoryStore
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio


class Loud(Middleware):
    """Logs when it opens and closes."""

    def __init__(self, app: Any, said: list[str]) -> None:
        super().__init__(app)
        self.said = said

    async def __aenter__(self) -> Loud:
        await super().__aenter__()
        self.said.append("opened")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.said.append("closed")
        await super().__aexit__(*exc)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def reported(message: Any) -> None:
            self.said.append(message["type"])
            await send(message)

        await self._pass_other_scope(scope, receive, reported)


def who(scope: Any) -> Principal:
    return Principal("me")


async def test_around_an_app_of_this_package_it_answers_lifespan_for_both() -> None:
    said: list[str] = []
    shim = OpenAIShim(OPENAI.using("sk"))
    app = Authenticate(Quota(Loud(shim, said), store=MemoryStore()), identify=who)
    async with asgi.lifespan(app):
        assert said == ["opened"]
        assert shim._users == 1
    assert said == ["opened", "closed"]
    assert shim._users == 0


async def test_around_any_other_app_it_closes_before_the_shutdown_is_complete() -> None:
    said: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        said.append("host opened")
        yield
        said.append("host closed")

    async with asgi.lifespan(Loud(Starlette(lifespan=lifespan), said)):
        assert said == ["opened", "host opened", "lifespan.startup.complete"]
    assert said[3:] == ["host closed", "closed", "lifespan.shutdown.complete"]


async def test_a_middleware_around_an_app_without_lifespan_is_opened_and_closed() -> None:
    said: list[str] = []

    async def ignorant(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("only http")

    async def silent(*message: Any) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="only http"):
        await Loud(ignorant, said)({"type": "lifespan"}, silent, silent)
    assert said == ["opened", "closed"]
