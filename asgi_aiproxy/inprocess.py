"""Call the gateway without a socket, from the host's own code or an official SDK.

    http = httpx2.AsyncClient(transport=in_process(ai))
    client = openai.AsyncOpenAI(base_url="http://ai/v1", api_key="-", http_client=http)

These requests share key pools, limits and usage records with those of other clients.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

from asgi_aiproxy._asgi import ASGIApp, Message, RawHeaders
from asgi_aiproxy.credentials import with_principal
from asgi_aiproxy.principal import IN_PROCESS_KEY, Principal


class InProcessTransport:
    """A transport for `httpx.AsyncClient` or `httpx2.AsyncClient` that calls an ASGI app.

    Unlike httpx's own `ASGITransport` it streams: each piece is available as soon as the app sends
    it, and closing an unfinished response is a disconnect for the app. `root_path` is the mount.
    With `principal` the requests are those of this caller, which `Authenticate` takes as it is.
    """

    def __init__(
        self, app: ASGIApp, *, root_path: str = "", principal: Principal | None = None
    ) -> None:
        self._app = app
        self._root_path = root_path
        self._principal = principal

    def __repr__(self) -> str:
        return f"in_process({self._app!r})"

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request of the client's library, and return that library's response."""
        library = importlib.import_module(type(request).__module__.partition(".")[0])
        scope = _scope(request, self._root_path, self._principal)
        exchange = InProcessExchange(self._app, scope, await request.aread())
        start = await exchange.message()
        return library.Response(
            start["status"], headers=start["headers"], stream=_stream(library)(exchange)
        )

    async def aclose(self) -> None:
        """Do nothing: the transport holds no resources."""

    async def __aenter__(self) -> InProcessTransport:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


class InProcessExchange:
    """One request to the app. One message is buffered: a slow reader slows down the app."""

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: bytes) -> None:
        self._body: bytes | None = body
        self._messages: asyncio.Queue[Message] = asyncio.Queue(1)
        self._disconnected = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._receive, self._messages.put)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def message(self) -> Message:
        """Return the app's next message. Raises the exception that the app raised."""
        getting = asyncio.get_running_loop().create_task(self._messages.get())
        try:
            await asyncio.wait((getting, self._task), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                if not self._messages.empty():
                    return await getting
                self._task.result()
                raise RuntimeError("The app ended before its response was complete.")
            return getting.result()
        except BaseException:
            getting.cancel()
            await self.aclose()
            raise

    @property
    def failure(self) -> BaseException | None:
        """The exception that the app has raised."""
        task = self._task
        return task.exception() if task.done() and not task.cancelled() else None

    async def aclose(self) -> None:
        """Disconnect if the app is not done, and wait until it is."""
        self._disconnected.set()
        while not self._task.done():
            while not self._messages.empty():
                self._messages.get_nowait()
            await asyncio.wait((self._task,), timeout=0.01)


def _scope(request: Any, root_path: str, principal: Principal | None) -> dict[str, Any]:
    path, _, query = request.url.raw_path.partition(b"?")
    scope = post_scope(
        root_path + unquote(path.decode("ascii")),
        [(name.lower(), value) for name, value in request.headers.raw],
        principal=principal,
    )
    return scope | {
        "method": request.method,
        "scheme": request.url.scheme,
        "raw_path": root_path.encode() + path,
        "query_string": query,
        "root_path": root_path,
        "server": (request.url.host, request.url.port or 80),
    }


def post_scope(path: str, headers: RawHeaders, *, principal: Principal | None) -> dict[str, Any]:
    """Return the scope of a POST request of this caller; None: it is identified by its headers."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": ("in-process", 80),
    }
    if principal is None:
        return scope
    return with_principal({**scope, IN_PROCESS_KEY: principal}, principal)


def _stream(library: Any) -> Any:
    """Return a class for response bodies, derived from the library's stream class."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, exchange: InProcessExchange) -> None:
            self._exchange = exchange

        async def __aiter__(self) -> AsyncIterator[bytes]:
            more = True
            while more:
                message = await self._exchange.message()
                more = message.get("more_body", False)
                if message.get("body"):
                    yield message["body"]

        async def aclose(self) -> None:
            await self._exchange.aclose()

    return Stream
