"""Real servers that run for a whole module, in front of a proxy that each test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.passthrough_upstream import Frontend
from tests.support.servers import SERVERS, Server


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for a module, because its servers live that long."""
    return "asyncio"


@pytest.fixture(
    scope="module",
    params=[server for server in SERVERS if getattr(server, "loop", "asyncio") == "asyncio"],
    ids=str,
)
async def frontend(request: pytest.FixtureRequest, anyio_backend: Any) -> AsyncIterator[Frontend]:
    """A server, and the app that it serves."""
    server: Server = request.param
    made = Frontend(str(server))
    async with server(made) as running:
        made.port = running.port
        yield made
