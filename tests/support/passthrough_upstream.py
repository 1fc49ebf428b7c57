"""A proxy in front of the upstream of a test, and what both sides receive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from asgi_aiproxy import KeyPool, PassthroughProxy, Timeouts, UsageRecord
from asgi_aiproxy._asgi import serve_lifespan
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.upstream import SocketTransport
from tests.support.asgi_client import Answer
from tests.support.socket_client import Caller
from tests.support.socket_server import PATIENCE, Handler, Line, Request, Wire

LIMITS = Timeouts(first=20.0, idle=20.0, connect=5.0)


class Frontend:
    """An ASGI app that passes all scopes to `app`."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.port = 0
        self.app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(_nothing(), receive, send)
        else:
            await self.app(scope, receive, send)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@dataclass
class Behind:
    """A proxy under a server, its upstream and its usage records."""

    frontend: Frontend
    wire: Wire
    proxy: PassthroughProxy
    transport: SocketTransport
    records: list[UsageRecord]
    requests: list[Request] = field(default_factory=list)

    @property
    def request(self) -> Request:
        """The only request that reached the upstream."""
        assert len(self.requests) == 1, self.requests
        return self.requests[0]

    async def caller(self, **options: Any) -> Caller:
        return await Caller.to(self.frontend.port, **options)

    async def recorded(self, count: int = 1) -> UsageRecord:
        """Wait for this number of records; there are no more."""
        async with asyncio.timeout(PATIENCE):
            while len(self.records) < count:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)  # what would come too often comes about now
        assert len(self.records) == count, self.records
        return self.records[-1]


@asynccontextmanager
async def behind(
    frontend: Frontend,
    handler: Handler,
    target: Provider | None = None,
    *,
    base: str = "",
    keys: KeyPool | None = None,
    wrap: Any = None,
    **options: Any,
) -> AsyncIterator[Behind]:
    """A proxy to an upstream of bytes: a plain URL, or `target` with `base` below its host.

    `wrap` puts something in front of the proxy.
    """
    options.setdefault("timeouts", LIMITS)
    transport = SocketTransport(timeouts=options["timeouts"])
    records: list[UsageRecord] = []
    requests: list[Request] = []

    async def record(record: UsageRecord) -> None:
        records.append(record)

    async def seen(line: Line) -> None:
        await handler(_Noted(line, requests))  # type: ignore[arg-type]

    async with Wire(seen) as wire:
        url = wire.url + base
        to = target.using(keys or "sk-pool-secret", base_url=url) if target is not None else url
        proxy = PassthroughProxy(to, transport=transport, record=record, **options)
        frontend.app = wrap(proxy) if wrap is not None else proxy
        try:
            yield Behind(frontend, wire, proxy, transport, records, requests)
        finally:
            await transport.aclose()


class _Noted:
    """A connection whose requests are recorded."""

    def __init__(self, line: Line, requests: list[Request]) -> None:
        self._line = line
        self._requests = requests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line, name)

    async def head(self) -> Request:
        request = await self._line.head()
        self._requests.append(request)
        return request

    async def request(self) -> Request:
        request = await self._line.request()
        self._requests.append(request)
        return request


@dataclass
class Result:
    """The result for a client: a response, whole or cut off; None if the connection was closed
    instead.
    """

    answer: Answer | None
    whole: bool

    @property
    def got(self) -> Answer:
        assert self.answer is not None, "the connection was closed before a response"
        return self.answer


async def converse(caller: Caller, data: bytes, method: str) -> Result:
    """Send some bytes, and read the response."""
    caller.say(data)
    try:
        answer = await caller.head(method)
    except (asyncio.IncompleteReadError, ConnectionError):
        return Result(None, False)
    while answer.status < 200:
        answer = await caller.head(method)
    try:
        while data := await caller.piece():
            answer.body += data
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return Result(answer, False)
    return Result(answer, True)
