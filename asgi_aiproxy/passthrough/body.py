"""A request body on its way from the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, Receive
from asgi_aiproxy._watch import ClientGoneError, Deadline


class Body:
    """The body of one request. `open` says what there is; a long one is then iterated over.

    `length` is what the client says, `limit` what is taken at most, and `replay` up to where a body
    is read before it is sent, all in bytes: what is short can be sent again.
    """

    def __init__(
        self, receive: Receive, *, length: int | None, limit: int | None, replay: int
    ) -> None:
        self._receive = receive
        self._length = length
        self._limit = limit
        self._replay = replay
        self._size = 0
        self._more = True
        self._first = b""
        self._ended = asyncio.Event()
        # Who waits for the upstream's answer, and should not while the client is speaking.
        self.deadline: Deadline | None = None

    async def open(self) -> bytes | AsyncIterator[bytes] | None:
        """A short body, one to iterate over once, or None. Raises APIError, ClientGoneError."""
        if self._limit is not None and self._length is not None and self._length > self._limit:
            raise _asgi.too_large(self._limit)
        first = await self._next()
        if not self._more:
            return first or None
        if self._length is None or self._length > self._replay:
            self._first = first
            return self
        pieces = [first]
        while self._more:
            pieces.append(await self._next())
        return b"".join(pieces)

    async def receive(self) -> Message:
        """What comes after the body: an ASGI `receive` for who watches for a disconnect."""
        await self._ended.wait()
        while True:
            message = await self._receive()
            if message["type"] != "http.request" or not self._more:
                return message
            # The upstream did not want the rest; who answers the client will not, either.
            self._more = message.get("more_body", False)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        while self._more:
            data = await self._next()
            if self.deadline is not None:
                self.deadline.since = self.deadline.now()
            if data:
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Nobody wants the rest."""
        self._ended.set()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._ended.set()
            raise ClientGoneError("The client left while it sent its request.")
        data: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        if not self._more:
            self._ended.set()
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            self._ended.set()
            raise _asgi.too_large(self._limit)
        return data
