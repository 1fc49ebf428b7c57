"""One connection, and what goes over it: a request at a time."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
from collections.abc import AsyncIterable, Callable
from functools import partial
from typing import cast

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.upstream.http1 import HTTPProtocolError, ResponseParser
from asgi_aiproxy.upstream.tls import TLSLayer

# What may wait to be read before the peer has to wait with its sending.
_HIGH = 256 * 1024
_ONE_WRITE = 64 * 1024


class ConnectionEndedError(Exception):
    """The connection was ended from this side."""


class Connection(asyncio.Protocol):
    """A connection to a provider, or to an outbound proxy on the way to one.

    `send` begins an exchange and returns when the head of the answer is in `reader`; `read` gives
    its body. `lost` is set when the connection is gone, to why; `gone` is a future for that moment.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None  # for a write that has to wait
        self._upload: asyncio.Task[None] | None = None
        self._layers: tuple[TLSLayer, ...] = ()  # the outermost first
        self.reader: ResponseParser | None = None
        self.lost: BaseException | None = None
        self.gone: asyncio.Future[None] = loop.create_future()
        self.opened = loop.time()
        self.idle_since = 0.0

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._readable = _readable(transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if not self._layers:
            self._take(data)
            return
        data = self._decrypted(data)
        if data:
            self._take(data)
        if any(layer.ended for layer in self._layers):
            # A good-bye by TLS: the peer may wait for ours before it closes.
            self._end(self._closed())

    def _take(self, data: bytes) -> None:
        reader = self.reader
        if reader is None:
            self.abort()  # nobody asked
            return
        try:
            body = reader.feed(data)
        except HTTPProtocolError as error:
            if error.body:
                self._pieces.append(error.body)
            self._end(error)
            return
        if body:
            self._pieces.append(body)
            self._held += len(body)
            if self._held > _HIGH and not self._reading_paused and self._transport is not None:
                self._reading_paused = True
                self._transport.pause_reading()
        if reader.begun:
            self._wake()

    def eof_received(self) -> None:
        """The peer has sent all it will: no answer comes any more, so nothing need be sent."""
        self._end(self._closed())

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        if error is not None and self.lost is None:
            self._read_rest()
        if self.lost is None:
            self.lost = error if error is not None else self._closed()
        if not self.gone.done():
            self.gone.set_result(None)
        self._wake()
        self.resume_writing()

    def _read_rest(self) -> None:
        """Read what had come before writing failed.

        A server may answer and close before it has taken the request, and resets the connection by
        that. Whether the answer is read before the next write fails is a matter of chance.
        """
        reader, transport = self.reader, self._transport
        if reader is None or reader.done or transport is None:
            return
        try:
            file = transport.get_extra_info("socket").fileno()  # (it is not closed yet)
            with socket.socket(fileno=os.dup(file)) as rest:
                rest.setblocking(False)
                while not reader.done and self.lost is None and self._held <= _HIGH:
                    data = rest.recv(_ONE_WRITE)
                    if not data:
                        return
                    self.data_received(data)
        except OSError:
            pass

    def _closed(self) -> Exception:
        """What it means that the peer has closed now."""
        try:
            if self.reader is not None:
                self.reader.close()
        except HTTPProtocolError as early:
            return early
        return ConnectionEndedError("it was closed")

    def pause_writing(self) -> None:
        """The peer takes what is sent more slowly than it is written."""
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """There is room again."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # what the transport calls

    async def send(
        self,
        method: str,
        head: bytes,
        body: bytes | AsyncIterable[bytes] | None,
        length: int | None,
    ) -> ResponseParser:
        """Send a request; returns the reader of its answer when the head of that is in.

        A body that is a stream goes in chunks unless `length` is given. Raises what `lost` holds,
        or what the stream raised.
        """
        self.reader = reader = ResponseParser(method)
        if body is None:
            self.write(head)
        elif isinstance(body, bytes):
            if len(body) < _ONE_WRITE:
                self.write(head + body)
            else:
                self.write(head)
                self.write(body)
        else:
            self.write(head)
            self._upload = self._loop.create_task(self._send_stream(body, length))
        while not reader.begun:
            if self.lost is not None:
                raise self.lost
            await self._wait()
        if self._upload is not None and not self._upload.done() and reader.status >= 300:
            self._upload.cancel()  # refused before all was said
        return reader

    async def read(self) -> bytes:
        """The next bytes of the body; nothing at its end. Raises what `lost` holds."""
        while not self._pieces:
            if self.reader is None or self.reader.done:
                return b""
            if self.lost is not None:
                raise self.lost
            await self._wait()
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        self._resume_reading()
        return data

    @property
    def unanswered(self) -> bool:
        """Whether the connection is gone, and not a byte came of the answer that was asked for."""
        return self.lost is not None and self.reader is not None and self.reader.untouched

    @property
    def ended(self) -> bool:
        """Whether the whole body was read."""
        return self.reader is not None and self.reader.done and not self._pieces

    async def read_raw(self, count: int) -> bytes:
        """Exactly so many bytes of something that is no HTTP. Raises what `lost` holds."""
        if self.reader is None:
            self.reader = ResponseParser.raw()
        while self._held < count:
            if self.lost is not None:
                raise self.lost
            await self._wait()
        data = b"".join(self._pieces)
        self._pieces = [data[count:]] if len(data) > count else []
        self._held -= count
        return data[:count]

    def change_protocol(self) -> None:
        """What is received from here on belongs to another protocol, or to its next step.

        What was received before must all have been read: the peer sent the rest before the new
        protocol began (before TLS verified who it is, for example), so it may be anybody's.
        Raises ConnectionEndedError on that, and what `lost` holds.
        """
        reader, self.reader = self.reader, None
        if self._pieces or (reader is not None and reader.surplus):
            self._end(ConnectionEndedError("it sent more than its reply before it was asked to"))
        if self.lost is not None:
            raise self.lost

    async def finish(self) -> bool:
        """End the exchange; tells whether the connection can have another one."""
        reader, self.reader = self.reader, None
        upload, self._upload = self._upload, None
        whole = reader is None or (reader.done and reader.reusable)
        if upload is not None:
            whole = whole and upload.done() and not upload.cancelled()
            upload.cancel()
        if not whole or self.lost is not None:
            self.abort()
        self._pieces.clear()
        self._held = 0
        self._resume_reading()
        if upload is not None:
            await asyncio.wait((upload,))
        return self.lost is None

    def write(self, data: bytes) -> None:
        """Write bytes."""
        if self._transport is not None and self.lost is None and not self._transport.is_closing():
            for layer in reversed(self._layers):
                data = layer.encrypt(data)
            self._transport.write(data)

    @property
    def stale(self) -> bool:
        """Whether an idle connection is of no use: it is gone, or something came unasked."""
        if self.lost is not None or self._transport is None or self._transport.is_closing():
            return True
        # The event loop may not have got round to what has come: some servers close after each
        # answer and do not say so.
        return bool(self._readable())

    def abort(self) -> None:
        """Close the connection now."""
        self._end(ConnectionEndedError("it was closed"))

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """From here on, speak TLS with `host`. Raises ssl.SSLError, what `lost` holds."""
        self.change_protocol()
        layer = TLSLayer(context, host)
        self.write(layer.handshake())
        self._layers = (*self._layers, layer)
        while not layer.ready:
            if self.lost is not None:
                raise self.lost
            await self._wait()

    def _decrypted(self, data: bytes) -> bytes:
        """What came in through all layers; nothing if it was for themselves."""
        for at, layer in enumerate(self._layers):
            try:
                if layer.ready:
                    data, answer = layer.decrypt(data)
                else:
                    answer = layer.handshake(data)
                    # (What came behind the handshake was not asked for: it ends the connection.)
                    data, more = layer.decrypt(b"") if layer.ready else (b"", b"")
                    answer += more
            except ssl.SSLError as error:
                self._end(error)
                return b""
            if answer and self._transport is not None:
                for outer in reversed(self._layers[:at]):
                    answer = outer.encrypt(answer)
                self._transport.write(answer)
            if not data:
                if layer.ready:
                    self._wake()
                return b""
        return data

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            if self.lost is None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _end(self, why: BaseException) -> None:
        if self.lost is None:
            self.lost = why
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _send_stream(self, body: AsyncIterable[bytes], length: int | None) -> None:
        """Send the pieces of a body. What goes wrong ends the connection, and is told there."""
        pieces = aiter(body)
        sent = 0
        try:
            async for piece in pieces:
                if self.lost is not None:
                    return
                if not piece:
                    continue
                sent += len(piece)
                if length is not None and sent > length:
                    break
                self.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
                if self._room is not None:
                    await asyncio.wait((self._room,))
            if length is None:
                self.write(b"0\r\n\r\n")
            elif sent != length:
                message = f"The body of the request is not the {length} bytes it was said to be."
                raise APIError(ErrorKind.INVALID, message)
        except Exception as error:
            self._end(error)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()


def _readable(file: int) -> Callable[[], object]:
    """A function that tells whether a read would not have to wait."""
    if not hasattr(select, "poll"):  # Windows
        return lambda: select.select([file], [], [], 0)[0]
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return partial(poll.poll, 0)
