"""Apps with the paths of an earlier gateway: routes, the call that a route handles, CORS.

Theory of operation. A `CompatApp` has a list of `Route`s; the first one that matches the method and
the path below the mount handles the request. A handler gets a `CompatCall`, which answers by itself
(`json`, `text`) or passes the request on (`forward`) to a public app of this package: a `Shim`, a
`PassthroughProxy`. Passing on never copies the caller's credentials: the handler says which one the
inner app may see (`asgi_aiproxy.compat.callers`). Every answer can be read from any web page, as in
the gateways that these apps replace; credentials are never taken from cookies of a page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from asgi_aiproxy import _asgi, _json
from asgi_aiproxy._asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._headers import content_codings
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import AIProxyError, APIError, ErrorKind, internal_error, invalid
from asgi_aiproxy.upstream import Transport, default_transport
from asgi_aiproxy.upstream.request_encoding import check_codings, decode_request_body

Owned = TypeVar("Owned")
MAX_BODY = 32 * 1024 * 1024
_PATH_CHARACTERS = "/:@!$&'()*+,;=~"
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"content-encoding"})
_CORS: RawHeaders = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"*"),
]
_PREFLIGHT: RawHeaders = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"*, Authorization"),
    (b"access-control-max-age", b"86400"),
]


class CompatCall:
    """One request to a compat app.

    `path` is the path below the mount, percent-encoded; `names` are the decoded segments that the
    route's pattern names, `*` is the rest that a pattern ending with `*` matched.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, path: str, names: dict[str, str]
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.path = path
        self.names = names
        self._body: bytes | None = None

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self.scope["method"])

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query; of a repeated one the last."""
        text = self.scope.get("query_string", b"").decode("latin-1")
        return dict(parse_qsl(text, keep_blank_values=True))

    def header(self, name: str) -> str:
        """Return the value of a request header, or an empty string."""
        return (_asgi.header(self.scope, name.encode()) or "").strip()

    async def body(self) -> bytes:
        """Return the request body, decompressed. Raises APIError, and ClientGoneError."""
        if self._body is None:
            data = await _asgi.read_body(self.scope, self.receive, MAX_BODY)
            if codings := content_codings(self.header("content-encoding")):
                check_codings(codings)
                data = await decode_request_body(codings, data, MAX_BODY)
            self._body = data
        return self._body

    async def fields(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises APIError (400)."""
        try:
            found = _json.loads(await self.body())
        except (ValueError, RecursionError) as error:
            raise invalid("The request body is not valid JSON.") from error
        if not isinstance(found, dict):
            raise invalid("The request body must be a JSON object.")
        return found

    async def json(self, value: Any, status: int = 200, headers: Sequence[Any] = ()) -> None:
        """Answer with JSON."""
        await _asgi.send_response(self.send, status, _json.dumps(value), list(headers))

    async def text(self, text: str, status: int = 200) -> None:
        """Answer with text."""
        body = text.encode()
        await _asgi.send_response(self.send, status, body, [], b"text/plain; charset=utf-8")

    async def forward(
        self,
        app: ASGIApp,
        *,
        headers: RawHeaders | None = None,
        path: str | None = None,
        prefix: str = "",
        query: bytes | None = None,
        body: bytes | None = None,
        send: Send | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Pass the request on to an app.

        Arguments:

        - `app`: the app that answers.
        - `headers`: the request headers, by default the caller's.
        - `path`: another path below the mount, percent-encoded.
        - `prefix`: the beginning of the path that is part of the app's mount.
        - `query`: another query string.
        - `body`: another request body, as JSON.
        - `send`: sends the app's messages, by default to the client.
        - `extra`: members to add to the ASGI scope.
        """
        root = self.scope.get("root_path", "")
        scope: Scope = {**self.scope, **(extra or {})}
        if headers is not None:
            scope["headers"] = headers
        if path is not None:
            scope["path"] = root + unquote(path)
            scope["raw_path"] = (quote(root, safe=_PATH_CHARACTERS) + path).encode("latin-1")
        if prefix:
            scope["root_path"] = root.rstrip("/") + prefix
        if query is not None:
            scope["query_string"] = query
        receive = self.receive
        if body is None and self._body is not None:
            body = self._body
        if body is not None:
            kept = [pair for pair in scope["headers"] if pair[0] not in _BODY_HEADERS]
            scope["headers"] = [*kept, (b"content-length", b"%d" % len(body))]
            receive = _replay(body, self.receive)
        await app(scope, receive, send or self.send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that delivers a body that was read before."""
    left = [body]

    async def replayed() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replayed


Handler = Callable[[CompatCall], Awaitable[None]]


class Route(msgspec.Struct, frozen=True):
    """A path with its handler.

    Arguments:

    - `methods`: the HTTP methods, separated by spaces; `*` for any.
    - `path`: a pattern. `:name` matches one segment, `*` at the end any rest. A slash at the end
      of a path makes no difference.
    - `run`: handles the call.
    """

    methods: str
    path: str
    run: Handler

    def match(self, method: str, segments: Sequence[str]) -> dict[str, str] | None:
        """Return the named segments of a path, or None if the route is for another request."""
        if self.methods != "*" and method not in self.methods.split():
            return None
        names: dict[str, str] = {}
        pattern = self.path.strip("/").split("/") if self.path.strip("/") else []
        for index, wanted in enumerate(pattern):
            if wanted == "*":
                names["*"] = "/".join(segments[index:])
                return names
            if index >= len(segments):
                return None
            if wanted.startswith(":"):
                names[wanted[1:]] = unquote(segments[index])
            elif wanted != segments[index]:
                return None
        return names if len(pattern) == len(segments) else None


class CompatApp:
    """An ASGI app that serves the paths of an earlier gateway.

    `parts` are the apps inside it; they are opened and closed with it. `transport` sends requests;
    without one the app has its own. `preflight` is the body of answers to `OPTIONS`.
    """

    preflight = b"{}"

    def __init__(self, transport: Transport | None = None) -> None:
        self._own_transport = default_transport() if transport is None else None
        self.transport: Transport = (
            transport if transport is not None else self._own_transport  # type: ignore[assignment]
        )
        self.routes: list[Route] = []
        self.parts: list[AbstractAsyncContextManager[Any]] = []
        self._open = AsyncExitStack()
        self._users = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.routes)} routes)"

    def own(self, app: Owned) -> Owned:
        """Return an app that is opened and closed with this one, if it can be."""
        if isinstance(app, AbstractAsyncContextManager):
            self.parts.append(app)
        return app

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._users == 1:
            async with AsyncExitStack() as stack:
                if self._own_transport is not None:
                    stack.push_async_callback(self._own_transport.aclose)
                for part in self.parts:
                    await stack.enter_async_context(part)
                self._open = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._users -= 1
        if self._users == 0:
            await self._open.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        elif scope["type"] == "http":
            with suppress(ClientGoneError):
                await self._answer(scope, receive, _with_cors(send))
        elif scope["type"] == "websocket":
            error = _asgi.no_websocket()
            body = self.encode_error(error)
            await _asgi.refuse_websocket(scope, receive, send, error.status, body, [])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS":
            await _asgi.send_response(send, 200, self.preflight, _PREFLIGHT)
            return
        try:
            path = _asgi.local_path(scope)
            await self._find(scope, receive, send, path)
        except APIError as error:
            await self._refuse(send, error)
        except (ClientGoneError, AIProxyError):
            raise
        except Exception:
            await self._refuse(send, internal_error())
            raise

    def _find(
        self, scope: Scope, receive: Receive, send: Send, path: str | None
    ) -> Awaitable[None]:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        stripped = (path or "").strip("/")
        segments = stripped.split("/") if stripped else []
        for route in self.routes if path is not None else ():
            names = route.match(method, segments)
            if names is not None:
                call = CompatCall(scope, receive, send, str(path), names)
                return self._run(route, call)
        raise self.unknown(method, path if path is not None else scope["path"])

    async def _run(self, route: Route, call: CompatCall) -> None:
        await self.prepare(call)
        await route.run(call)

    async def prepare(self, call: CompatCall) -> None:
        """Do what must be done before each call; nothing, unless an app needs it."""

    def unknown(self, method: str, path: str) -> APIError:
        """Return the error for a path that is not served."""
        return APIError(ErrorKind.NOT_FOUND, f"Unknown request URL: {method} {path}.")

    def encode_error(self, error: APIError) -> bytes:
        """Write the body of an error of the app itself."""
        return OPENAI_CHAT.encode_error(error)

    async def _refuse(self, send: Send, error: APIError) -> None:
        body = error.body if error.body is not None else self.encode_error(error)
        await _asgi.send_response(send, error.status, body, _asgi.error_headers(error))


def _with_cors(send: Send) -> Send:
    """Return a `send` that lets any web page read the response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                pair
                for pair in message.get("headers", ())
                if pair[0] not in (b"access-control-allow-origin", b"access-control-expose-headers")
            ]
            message = {**message, "headers": [*kept, *_CORS]}
        await send(message)

    return sending


def aliases(methods: str, paths: Iterable[str], run: Handler) -> list[Route]:
    """Return one route for each of several paths with the same handler."""
    return [Route(methods, path, run) for path in paths]
