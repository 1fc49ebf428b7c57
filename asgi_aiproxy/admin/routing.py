"""Routes of the admin API: path, required scope, and the types of query, body and response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.principal import ANONYMOUS, Principal
from asgi_aiproxy.services.base import Actor, Ok, Page, PageQuery

# The required credential: none, any valid token, or a token with that scope.
Need = Literal["nothing", "token", "read", "write", "root"]


class TextBody(msgspec.Struct, frozen=True):
    """A response body that is not JSON."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"


class AdminRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request. `path` maps the names in the route's path to their decoded values;
    `source` is where it came from, for the audit log. `check` raises APIError when the caller is
    not allowed any more, for responses that take long.
    """

    scope: Scope
    caller: Principal = ANONYMOUS
    path: Mapping[str, str] = {}
    query: Any = None
    body: Any = None
    source: str = "admin"
    check: Callable[[], Awaitable[Any]] | None = None

    @property
    def by(self) -> Actor:
        """The caller, and where the request came from, for the audit log."""
        client = self.scope.get("client")
        address = str(client[0]) if client else ""
        return Actor(self.caller, self.source, address, request_id(self.scope))


Run = Callable[[AdminRequest], Awaitable[Any]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of the admin API.

    `body` and `query` are the types that a request is validated against (`bytes`: the raw body).
    `answer` is the type of the response: a msgspec type, `TextBody`, or an ASGI app that sends
    `media_type`.
    """

    method: str
    path: str
    need: Need
    run: Run
    summary: str
    body: Any = None
    query: Any = None
    answer: Any = Ok
    status: int = 200
    media_type: str = "application/json"


def resource_routes(
    path: str,
    *,
    types: tuple[Any, Any, Any],
    page: Run,
    create: Run,
    get: Run,
    edit: Run,
    remove: Run,
    summaries: tuple[str, str, str, str, str],
    created: Any = None,
) -> list[Route]:
    """Return the five routes of a resource: list, create, retrieve, change, remove.

    `path` is the path of one resource. `types` are the types of the bodies to create and to change
    one, and of the response; `created` is the response to its creation if that differs.
    `summaries` are in the order of the routes.
    """
    new, changes, out = types
    collection = path.rpartition("/")[0]
    list_summary, create_summary, get_summary, edit_summary, remove_summary = summaries
    return [
        Route(
            method="GET",
            path=collection,
            need="read",
            run=page,
            query=PageQuery,
            answer=Page[out],  # type: ignore[valid-type]
            summary=list_summary,
        ),
        Route(
            method="POST",
            path=collection,
            need="write",
            run=create,
            body=new,
            answer=created or out,
            status=201,
            summary=create_summary,
        ),
        Route(method="GET", path=path, need="read", run=get, answer=out, summary=get_summary),
        Route(
            method="PATCH",
            path=path,
            need="write",
            run=edit,
            body=changes,
            answer=out,
            summary=edit_summary,
        ),
        Route(method="DELETE", path=path, need="write", run=remove, summary=remove_summary),
    ]


class HasPath(Protocol):
    """A route of any kind."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        ...

    @property
    def path(self) -> str:
        """The path, with names in braces."""
        ...


R = TypeVar("R", bound=HasPath)
Handler = Callable[[R, Scope, Receive, Send], Awaitable[None]]


def router_of(routes: Iterable[R], handle: Handler[R]) -> ASGIApp:
    """A Starlette router that calls `handle` with the route of a request.

    The path in the scope must be the one below the mount, percent-encoded. The router raises
    APIError: 404, or 405 if the method is not allowed.
    """
    from starlette.routing import Route as Resource, Router

    methods: dict[str, dict[str, R]] = {}  # by path
    for route in routes:
        methods.setdefault(route.path, {})[route.method] = route
    resources = [Resource(path, _Operations(known, handle)) for path, known in methods.items()]
    return Router(resources, redirect_slashes=False, default=_unknown)


class _Operations(Generic[R]):
    """An ASGI app: the operations of one path, by method."""

    def __init__(self, routes: Mapping[str, R], handle: Handler[R]) -> None:
        self._routes = routes
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in self._routes:
            allowed = ", ".join(self._routes)
            message = f"Not allowed: {method} {scope['path']}. Allowed methods: {allowed}."
            error = APIError(ErrorKind.INVALID, message, status=405)
            error.allow = tuple(self._routes)
            raise error
        await self._handle(self._routes[method], scope, receive, send)


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise APIError(ErrorKind.NOT_FOUND, f"Unknown request URL: {scope['method']} {scope['path']}.")
