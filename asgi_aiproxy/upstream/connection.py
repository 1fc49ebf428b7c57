"""One HTTP/1.1 connection: an asyncio protocol that carries one request at a time.

Theory of operation. The event loop calls `data_received` with bytes, which pass through the TLS
layers (none, one, or two with an https proxy) into a ResponseParser; the body bytes it returns are
collected in `_pieces`. The transport's coroutine calls `start` and `take`; if there is nothing yet,
it awaits one future, `changed()`, that the next change of state completes (`_wake`). There is no
queue and no task per request, except for uploading a streamed body.

- Backpressure: reading from the socket is paused while more than 256 KiB wait to be read; writing
  a streamed body waits while the socket's buffer is full (`_writable`).
- End of life: `lost` holds the exception that ended the connection, set once and raised by every
  later call; `gone` completes when the socket is closed. Everything that must end a connection
  (a protocol error, a TLS error, `abort` after a cancelled call) goes through `_end`, which closes
  the socket at once: a vendor must not continue to generate for a client that has left.
- Reuse: `finish` ends an exchange. The connection can carry another one only if the response was
  read completely and delimited by its own framing, and if the upload was complete.
- Change of protocol (TLS, a proxy's reply): whatever was received before the change and not read is
  an error, since it was not protected by the new protocol (`change_protocol`).
"""

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

# Bytes that may wait to be read before reading from the socket is paused.
_MAX_UNREAD = 256 * 1024
_MAX_JOINED_WRITE = 64 * 1024


class ConnectionEndedError(Exception):
    """The connection was ended from this side."""


class Connection(asyncio.Protocol):
    """A connection to a provider, or to an outbound proxy on the way to one.

    `start` sends a request and returns the parser of its response, which has `begun` once the
    headers are read; `take` and `read` return the body. `lost` is the exception that ended the
    connection; `gone` completes when it is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._unread = 0
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None  # set while the write buffer is full
        self._upload: asyncio.Task[None] | None = None
        self._layers: tuple[TLSLayer, ...] = ()  # the outermost first
        self.reader: ResponseParser | None = None
        self.lost: BaseException | None = None
        self.gone: asyncio.Future[None] = loop.create_future()
        self.opened = loop.time()
        self.idle_since = 0.0

    # called by the event loop (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._readable = _readable(transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        """Bytes were received."""
        if not self._layers:
            self._parse(data)
            return
        data = self._decrypt(data)
        if data:
            self._parse(data)
        if any(layer.ended for layer in self._layers):
            # TLS close_notify: the peer may wait for ours before it closes.
            self._end(self._closed_by_peer())

    def _parse(self, data: bytes) -> None:
        reader = self.reader
        if reader is None:
            self.abort()  # no request is open
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
            self._unread += len(body)
            if (
                self._unread > _MAX_UNREAD
                and not self._reading_paused
                and self._transport is not None
            ):
                self._reading_paused = True
                self._transport.pause_reading()
        if reader.begun:
            self._wake()

    def eof_received(self) -> None:
        """The peer sends nothing more: end the connection."""
        self._end(self._closed_by_peer())

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        if error is not None and self.lost is None:
            self._read_rest()
        if self.lost is None:
            self.lost = error if error is not None else self._closed_by_peer()
        if not self.gone.done():
            self.gone.set_result(None)
        self._wake()
        self.resume_writing()

    def _read_rest(self) -> None:
        """Read what was received before writing failed.

        A server may answer and close before it has read the request, which resets the connection.
        Without this, a race decides whether its answer or the failed write is seen first.
        """
        reader, transport = self.reader, self._transport
        if reader is None or reader.done or transport is None:
            return
        try:
            file = transport.get_extra_info("socket").fileno()  # (it is not closed yet)
            with socket.socket(fileno=os.dup(file)) as rest:
                rest.setblocking(False)
                while not reader.done and self.lost is None and self._unread <= _MAX_UNREAD:
                    data = rest.recv(_MAX_JOINED_WRITE)
                    if not data:
                        return
                    self.data_received(data)
        except OSError:
            pass

    def _closed_by_peer(self) -> Exception:
        """The exception for a close by the peer at this point of the exchange."""
        try:
            if self.reader is not None:
                self.reader.close()
        except HTTPProtocolError as early_close:
            return early_close
        return ConnectionEndedError("it was closed")

    def pause_writing(self) -> None:
        """The write buffer is full."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # called by the transport

    def start(
        self,
        method: str,
        head: bytes,
        body: bytes | AsyncIterable[bytes] | None,
        length: int | None,
    ) -> ResponseParser:
        """Send a request; returns the parser of its response.

        A streamed body is sent in chunks unless its `length` in bytes is given. If the stream
        raises, that exception becomes `lost`.
        """
        self.reader = reader = ResponseParser(method)
        if body is None:
            self.write(head)
        elif isinstance(body, bytes):
            if len(body) < _MAX_JOINED_WRITE:
                self.write(head + body)
            else:
                self.write(head)
                self.write(body)
        else:
            self.write(head)
            self._upload = self._loop.create_task(self._send_stream(body, length))
        return reader

    def changed(self) -> asyncio.Future[None]:
        """A future that completes with the next change of state. Raises `lost`."""
        if self.lost is not None:
            raise self.lost
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def cancel_upload(self) -> None:
        """Stop sending a streamed body: the request was refused before it was complete."""
        if self._upload is not None:
            self._upload.cancel()

    def take(self) -> bytes | None:
        """The bytes of the body that have arrived; None if there are none, empty at its end."""
        pieces = self._pieces
        if not pieces:
            return b"" if self.reader is None or self.reader.done else None
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._reading_paused:
            self._resume_reading()
        return data

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises `lost`."""
        while (data := self.take()) is None:
            await self.changed()
        return data

    @property
    def unanswered(self) -> bool:
        """Whether the connection was lost before the first byte of the response."""
        return self.lost is not None and self.reader is not None and self.reader.untouched

    @property
    def ended(self) -> bool:
        """Whether the whole body was read."""
        return self.reader is not None and self.reader.done and not self._pieces

    async def read_raw(self, count: int) -> bytes:
        """Exactly `count` bytes of a protocol other than HTTP. Raises `lost`."""
        if self.reader is None:
            self.reader = ResponseParser.raw()
        while self._unread < count:
            await self.changed()
        data = b"".join(self._pieces)
        self._pieces = [data[count:]] if len(data) > count else []
        self._unread -= count
        return data[:count]

    def change_protocol(self) -> None:
        """Expect another protocol, or its next step, from the next byte received on.

        Bytes that were received before and not read end the connection: they were sent before TLS
        had verified the peer, for example, so anyone may have injected them. Raises
        ConnectionEndedError on them, and `lost`.
        """
        reader, self.reader = self.reader, None
        if self._pieces or (reader is not None and reader.surplus):
            self._end(ConnectionEndedError("it sent more than its reply before the next request"))
        if self.lost is not None:
            raise self.lost

    async def finish(self) -> bool:
        """End the exchange; returns whether the connection can carry another one."""
        reader, self.reader = self.reader, None
        upload, self._upload = self._upload, None
        whole = reader is None or (reader.done and reader.reusable)
        if upload is not None:
            whole = whole and upload.done() and not upload.cancelled()
            upload.cancel()
        if not whole or self.lost is not None:
            self.abort()
        self._pieces.clear()
        self._unread = 0
        if self._reading_paused:
            self._resume_reading()
        if upload is not None:
            await asyncio.wait((upload,))
        return self.lost is None

    def write(self, data: bytes) -> None:
        """Write bytes, through TLS if it was started; ignored once the connection is lost."""
        if self._transport is not None and self.lost is None and not self._transport.is_closing():
            for layer in reversed(self._layers):
                data = layer.encrypt(data)
            self._transport.write(data)

    @property
    def stale(self) -> bool:
        """Whether an idle connection cannot be used: it is closed, or has unexpected data."""
        if self.lost is not None or self._transport is None or self._transport.is_closing():
            return True
        # The event loop may not have processed a close yet: some servers close after each response
        # without announcing it.
        return bool(self._readable())

    def abort(self) -> None:
        """Close the connection now."""
        self._end(ConnectionEndedError("it was closed"))

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Start TLS and verify the certificate for `host`. Raises ssl.SSLError, `lost`."""
        self.change_protocol()
        layer = TLSLayer(context, host)
        self.write(layer.handshake())
        self._layers = (*self._layers, layer)
        while not layer.ready:
            await self.changed()

    def _decrypt(self, data: bytes) -> bytes:
        """Decrypt through all layers; empty if the data was for the layers themselves."""
        for at, layer in enumerate(self._layers):
            try:
                if layer.ready:
                    data, answer = layer.decrypt(data)
                else:
                    answer = layer.handshake(data)
                    # (Data behind the handshake was not requested: it ends the connection.)
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
        self._reading_paused = False
        transport = self._transport
        if transport is not None and self.lost is None and not transport.is_closing():
            transport.resume_reading()

    def _end(self, why: BaseException) -> None:
        if self.lost is None:
            self.lost = why
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _send_stream(self, body: AsyncIterable[bytes], length: int | None) -> None:
        """Send a streamed body. An exception ends the connection and becomes `lost`."""
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
                if self._writable is not None:
                    await asyncio.wait((self._writable,))
            if length is None:
                self.write(b"0\r\n\r\n")
            elif sent != length:
                message = f"The body of the request is not {length} bytes long as declared."
                raise APIError(ErrorKind.INVALID, message)
        except Exception as error:
            self._end(error)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()


def _readable(file: int) -> Callable[[], object]:
    """A function that returns whether a read would return at once."""
    if not hasattr(select, "poll"):  # Windows
        return lambda: select.select([file], [], [], 0)[0]
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return partial(poll.poll, 0)
