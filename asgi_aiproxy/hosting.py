"""Living inside a host application: its lifespan, and a mount that every host can have."""

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
_LAST_WORDS = 5.0


def lifespan(*parts: AbstractAsyncContextManager[Any] | Lifespan) -> Callable[..., LifespanContext]:
    """A host's lifespan that opens and closes `parts`, the last one first.

    Parts are this package's apps, anything else that is an async context manager, and lifespan
    functions of the host's own (what they yield is passed on). The result fits
    `Starlette(lifespan=...)`, `FastAPI(lifespan=...)`, `Litestar(lifespan=[...])` and Quart's
    `while_serving`.
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
                f"lifespan() cannot open {type(part).__name__}: it is an ASGI app without a way to "
                f"be opened. Pass the app inside it, as in lifespan(ai), and mount the outer one."
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
    except ValueError:  # some built-in functions do not tell their parameters
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
                        f"lifespan(): {part!r} returned {type(manager).__name__}, which is no "
                        f"async context manager: is @asynccontextmanager missing?"
                    )
            yielded = await stack.enter_async_context(manager)
            if isinstance(yielded, Mapping):
                state.update(yielded)
        yield state or None  # not every server knows state, and hosts insist if there is any


class Dispatcher:
    """The host application with apps mounted before it, by whole path segments.

    ::

        app = mount(django_app, {"/ai": OpenAIShim(...)})

    For hosts that can not mount an ASGI app, or whose own mount takes more paths than its own.
    Lifespan reaches the host, if it knows it, and all mounted apps.
    """

    def __init__(self, host: ASGIApp, apps: Mapping[str, ASGIApp]) -> None:
        for prefix, app in apps.items():
            if not prefix.startswith("/") or prefix.endswith("/"):
                raise ConfigurationError(
                    f"mount(): a path begins with '/' and ends without one, not {prefix!r}."
                )
            if not callable(app):
                raise ConfigurationError(f"mount(): at {prefix!r} is no ASGI app, but {app!r}.")
        if not callable(host):
            raise ConfigurationError(f"mount(): the host is no ASGI app, but {host!r}.")
        self._host = host
        # The longest first, so that "/ai/admin" is not "/ai"'s.
        self._apps = sorted(apps.items(), key=lambda item: -len(item[0]))
        # What the lifespans of mounted apps leave for their own requests.
        self._states: dict[str, State] = {}

    def __repr__(self) -> str:
        return f"mount({self._host!r}, {', '.join(prefix for prefix, _ in self._apps)})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI scope to whom it belongs."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(_CombinedLifespan(self, scope), receive, send)
            return
        if scope["type"] in ("http", "websocket"):
            root: str = scope.get("root_path", "").rstrip("/")
            path: str = scope["path"]
            # Servers differ in whether the path still has their own root before it.
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
        """The lifespans of all apps, the host's last."""
        lives = []
        for prefix, app in self._apps:
            own = self._states[prefix] = {}
            lives.append(
                LifespanDriver(app, {**scope, "state": own} if "state" in scope else scope)
            )
        return [*lives, LifespanDriver(self._host, scope)]


class _CombinedLifespan:
    """The lifespans of a host and of the apps mounted before it, as one."""

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
    """Drives the `lifespan` protocol of one ASGI app; one that knows none is left alone."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            await self._ask(self._task, "startup")
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
                await self._ask(task, "shutdown")
                await asyncio.wait((task,), timeout=_LAST_WORDS)
        finally:
            await self._end(task)

    async def _run(self) -> None:
        await self._app(self._scope, self._events.get, self._answers.put)

    async def _ask(self, task: asyncio.Task[None], what: str) -> None:
        self._events.put_nowait({"type": f"lifespan.{what}"})
        answering = asyncio.get_running_loop().create_task(self._answers.get())
        try:
            await asyncio.wait((answering, task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answering.done():
                answering.cancel()
        if not answering.done() or answering.cancelled():
            # It raised, or returned without a word: by the specification it knows no lifespan.
            logger.debug("%r knows no lifespan", self._app)
            return
        message = answering.result()
        if message["type"] == f"lifespan.{what}.failed":
            raise RuntimeError(message.get("message") or f"The {what} of {self._app!r} failed.")

    async def _end(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_LAST_WORDS)
        if task.done() and not task.cancelled():
            task.exception()  # it was told, or means that there is no lifespan
