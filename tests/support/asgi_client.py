"""Drives an ASGI app message by message: requests, streams, disconnects, lifespan."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

App = Any
Message = MutableMapping[str, Any]


@dataclass
class Answer:
    """The response of an app."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of an event stream, parsed if it is JSON."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
            if lines:
                data = "\n".join(lines)
                found.append(data if data == "[DONE]" else json.loads(data))
        return found


@dataclass
class Exchange:
    """One request to an app whose messages a test sends and receives itself."""

    app: App
    scope: MutableMapping[str, Any]
    _in: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    _out: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    _gone: bool = False
    task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self.task is not None
        if not self.task.done():
            self.task.cancel()
        await asyncio.wait((self.task,))

    async def _run(self) -> None:
        await self.app(self.scope, self._in.get, self._send)

    async def _send(self, message: Message) -> None:
        if self._gone:
            raise OSError("the client is gone")
        self._out.put_nowait(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._in.put_nowait({"type": "http.disconnect"})  # as servers do after a whole answer

    def send_body(self, body: bytes, *, more: bool = False) -> None:
        self._in.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def disconnect(self, *, send_fails: bool = False) -> None:
        """The client disconnects; with `send_fails` the app is also notified by `send`."""
        self._gone = send_fails
        self._in.put_nowait({"type": "http.disconnect"})

    def drop(self) -> None:
        """From here on `send` raises, and `receive` returns nothing."""
        self._gone = True

    async def message(self) -> Message:
        """Return the next message of the app; raises the exception of the app."""
        assert self.task is not None
        getter = asyncio.get_running_loop().create_task(self._out.get())
        await asyncio.wait((getter, self.task), return_when=asyncio.FIRST_COMPLETED, timeout=60)
        if not getter.done() and not self._out.empty():
            await asyncio.wait((getter,))
        if getter.done():
            return getter.result()
        getter.cancel()
        if self.task.done() and self.task.exception() is not None:
            raise self.task.exception()  # type: ignore[misc]
        raise AssertionError("the app sent nothing")

    async def answer(self) -> Answer:
        """Return the whole response of the app."""
        start = await self.message()
        assert start["type"] == "http.response.start", start
        body = b""
        more = True
        while more:
            message = await self.message()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(k.decode(), v.decode()) for k, v in start["headers"]]
        return Answer(start["status"], headers, body)

    async def ended(self) -> None:
        """Wait until the app has returned; raises its exception."""
        assert self.task is not None
        done, _ = await asyncio.wait((self.task,), timeout=60)
        assert done, "the app did not end"
        self.task.result()


def scope_of(
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    root_path: str = "",
    **more: Any,
) -> MutableMapping[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
        **more,
    }


def opened(app: App, method: str, path: str, **options: Any) -> Exchange:
    """A request without its body, which the test sends."""
    return Exchange(app, scope_of(method, path, **options))


async def request(
    app: App, method: str, path: str, body: bytes | Any = b"", **options: Any
) -> Answer:
    """A whole request and its whole response; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with opened(app, method, path, **options) as exchange:
        exchange.send_body(data)
        answer = await exchange.answer()
        await exchange.ended()
    return answer


async def chat(app: App, path: str = "/v1/chat/completions", **body: Any) -> Answer:
    """A chat request with `headers` and `root_path`."""
    options = {k: body.pop(k) for k in ("headers", "root_path") if k in body}
    full = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    return await request(app, "POST", path, full, **options)


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[Mapping[str, Any]]:
    """The app's lifespan as a server runs it; yields the state."""
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    async with Exchange(app, scope) as exchange:
        exchange._in.put_nowait({"type": "lifespan.startup"})
        message = await exchange.message()
        assert message["type"] == "lifespan.startup.complete", message
        yield state
        exchange._in.put_nowait({"type": "lifespan.shutdown"})
        message = await exchange.message()
        assert message["type"] == "lifespan.shutdown.complete", message
        await exchange.ended()
