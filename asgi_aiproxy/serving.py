"""Serve a configuration over HTTP with uvicorn: `python -m asgi_aiproxy serve`.

Theory of operation, one process:

1. A `GatewayProcess` holds the app that the settings describe (in a `SwappableApp`), behind
   `/health` and `/ready`. Its store is created once and outlives all apps, so limits, budgets and
   tokens survive a reload.
2. *SIGHUP* reloads: the configuration is read again and a second app is built beside the current
   one. Only when it is complete and open, it becomes current and gets all new requests. Requests
   in flight finish on the app on which they started; that app is closed after its last request. Any
   failure is logged, and the current app stays.
3. *SIGTERM* and *SIGINT* drain: `/ready` answers 503 at once, requests are still served for `drain`
   seconds, then uvicorn shuts down and waits for open requests.

Several workers: the parent process reads and builds the configuration once, so that an error is
reported once, and passes the settings to its workers. On SIGHUP it does so again, and uvicorn
replaces one worker after the other. A worker that dies is replaced with the last valid settings.

Only `serve` imports this module, because it imports uvicorn.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NoReturn, Self

import uvicorn
from uvicorn.supervisors import Multiprocess

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.config.factory import build_app, make_store
from asgi_aiproxy.config.settings import Settings, configuration_warnings, load, set_metrics_folder
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.logs import LogLevel, configure
from asgi_aiproxy.middleware import Health
from asgi_aiproxy.stores import MemoryStore

logger = logging.getLogger("asgi_aiproxy")

# Settings of the store, which is created once for a process.
_STORE_SETTINGS = ("redis_url", "redis_prefix", "store_file")
# Messages of a WebSocket that are larger than `max_body` by less than this are refused by the app.
_REFUSED_BYTES = 1024 * 1024
_SHUTDOWN_SECONDS = 30  # for open requests to finish when a process stops
_WORKER_START_SECONDS = 60
_START_FAILED = 3  # exit status when a server did not start, as uvicorn's own
_HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of the command `serve`; None leaves the choice to uvicorn or the settings.

    Raises ConfigurationError for TLS files that do not exist.
    """

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
            raise ConfigurationError("--ssl-keyfile: also requires --ssl-certfile.")
        for name in ("ssl_certfile", "ssl_keyfile"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigurationError(
                    f"--{name.replace('_', '-')}: the PEM file {path!r} does not exist."
                )

    def settings(self) -> Settings:
        """Read the configuration. Raises ConfigurationError."""
        settings = load(self.config)
        level = {} if self.log_level is None else {"log_level": self.log_level}
        return settings.model_copy(update=level)


class _Generation:
    """An app and the number of requests that it serves."""

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
    """An ASGI app that can be replaced while it serves: each request finishes where it started.

    Entering it enters the app. A replaced app is exited after its last request, or together with
    this object.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._current = _Generation(app)
        self._closing: dict[asyncio.Task[None], _Generation] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope with the current app."""
        generation = self._current
        generation.requests += 1
        try:
            await generation.app(scope, receive, send)
        finally:
            generation.requests -= 1
            if generation.replaced and not generation.requests:
                generation.ended.set()

    async def replace(self, app: ASGIApp) -> None:
        """Open `app` and send all new requests to it. If opening raises, nothing changes."""
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
            old.ended.set()  # the server has ended its requests
        if self._closing:
            await asyncio.wait(tuple(self._closing))
        if isinstance(self._current.app, AbstractAsyncContextManager):
            await self._current.app.__aexit__(None, None, None)


class GatewayProcess:
    """The ASGI app of one server process, see the top of this module.

    `read` reads the settings again, for SIGHUP; without it the signal is ignored. `metrics_folder`
    is where worker processes write their metrics. Raises ConfigurationError.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings] | None = None,
        *,
        metrics_folder: str | None = None,
    ) -> None:
        configure(format=settings.log_format, level=settings.log_level)
        self._settings = settings
        self._read = read
        self._store = make_store(settings) or MemoryStore()
        app = build_app(settings, store=self._store, metrics_folder=metrics_folder)
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
        """Read the configuration again and replace the app; returns whether that succeeded.

        A failure is logged, and nothing changes.
        """
        if self._read is None:
            return False
        async with self._lock:
            try:
                settings, app = await asyncio.to_thread(self._read_and_build, self._read)
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

    def _read_and_build(self, read: Callable[[], Settings]) -> tuple[Settings, ASGIApp]:
        settings = read()
        for name in _STORE_SETTINGS:
            if getattr(settings, name) != getattr(self._settings, name):
                logger.warning("reload: %s has changed; restart the server to apply it", name)
        unchanged = {name: getattr(self._settings, name) for name in _STORE_SETTINGS}
        settings = settings.model_copy(update=unchanged)
        app = build_app(settings, store=self._store)
        for warning in configuration_warnings(settings):
            logger.warning("%s", warning)
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
        """Answer 503 at `/ready`, and stop after `drain` seconds; at once on a second signal."""
        first, self._front.draining = not self._front.draining, True
        if first and self._settings.drain:
            loop.call_soon_threadsafe(loop.call_later, self._settings.drain, stop, number, frame)
        else:
            stop(number, frame)


@dataclass
class WorkerApp:
    """A picklable factory of a worker's app: it is sent to the worker with its settings."""

    settings: Settings = field(repr=False)
    metrics_folder: str | None = None

    def __call__(self) -> GatewayProcess:
        """Build the app."""
        if _HANGUP is not None:
            signal.signal(_HANGUP, signal.SIG_IGN)  # the parent replaces workers
        app = GatewayProcess(self.settings, metrics_folder=self.metrics_folder)
        _freeze()
        return app


class _Workers(Multiprocess):
    """uvicorn's supervisor, which replaces workers only if the new configuration is valid."""

    options: ServeOptions
    metrics_folder: str

    def handle_hup(self) -> None:
        """Replace all workers, if the configuration is valid."""
        try:
            settings = self.options.settings()
            _check_workers(settings, self.options.workers)
            build_app(settings)
        except Exception as error:
            logger.error("reload: the configuration in use stays, the new is invalid: %s", error)
            return
        self.config.app = WorkerApp(settings, self.metrics_folder)
        super().handle_hup()


def serve(options: ServeOptions) -> int:
    """Serve until a signal ends it; returns the exit status. Raises ConfigurationError."""
    if _HANGUP is not None:
        signal.signal(_HANGUP, signal.SIG_IGN)  # until the configuration has been read
    settings = options.settings()
    configure(format=settings.log_format, level=settings.log_level)
    several = options.workers > 1
    if several:
        _check_workers(settings, options.workers)
        build_app(settings)  # so that an error is reported once, not by each worker
    app = WorkerApp(settings) if several else GatewayProcess(settings, options.settings)
    for warning in configuration_warnings(settings):
        logger.warning("%s", warning)
    newer: dict[str, Any] = {}
    if "timeout_worker_healthcheck" in inspect.signature(uvicorn.Config).parameters:
        newer["timeout_worker_healthcheck"] = _WORKER_START_SECONDS
    config = uvicorn.Config(
        app,
        factory=several,
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_config=None,  # its messages go to our log
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ws_max_size=settings.max_body + _REFUSED_BYTES,
        server_header=False,
        lifespan="on",
        forwarded_allow_ips=options.forwarded_allow_ips,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile=options.ssl_keyfile,
        root_path=options.root_path,
        **newer,
    )
    if not several:
        return _serve_one(config)
    with TemporaryDirectory(prefix="aiproxy-metrics-") as folder:
        config.app = WorkerApp(settings, folder)
        set_metrics_folder(folder)
        return _serve_workers(config, options, folder)


def _freeze() -> None:
    """Exempt what exists now from garbage collections, which pause all requests.

    With all modules loaded a full collection takes 40 ms and more.
    """
    gc.collect()
    gc.freeze()


def _serve_one(config: uvicorn.Config) -> int:
    # uvicorn shuts down and then raises the signal again: that is not a failure.
    signal.signal(signal.SIGTERM, _stop)
    server = uvicorn.Server(config)
    _freeze()
    with suppress(KeyboardInterrupt):  # also raised again
        server.run()
    return 0 if server.started else _START_FAILED


def _serve_workers(config: uvicorn.Config, options: ServeOptions, metrics_folder: str) -> int:
    own: dict[str, Any] = {}
    if "target" in inspect.signature(Multiprocess).parameters:  # in older versions
        own["target"] = uvicorn.Server(config).run
    workers = _Workers(config, sockets=[config.bind_socket()], **own)
    workers.options = options
    workers.metrics_folder = metrics_folder
    workers.run()
    failed = any(worker.process.exitcode == _START_FAILED for worker in workers.processes)
    return _START_FAILED if failed else 0


def _check_workers(settings: Settings, workers: int) -> None:
    """Warn of what several workers cannot share. Raises ConfigurationError."""
    if settings.store_file is not None:
        raise ConfigurationError(
            "store_file: only one process can use it. With --workers, set redis_url instead."
        )
    if settings.redis_url is None:
        logger.warning(
            "workers: without redis_url each of the %d workers counts limits and budgets on its "
            "own, so up to %d times as much is admitted, and changes over the admin API reach only "
            "one of them. Set redis_url to share them.",
            workers,
            workers,
        )


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(0)
