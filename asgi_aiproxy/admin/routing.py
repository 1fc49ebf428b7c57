"""Routes: what a path means, who may ask for it, and what goes in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import unquote

import msgspec

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.principal import ANONYMOUS, Principal

# Who may ask: anybody, who shows any token, or one with that scope.
Need = Literal["nothing", "token", "read", "write", "root"]

T = TypeVar("T")

# Who has all rights: the administrator, or who works with a shell.
ROOT = Principal("admin", "admin", scopes=("root",))

MOST = 1000  # rows of a page


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of a list: what comes after the row `after`."""

    after: str = ""
    limit: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST:
            raise APIError(ErrorKind.INVALID, f"limit: it goes from 1 to {MOST}.", param="limit")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some rows, and where the next page begins: null after the last one."""

    data: list[T]
    next: str | None = None


def paginate(rows: list[T], limit: int, name: Callable[[T], str]) -> Page[T]:
    """A page of `limit` rows at most; one row more than that was asked for, if there is one."""
    return Page(rows[:limit], name(rows[limit - 1]) if len(rows) > limit else None)


class TextBody(msgspec.Struct, frozen=True):
    """An answer that is no JSON."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"


class Ok(msgspec.Struct, frozen=True):
    """Something was done, and there is no more to say."""

    ok: bool = True


class AdminRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is understood. `path` holds the names in the path, decoded."""

    scope: Scope
    caller: Principal = ANONYMOUS
    path: Mapping[str, str] = {}
    query: Any = None
    body: Any = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be asked for.

    `body` and `query` are the types of what goes in (`bytes`: the body as it is), `answer` of what
    comes out: a type of msgspec, `Text`, or an ASGI app of `media_type`.
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
        """What the names of the path stand for; None if it is another path."""
        own = self.path.split("/")
        if len(own) != len(segments):
            return None
        found: dict[str, str] = {}
        for name, sent in zip(own, segments, strict=True):
            if name.startswith("{") and sent:
                found[name[1:-1]] = unquote(sent)
            elif name != sent:
                return None
        return found


def match_route(routes: Iterable[Route], method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request. Raises APIError: 404, or 405 for what takes another method."""
    segments = path.split("/")
    others = []
    for route in routes:
        names = route.match(segments)
        if names is None:
            continue
        if route.method == method:
            return route, names
        others.append(route.method)
    if others:
        allowed = ", ".join(others)
        message = f"Not allowed: {method} {path}. This path takes {allowed}."
        error = APIError(ErrorKind.INVALID, message, status=405)
        error.allow = tuple(dict.fromkeys(others))
        raise error
    raise APIError(ErrorKind.NOT_FOUND, f"Unknown request URL: {method} {path}.")
