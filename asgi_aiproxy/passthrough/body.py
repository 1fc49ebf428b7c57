"""Read the request body of a client, completely or as a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, Receive
from asgi_aiproxy._cancellation import ClientGoneError, RequestMonitor
from asgi_aiproxy.errors import APIError

# Bytes that may be read ahead of the upstream: servers report a disconnect only after the body
# bytes that precede it.
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
    """Read the body of a request: bytes if it is read completely, else a stream; None if it is
    empty.

    Arguments:

    - `length`: the declared content length. - `limit`: the maximum length. - `replay`: bodies up to
      this length are read completely, so that they can be sent again. - `whole_reason`: if given,
      the body is read completely in any case; the reason is added to the error for a body that is
      too long. - `unsized`: also read bodies without a declared length completely, up to `replay`.
      - `seconds`: how long the client may be silent (None: no limit).

    Lengths are in bytes. Raises APIError, ClientGoneError.
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
    """A streamed body, of which `first` was received. It can be iterated over once."""

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
        self._more_body = True
        self._accepting = True
        self._observe_piece: Callable[[bytes], None] | None = None
        self._check_end: Callable[[], None] | None = None
        self._failure: APIError | ClientGoneError | None = None
        self._fetch_lock = asyncio.Lock()  # only one task reads at a time
        self._has_room = asyncio.Event()

    @property
    def held(self) -> int:
        """The number of bytes that were received and not sent yet."""
        return self._held

    def observe(self, on_piece: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Call `on_piece` for each piece, including those received before, and `on_end` at the end
        of the body.

        If one of them raises an APIError, the body fails before that piece is sent.
        """
        for piece in self._pieces:
            on_piece(piece)
        if not self._more_body:
            on_end()
        self._observe_piece, self._check_end = on_piece, on_end

    async def prefetch(self, max_held: int, enough: Callable[[], bool] = lambda: False) -> bool:
        """Read until more than `max_held` bytes are held, `enough` returns True, or the body ends.

        Returns whether the body has ended. Raises APIError, ClientGoneError.
        """
        while self._more_body and self._held <= max_held and not enough():
            await self._fetch()
            if self._failure is not None:
                raise self._failure
        return not self._more_body

    async def receive(self) -> Message:
        """Return the message after the body: an ASGI `receive` to watch for the disconnect."""
        while self._more_body:
            if self._held < _READ_AHEAD or not self._accepting:
                try:
                    await self._fetch()
                except ClientGoneError:
                    return {"type": "http.disconnect"}
                except APIError:
                    pass  # raised to the reader of the body
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
            if not self._more_body:
                raise StopAsyncIteration
            await self._fetch()
        monitor.upstream_write_started()
        data = self._pieces.popleft()
        self._held -= len(data)
        self._has_room.set()
        return data

    async def aclose(self) -> None:
        """Discard the rest of the body."""
        self._monitor.upstream_write_finished()
        self._accepting = False
        self._has_room.set()

    async def _fetch(self) -> None:
        """Receive one more piece, unless another task has received one in the meantime."""
        size, failure = self._size, self._failure
        async with self._fetch_lock:
            if not self._more_body or self._size != size or self._failure is not failure:
                return
            try:
                message = await _asgi.next_piece(self._receive, self._seconds)
            except ClientGoneError as error:
                self._more_body, self._failure = False, error
                raise
            except APIError as error:
                self._accepting, self._failure = False, self._failure or error
                raise
            data: bytes = message.get("body", b"")
            self._more_body = message.get("more_body", False)
            self._size += len(data)
            if self._limit is not None and self._size > self._limit and self._accepting:
                self._accepting = False
                self._failure = _too_large(self._limit, self._whole_reason)
                raise self._failure
            if self._accepting and (data or not self._more_body):
                if self._observe_piece is not None and self._check_end is not None:
                    try:
                        self._observe_piece(data)
                        if not self._more_body:
                            self._check_end()
                    except APIError as error:
                        self._accepting, self._failure = False, error
                        raise
                self._pieces.append(data)
                self._held += len(data)


Content = bytes | RequestBody | None
