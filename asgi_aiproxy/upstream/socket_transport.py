"""The default transport: HTTP/1.1 over the event loop's own connections.

Written for two things that no client library gives together: a call that is cancelled, whatever it
waits for, closes its connection at once, so that no model goes on writing for nobody; and a call
costs tens of microseconds.
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
    describe_error,
    needs_tls,
    parse_destination,
    parse_proxy_url,
    tls,
)
from asgi_aiproxy.upstream.connect_errors import connect_error
from asgi_aiproxy.upstream.connection import Connection, ConnectionEndedError
from asgi_aiproxy.upstream.content_encoding import ContentDecoder, content_decoder
from asgi_aiproxy.upstream.http1 import HTTPProtocolError, request_head

_BROKEN = (OSError, HTTPProtocolError, ConnectionEndedError)
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})


class SocketTransport:
    """Sends requests by itself, in HTTP/1.1.

    `max_connections` limits the requests at once, `max_keepalive` the idle connections kept for
    each provider. One is closed when it was idle for `keepalive_expiry` seconds, and is not used
    again `max_lifetime` seconds after it was opened. `proxy` is the URL of an outbound proxy (http,
    https, socks5) for all requests that name no other; `ca` a PEM file (or its content) trusted
    beside the system's. The environment's proxy variables are not read. `max_decoded` is how many
    bytes an answer may be that the provider compressed although it was asked not to, once it is
    decoded.

    A provider may close a connection just when the next request leaves on it. If not a byte of an
    answer came then, a request that is idempotent (RFC 9110, 9.2.2) and whose body does not stream
    is sent once more, on a new connection. A POST never is: it may have had its effect.
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
            raise ConfigurationError("keepalive_expiry and max_lifetime must be seconds above 0.")
        self._ages = (keepalive_expiry, max_lifetime)
        self._max_decoded = max_decoded
        self._timeouts = timeouts if timeouts is not None else Timeouts()
        self._max_connections = max_connections
        self._max_keepalive = max_keepalive
        self._proxy = proxy
        self._ca = ca
        self._context = tls(ca) if ca is not None else None
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    def __repr__(self) -> str:
        return f"SocketTransport({sum(len(pool.open) for pool in self._pools.values())} open)"

    async def send(self, request: UpstreamRequest) -> SocketResponse:
        """Send one request; returns when the head of the answer is in."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._new_pool(loop)
        try:
            where = parse_destination(request.url, request.proxy or self._proxy)
            head, length = _head(request, where)
        except ConfigurationError as error:  # what is said of a proxy is none
            raise APIError(ErrorKind.INTERNAL, str(error)) from None
        except ValueError:
            # Without its cause, which quotes what may be a secret.
            message = "The request to the provider is no valid HTTP: is there a line end in a key?"
            raise APIError(ErrorKind.INTERNAL, message) from None
        if pool.free > 0:
            pool.free -= 1
        else:
            await pool.wait_for_slot(self._timeouts.pool)
        connection: Connection | None = None
        try:
            connection = pool.idle(where.origin)
            reused = connection is not None
            if connection is None:
                connection = await self._connect(pool, where)
            try:
                reader = await connection.send(request.method, head, request.body, length)
            except _BROKEN:
                if not (reused and connection.unanswered and repeatable(request)):
                    raise
                await connection.finish()
                connection = await self._connect(pool, where)
                reader = await connection.send(request.method, head, request.body, length)
            headers, undo = content_decoder(
                reader.headers, raw=request.raw, max_decoded=self._max_decoded
            )
        except BaseException as error:
            try:
                if connection is not None:
                    connection.abort()
                    await connection.finish()
            finally:
                pool.release_slot()
            if isinstance(error, _BROKEN):
                raise connection_lost_error(error) from error
            raise
        return SocketResponse(pool, where, connection, reader.status, headers, undo)

    async def aclose(self) -> None:
        """Close all connections."""
        pools, self._pools = self._pools, {}
        here = asyncio.get_running_loop()
        for loop, pool in pools.items():
            if loop is here:
                await pool.aclose()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(pool.abort)

    def _new_pool(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        """A pool for this event loop. What is left of loops that are closed is forgotten."""
        known = list(self._pools.items())  # other threads may have loops, too
        self._pools = {one: pool for one, pool in known if not one.is_closed()}
        pool = self._pools[loop] = _Pool(
            loop, self._max_connections, self._max_keepalive, *self._ages
        )
        return pool

    async def _connect(self, pool: _Pool, where: Destination) -> Connection:
        if self._context is None and needs_tls(where):
            self._context = tls(None)
        proxied = where.proxy is not None
        try:
            async with asyncio.timeout(self._timeouts.connect):
                connection = await connect(where, self._context)
        except TimeoutError as error:
            raise connect_error(where.authority, None, proxied=proxied) from error
        except _BROKEN as error:
            raise connect_error(where.authority, describe_error(error), proxied=proxied) from error
        pool.open.add(connection)
        connection.gone.add_done_callback(lambda _: pool.forget(where.origin, connection))
        return connection


class SocketResponse:
    """An answer on its way."""

    __slots__ = ("_connection", "_pool", "_undo", "_where", "headers", "status")

    def __init__(
        self,
        pool: _Pool,
        where: Destination,
        connection: Connection,
        status: int,
        headers: Headers,
        undo: ContentDecoder | None,
    ) -> None:
        self._pool = pool
        self._where = where
        self._connection: Connection | None = connection
        self._undo = undo
        self.status = status
        self.headers = headers

    async def read(self) -> bytes:
        """The next bytes; nothing at the end."""
        connection = self._connection
        if connection is None:
            return b""
        try:
            if self._undo is None:
                data = await connection.read()
            else:
                data = await self._undo.read(connection.read)
        except _BROKEN as error:
            raise connection_lost_error(error) from error
        if not data:
            await self.aclose()
        return data

    def ended(self) -> bool:
        """Whether nothing comes after what was read."""
        connection = self._connection
        return connection is None or (self._undo is None and connection.ended)

    async def aclose(self) -> None:
        """Done with it: its connection is free for others, or, in mid-stream, closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                alive = await connection.finish()
            finally:
                self._pool.release_slot()
            if alive:
                self._pool.keep(self._where.origin, connection)


class _Pool:
    """The connections of one event loop, and the turns of those who wait for one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_open: int,
        most_idle: int,
        expiry: float,
        lifetime: float,
    ) -> None:
        self._loop = loop
        self._most_idle = most_idle
        self._expiry = expiry
        self._lifetime = lifetime
        self._sweep: asyncio.TimerHandle | None = None  # while any connection is idle
        self._idle: dict[object, deque[Connection]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.free = max_open
        self.open: set[Connection] = set()

    async def wait_for_slot(self, seconds: float) -> None:
        """Wait for a place. Raises APIError if that takes too long."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release_slot()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                message = "No connection to the provider became free in time."
                raise APIError(ErrorKind.TIMEOUT, message) from error
            raise

    def release_slot(self) -> None:
        """A place is free: the next may have it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def idle(self, origin: object) -> Connection | None:
        """A connection that is open already: the one that was used last."""
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            if self._loop.time() - connection.idle_since < self._expiry and not connection.stale:
                return connection
            connection.abort()
        return None

    def keep(self, origin: object, connection: Connection) -> None:
        """Keep a connection for later."""
        now = connection.idle_since = self._loop.time()
        kept = self._idle.get(origin)
        if kept is None:
            kept = self._idle[origin] = deque()
        old = now - connection.opened >= self._lifetime
        if self._closed or old or len(kept) >= self._most_idle:
            connection.abort()
            return
        kept.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._expiry, self._close_old)

    def _close_old(self) -> None:
        """Close connections that were idle for too long, wherever they lead to."""
        self._sweep = None
        now = self._loop.time()
        soonest = now + self._expiry
        for kept in self._idle.values():  # (`forget` takes its turn later)
            while kept and now - kept[0].idle_since >= self._expiry:
                kept.popleft().abort()
            if kept:
                soonest = min(soonest, kept[0].idle_since + self._expiry)
        if any(self._idle.values()):
            # Not for each by itself: what is due soon is closed together.
            wait = max(soonest - now, self._expiry / 8)
            self._sweep = self._loop.call_later(wait, self._close_old)

    def forget(self, origin: object, connection: Connection) -> None:
        """A connection is gone."""
        self.open.discard(connection)
        kept = self._idle.get(origin)
        if kept is not None:
            if connection in kept:
                kept.remove(connection)
            if not kept:
                del self._idle[origin]

    def abort(self) -> None:
        """Close all connections now, and keep none from here on."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self.open:
            connection.abort()

    async def aclose(self) -> None:
        """Close all connections, and see them closed."""
        self.abort()
        going = [connection.gone for connection in self.open]
        if going:
            await asyncio.wait(going, timeout=1.0)


def _head(request: UpstreamRequest, where: Destination) -> tuple[bytes, int | None]:
    """The head of a request, and the length of a body that is a stream, if known."""
    named = {name.lower() for name, _ in request.headers}
    headers = [*request.headers]
    if "host" not in named:
        headers.insert(0, ("host", where.authority))
    length: int | None = None
    if isinstance(request.body, bytes):
        if "content-length" not in named:
            headers.append(("content-length", str(len(request.body))))
    elif request.body is not None:
        if "content-length" in named:
            length = next(int(value) for name, value in headers if name.lower() == "content-length")
        else:
            headers.append(("transfer-encoding", "chunked"))
    elif request.method not in _BODILESS:
        headers.append(("content-length", "0"))
    if where.proxy_authorization is not None:
        headers.append(("proxy-authorization", where.proxy_authorization))
    return request_head(request.method, where.target, headers), length


def connection_lost_error(error: Exception) -> APIError:
    """The error for a client whose answer broke off."""
    return APIError(
        ErrorKind.UPSTREAM, f"The connection to the provider broke: {describe_error(error)}."
    )
