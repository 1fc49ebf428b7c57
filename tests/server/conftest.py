"""Every server, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.servers import SERVERS, Server


@pytest.fixture(params=SERVERS, ids=str)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.param
    return found


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop of a server."""
    callspec = getattr(request.node, "callspec", None)
    server = callspec.params.get("server") if callspec is not None else None
    if server is None or server.loop == "asyncio":
        return "asyncio"
    pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": True}
