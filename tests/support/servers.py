"""Real servers in the test's own event loop, so that a test has both sides of the gateway."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import hypercorn.asyncio
import uvicorn
from granian.constants import Interfaces
from granian.server.embed import Server as Granian
from hypercorn.config import Config

from tests.support.socket_server import PATIENCE


@dataclass(frozen=True)
class Running:
    """A running server. `stop` begins its shutdown, like a signal; `task` is done when it has
    ended.
    """

    port: int
    task: asyncio.Task[Any]
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Server:
    """A server, and how to run an app in it; `grace` is the time that open streams get at
    shutdown.
    """

    name: str
    start: Callable[[Any, float], Running]
    loop: str = "asyncio"

    def __call__(self, app: Any, *, grace: float = 1.0) -> AbstractAsyncContextManager[Running]:
        return _run(self, app, grace)

    def __str__(self) -> str:
        return self.name


@asynccontextmanager
async def _run(server: Server, app: Any, grace: float) -> AsyncIterator[Running]:
    running = server.start(app, grace)
    try:
        await _listening(running)
        yield running
    finally:
        running.stop()
        done, _ = await asyncio.wait((running.task,), timeout=grace + PATIENCE)
        if not done:
            running.task.cancel()
            await asyncio.wait((running.task,))
    assert done, f"{server} did not end"
    running.task.result()


async def _listening(running: Running) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        while not running.task.done():
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", running.port)
                writer.close()
                return
            await asyncio.sleep(0.005)
    running.task.result()


class _Uvicorn(uvicorn.Server):
    """Checks more often whether to stop, which saves the tests half a minute."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)


def _uvicorn(app: Any, grace: float) -> Running:
    sock = socket.create_server(("127.0.0.1", 0), backlog=256)
    config = uvicorn.Config(
        app, lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=int(grace)
    )
    server = _Uvicorn(config)

    def stop() -> None:
        server.should_exit = True

    async def serve() -> None:
        await server.serve(sockets=[sock])

    return Running(sock.getsockname()[1], asyncio.ensure_future(serve()), stop)


def _hypercorn(app: Any, grace: float) -> Running:
    sock = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = sock.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.graceful_timeout = grace
    config.accesslog = config.errorlog = None
    ended = asyncio.Event()
    serving = hypercorn.asyncio.serve(app, config, shutdown_trigger=ended.wait, mode="asgi")
    return Running(port, asyncio.ensure_future(serving), ended.set)


def _granian(app: Any, grace: float) -> Running:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    options = {"interface": Interfaces.ASGI, "backlog": 1024, "log_enabled": False}
    server = Granian(app, port=port, **options)
    server.workers_kill_timeout = grace
    return Running(port, asyncio.ensure_future(server.serve()), server.stop)


# hypercorn 0.18 asks asyncio's server to wait until it is closed, which from Python 3.12 on means:
# until all clients have left. Its own time limit for open streams begins only then.
HYPERCORN_WAITS = sys.version_info >= (3, 12)

SERVERS = [
    Server("uvicorn", _uvicorn),
    Server("hypercorn", _hypercorn),
    Server("granian", _granian),
]
# As people run it who install `uvicorn[standard]`.
UVLOOP = Server("uvicorn-uvloop", _uvicorn, loop="uvloop")
