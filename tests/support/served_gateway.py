"""A gateway under a real server over a provider of bytes, with its usage records and leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from asgi_aiproxy import Key, KeyPool, OpenAIShim, ProviderRouter, Timeouts, UsageRecord
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.shim import Shim
from asgi_aiproxy.upstream import SocketTransport
from tests.support.servers import Running, Server
from tests.support.socket_client import Caller
from tests.support.socket_server import PATIENCE, Handler, Wire

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SECRET = "sk-upstream-secret"


def chunked(*pieces: bytes, end: bool = False) -> bytes:
    """Pieces of a body, each as a chunk."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return body + b"0\r\n\r\n" * end


@dataclass
class Gateway:
    """What a test sees of a gateway."""

    pool: KeyPool
    transport: SocketTransport
    wire: Wire
    running: Running
    app: Shim
    records: list[UsageRecord] = field(default_factory=list)
    recorded_at: float = 0.0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, record: UsageRecord) -> None:
        """The sink."""
        self.records.append(record)
        self.recorded_at = time.perf_counter()
        self._news.set()

    async def caller(self, **options: Any) -> Caller:
        return await Caller.to(self.running.port, **options)

    async def recorded(self, count: int = 1) -> UsageRecord:
        """Wait for this number of records; there are no more, and no key is in use."""
        async with asyncio.timeout(PATIENCE):
            while len(self.records) < count:
                self._news.clear()
                await self._news.wait()
        await asyncio.sleep(0.02)  # what would come too often comes about now
        assert len(self.records) == count, self.records
        assert [key.in_flight for key in await self.pool.status()] == [0]
        return self.records[-1]


@asynccontextmanager
async def gateway(
    server: Server,
    handler: Handler,
    *,
    provider: Provider = OPENAI,
    base: str = "{url}/v1",
    wait: float = 0.0,
    models: Sequence[str] = (),
    concurrency: int | None = 1,
    max_connections: int = 10,
    grace: float = 1.0,
    timeouts: Timeouts | None = None,
    shim: type[Shim] = OpenAIShim,
    mounted: Callable[[Shim], Any] | None = None,
    **options: Any,
) -> AsyncIterator[Gateway]:
    """A running gateway, for any model unless `models` are given.

    `base` is the provider's address; {url} and {port} are replaced by the wire's. `mounted` makes
    the host of the app, if it has one.
    """
    pool = KeyPool([Key(SECRET, id="1", concurrency=concurrency)], max_wait_seconds=wait)
    limits = timeouts if timeouts is not None else Timeouts(first=60.0, idle=60.0)
    transport = SocketTransport(timeouts=limits, max_connections=max_connections)
    seen: list[Gateway] = []

    async def sink(record: UsageRecord) -> None:
        await seen[0].take(record)

    async with Wire(handler) as wire:
        target = provider.using(pool, base_url=base.format(url=wire.url, port=wire.port))
        router = ProviderRouter(dict.fromkeys(models, target)) if models else target
        app = shim(router, transport=transport, record=sink, timeouts=limits, **options)
        try:
            host = app if mounted is None else mounted(app)
            async with server(host, grace=grace) as running:
                seen.append(Gateway(pool, transport, wire, running, app))
                yield seen[0]
        finally:
            await transport.aclose()
