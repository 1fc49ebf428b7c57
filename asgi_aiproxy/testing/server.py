"""A real server on the loopback interface, for the duration of a test."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from anyio import CancelScope, to_thread

from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.errors import ConfigurationError

if TYPE_CHECKING:
    import uvicorn

_START_TIMEOUT_SECONDS = 10.0  # seconds that an app may take to start
_STOP_TIMEOUT_SECONDS = 5.0  # seconds that it may take to stop, including open streams


@asynccontextmanager
async def serve(
    app: ASGIApp, *, server: str = "uvicorn", host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Serve any ASGI app, with its lifespan, in a thread; yields the base URL, without a trailing
    slash.

    The app has its own event loop. At the end, open streams get one second and are then cancelled.
    """
    if server != "uvicorn":
        raise ValueError(f"server must be 'uvicorn', not {server!r}")
    running = _Running(app, host)
    try:
        await to_thread.run_sync(running.start)
        yield running.url
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(running.stop)


@contextmanager
def serve_in_thread(app: ASGIApp, *, host: str = "127.0.0.1") -> Iterator[str]:
    """Do the same as `serve`, for tests that are not async."""
    running = _Running(app, host)
    try:
        running.start()
        yield running.url
    finally:
        running.stop()


class _Running:
    """A uvicorn server and its thread. The socket is bound first, so that its port is known."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        try:
            import uvicorn
        except ImportError:
            raise ConfigurationError(
                "serve() requires uvicorn: pip install 'asgi-aiproxy[serve]'."
            ) from None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=1024)
        port = self._socket.getsockname()[1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        # Its logging is not configured: the application's configuration stays unchanged.
        config = uvicorn.Config(
            app, lifespan="auto", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server: uvicorn.Server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="mock server", daemon=True)

    def start(self) -> None:
        """Start, and wait until the app has started; raises RuntimeError if it does not start."""
        self._thread.start()
        end = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("The app's start-up failed; see the log of uvicorn.error.")
            if time.monotonic() > end:
                raise RuntimeError(
                    f"The app did not start within {_START_TIMEOUT_SECONDS:g} seconds."
                )
            time.sleep(0.002)

    def stop(self) -> None:
        """Stop, and wait until the server has ended or the time is up."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        # Not Server.run(): before uvicorn 0.36 it sets uvloop's event loop policy for the process.
        with suppress(SystemExit):  # how uvicorn reports a failed start
            asyncio.run(self._server.serve(sockets=[self._socket]))
