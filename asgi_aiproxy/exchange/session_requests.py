"""Requests within a WebSocket, for middlewares that judge each request.

A WebSocket of the Responses API carries many requests, but passes the middlewares once, when it is
opened. A middleware therefore puts a function into its scope (`with_step`): what it does for one
more request, such as to look up the caller again, or to make a new admission control. The app that
serves the WebSocket calls them in order for each request (`scope_of_next_request`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asgi_aiproxy._asgi import Scope

# Takes the scope of a request, and returns it with what a middleware adds. Raises APIError.
Step = Callable[[Scope], Awaitable[Scope]]

_KEY = "asgi_aiproxy.exchange.session_steps"


def with_step(scope: Scope, name: str, step: Step) -> dict[str, Any]:
    """Return a copy of a scope with one more step; `name` says what it adds."""
    return {**scope, _KEY: {**scope.get(_KEY, {}), name: step}}


def has_step(scope: Scope, name: str) -> bool:
    """Whether a middleware has added the step of this name."""
    return name in scope.get(_KEY, {})


async def scope_of_next_request(scope: Scope) -> Scope:
    """Return the scope of one more request of a WebSocket. Raises APIError if it is refused."""
    steps: Mapping[str, Step] = scope.get(_KEY, {})
    for step in steps.values():
        scope = await step(scope)
    return scope
