"""A TCP proxy that simulates failures."""

from __future__ import annotations

import asyncio
import ssl
from typing import Literal

Fault = Literal["none", "swallow", "cut"]


class Proxy:
    """Forwards bytes to a server, in order and without gaps, like TCP.

    `fault`: replies are dropped, and from then on everything on that connection, or the connection
    is cut when one arrives. `delay` is the delay of replies in seconds. `refuse` closes new
    connections at once. `target` is the port that new connections lead to.
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
        for each in (
            self._pass(reader, far_writer),
            self._reply(far_reader, writer),
        ):
            self._tasks.add(loop.create_task(each))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, data = await late.get()
                await asyncio.sleep(due - loop.time())
                writer.write(data)

        writing = loop.create_task(write())
        self._tasks.add(writing)
        lost = False
        try:
            while (data := await reader.read(1 << 16)) and self.fault != "cut":
                lost = lost or self.fault == "swallow"
                if not lost:
                    late.put_nowait((loop.time() + self.delay, data))
        except OSError:
            pass
        finally:
            writing.cancel()
            writer.close()
