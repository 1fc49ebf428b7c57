"""A server of bytes: the exact bytes that arrive over a socket, and those that a test
sends back.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Self

# Bounds for what takes milliseconds when all is well.
PATIENCE = 30.0  # much more than any of it takes, also on a busy machine


@dataclass
class Request:
    """A request as received."""

    line: str
    headers: list[tuple[str, str]]  # names as they were sent
    body: bytes  # undone of its chunks, if it came in such
    raw: bytes = b""  # the body as it was sent

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def header(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


class Line:
    """One connection, from the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.gone_at: float | None = None

    async def head(self) -> Request:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = text.split("\r\n")[:-2]
        pairs = (each.partition(": ") for each in rest)
        return Request(line, [(name, value) for name, _, value in pairs], b"")

    async def request(self) -> Request:
        request = await self.head()
        if (length := request.header("content-length")) is not None:
            request.body = request.raw = await self.reader.readexactly(int(length))
        elif request.header("transfer-encoding") == "chunked":
            while True:
                size = await self.reader.readuntil(b"\r\n")
                chunk = await self.reader.readexactly(int(size, 16) + 2)
                request.raw += size + chunk
                request.body += chunk[:-2]
                if int(size, 16) == 0:
                    break
        return request

    async def send(self, *data: bytes) -> None:
        for piece in data:
            if self.writer.is_closing():
                raise ConnectionResetError
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, body: bytes = b"{}", status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
        await self.send("\r\n".join(lines).encode("latin-1") + body)

    async def gone(self) -> None:
        """Read until the other side has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.gone_at = time.perf_counter()

    def reset(self) -> None:
        """End the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Handler = Callable[[Line], Awaitable[None]]


@dataclass
class Wire:
    """A server on loopback; `handler` gets every connection, which is closed when it returns."""

    handler: Handler
    context: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    lines: list[Line] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    _tasks: dict[asyncio.Task[None], Line] = field(default_factory=dict)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self.host, 0, ssl=self.context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        scheme = "http" if self.context is None else "https"
        self.url = f"{scheme}://{self.host}:{self.port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self.errors and exc[0] is None:
            raise self.errors[0]

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._tasks)

    async def opened(self, count: int) -> None:
        """Wait until this number of connections is open."""
        async with asyncio.timeout(PATIENCE):
            while self.open != count:
                await asyncio.sleep(0.001)  # the kernel has no event for both ends

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        self.lines.append(line)
        task = asyncio.get_running_loop().create_task(self._run(line))
        self._tasks[task] = line
        task.add_done_callback(self._tasks.pop)

    async def _run(self, line: Line) -> None:
        try:
            await self.handler(line)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            line.writer.close()


def answering(*answers: bytes) -> Handler:
    """Answers with these bytes, one after the other, then closes."""

    async def handler(line: Line) -> None:
        for answer in answers:
            await line.request()
            await line.send(answer)

    return handler


def again(body: bytes = b"{}", *headers: str) -> Handler:
    """Answers every request of a connection."""

    async def handler(line: Line) -> None:
        while True:
            await line.request()
            await line.answer(body, "200 OK", *headers)

    return handler


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that neither accepts nor refuses connections: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(4):
            waiting.append(sock := socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for sock in waiting:
                sock.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which no server listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@asynccontextmanager
async def cancelled(awaitable: Awaitable[object]) -> AsyncIterator[None]:
    """Runs something during the block, and cancels it at the block's end."""
    task = asyncio.ensure_future(awaitable)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
