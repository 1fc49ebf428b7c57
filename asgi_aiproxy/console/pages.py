"""The frame of the console: a page's route, request and answer.

A page is a function from a `PageRequest` to a `PageAnswer`. What it shows and changes it gets from
operations of the admin API, which `PageRequest.api` runs for the visitor: rights and validation are
those of the API, so a page can neither show nor change more than its visitor could over HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote, urlencode

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, RawHeaders, Scope
from asgi_aiproxy._slices import give_way, joined
from asgi_aiproxy.admin.auth import may
from asgi_aiproxy.admin.routing import Need
from asgi_aiproxy.console.rendering import Renderer
from asgi_aiproxy.console.sessions import Session
from asgi_aiproxy.console.site import ShownSite
from asgi_aiproxy.console.texts import Texts
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.services.csv_export import Cell, csv_lines

Call = Callable[..., Awaitable[Any]]
Confirmation = Literal["", "token", "password", "code", "provider"]


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """A whole response; `PAGE_HEADERS` are added. `pieces` make its body, until `completed`.
    `other_origin` is an origin whose scripts and frames it may load; by default none.
    """

    status: int = 200
    body: bytes = b""
    headers: RawHeaders = field(default_factory=list)
    media_type: bytes = b"text/html; charset=utf-8"
    pieces: Iterator[str] | None = None
    other_origin: str = ""

    def with_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> PageAnswer:
        """Return the response with further headers."""
        return replace(self, headers=[*self.headers, *headers])

    async def completed(self) -> PageAnswer:
        """Return the response with its whole body."""
        if self.pieces is None:
            return self
        text = await joined(self.pieces)
        return replace(self, body=text.encode(), pieces=None)


@dataclass(frozen=True, slots=True)
class Visitor:
    """The caller of a page. `session` is its sign-in, None if the host has identified it; `form` is
    the token that its forms must contain. `confirm` is with what it must confirm that it is still
    the same person, before an action of weight; empty if it has done so lately.
    """

    caller: Principal | None = None
    session: Session | None = None
    session_id: str = ""
    form: str = ""
    confirm: Confirmation = ""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for a page. `path` has the values of the names in the route's path, `mount` is the
    path of the console in URLs, `call` runs an operation of the admin API, `check` raises APIError
    when the visitor may not have the page any more. `error` is that of the form that was
    sent, and `error_field` the name of the field at fault.
    """

    scope: Scope
    mount: str
    visitor: Visitor
    texts: Texts
    renderer: Renderer
    site: ShownSite
    call: Call
    tools: Any
    check: Callable[[], Awaitable[Any]] | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, list[str]] = field(default_factory=dict)
    error: str = ""
    error_field: str = ""

    @property
    def caller(self) -> Principal:
        """The visitor. Raises LookupError on pages that need none."""
        if self.visitor.caller is None:
            raise LookupError("this page has no visitor")
        return self.visitor.caller

    @property
    def here(self) -> str:
        """The URL of this page; that of the home page if it is the target of a form."""
        if self.scope["method"] not in ("GET", "HEAD"):
            return self.url("/")
        query = self.scope.get("query_string", b"").decode("latin-1")
        return self.url(_asgi.local_path(self.scope) or "/") + (f"?{query}" if query else "")

    @property
    def origin(self) -> str:
        """The scheme and host of this request."""
        host = _asgi.header(self.scope, b"host") or "localhost"
        return f"{self.scope.get('scheme', 'http')}://{host}"

    def may(self, need: Need) -> bool:
        """Whether the visitor has a scope; `token`: whether it is signed in at all."""
        return self.visitor.caller is not None and may(self.visitor.caller, need)

    async def api(self, operation: str, **request: Any) -> Any:
        """Run an operation of the admin API for the visitor. Raises AIProxyError."""
        given = {"scope": self.scope, "source": "console", "check": self.check, **request}
        await give_way()
        result = await self.call(self.caller, operation, **given)
        await give_way()
        return result

    def url(self, path: str = "/", **query: Any) -> str:
        """Return the URL of a page; values of None or "" are left out of the query."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return self.mount + path + (f"?{urlencode(given)}" if given else "")

    def page(self, template: str, *, status: int = 200, **context: Any) -> PageAnswer:
        """Return a page made from a template."""
        status = 400 if self.error and status == 200 else status
        return PageAnswer(status, pieces=self.renderer.render(template, self, context))

    def redirect(self, path: str, *, headers: RawHeaders | None = None, **query: Any) -> PageAnswer:
        """Return a redirect to a page of this console, to be fetched with GET."""
        location = (b"location", self.url(path, **query).encode("ascii", "ignore"))
        return PageAnswer(303, headers=[location, *(headers or [])])


Run = Callable[[PageRequest], Awaitable["PageAnswer | ASGIApp"]]


@dataclass(frozen=True, slots=True)
class PageRoute:
    """A page or the target of a form, at `path` below the mount. `need` is the scope that it
    requires; `again` is the page to show again, with the message, if the form has an error.
    `confirm`: whether the visitor must have confirmed lately that it is still the same person.
    """

    method: str
    path: str
    need: Need
    run: Run
    again: Run | None = None
    confirm: bool = False


def segment(text: str) -> str:
    """Return a value as one segment of a path."""
    return quote(text, safe="") or "%20"


def csv_answer(name: str, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> PageAnswer:
    """Return a table as a CSV file (RFC 4180); no value is read as a formula by spreadsheets."""
    headers = [(b"content-disposition", f'attachment; filename="{name}"'.encode())]
    return PageAnswer(200, csv_lines([header, *rows]).encode(), headers, b"text/csv; charset=utf-8")
