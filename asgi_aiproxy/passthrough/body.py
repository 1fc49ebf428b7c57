"""A request body on its way from the client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, Receive
from asgi_aiproxy._cancellation import ClientGoneError, RequestMonitor
from asgi_aiproxy.errors import APIError

# What may be read ahead of an upstream that does not take it: servers tell that a client has left
# only after what came before that.
_READ_AHEAD = 64 * 1024


async def read_content(
    receive: Receive,
    monitor: RequestMonitor,
    *,
    length: int | None,
    limit: int | None,
    replay: int,
    seconds: float | None,
    whole_reason: str = "",
    unsized: bool = False,
) -> Content:
    """The body of a request: bytes if it is short, else to iterate over once; None if empty.

    `length` is what the client says, `limit` what is taken at most, and `replay` up to where a body
    is read before it is sent, all in bytes: what is short can be sent again. `whole` says why it
    is read before in any case, if it is; with `unsized` also one without a length, as it may be
    short. The client may be silent for so many `seconds`. Raises APIError, ClientGoneError.
    """
    if limit is not None and length is not None and length > limit:
        raise _too_large(limit, whole_reason)
    message = await _asgi.next_piece(receive, seconds)
    data: bytes = message.get("body", b"")
    if limit is not None and len(data) > limit:
        raise _too_large(limit, whole_reason)
    if not message.get("more_body", False):
        monitor.receive = receive
        return data or None
    body = RequestBody(receive, monitor, data, limit, whole_reason, seconds)
    monitor.receive = body.receive
    if whole_reason or (length is not None and length <= replay):
        return b"".join([piece async for piece in body]) or None
    if length is None and unsized and await body.prefetch(replay):
        return b"".join([piece async for piece in body]) or None
    return body


def _too_large(limit: int, whole_reason: str) -> APIError:
    error = _asgi.too_large(limit)
    if whole_reason:
        error.message += f" {whole_reason}"
    return error


class RequestBody:
    """A body of which `first` has come."""

    def __init__(
        self,
        receive: Receive,
        monitor: RequestMonitor,
        first: bytes,
        limit: int | None,
        whole_reason: str,
        seconds: float | None,
    ) -> None:
        self._receive = receive
        self._monitor = monitor
        self._limit = limit
        self._whole_reason = whole_reason
        self._seconds = seconds
        self._size = self._held = len(first)
        self._pieces = deque([first] if first else ())
        self._more = True
        self._accepting = True
        self._observe_piece: Callable[[bytes], None] | None = None
        self._check_end: Callable[[], None] | None = None
        self._failure: APIError | ClientGoneError | None = None
        self._fetch_lock = asyncio.Lock()  # one reads at a time
        self._has_room = asyncio.Event()

    @property
    def held(self) -> int:
        """How many bytes have come, and have not been sent on."""
        return self._held

    def observe(self, on_piece: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Show `see` what has come and what comes, and call `end` at the end of it.

        If one of them raises an APIError, the body fails before the piece has left.
        """
        for piece in self._pieces:
            on_piece(piece)
        if not self._more:
            on_end()
        self._observe_piece, self._check_end = on_piece, on_end

    async def prefetch(self, max_held: int, enough: Callable[[], bool] = lambda: False) -> bool:
        """Have more than `most` bytes at hand, or `enough`, or all: returns whether it is all.

        Raises APIError, ClientGoneError.
        """
        while self._more and self._held <= max_held and not enough():
            await self._fetch()
            if self._failure is not None:
                raise self._failure
        return not self._more

    async def receive(self) -> Message:
        """What comes after the body: an ASGI `receive` for who watches for a disconnect."""
        while self._more:
            if self._held < _READ_AHEAD or not self._accepting:
                try:
                    await self._fetch()
                except ClientGoneError:
                    return {"type": "http.disconnect"}
                except APIError:
                    pass  # told to who sends the body on
            else:
                self._has_room.clear()
                await self._has_room.wait()
        return await self._receive()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        monitor = self._monitor
        monitor.upstream_write_finished()
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if not self._more:
                raise StopAsyncIteration
            await self._fetch()
        monitor.upstream_write_started()
        data = self._pieces.popleft()
        self._held -= len(data)
        self._has_room.set()
        return data

    async def aclose(self) -> None:
        """Nobody wants the rest."""
        self._monitor.upstream_write_finished()
        self._accepting = False
        self._has_room.set()

    async def _fetch(self) -> None:
        """Have one more piece at hand, unless somebody else has just fetched one."""
        held, failure = self._size, self._failure
        async with self._fetch_lock:
            if not self._more or self._size != held or self._failure is not failure:
                return
            try:
                message = await _asgi.next_piece(self._receive, self._seconds)
            except ClientGoneError as error:
                self._more, self._failure = False, error
                raise
            except APIError as error:
                self._accepting, self._failure = False, self._failure or error
                raise
            data: bytes = message.get("body", b"")
            self._more = message.get("more_body", False)
            self._size += len(data)
            if self._limit is not None and self._size > self._limit and self._accepting:
                self._accepting = False
                self._failure = _too_large(self._limit, self._whole_reason)
                raise self._failure
            if self._accepting and (data or not self._more):
                if self._observe_piece is not None and self._check_end is not None:
                    try:
                        self._observe_piece(data)
                        if not self._more:
                            self._check_end()
                    except APIError as error:
                        self._accepting, self._failure = False, error
                        raise
                self._pieces.append(data)
                self._held += len(data)


Content = bytes | RequestBody | None
