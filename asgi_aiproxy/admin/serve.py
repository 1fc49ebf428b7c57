"""Handle one request of the admin API: find the route, authenticate, validate, run,
answer as JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from asgi_aiproxy import _asgi, _json
from asgi_aiproxy._asgi import RawHeaders, Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._slices import give_way
from asgi_aiproxy.admin.auth import require_scope
from asgi_aiproxy.admin.routing import AdminRequest, Need, Route, TextBody, router_of
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import AIProxyError, APIError, ErrorKind, invalid
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.services.validation import convert, parse_body, to_api_error

logger = logging.getLogger("asgi_aiproxy")

_MAX_BODY = 8 * 1024 * 1024


class Authenticator(Protocol):
    """Authenticates callers."""

    async def caller(self, scope: Scope, need: Need) -> Principal:
        """Return the authenticated caller, which has the scope `need`. Raises APIError."""
        ...


class AdminAPI:
    """Answers HTTP requests by `routes`; `authenticator` authenticates the callers."""

    def __init__(self, routes: Iterable[Route], authenticator: Authenticator) -> None:
        routes = list(routes)
        self._router = router_of(routes, self._run)
        self._routes = {(route.method, route.path): route for route in routes}
        self._authenticator = authenticator

    async def call(
        self,
        caller: Principal,
        operation: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        scope: Scope | None = None,
        source: str = "code",
        check: Callable[[], Awaitable[Any]] | None = None,
        **path: str,
    ) -> Any:
        """Run an operation for `caller` within this process, with the checks that a request gets.

        `operation` is a method and the path of a route, such as `GET /tokens/{id}`; `path` has the
        values of the names in it, `query` and `body` are validated as those of a request, and
        `scope` is the ASGI scope on whose behalf it runs, `source` is recorded in the audit log.
        `check` raises APIError when the caller is not allowed any more. Returns the result of the
        route. Raises AIProxyError.
        """
        method, _, template = operation.partition(" ")
        route = self._routes[method, template]
        require_scope(caller, route.need)
        values = {name: value for name, value in (query or {}).items() if value != ""}
        call = AdminRequest(
            scope=scope if scope is not None else {"headers": []},
            source=source,
            check=check,
            caller=caller,
            path=path,
            query=convert(values, route.query, texts=True) if route.query is not None else None,
            body=body if route.body is bytes or route.body is None else convert(body, route.body),
        )
        return await route.run(call)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        with suppress(ClientGoneError):
            try:
                try:
                    path = _asgi.local_path(scope)
                    if path is None:
                        raise APIError(
                            ErrorKind.NOT_FOUND, f"Unknown request URL: {scope['path']!r}."
                        )
                    matched = {**scope, "path": path, "root_path": "", _SCOPE: scope}
                    await self._router(matched, receive, send)
                except AIProxyError as error:
                    if isinstance(error, ClientGoneError):
                        raise
                    await _refuse(send, to_api_error(error))
            except AIProxyError:
                raise
            except Exception:
                logger.exception("the admin API failed")
                message = "Internal error of the gateway."
                await _refuse(send, APIError(ErrorKind.INTERNAL, message))

    async def _run(self, route: Route, matched: Scope, receive: Receive, send: Send) -> None:
        scope: Scope = matched[_SCOPE]
        names = {name: unquote(value) for name, value in matched["path_params"].items()}
        call = AdminRequest(scope=scope, path=names)
        if route.need != "nothing":
            caller = await self._authenticator.caller(scope, route.need)

            async def check() -> None:
                await self._authenticator.caller(scope, route.need)

            call = msgspec.structs.replace(call, caller=caller, check=check)
        query = _query(scope, route.query)
        data = await _asgi.read_body(scope, receive, _MAX_BODY)
        body: Any = None
        if route.body is bytes:
            body = data
        elif route.body is not None:
            body = parse_body(data, route.body)
        elif data.strip() not in (b"", b"{}"):
            raise invalid("This operation does not accept a request body.")
        await give_way()
        result = await route.run(msgspec.structs.replace(call, query=query, body=body))
        if callable(result):
            await result(scope, receive, send)
        elif isinstance(result, TextBody):
            await _asgi.send_response(
                send, route.status, result.body, _HEADERS, result.media_type.encode()
            )
        else:
            await give_way()
            body = _json.dumps(result)
            await give_way()
            await _asgi.send_response(send, route.status, body, _HEADERS)


_SCOPE = "asgi_aiproxy.admin.scope"  # the scope as it was received
_HEADERS: RawHeaders = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


def _query(scope: Scope, type_: Any) -> Any:
    text = scope.get("query_string", b"").decode("latin-1")
    pairs = parse_qsl(text, keep_blank_values=True)
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise invalid(f"{repeated}: it is given twice.", repeated)
    if type_ is not None:
        return convert(values, type_, texts=True)
    if values:
        name = next(iter(values))
        raise invalid(f"{name}: unknown query parameter.", name)
    return None


async def _refuse(send: Send, error: APIError) -> None:
    headers = [*_HEADERS, *_asgi.error_headers(error)]
    body = error.body if error.body is not None else OPENAI_CHAT.encode_error(error)
    await _asgi.send_response(send, error.status, body, headers)
