"""Routes of the admin API: path, required scope, and the types of query, body and response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.principal import ANONYMOUS, Principal
from asgi_aiproxy.services.base import Ok

# The required credential: none, any valid token, or a token with that scope.
Need = Literal["nothing", "token", "read", "write", "root"]


class TextBody(msgspec.Struct, frozen=True):
    """A response body that is not JSON."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"


class AdminRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request. `path` maps the names in the route's path to their decoded values."""

    scope: Scope
    caller: Principal = ANONYMOUS
    path: Mapping[str, str] = {}
    query: Any = None
    body: Any = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of the admin API.

    `body` and `query` are the types that a request is validated against (`bytes`: the raw body).
    `answer` is the type of the response: a msgspec type, `TextBody`, or an ASGI app that sends
    `media_type`.
    """

    method: str
    path: str
    need: Need
    run: Callable[[AdminRequest], Awaitable[Any]]
    summary: str
    body: Any = None
    query: Any = None
    answer: Any = Ok
    status: int = 200
    media_type: str = "application/json"

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """The values of the names in the path; None if the path does not match."""
        own_segments = self.path.split("/")
        if len(own_segments) != len(segments):
            return None
        values: dict[str, str] = {}
        for name, segment in zip(own_segments, segments, strict=True):
            if name.startswith("{") and segment:
                values[name[1:-1]] = unquote(segment)
            elif name != segment:
                return None
        return values


def match_route(routes: Iterable[Route], method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Find the route of a request. Raises APIError: 404, or 405 if the method is not allowed."""
    segments = path.split("/")
    allowed_methods = []
    for route in routes:
        values = route.match(segments)
        if values is None:
            continue
        if route.method == method:
            return route, values
        allowed_methods.append(route.method)
    if allowed_methods:
        allowed = ", ".join(allowed_methods)
        message = f"Not allowed: {method} {path}. Allowed methods: {allowed}."
        error = APIError(ErrorKind.INVALID, message, status=405)
        error.allow = tuple(dict.fromkeys(allowed_methods))
        raise error
    raise APIError(ErrorKind.NOT_FOUND, f"Unknown request URL: {method} {path}.")
