"""Real servers that stay up for a whole module, before a proxy that each test sets itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.passthrough_upstream import Door
from tests.support.servers import SERVERS, Server


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for a module, as its servers live that long."""
    return "asyncio"


@pytest.fixture(
    scope="module",
    params=[server for server in SERVERS if getattr(server, "loop", "asyncio") == "asyncio"],
    ids=str,
)
async def door(request: pytest.FixtureRequest, anyio_backend: Any) -> AsyncIterator[Door]:
    """A server, and the app behind it."""
    server: Server = request.param
    made = Door(str(server))
    async with server(made) as running:
        made.port = running.port
        yield made
