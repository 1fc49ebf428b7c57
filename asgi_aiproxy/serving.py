"""Run a configuration as a server of its own: what `python -m asgi_aiproxy serve` does.

One process holds a `GatewayProcess`: the app that the settings describe, behind `/health` and
`/ready`. On SIGTERM it drains. On SIGHUP it reads its configuration file again and builds a new app
next to the one in use. Only when that is complete and open, new requests go to it; requests in
flight end on the app they began on, which is closed after its last request. Whatever fails on the
way is logged, and the app in use stays. The store is made once and outlives all apps, so limits,
budgets and tokens are not lost.

With several workers the parent process reads and builds the configuration, and gives the settings
to its workers. On SIGHUP it does so again, and uvicorn replaces one worker after the other. A
worker that dies is replaced with the last settings that were valid.

This module imports uvicorn, so nothing else imports it before `serve` is asked for.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

import uvicorn
from uvicorn.supervisors import Multiprocess

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.config.factory import build_app, make_store
from asgi_aiproxy.config.settings import Settings, configuration_warnings, load
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.logs import LogLevel, configure
from asgi_aiproxy.middleware import Health
from asgi_aiproxy.stores import MemoryStore

logger = logging.getLogger("asgi_aiproxy")

# Settings of the store, which is made once for a process.
_FIXED = ("redis_url", "redis_prefix", "store_file")
_GRACE = 30  # seconds that open requests have to end when a process stops
_READY = 60  # seconds that a new worker may take to begin
_FAILED = 3  # exit status when a server did not start, as uvicorn's own
_HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of the command `serve`; what is None is left to uvicorn or the settings."""

    config: str | Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    log_level: LogLevel | None = None
    forwarded_allow_ips: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    root_path: str = ""

    def __post_init__(self) -> None:
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigurationError("--ssl-keyfile: it needs --ssl-certfile, too.")
        for name in ("ssl_certfile", "ssl_keyfile"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigurationError(
                    f"--{name.replace('_', '-')}: there is no file {path!r}. It must be a PEM file."
                )

    def settings(self) -> Settings:
        """Read the configuration. Raises ConfigurationError."""
        settings = load(self.config)
        level = {} if self.log_level is None else {"log_level": self.log_level}
        return settings.model_copy(update=level)


class _Generation:
    """An app with the number of requests that it serves."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.requests = 0
        self.replaced = False
        self.ended = asyncio.Event()

    async def close(self) -> None:
        """Close the app after its last request."""
        if self.requests:
            await self.ended.wait()
        if isinstance(self.app, AbstractAsyncContextManager):
            await self.app.__aexit__(None, None, None)


class SwappableApp:
    """An ASGI app that can be replaced while it serves: each request ends where it began.

    Entering it enters the app; one that was replaced is left after its last request, or when this
    is left.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._current = _Generation(app)
        self._closing: dict[asyncio.Task[None], _Generation] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope by the app that is current now."""
        generation = self._current
        generation.requests += 1
        try:
            await generation.app(scope, receive, send)
        finally:
            generation.requests -= 1
            if generation.replaced and not generation.requests:
                generation.ended.set()

    async def replace(self, app: ASGIApp) -> None:
        """Open `app` and send all new requests to it. If opening raises, nothing has changed."""
        if isinstance(app, AbstractAsyncContextManager):
            await app.__aenter__()
        old, self._current = self._current, _Generation(app)
        old.replaced = True
        task = asyncio.get_running_loop().create_task(old.close())
        self._closing[task] = old
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an app that was replaced could not be closed", exc_info=error)

    async def __aenter__(self) -> Self:
        if isinstance(self._current.app, AbstractAsyncContextManager):
            await self._current.app.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for old in self._closing.values():
            old.ended.set()  # the server has ended their requests
        if self._closing:
            await asyncio.wait(tuple(self._closing))
        if isinstance(self._current.app, AbstractAsyncContextManager):
            await self._current.app.__aexit__(None, None, None)


class GatewayProcess:
    """What one server process runs: an ASGI app with lifespan, see the top of this module.

    `read` returns the settings anew, for SIGHUP; without it the signal is ignored. Raises
    ConfigurationError.
    """

    def __init__(self, settings: Settings, read: Callable[[], Settings] | None = None) -> None:
        configure(format=settings.log_format, level=settings.log_level)
        self._settings = settings
        self._read = read
        self._store = make_store(settings) or MemoryStore()
        app = build_app(settings, store=self._store)
        self._app = SwappableApp(app)
        self._front = Health(self._app, store=getattr(app, "store", None))
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        else:
            await self._front(scope, receive, send)

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        try:
            await self._front.__aenter__()
        except BaseException:
            await self._store.__aexit__(None, None, None)
            raise
        self._handle_signals()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._front.__aexit__(None, None, None)
        finally:
            await self._store.__aexit__(None, None, None)

    async def reload(self) -> bool:
        """Read the configuration again and replace the app; whether it was done.

        A failure is logged, and nothing has changed.
        """
        if self._read is None:
            return False
        async with self._lock:
            try:
                settings, app = await asyncio.to_thread(self._rebuilt, self._read)
                await self._app.replace(app)
            except ConfigurationError as error:
                logger.error(
                    "reload: the configuration in use stays, the new is invalid: %s", error
                )
                return False
            except Exception:
                logger.exception("reload: the configuration in use stays, the new cannot be built")
                return False
            self._settings = settings
            configure(format=settings.log_format, level=settings.log_level)
            logger.info("reload: the new configuration is in use")
            return True

    def _rebuilt(self, read: Callable[[], Settings]) -> tuple[Settings, ASGIApp]:
        settings = read()
        for name in _FIXED:
            if getattr(settings, name) != getattr(self._settings, name):
                logger.warning("reload: %s has changed, which takes a restart to be used", name)
        fixed = {name: getattr(self._settings, name) for name in _FIXED}
        settings = settings.model_copy(update=fixed)
        app = build_app(settings, store=self._store)
        for doubt in configuration_warnings(settings):
            logger.warning("%s", doubt)
        return settings, app

    def _handle_signals(self) -> None:
        """Drain before what the server does on SIGTERM and SIGINT, and reload on SIGHUP."""
        loop = asyncio.get_running_loop()
        if _HANGUP is not None:
            signal.signal(_HANGUP, lambda number, frame: loop.call_soon_threadsafe(self._hangup))
        for number in (signal.SIGTERM, signal.SIGINT):
            stop = signal.getsignal(number)
            if callable(stop):
                signal.signal(number, partial(self._drain, loop, stop))

    def _hangup(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        await self.reload()

    def _drain(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[int, FrameType | None], Any],
        number: int,
        frame: FrameType | None,
    ) -> None:
        """Say at `/ready` that no more requests should come; stop when that had time to be seen."""
        first, self._front.draining = not self._front.draining, True
        if first and self._settings.drain:
            loop.call_soon_threadsafe(loop.call_later, self._settings.drain, stop, number, frame)
        else:
            stop(number, frame)


@dataclass
class WorkerApp:
    """Makes the app of a worker, in the worker: it is sent there with its settings."""

    settings: Settings = field(repr=False)

    def __call__(self) -> GatewayProcess:
        """The app."""
        if _HANGUP is not None:
            signal.signal(_HANGUP, signal.SIG_IGN)  # it is the parent's to replace workers
        return GatewayProcess(self.settings)


class _Workers(Multiprocess):
    """uvicorn's supervisor, which starts workers anew only with a configuration that is valid."""

    options: ServeOptions

    def handle_hup(self) -> None:
        """Replace all workers, if the configuration is valid."""
        try:
            settings = self.options.settings()
            _check_workers(settings, self.options.workers)
            build_app(settings)
        except Exception as error:
            logger.error("reload: the configuration in use stays, the new is invalid: %s", error)
            return
        self.config.app = WorkerApp(settings)
        super().handle_hup()


def serve(options: ServeOptions) -> int:
    """Serve until a signal ends it; returns the exit status. Raises ConfigurationError."""
    if _HANGUP is not None:
        signal.signal(_HANGUP, signal.SIG_IGN)  # until it is known what to read again
    settings = options.settings()
    configure(format=settings.log_format, level=settings.log_level)
    several = options.workers > 1
    if several:
        _check_workers(settings, options.workers)
        build_app(settings)  # what is wrong is said once, and not by each worker
    app = WorkerApp(settings) if several else GatewayProcess(settings, options.settings)
    for doubt in configuration_warnings(settings):
        logger.warning("%s", doubt)
    newer: dict[str, Any] = {}
    if "timeout_worker_healthcheck" in inspect.signature(uvicorn.Config).parameters:
        newer["timeout_worker_healthcheck"] = _READY
    config = uvicorn.Config(
        app,
        factory=several,
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_config=None,  # its lines go where ours go
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
        server_header=False,
        lifespan="on",
        forwarded_allow_ips=options.forwarded_allow_ips,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
        root_path=options.root_path,
        **newer,
    )
    return _serve_workers(config, options) if several else _serve_one(config)


def _serve_one(config: uvicorn.Config) -> int:
    # uvicorn stops in good order and then raises the signal again: that is no failure.
    signal.signal(signal.SIGTERM, _stop)
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):  # which is raised again, too
        server.run()
    return 0 if server.started else _FAILED


def _serve_workers(config: uvicorn.Config, options: ServeOptions) -> int:
    own: dict[str, Any] = {}
    if "target" in inspect.signature(Multiprocess).parameters:  # in older versions
        own["target"] = uvicorn.Server(config).run
    workers = _Workers(config, sockets=[config.bind_socket()], **own)
    workers.options = options
    workers.run()
    failed = any(worker.process.exitcode == _FAILED for worker in workers.processes)
    return _FAILED if failed else 0


def _check_workers(settings: Settings, workers: int) -> None:
    """Say what several workers cannot share. Raises ConfigurationError."""
    if settings.store_file is not None:
        raise ConfigurationError(
            "store_file: it serves one process. With --workers, share the state over redis_url."
        )
    if settings.redis_url is None:
        logger.warning(
            "workers: without redis_url each of the %d workers counts limits and budgets for "
            "itself, so up to %d times as much is let through, and what is changed over the "
            "administration is known to one of them. Set redis_url to share them.",
            workers,
            workers,
        )


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(0)
