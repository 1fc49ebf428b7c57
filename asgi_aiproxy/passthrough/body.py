"""A request body on its way from the client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, Receive
from asgi_aiproxy._watch import ClientGoneError, Deadline
from asgi_aiproxy.errors import APIError

# What may be read ahead of an upstream that does not take it: servers tell that a client has left
# only after what came before that.
_AHEAD = 64 * 1024


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
        self._wanted = True
        self._ahead: deque[bytes] = deque()
        self._held = 0
        self._failure: APIError | ClientGoneError | None = None
        self._turn = asyncio.Lock()  # one reads at a time
        self._room = asyncio.Event()
        # Who waits for the upstream's answer, and should not while the client is speaking.
        self.deadline: Deadline | None = None

    async def open(self) -> bytes | AsyncIterator[bytes] | None:
        """A short body, one to iterate over once, or None. Raises APIError, ClientGoneError."""
        if self._limit is not None and self._length is not None and self._length > self._limit:
            self._wanted = False
            raise _asgi.too_large(self._limit)
        await self._fetch()
        if self._more and (self._length is None or self._length > self._replay):
            return self
        pieces = [piece async for piece in self]
        return b"".join(pieces) or None

    async def receive(self) -> Message:
        """What comes after the body: an ASGI `receive` for who watches for a disconnect."""
        while self._more:
            if self._held < _AHEAD or not self._wanted:
                try:
                    await self._fetch()
                except ClientGoneError:
                    return {"type": "http.disconnect"}
                except APIError:
                    pass  # told to who sends the body on
            else:
                self._room.clear()
                await self._room.wait()
        return await self._receive()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ahead:
            if self._failure is not None:
                raise self._failure
            if not self._more:
                raise StopAsyncIteration
            await self._fetch()
            if self.deadline is not None:
                self.deadline.since = self.deadline.now()
        data = self._ahead.popleft()
        self._held -= len(data)
        self._room.set()
        return data

    async def aclose(self) -> None:
        """Nobody wants the rest."""
        self._wanted = False
        self._room.set()

    async def _fetch(self) -> None:
        """Have one more piece at hand, unless somebody else has just fetched one."""
        held = self._size
        async with self._turn:
            if not self._more or self._size != held:
                return
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._more = False
                self._failure = ClientGoneError("The client left while it sent its request.")
                raise self._failure
            data: bytes = message.get("body", b"")
            self._more = message.get("more_body", False)
            self._size += len(data)
            if self._limit is not None and self._size > self._limit and self._wanted:
                self._wanted = False
                self._failure = _asgi.too_large(self._limit)
                raise self._failure
            if data and self._wanted:
                self._ahead.append(data)
                self._held += len(data)
