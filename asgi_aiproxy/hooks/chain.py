"""`HookChain`: the hooks of an app, in order, with their time limits and what their failure means.

What is given as a hook is checked when the app is built: that its methods are async, and take what
they are called with. What it returns is checked when it runs: a hook changes the call, it does not
return another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import msgspec

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.exchange.guarded import ResponseRefusedError, unchecked_response_error
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.hooks.after import AfterRuns
from asgi_aiproxy.hooks.base import BeforeHook, Call, Hook
from asgi_aiproxy.hooks.time_limit import within
from asgi_aiproxy.messages import Event, EventFilter
from asgi_aiproxy.usage.record import UsageRecord

logger = logging.getLogger("asgi_aiproxy")

# The methods of hooks, with the number of arguments that they are called with; two are not async.
_METHODS = {"before": 1, "filters": 1, "after": 2, "observe": 2}
_PLAIN = frozenset({"filters", "observe"})


class _Function(Hook):
    """An async function as a hook."""

    def __init__(self, function: BeforeHook) -> None:
        self._function = function

    def __repr__(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))

    async def before(self, call: Call) -> None:
        return await self._function(call)


class _Methods(Hook):
    """An object with some of the methods of a hook."""

    def __init__(self, given: Any) -> None:
        self._given = given
        for name in (*_METHODS, "seconds", "on_failure"):
            if hasattr(given, name):
                setattr(self, name, getattr(given, name))

    def __repr__(self) -> str:
        return repr(self._given)


class HookChain:
    """The hooks of an app, in order. Raises ConfigurationError for what is not a hook."""

    def __init__(self, hooks: Sequence[Hook | BeforeHook]) -> None:
        self._hooks = [_as_hook(each) for each in hooks]
        self._before = [hook for hook in self._hooks if _overrides(hook, "before")]
        self._after = [hook for hook in self._hooks if _overrides(hook, "after")]
        self._observers = [hook for hook in self._hooks if _overrides(hook, "observe")]
        self._filtering = [hook for hook in self._hooks if _overrides(hook, "filters")]
        seconds = sum(hook.seconds for hook in self._after)
        self._after_runs = AfterRuns(self._run_after, seconds=seconds)
        self._observed: deque[tuple[contextvars.Context, Call, UsageRecord]] = deque()
        self._observed_by: asyncio.AbstractEventLoop | None = None  # that will call observers

    @property
    def filtering(self) -> bool:
        """Whether some hooks make filters for responses."""
        return bool(self._filtering)

    @property
    def observing(self) -> bool:
        """Whether some hooks see usage records."""
        return bool(self._after or self._observers)

    async def before(
        self, request: GatewayRequest, scope: Scope
    ) -> tuple[GatewayRequest, APIError | None]:
        """Run the hooks on a request; return it as they leave it, and the error of the one that
        refused it.

        A stored response that a provider returns is not translated, so that filters cannot see it:
        it is refused if there are any.
        """
        operation = request.operation
        if self._filtering and operation.resource and operation.method != "DELETE":
            return request, unchecked_response_error("A response that a provider has stored")
        call = Call(request, scope)
        refusal: APIError | None = None
        try:
            await self.run_before(call)
        except APIError as error:
            refusal = error
        filters = (lambda: self.filters(call)) if self._filtering else None
        ended = partial(self.ended, call) if self.observing else None
        changed = call.to_gateway_request()
        return msgspec.structs.replace(changed, filters=filters, ended=ended), refusal

    async def run_before(self, call: Call) -> None:
        """Run the hooks on a call, until one has answered it. Raises APIError if one refuses it."""
        for hook in self._before:
            await self._run(hook, call)
            if call.response is not None:
                break

    def filters(self, call: Call) -> list[EventFilter]:
        """Make the filters for one response. Raises ResponseRefusedError if a hook fails."""
        made: list[EventFilter] = []
        for hook in self._filtering:
            try:
                made += [_limited(each, hook.seconds) for each in _filters_of(hook, call)]
            except APIError as error:
                raise ResponseRefusedError(
                    error.kind, error.message, status=error.status, code=error.code
                ) from error
            except Exception as error:
                logger.exception("request %s: the hook %r failed: %r", call.request_id, hook, error)
                if hook.on_failure == "closed":
                    raise ResponseRefusedError(
                        ErrorKind.OVERLOADED,
                        "The response could not be checked. Try again later.",
                        code="hook_failed",
                    ) from error
        return made

    def ended(self, call: Call, record: UsageRecord) -> None:
        """Run the hooks for a call that has ended, in the background and in its context."""
        if self._after:
            self._after_runs.put(call, record)
        if self._observers:
            self._observed.append((contextvars.copy_context(), call, record))
            loop = asyncio.get_running_loop()
            if self._observed_by is not loop:
                self._observed_by = loop
                loop.call_soon(self._observe)

    def _observe(self) -> None:
        """Call the observers for the calls that have ended in this iteration of the loop."""
        self._observed_by = None
        while self._observed:
            context, call, record = self._observed.popleft()
            for hook in self._observers:
                try:
                    context.run(hook.observe, call, record)
                except Exception as error:
                    _log_failure_after(hook, record, error)

    async def _run(self, hook: Hook, call: Call) -> None:
        try:
            result: object = await within(hook.seconds, hook.before(call))
            if result is not None and result is not call:
                raise TypeError(
                    f"it returned {type(result).__name__}; a hook returns nothing: it sets "
                    "call.body, call.model ..., or calls call.answer(...) or call.refuse(...)"
                )
        except APIError:
            raise
        except Exception as error:
            late = isinstance(error, TimeoutError)
            logger.error(
                "request %s: the hook %r failed: %s",
                *(call.request_id, hook, f"more than {hook.seconds:g} s" if late else repr(error)),
                exc_info=None if late else error,
            )
            if hook.on_failure == "closed":
                raise APIError(
                    ErrorKind.OVERLOADED,
                    "The request could not be checked. Try again later.",
                    code="hook_failed",
                ) from error

    async def _run_after(self, call: Call, record: UsageRecord) -> None:
        for hook in self._after:
            try:
                await within(hook.seconds, hook.after(call, record))
            except Exception as error:
                _log_failure_after(hook, record, error)

    async def drain(self) -> None:
        """Wait for the hooks that run after exchanges, within their time limits."""
        self._observe()
        await self._after_runs.drain()


def _log_failure_after(hook: Hook, record: UsageRecord, error: Exception) -> None:
    logger.exception(
        "request %s: the hook %r failed after the exchange: %r",
        *(record.request_id, hook, error),
    )


def _limited(filter: EventFilter, seconds: float) -> EventFilter:
    """A filter with a time limit; one that waits for nothing, or limits itself, has `limited`."""
    return filter if getattr(filter, "limited", False) else _LimitedFilter(filter, seconds)


class _LimitedFilter:
    """A filter whose `feed` and `close` are given `seconds`."""

    __slots__ = ("_filter", "_seconds")

    def __init__(self, filter: EventFilter, seconds: float) -> None:
        self._filter = filter
        self._seconds = seconds

    async def feed(self, event: Event) -> Sequence[Event]:
        return await within(self._seconds, self._filter.feed(event))

    async def close(self) -> Sequence[Event]:
        return await within(self._seconds, self._filter.close())


def _filters_of(hook: Hook, call: Call) -> Sequence[EventFilter]:
    made = hook.filters(call)
    if not isinstance(made, Sequence) or not all(
        is_async(getattr(each, "feed", None)) and is_async(getattr(each, "close", None))
        for each in made
    ):
        raise TypeError(
            "filters(call) must return a list of objects with the async methods feed(event) and "
            "close()"
        )
    return made


def _as_hook(given: Any) -> Hook:
    if isinstance(given, type):
        raise ConfigurationError(f"hooks: give an object, {given.__name__}(...), not its class.")
    if isinstance(given, Hook):
        hook = given
    elif any(callable(getattr(given, name, None)) for name in _METHODS):
        hook = _Methods(given)
    elif is_async(given):
        _check_signature(given, repr(given), 1)
        return _Function(given)
    elif callable(given):
        raise ConfigurationError(
            f"hooks: {given!r} is not a hook, since it is not async. Write 'async def', and run "
            "what blocks with 'await asyncio.to_thread(...)'."
        )
    else:
        raise ConfigurationError(
            f"hooks: {given!r} is not a hook. Give an async function that takes a Call, or an "
            "object with methods of Hook."
        )
    if hook.on_failure not in ("closed", "open") or not _is_positive(hook.seconds):
        raise ConfigurationError(
            f"hooks: {given!r} needs seconds > 0, and on_failure 'closed' or 'open'."
        )
    for name, count in _METHODS.items():
        method, shown = getattr(hook, name), f"{name} of {given!r}"
        if is_async(method) is (name in _PLAIN):
            how = "must not be async" if name in _PLAIN else "must be async: 'async def'"
            raise ConfigurationError(f"hooks: {shown} {how}.")
        _check_signature(method, shown, count)
    return hook


def is_async(given: Any) -> bool:
    """Whether calling `given` makes a coroutine."""
    return inspect.iscoroutinefunction(given) or (
        not inspect.isroutine(given) and inspect.iscoroutinefunction(type(given).__call__)
    )


def _check_signature(function: Callable[..., Any], shown: str, count: int) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some functions that are not written in Python
        return
    try:
        signature.bind(*[None] * count)
    except TypeError:
        takes = "a Call" if count == 1 else "a Call and a UsageRecord"
        raise ConfigurationError(
            f"hooks: {shown} is called with {takes}, and its parameters are {signature}."
        ) from None


def _is_positive(seconds: object) -> bool:
    return isinstance(seconds, int | float) and seconds > 0


def _overrides(hook: Hook, name: str) -> bool:
    return getattr(getattr(hook, name), "__func__", None) is not getattr(Hook, name)


def as_hooks(hooks: object) -> HookChain | None:
    """The hooks given to an app; None without any.

    Raises ConfigurationError unless they are a sequence of hooks.
    """
    if callable(hooks) or not isinstance(hooks, Sequence) or isinstance(hooks, str):
        raise ConfigurationError("hooks must be a list: hooks=[hook].")
    return HookChain(cast("Sequence[Hook | BeforeHook]", hooks)) if hooks else None
