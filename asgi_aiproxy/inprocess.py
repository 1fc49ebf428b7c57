"""The gateway without a socket: for jobs of the host's own, and for the official SDKs.

    http = httpx2.AsyncClient(transport=in_process(ai))
    client = openai.AsyncOpenAI(base_url="http://ai/v1", api_key="-", http_client=http)

Calls made here share pools, limits and records with those that come from outside.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

from asgi_aiproxy._asgi import ASGIApp, Message


class InProcessTransport:
    """A transport for `httpx.AsyncClient` or `httpx2.AsyncClient` that calls an ASGI app.

    Unlike httpx's own `ASGITransport` it streams: what the app sends is there at once, and closing
    an unfinished answer tells the app that its client has left.
    """

    def __init__(self, app: ASGIApp, *, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path

    def __repr__(self) -> str:
        return f"in_process({self._app!r})"

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request of the client's own library; returns that library's response."""
        library = importlib.import_module(type(request).__module__.partition(".")[0])
        exchange = _Exchange(self._app, _scope(request, self._root_path), await request.aread())
        start = await exchange.message()
        return library.Response(
            start["status"], headers=start["headers"], stream=_stream(library)(exchange)
        )

    async def aclose(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> InProcessTransport:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


class _Exchange:
    """One request to the app. Its messages wait one at a time: a slow reader slows the app."""

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: bytes) -> None:
        self._body: bytes | None = body
        self._messages: asyncio.Queue[Message] = asyncio.Queue(1)
        self._gone = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._receive, self._messages.put)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def message(self) -> Message:
        """The app's next message; raises what the app raised."""
        getting = asyncio.get_running_loop().create_task(self._messages.get())
        try:
            await asyncio.wait((getting, self._task), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                if not self._messages.empty():
                    return await getting
                self._task.result()
                raise RuntimeError("The app ended before its answer was complete.")
            return getting.result()
        except BaseException:
            getting.cancel()
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """The client leaves, unless the app is done; then wait until it is."""
        self._gone.set()
        while not self._task.done():
            while not self._messages.empty():
                self._messages.get_nowait()
            await asyncio.wait((self._task,), timeout=0.01)


def _scope(request: Any, root_path: str) -> dict[str, Any]:
    path, _, query = request.url.raw_path.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": root_path + unquote(path.decode("ascii")),
        "raw_path": root_path.encode() + path,
        "query_string": query,
        "root_path": root_path,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
        "server": (request.url.host, request.url.port or 80),
    }


def _stream(library: Any) -> Any:
    """The body of a response, as the library's own kind of stream."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, exchange: _Exchange) -> None:
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
