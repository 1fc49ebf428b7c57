"""A client of bytes: sends any bytes, receives them as they arrive, and closes at any time."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from typing import Any

from tests.support.asgi_client import Answer
from tests.support.socket_server import PATIENCE

CHAT = "/v1/chat/completions"
HI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Caller:
    """One connection to a server, from the client's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._chunked = False
        self._left: int | None = 0

    @classmethod
    async def to(cls, port: int, *, window: int | None = None) -> Caller:
        """Connect; `window` limits the kernel's receive buffer."""
        sock = socket.socket()
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=sock, limit=window or 2**16))

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def post(
        self, body: bytes | Any, path: str = CHAT, *headers: str, length: int | None = None
    ) -> None:
        """Send a request; `body` may be only its beginning."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        size = len(data) if length is None else length
        if not any(line.lower().startswith("content-type") for line in headers):
            headers += ("Content-Type: application/json",)
        lines = [f"POST {path} HTTP/1.1", "Host: gateway", *headers, f"Content-Length: {size}"]
        self.say("\r\n".join([*lines, "", ""]).encode() + data)

    def chat(self, **members: Any) -> None:
        self.post({**HI, **members})

    def ask(self, method: str, path: str, *headers: str, version: str = "1.1") -> None:
        """Send a request without a body."""
        lines = [f"{method} {path} HTTP/{version}", "Host: gateway", *headers, "", ""]
        self.say("\r\n".join(lines).encode())

    async def head(self, method: str = "POST") -> Answer:
        """Read the head of a response."""
        async with asyncio.timeout(PATIENCE):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")[:-2]
        pairs = [line.partition(":") for line in lines]
        answer = Answer(
            int(first.split(" ")[1]), [(k.lower(), v.strip()) for k, _, v in pairs], b""
        )
        length = answer.header("content-length")
        self._chunked = answer.header("transfer-encoding") == "chunked"
        self._left = int(length) if length is not None else None
        if method == "HEAD" or answer.status in (204, 304):
            self._chunked, self._left = False, 0
        return answer

    async def piece(self) -> bytes:
        """Read the next bytes of the body; empty at its end. Raises IncompleteReadError if it is
        cut off.

        A body without length and chunks ends with the connection.
        """
        async with asyncio.timeout(PATIENCE):
            if self._chunked:
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                data = (await self.reader.readexactly(size + 2))[:-2]
                self._chunked, self._left = size > 0, 0
                return data
            data = await self.reader.read(65536 if self._left is None else min(self._left, 65536))
        if self._left is not None:
            if self._left and not data:
                raise asyncio.IncompleteReadError(b"", self._left)
            self._left -= len(data)
        return data

    async def rest(self) -> bytes:
        body = b""
        while data := await self.piece():
            body += data
        return body

    async def until(self, words: bytes) -> bytes:
        """Read until these bytes arrive."""
        body = b""
        while words not in body:
            data = await self.piece()
            assert data, f"it ended, without {words!r}: {body!r}"
            body += data
        return body

    async def answer(self, method: str = "POST") -> Answer:
        head = await self.head(method)
        head.body = await self.rest()
        return head

    def leave(self, *, reset: bool = False) -> float:
        """Close like a killed process; returns the time."""
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        moment = time.perf_counter()
        self.writer.transport.abort()
        return moment
