"""A TCP proxy that misbehaves when it is told to."""

from __future__ import annotations

import asyncio
import ssl
from typing import Literal

Fault = Literal["none", "swallow", "cut"]


class Proxy:
    """Passes bytes on to a server.

    `fault`: replies are swallowed, or the connection is cut when one comes. `delay` is how many
    seconds replies are late. `refuse` closes new connections at once. `target` is the port where
    new connections lead.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.target = port
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.fault: Fault = "none"
        self.delay = 0.0
        self.refuse = False
        self.connections = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self.refuse:
            writer.close()
            return
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers.add(far_writer)
        loop = asyncio.get_running_loop()
        self._tasks.add(loop.create_task(self._pass(reader, far_writer, replies=False)))
        self._tasks.add(loop.create_task(self._pass(far_reader, writer, replies=True)))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(1 << 16):
                if not replies:
                    writer.write(data)
                elif self.fault == "cut":
                    break
                elif self.fault == "none":
                    if self.delay:
                        loop.call_later(self.delay, writer.write, data)
                    else:
                        writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()
