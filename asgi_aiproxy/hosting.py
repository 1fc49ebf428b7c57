"""Running within a host application: its lifespan, and a mount that works with every host."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Self

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_aiproxy.errors import ConfigurationError

logger = logging.getLogger("asgi_aiproxy")

State = dict[str, Any]
Lifespan = Callable[..., AbstractAsyncContextManager[Any]]

# How long an app may take to return after it has answered `lifespan.shutdown`.
_SHUTDOWN_TIMEOUT_SECONDS = 5.0


def lifespan(*parts: AbstractAsyncContextManager[Any] | Lifespan) -> Callable[..., LifespanContext]:
    """Return a lifespan for the host that opens `parts` and closes them in reverse order.

    Parts are this package's apps, anything else that is an async context manager, and lifespan
    functions of the host (the state that they yield is passed on). The result fits
    `Starlette(lifespan=...)`, `FastAPI(lifespan=...)`, `Litestar(lifespan=[...])` and Quart's
    `while_serving`. Raises ConfigurationError for anything else.
    """
    for part in parts:
        if isinstance(part, type) or not (
            isinstance(part, AbstractAsyncContextManager) or callable(part)
        ):
            raise ConfigurationError(
                f"lifespan() takes apps, async context managers and lifespan functions, "
                f"not {part!r}."
            )
        if not isinstance(part, AbstractAsyncContextManager) and not _takes_one_argument(part):
            raise ConfigurationError(
                f"lifespan() cannot open {type(part).__name__}: it is an ASGI app, not an async "
                f"context manager. Pass the app inside it, as in lifespan(ai), and mount the "
                f"outer one."
            )

    def entered(app: Any = None) -> LifespanContext:
        return LifespanContext(parts, app)

    return entered


def _takes_one_argument(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with the host application alone."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        return True
    return True


class LifespanContext(AbstractAsyncContextManager[Any, None]):
    """A lifespan, for `async with` and for hosts that step through a generator."""

    def __init__(self, parts: tuple[Any, ...], app: Any) -> None:
        self._parts = parts
        self._app = app
        self._open: AbstractAsyncContextManager[State | None] | None = None

    async def __aenter__(self) -> Any:  # a State or None; hosts insist on one of the two
        opened = _opened(self._parts, self._app)
        state = await opened.__aenter__()
        self._open = opened
        return state

    async def __aexit__(self, *exc: Any) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            await opened.__aexit__(*exc)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._open is None:
            return await self.__aenter__()
        await self.__aexit__(None, None, None)
        raise StopAsyncIteration


@asynccontextmanager
async def _opened(parts: tuple[Any, ...], app: Any) -> AsyncIterator[State | None]:
    state: State = {}
    async with AsyncExitStack() as stack:
        for part in parts:
            manager = part
            if not isinstance(manager, AbstractAsyncContextManager):
                manager = manager(app)
                if not isinstance(manager, AbstractAsyncContextManager):
                    raise ConfigurationError(
                        f"lifespan(): {part!r} returned {type(manager).__name__}, which is not "
                        f"an async context manager: is @asynccontextmanager missing?"
                    )
            yielded = await stack.enter_async_context(manager)
            if isinstance(yielded, Mapping):
                state.update(yielded)
        yield state or None  # without state: not every server supports it


class Dispatcher:
    """A host application with other ASGI apps mounted below paths of it.

    ::

        app = mount(django_app, {"/ai": OpenAIShim(...)})

    For hosts that cannot mount an ASGI app, or whose mounts also match longer first segments.
    Lifespan is passed to the mounted apps, and to the host if it supports it. Raises
    ConfigurationError for an invalid path, or if an app is not callable.
    """

    def __init__(self, host: ASGIApp, apps: Mapping[str, ASGIApp]) -> None:
        for prefix, app in apps.items():
            if not prefix.startswith("/") or prefix.endswith("/"):
                raise ConfigurationError(
                    f"mount(): a path must begin with '/' and not end with it, got {prefix!r}."
                )
            if not callable(app):
                raise ConfigurationError(f"mount(): {app!r} at {prefix!r} is not an ASGI app.")
        if not callable(host):
            raise ConfigurationError(f"mount(): the host {host!r} is not an ASGI app.")
        self._host = host
        # The longest first, so that "/ai/admin" goes before "/ai".
        self._apps = sorted(apps.items(), key=lambda item: -len(item[0]))
        # The lifespan state of each mounted app, for its own requests.
        self._states: dict[str, State] = {}

    def __repr__(self) -> str:
        return f"mount({self._host!r}, {', '.join(prefix for prefix, _ in self._apps)})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI scope to the app that it belongs to."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(_CombinedLifespan(self, scope), receive, send)
            return
        if scope["type"] in ("http", "websocket"):
            root: str = scope.get("root_path", "").rstrip("/")
            path: str = scope["path"]
            # Servers differ in whether the path includes their own root path.
            rest = path[len(root) :] if path == root or path.startswith(root + "/") else path
            for prefix, app in self._apps:
                if rest == prefix or rest.startswith(prefix + "/"):
                    below = {**scope, "root_path": root + prefix}
                    if state := self._states.get(prefix):
                        below["state"] = {**scope.get("state", {}), **state}
                    await app(below, receive, send)
                    return
        await self._host(scope, receive, send)

    def lifespans(self, scope: Scope) -> list[LifespanDriver]:
        """Return the lifespans of all apps, the host last."""
        lives = []
        for prefix, app in self._apps:
            own = self._states[prefix] = {}
            lives.append(
                LifespanDriver(app, {**scope, "state": own} if "state" in scope else scope)
            )
        return [*lives, LifespanDriver(self._host, scope)]


class _CombinedLifespan:
    """The lifespans of a host and of the apps mounted in it, as one."""

    def __init__(self, whole: Dispatcher, scope: Scope) -> None:
        self._lives = whole.lifespans(scope)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for life in self._lives:
                await stack.enter_async_context(life)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()


class LifespanDriver:
    """Drives the `lifespan` protocol of one ASGI app, if the app supports it."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            await self._request(self._task, "startup")
        except BaseException:
            await self._end(self._task)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        try:
            if not task.done():
                await self._request(task, "shutdown")
                await asyncio.wait((task,), timeout=_SHUTDOWN_TIMEOUT_SECONDS)
        finally:
            await self._end(task)

    async def _run(self) -> None:
        await self._app(self._scope, self._events.get, self._answers.put)

    async def _request(self, task: asyncio.Task[None], what: str) -> None:
        self._events.put_nowait({"type": f"lifespan.{what}"})
        answering = asyncio.get_running_loop().create_task(self._answers.get())
        try:
            await asyncio.wait((answering, task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answering.done():
                answering.cancel()
        if not answering.done() or answering.cancelled():
            # It raised or returned before a response: by the specification it does not support it.
            logger.debug("%r does not support lifespan", self._app)
            return
        message = answering.result()
        if message["type"] == f"lifespan.{what}.failed":
            raise RuntimeError(message.get("message") or f"The {what} of {self._app!r} failed.")

    async def _end(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_SHUTDOWN_TIMEOUT_SECONDS)
        if task.done() and not task.cancelled():
            # Retrieved, so that asyncio does not log it: it was raised before, or lifespan is not
            # supported
            task.exception()
