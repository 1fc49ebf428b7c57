"""A transport with HTTP/2: pyreqwest, a Python binding of Rust's reqwest."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

try:
    from pyreqwest import exceptions
    from pyreqwest.client import Client, ClientBuilder
    from pyreqwest.proxy import ProxyBuilder
    from pyreqwest.request import StreamRequest
except ImportError as error:  # raised when a transport is made, so that the module can be imported
    _missing: ImportError | None = error
else:
    _missing = None

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream.base import MAX_DECODED, Headers, Timeouts, UpstreamRequest
from asgi_aiproxy.upstream.connect import (
    check_proxy,
    connect_error,
    host_and_port,
    parse_proxy_url,
    read_pem,
)
from asgi_aiproxy.upstream.content_encoding import ContentDecoder, content_decoder

_URL = re.compile(r" for url \(.*?\)")
# In certificate errors: the names that the certificate is for
_QUOTED = re.compile(r'\s*".*', re.DOTALL)


class ReqwestTransport:
    """Sends requests through pyreqwest.

    `ca` is a PEM file (or its content) that is trusted in addition to the system's certificates;
    `proxy` is the URL of the outbound proxy for all requests that do not name another one; `http2`
    lets TLS connections negotiate HTTP/2. The environment's proxy variables are not read.
    `max_decoded` is the maximum decoded size in bytes of a compressed response.

    pyreqwest (as of 0.15) cannot end a request that waits for its response headers: a cancelled
    call returns, but the provider continues, and the request counts against `max_connections` until
    the headers arrive. Raises ConfigurationError if `proxy` or `ca` is invalid.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        max_connections: int = 1000,
        max_keepalive: int = 200,
        proxy: str | None = None,
        ca: str | Path | bytes | None = None,
        http2: bool = False,
        max_decoded: int = MAX_DECODED,
    ) -> None:
        if _missing is not None:
            raise ImportError(
                f"ReqwestTransport needs pyreqwest: pip install 'asgi-aiproxy[http2]'. ({_missing})"
            ) from _missing
        self._max_decoded = max_decoded
        self._timeouts = timeouts if timeouts is not None else Timeouts()
        self._max_connections = max_connections
        self._max_keepalive = max_keepalive
        self._proxy = proxy
        self._ca = read_pem(ca) if ca is not None else None
        self._http2 = http2
        self._clients: dict[str | None, Client] = {}
        if proxy is not None:
            parse_proxy_url(proxy)

    def __repr__(self) -> str:
        return f"ReqwestTransport(clients={len(self._clients)})"

    async def send(self, request: UpstreamRequest) -> ReqwestResponse:
        """Send one request; returns once the response headers have arrived. Raises APIError."""
        client = self._clients.get(request.proxy)
        if client is None:
            client = self._clients[request.proxy] = self._build(request.proxy)
        body: _Body | None = None
        try:
            builder = client.request(request.method, request.url).headers(list(request.headers))
            if isinstance(request.body, bytes):
                builder = builder.body_bytes(request.body)
            elif request.body is not None:
                body = _Body(request.body)
                builder = builder.body_stream(body)
            if request.streamed:
                # Without this the response is held back until 64 KiB have arrived.
                builder = builder.streamed_read_buffer_limit(0)
            sending = builder.build_streamed()
        except ValueError:
            raise _unsendable() from None  # the cause may quote a secret
        try:
            response = await sending.__aenter__()
        except BaseException as error:
            if body is not None:
                body.stop()
            if isinstance(error, exceptions.BuilderError):
                raise _unsendable() from None
            if isinstance(error, exceptions.PyreqwestError):
                raise to_api_error(error, request.url) from error
            raise
        if body is not None and response.status >= 300:
            body.stop()  # refused before the whole body was sent
        try:
            headers, decoder = content_decoder(
                _headers(response.headers), raw=request.raw, max_decoded=self._max_decoded
            )
        except BaseException:
            await sending.__aexit__(None, None, None)
            raise
        chunk = response.body_reader.read_chunk
        return ReqwestResponse(sending, response.status, headers, chunk, decoder, body)

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    def _build(self, proxy: str | None) -> Client:
        limits = self._timeouts
        builder = (
            ClientBuilder()
            .follow_redirects(False)
            .referer(False)
            .no_proxy()
            .http1_lower_case_headers()
            .max_connections(self._max_connections)
            .pool_max_idle_per_host(self._max_keepalive)
            .pool_timeout(timedelta(seconds=limits.pool))
            .connect_timeout(timedelta(seconds=limits.connect))
        )
        if self._http2:
            builder = builder.http2(True)
        # It has no limit on the decoded size, so responses are decoded here.
        builder = builder.gzip(False).brotli(False).deflate(False).zstd(False)
        proxy = proxy or self._proxy
        if proxy:
            check_proxy(proxy)
        try:
            if proxy:
                builder = builder.proxy(ProxyBuilder.all(proxy))
            if self._ca is not None:
                builder = builder.add_root_certificate_pem(self._ca)
            return builder.build()
        except ValueError:
            message = "The outbound proxy URL or the CA file is invalid for pyreqwest."
            raise ConfigurationError(message) from None


class ReqwestResponse:
    """A response of pyreqwest."""

    __slots__ = ("_body", "_chunk", "_decoder", "_sending", "headers", "status")

    def __init__(
        self,
        sending: StreamRequest,
        status: int,
        headers: Headers,
        chunk: Callable[[], Coroutine[Any, Any, Any]],
        decoder: ContentDecoder | None,
        body: _Body | None,
    ) -> None:
        self._sending: StreamRequest | None = sending
        self._chunk = chunk
        self._decoder = decoder
        self._body = body
        self.status = status
        self.headers = headers

    async def read(self) -> bytes:
        """Return the next bytes of the body; empty at its end. Raises APIError."""
        return await (
            self._decoder.read(self._read_undecoded)
            if self._decoder is not None
            else self._read_undecoded()
        )

    async def _read_undecoded(self) -> bytes:
        try:
            while (chunk := await self._chunk()) is not None:
                if data := bytes(chunk):
                    return data
        except exceptions.PyreqwestError as error:
            raise to_api_error(error) from error
        return b""

    async def aclose(self) -> None:
        """Close the response; if it was not read to its end, the connection is closed, too."""
        sending, self._sending = self._sending, None
        if sending is not None:
            if self._body is not None:
                self._body.stop()
            await sending.__aexit__(None, None, None)


class _Body:
    """A body that can be stopped: pyreqwest ends the request then, which it otherwise does not."""

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = aiter(pieces)
        self._stopped = False
        self._waits: asyncio.Task[Any] | None = None
        self._closing: asyncio.Task[Any] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._stopped:
            raise asyncio.CancelledError
        self._waits = asyncio.current_task()
        try:
            return await anext(self._pieces)
        finally:
            self._waits = None

    def stop(self) -> None:
        """Stop sending the body."""
        self._stopped = True
        close = getattr(self._pieces, "aclose", None)
        if self._waits is not None:
            self._waits.cancel()
        elif close is not None and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(close())


def to_api_error(error: exceptions.PyreqwestError, url: str = "") -> APIError:
    """Return the error for the client, without URLs (they may contain a key) and host names."""
    details = getattr(error, "details", None) or {}
    causes = [_URL.sub("", cause["message"]) for cause in details.get("causes") or []]
    why = _QUOTED.sub("", causes[-1] if causes else _URL.sub("", error.message))
    if isinstance(error, exceptions.PoolTimeoutError):
        return APIError(ErrorKind.TIMEOUT, "No connection to the provider became free in time.")
    if isinstance(error, exceptions.ConnectTimeoutError):
        return connect_error(host_and_port(url), None)
    if isinstance(error, TimeoutError):
        return APIError(ErrorKind.TIMEOUT, "The provider did not respond in time.")
    # pyreqwest also reports a connection that ended before its response as a connect error.
    if isinstance(error, exceptions.ConnectError) and "client error (Connect)" in causes:
        return connect_error(host_and_port(url), why)
    return APIError(ErrorKind.UPSTREAM, f"The connection to the provider broke: {why}.")


def _headers(response: Any) -> list[tuple[str, str]]:
    try:
        return list(response.items())
    except ValueError:
        # A value has bytes that are not ASCII, which pyreqwest cannot convert: it is left out.
        return [
            (name, value) for name in dict.fromkeys(response) for value in _values(response, name)
        ]


def _values(response: Any, name: str) -> list[str]:
    try:
        return list(response.getall(name))
    except ValueError:
        return []


def _unsendable() -> APIError:
    message = "The request to the provider is not valid HTTP: check the API key for line ends."
    return APIError(ErrorKind.INTERNAL, message)
