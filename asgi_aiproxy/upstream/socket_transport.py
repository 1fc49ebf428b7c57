"""The default transport: HTTP/1.1 over the event loop's own connections.

It exists for two properties that client libraries do not combine: a cancelled call closes its
connection at once, whatever it waits for, so that a model does not continue to generate for a
client that has left; and a call costs tens of microseconds.

Theory of operation. There is one `_Pool` for each event loop, since sockets belong to a loop; it
counts the requests in flight and keeps idle connections by origin (scheme, host, port, proxy).
`send` takes a slot (waiting in order of arrival), takes the idle connection used last or opens a
new one, and returns a SocketResponse that owns both. Reading it to its end, or `aclose`, gives the
slot back, and the connection to the pool if it can carry another request; a response that is closed
earlier aborts the connection. Any exception in `send`, cancellation included, aborts it as well. A
single timer per pool closes connections that were idle for too long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream.base import MAX_DECODED, Headers, Timeouts, UpstreamRequest, repeatable
from asgi_aiproxy.upstream.connect import (
    Destination,
    connect,
    connect_error,
    describe_error,
    needs_tls,
    parse_destination,
    parse_proxy_url,
    tls,
)
from asgi_aiproxy.upstream.connection import Connection, ConnectionEndedError
from asgi_aiproxy.upstream.content_encoding import ContentDecoder, content_decoder
from asgi_aiproxy.upstream.http1 import HTTPProtocolError, header_names, request_head

_CONNECTION_ERRORS = (OSError, HTTPProtocolError, ConnectionEndedError)
# How many heads of requests are kept, and their maximum length in bytes.
_MAX_KEPT_HEADS, _MAX_KEPT_HEAD = 256, 4096
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})


class SocketTransport:
    """Sends requests in HTTP/1.1 over its own connections.

    `max_connections` limits the concurrent requests, `max_keepalive` the idle connections kept for
    each provider. A connection is closed after `keepalive_expiry` idle seconds, and not used again
    `max_lifetime` seconds after it was opened. `proxy` is the URL of the outbound proxy (http,
    https, socks5) for all requests that do not name another one; `ca` is a PEM file (or its
    content) that is trusted in addition to the system's certificates. The environment's proxy
    variables are not read. `max_decoded` is the maximum decoded size in bytes of a response that
    the provider compressed although the request did not accept that.

    A provider may close an idle connection just when the next request is sent on it. If no byte of
    a response was received, an idempotent request (RFC 9110, 9.2.2) whose body is not streamed is
    sent again, on a new connection. A POST is never repeated: it may have been processed.

    Raises ConfigurationError if `proxy` or `ca` is invalid, or a time is not above 0.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        max_connections: int = 1000,
        max_keepalive: int = 200,
        keepalive_expiry: float = 75.0,
        max_lifetime: float = 3600.0,
        proxy: str | None = None,
        ca: str | Path | bytes | None = None,
        max_decoded: int = MAX_DECODED,
    ) -> None:
        if proxy is not None:
            parse_proxy_url(proxy)
        if keepalive_expiry <= 0 or max_lifetime <= 0:
            raise ConfigurationError("keepalive_expiry and max_lifetime must be > 0 seconds.")
        self._idle_expiry_and_lifetime = (keepalive_expiry, max_lifetime)
        self._max_decoded = max_decoded
        self._timeouts = timeouts if timeouts is not None else Timeouts()
        self._max_connections = max_connections
        self._max_keepalive = max_keepalive
        self._proxy = proxy
        self._ca = ca
        self._context = tls(ca) if ca is not None else None
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        # The destinations and heads of requests, without the length of their bodies.
        self._heads: dict[tuple[object, ...], tuple[Destination, bytes]] = {}

    def __repr__(self) -> str:
        return f"SocketTransport({sum(len(pool.open) for pool in self._pools.values())} open)"

    async def send(self, request: UpstreamRequest) -> SocketResponse:
        """Send one request; returns once the response headers are read. Raises APIError."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop) or self._new_pool(loop)
        destination, head, length = self._encode(request)
        if pool.free > 0:
            pool.free -= 1
        else:
            await pool.wait_for_slot(self._timeouts.pool)
        connection: Connection | None = None
        try:
            connection = pool.idle(destination.origin)
            reused = connection is not None
            while True:
                if connection is None:
                    connection = await self._connect(pool, destination)
                reader = connection.start(request.method, head, request.body, length)
                try:
                    while not reader.begun:
                        await connection.changed()
                except _CONNECTION_ERRORS:
                    if not (reused and connection.unanswered and repeatable(request)):
                        raise
                else:
                    break
                await connection.finish()
                connection, reused = None, False
            if reader.status >= 300:
                connection.cancel_upload()
            headers, decoder = (
                content_decoder(reader.headers, raw=request.raw, max_decoded=self._max_decoded)
                if reader.encoded
                else (reader.headers, None)
            )
        except BaseException as error:
            try:
                if connection is not None:
                    connection.abort()
                    await connection.finish()
            finally:
                pool.release_slot()
            if isinstance(error, _CONNECTION_ERRORS):
                raise connection_lost_error(error) from error
            raise
        return SocketResponse(pool, destination, connection, reader.status, headers, decoder)

    async def aclose(self) -> None:
        """Close all connections."""
        self._heads.clear()
        pools, self._pools = self._pools, {}
        running_loop = asyncio.get_running_loop()
        for loop, pool in pools.items():
            if loop is running_loop:
                await pool.aclose()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(pool.abort)

    def _encode(self, request: UpstreamRequest) -> tuple[Destination, bytes, int | None]:
        """Return what `_encode` does; the head is kept if other requests have the same headers."""
        headers, body, proxy = request.headers, request.body, request.proxy or self._proxy
        if not isinstance(headers, tuple) or not isinstance(body, bytes):
            return _encode(request, proxy)
        same = (request.method, request.url, headers, proxy)
        known = self._heads.get(same)
        if known is None:
            destination, head, length = _encode(request, proxy)
            announced = b"content-length: %d\r\n\r\n" % len(body)
            if not head.endswith(announced) or len(head) > _MAX_KEPT_HEAD:
                return destination, head, length
            if len(self._heads) >= _MAX_KEPT_HEADS:
                self._heads.clear()
            known = self._heads[same] = destination, head.removesuffix(announced)
        destination, begin = known
        return destination, b"%bcontent-length: %d\r\n\r\n" % (begin, len(body)), None

    def _new_pool(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        """A pool for this event loop; pools of closed loops are dropped."""
        pools = list(self._pools.items())  # other threads may add pools of their loops
        self._pools = {pool_loop: pool for pool_loop, pool in pools if not pool_loop.is_closed()}
        pool = self._pools[loop] = _Pool(
            loop, self._max_connections, self._max_keepalive, *self._idle_expiry_and_lifetime
        )
        return pool

    async def _connect(self, pool: _Pool, destination: Destination) -> Connection:
        if self._context is None and needs_tls(destination):
            self._context = tls(None)
        proxied = destination.proxy is not None
        try:
            async with asyncio.timeout(self._timeouts.connect):
                connection = await connect(destination, self._context)
        except TimeoutError as error:
            raise connect_error(destination.authority, None, proxied=proxied) from error
        except _CONNECTION_ERRORS as error:
            raise connect_error(
                destination.authority, describe_error(error), proxied=proxied
            ) from error
        pool.open.add(connection)
        connection.gone.add_done_callback(lambda _: pool.forget(destination.origin, connection))
        return connection


class SocketResponse:
    """A response whose body is still being received."""

    __slots__ = ("_connection", "_decoder", "_destination", "_pool", "headers", "status")

    def __init__(
        self,
        pool: _Pool,
        destination: Destination,
        connection: Connection,
        status: int,
        headers: Headers,
        decoder: ContentDecoder | None,
    ) -> None:
        self._pool = pool
        self._destination = destination
        self._connection: Connection | None = connection
        self._decoder = decoder
        self.status = status
        self.headers = headers

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises APIError."""
        connection = self._connection
        if connection is None:
            return b""
        try:
            if self._decoder is None:
                while (taken := connection.take()) is None:
                    await connection.changed()
                data = taken
            else:
                data = await self._decoder.read(connection.read)
        except _CONNECTION_ERRORS as error:
            raise connection_lost_error(error) from error
        if not data:
            await self.aclose()
        return data

    def ended(self) -> bool:
        """Whether the whole body was read."""
        connection = self._connection
        return connection is None or (self._decoder is None and connection.ended)

    async def aclose(self) -> None:
        """Return the connection to the pool, or close it if the body was not read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                alive = await connection.finish()
            finally:
                self._pool.release_slot()
            if alive:
                self._pool.keep(self._destination.origin, connection)


class _Pool:
    """The connections of one event loop, and the queue of calls that wait for a slot."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_open: int,
        max_idle: int,
        expiry: float,
        lifetime: float,
    ) -> None:
        self._loop = loop
        self._max_idle = max_idle
        self._expiry = expiry
        self._lifetime = lifetime
        self._expiry_timer: asyncio.TimerHandle | None = None  # while any connection is idle
        self._idle: dict[object, deque[Connection]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.free = max_open
        self.open: set[Connection] = set()

    async def wait_for_slot(self, seconds: float) -> None:
        """Wait for a slot. Raises APIError after `seconds`."""
        slot = self._loop.create_future()
        self._waiting.append(slot)
        try:
            async with asyncio.timeout(seconds):
                await slot
        except BaseException as error:
            if slot.done() and not slot.cancelled():
                self.release_slot()
            elif slot in self._waiting:
                self._waiting.remove(slot)
            if isinstance(error, TimeoutError):
                message = "No connection to the provider became free in time."
                raise APIError(ErrorKind.TIMEOUT, message) from error
            raise

    def release_slot(self) -> None:
        """Give a slot to the next waiting call, or back."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self.free += 1

    def idle(self, origin: object) -> Connection | None:
        """The idle connection to `origin` that was used last; None if there is none."""
        idle_connections = self._idle.get(origin)
        while idle_connections:
            connection = idle_connections.pop()
            if self._loop.time() - connection.idle_since < self._expiry and not connection.stale:
                return connection
            connection.abort()
        return None

    def keep(self, origin: object, connection: Connection) -> None:
        """Keep an idle connection, unless there are enough or it is too old."""
        now = connection.idle_since = self._loop.time()
        idle_connections = self._idle.get(origin)
        if idle_connections is None:
            idle_connections = self._idle[origin] = deque()
        old = now - connection.opened >= self._lifetime
        if self._closed or old or len(idle_connections) >= self._max_idle:
            connection.abort()
            return
        idle_connections.append(connection)
        if self._expiry_timer is None:
            self._expiry_timer = self._loop.call_later(self._expiry, self._close_expired)

    def _close_expired(self) -> None:
        """Close connections of all origins that were idle for too long."""
        self._expiry_timer = None
        now = self._loop.time()
        soonest = now + self._expiry
        for idle_connections in self._idle.values():  # (`forget` runs later, from the event loop)
            while idle_connections and now - idle_connections[0].idle_since >= self._expiry:
                idle_connections.popleft().abort()
            if idle_connections:
                soonest = min(soonest, idle_connections[0].idle_since + self._expiry)
        if any(self._idle.values()):
            # One timer for all: those that expire soon are closed together.
            wait = max(soonest - now, self._expiry / 8)
            self._expiry_timer = self._loop.call_later(wait, self._close_expired)

    def forget(self, origin: object, connection: Connection) -> None:
        """Drop a closed connection."""
        self.open.discard(connection)
        idle_connections = self._idle.get(origin)
        if idle_connections is not None:
            if connection in idle_connections:
                idle_connections.remove(connection)
            if not idle_connections:
                del self._idle[origin]

    def abort(self) -> None:
        """Close all connections now, and keep none from here on."""
        self._closed = True
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        for connection in self.open:
            connection.abort()

    async def aclose(self) -> None:
        """Close all connections, and wait up to a second until they are closed."""
        self.abort()
        closing = [connection.gone for connection in self.open]
        if closing:
            await asyncio.wait(closing, timeout=1.0)


def _encode(request: UpstreamRequest, proxy: str | None) -> tuple[Destination, bytes, int | None]:
    """Return the destination of a request, its head, and the length in bytes of a streamed body.

    The length is None if it is unknown.

    Raises APIError.
    """
    headers = [*request.headers]
    length: int | None = None
    try:
        names = header_names(headers)
        destination = parse_destination(request.url, proxy)
        if "host" not in names:
            headers.insert(0, ("host", destination.authority))
        if isinstance(request.body, bytes):
            if "content-length" not in names:
                headers.append(("content-length", str(len(request.body))))
        elif request.body is not None:
            if "content-length" in names:
                length = next(int(v) for name, v in headers if name.lower() == "content-length")
            else:
                headers.append(("transfer-encoding", "chunked"))
        elif request.method not in _BODILESS:
            headers.append(("content-length", "0"))
        if destination.proxy_authorization is not None:
            headers.append(("proxy-authorization", destination.proxy_authorization))
        return destination, request_head(request.method, destination.target, headers), length
    except ConfigurationError as error:  # an invalid proxy URL
        raise APIError(ErrorKind.INTERNAL, str(error)) from None
    except ValueError:
        # Without its cause, which may quote a secret.
        message = "The request to the provider is not valid HTTP: check the API key for line ends."
        raise APIError(ErrorKind.INTERNAL, message) from None


def connection_lost_error(error: Exception) -> APIError:
    """The error for a response whose connection was lost."""
    return APIError(
        ErrorKind.UPSTREAM, f"The connection to the provider broke: {describe_error(error)}."
    )
