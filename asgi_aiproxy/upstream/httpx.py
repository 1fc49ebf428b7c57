"""A transport that wraps any `httpx.AsyncBaseTransport`, or the same class of httpx2.

The transport is used, never the client: a client keeps cookies, and would send the session of one
caller with the requests of the next. So `httpx.ASGITransport`, `httpx.MockTransport`, caching and
tracing transports and corporate configurations all work here.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asgi_aiproxy.errors import AIProxyError, APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream.base import MAX_DECODED, Headers, Timeouts, UpstreamRequest, repeatable
from asgi_aiproxy.upstream.connect import (
    check_proxy,
    connect_error,
    describe_error,
    host_and_port,
    parse_proxy_url,
    tls,
)
from asgi_aiproxy.upstream.content_encoding import content_decoder

logger = logging.getLogger("asgi_aiproxy")

_MAX_CONNECTIONS = 1000
_MAX_KEEPALIVE = 200
_LONGEST_REASON = 200
_NO_SOCKS = "httpx requires socksio for SOCKS proxies: pip install 'httpx[socks]'."
_CLOSING: set[asyncio.Task[None]] = set()


class HttpxTransport:
    """Sends requests through an httpx (or httpx2) transport.

    Without `transport`, one of httpx's own is created with `max_connections`, `max_keepalive`,
    `proxy`, `ca` (a PEM file, or its content) and `http2`; a given transport has its own settings.
    `max_decoded` is the maximum decoded size in bytes of a compressed response. `timeouts` limits
    the wait for the pool and the connection; the wait for the response and its body is limited by
    its reader. Raises ConfigurationError if a library is missing, or these options are given
    together with `transport`.
    """

    def __init__(
        self,
        transport: Any = None,
        *,
        timeouts: Timeouts | None = None,
        max_connections: int = _MAX_CONNECTIONS,
        max_keepalive: int = _MAX_KEEPALIVE,
        proxy: str | None = None,
        ca: str | Path | bytes | None = None,
        http2: bool = False,
        max_decoded: int = MAX_DECODED,
    ) -> None:
        self._max_decoded = max_decoded
        limits = timeouts if timeouts is not None else Timeouts()
        self._timeout = {
            "pool": limits.pool,
            "connect": limits.connect,
            "read": None,
            "write": None,
        }
        self._library = _library(transport)
        options = (max_connections, max_keepalive, proxy, ca, http2)
        if transport is not None and options != (
            _MAX_CONNECTIONS,
            _MAX_KEEPALIVE,
            None,
            None,
            False,
        ):
            raise ConfigurationError(
                "HttpxTransport(transport, ...): the given transport has its own limits, proxy, "
                "certificates and HTTP/2; set them there."
            )
        socks = proxy is not None and parse_proxy_url(proxy).scheme.startswith("socks")
        if socks and not _installed("socksio"):
            raise ConfigurationError(_NO_SOCKS)
        if http2 and not _installed("h2"):
            raise ConfigurationError("HTTP/2 requires h2: pip install 'httpx[http2]'.")
        self._transport = transport
        self._limits = (max_connections, max_keepalive)
        self._proxy = proxy
        self._ca = ca
        self._http2 = http2
        self._context: ssl.SSLContext | None = tls(ca) if ca is not None else None
        # Own transports, each used only in the event loop in which it was created.
        self._own_transports: dict[tuple[asyncio.AbstractEventLoop, str | None], Any] = {}

    def __repr__(self) -> str:
        return (
            f"HttpxTransport({self._transport!r})"
            if self._transport is not None
            else "HttpxTransport()"
        )

    async def send(self, request: UpstreamRequest) -> HttpxResponse:
        """Send one request; returns once the response headers have arrived. Raises APIError."""
        carrier = self._carrier(request.proxy)
        httpx = self._library
        try:
            response = await self._sent(carrier, request)
        except AIProxyError:
            raise  # raised by the stream of the request body
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
            raise _unsendable() from None
        except Exception as error:
            raise to_api_error(httpx, error, request.url) from error
        try:
            return HttpxResponse(httpx, response, raw=request.raw, max_decoded=self._max_decoded)
        except BaseException:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        """Close the transports created here; a given transport is closed by its owner."""
        transports, self._own_transports = self._own_transports, {}
        running_loop = asyncio.get_running_loop()
        for (loop, _), carrier in transports.items():
            if loop is running_loop:
                await carrier.aclose()

    async def _sent(self, carrier: Any, request: UpstreamRequest) -> Any:
        httpx = self._library
        broken = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
        # (The connection it uses is unknown: it may have been closed in the meantime.)
        for is_last in (not repeatable(request), True):
            try:
                message = httpx.Request(
                    request.method,
                    request.url,
                    headers=list(request.headers),
                    content=request.body,
                    extensions={"timeout": self._timeout},
                )
            except (ValueError, httpx.InvalidURL):
                raise _unsendable() from None  # the cause may quote a secret
            try:
                return await carrier.handle_async_request(message)
            except broken:
                if is_last:
                    raise
        raise AssertionError("unreachable")

    def _carrier(self, proxy: str | None) -> Any:
        if self._transport is not None:
            if proxy:
                raise APIError(
                    ErrorKind.INTERNAL,
                    "This request has its own outbound proxy, which the given httpx transport "
                    "cannot use.",
                )
            return self._transport
        proxy = proxy or self._proxy
        key = (asyncio.get_running_loop(), proxy)
        if key not in self._own_transports:
            if proxy:
                check_proxy(proxy)
            transports = list(
                self._own_transports.items()
            )  # other threads may add transports of their loops
            self._own_transports = {
                k: transport for k, transport in transports if not k[0].is_closed()
            }
            if self._context is None:
                self._context = tls(None)
            connections, keepalive = self._limits
            try:
                self._own_transports[key] = self._library.AsyncHTTPTransport(
                    verify=self._context,
                    http2=self._http2,
                    limits=self._library.Limits(
                        max_connections=connections, max_keepalive_connections=keepalive
                    ),
                    proxy=proxy,
                    trust_env=False,
                )
            except ImportError:  # the proxy of a key or provider is only known here
                raise APIError(ErrorKind.INTERNAL, _NO_SOCKS) from None
            except ValueError:  # older versions of httpx do not support socks5h
                scheme = urlsplit(proxy or "").scheme
                message = f"This version of httpx does not support {scheme!r} proxies: upgrade it."
                raise APIError(ErrorKind.INTERNAL, message) from None
        return self._own_transports[key]


class HttpxResponse:
    """A response of httpx."""

    def __init__(self, httpx: Any, response: Any, *, raw: bool, max_decoded: int) -> None:
        self._httpx = httpx
        self._response = response
        self.status: int = response.status_code
        headers = [(name.lower(), value) for name, value in response.headers.multi_items()]
        self.headers: Headers
        self.headers, self._decoder = content_decoder(headers, raw=raw, max_decoded=max_decoded)
        self._bytes: AsyncIterator[bytes] = aiter(response.stream)

    async def read(self) -> bytes:
        """Return the next bytes of the body; empty at its end. Raises APIError."""
        return await (
            self._decoder.read(self._read_undecoded)
            if self._decoder is not None
            else self._read_undecoded()
        )

    async def _read_undecoded(self) -> bytes:
        try:
            async for data in self._bytes:
                if data:  # an empty piece is not the end
                    return bytes(data)
        except APIError:
            raise
        except Exception as error:
            raise to_api_error(self._httpx, error) from error
        return b""

    async def aclose(self) -> None:
        """Close the response; if it was not read to its end, the connection is closed, too."""
        # In its own task: httpx leaks connections if closing them is cancelled.
        closing = asyncio.get_running_loop().create_task(self._close())
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)
        await asyncio.shield(closing)

    async def _close(self) -> None:
        close = getattr(self._bytes, "aclose", None)
        if close is not None:
            await close()
        await self._response.aclose()


def to_api_error(httpx: Any, error: Exception, url: str = "") -> APIError:
    """Return the error for the client, without URLs (they may contain a key) and host names."""
    match error:
        case httpx.PoolTimeout():
            return APIError(ErrorKind.TIMEOUT, "No connection to the provider became free in time.")
        case httpx.ConnectTimeout():
            return connect_error(host_and_port(url), None)
        case httpx.TimeoutException():
            return APIError(ErrorKind.TIMEOUT, "The provider did not respond in time.")
        case httpx.ConnectError():
            return connect_error(host_and_port(url), _describe(error))
        case httpx.ProxyError():
            message = f"The outbound proxy did not connect to the provider ({_describe(error)})."
            return APIError(ErrorKind.UPSTREAM, message, code="connect_error")
        case httpx.HTTPError():
            return APIError(
                ErrorKind.UPSTREAM, f"The connection to the provider broke: {_describe(error)}."
            )
    # Not raised by a transport: an app behind ASGITransport has failed, or there is a bug.
    logger.error("a transport failed", exc_info=error)
    return APIError(ErrorKind.UPSTREAM, f"The transport failed ({type(error).__name__}).")


def _describe(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno or isinstance(cause, ssl.SSLError)):
            return describe_error(cause)
        cause = cause.__cause__ or cause.__context__
    said = str(error).strip().rstrip(".")
    return said[:_LONGEST_REASON] if said else "it was closed"


def _unsendable() -> APIError:
    message = "The request to the provider is not valid HTTP: check the API key for line ends."
    return APIError(ErrorKind.INTERNAL, message)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _library(transport: Any) -> Any:
    """Return the package that a transport belongs to: httpx, or a fork with the same interface."""
    for base in type(transport).__mro__:
        if base.__name__ == "AsyncBaseTransport":
            return importlib.import_module(base.__module__.partition(".")[0])
    if transport is not None:
        raise ConfigurationError(
            f"{type(transport).__name__} is not a transport: expected an httpx.AsyncBaseTransport."
        )
    return importlib.import_module("httpx")
