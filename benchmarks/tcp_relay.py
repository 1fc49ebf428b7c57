"""A bare TCP relay on uvloop: `python -m benchmarks.tcp_relay PORT TARGET_PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

HOST = "127.0.0.1"


class Upstream(asyncio.Protocol):
    """The connection to the provider."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self.transport.write(self.client.early)

    def data_received(self, data: bytes) -> None:
        self.client.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.transport.close()


class Client(asyncio.Protocol):
    """The connection of the client."""

    transport: asyncio.WriteTransport

    def __init__(self, target: int) -> None:
        self.target = target
        self.early = b""  # received before the provider was connected
        self.upstream = Upstream(self)
        self.dialing: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        loop = asyncio.get_running_loop()
        self.dialing = loop.create_task(
            loop.create_connection(lambda: self.upstream, HOST, self.target)
        )

    def data_received(self, data: bytes) -> None:
        if self.upstream.transport is None:
            self.early += data
        else:
            self.upstream.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.upstream.transport is not None:
            self.upstream.transport.close()


async def main(port: int, target: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(target), HOST, port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
