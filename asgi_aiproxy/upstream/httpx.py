"""Any `httpx.AsyncBaseTransport` as transport, and httpx2's alike.

The transport is used, never the client: a client keeps cookies, and with them one caller's session
would reach the next. So `httpx.ASGITransport`, `httpx.MockTransport`, caching and tracing
transports and corporate set-ups all work here.
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
_NO_SOCKS = "httpx needs socksio for SOCKS proxies: pip install 'httpx[socks]'."
_CLOSING: set[asyncio.Task[None]] = set()


class HttpxTransport:
    """Sends requests through an httpx (or httpx2) transport.

    Without `transport` one of httpx's own is made, with `max_connections`, `max_keepalive`,
    `proxy`, `ca` (a PEM file, or its content) and `http2` as given; a transport that is given
    brings all that itself. `max_decoded` is how many bytes an answer may be whose compression is
    undone. `timeouts` gives the limits for pool and connection; waiting for and
    within the answer is limited by who reads it.
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
                "HttpxTransport(transport, ...): a transport that is given has its own limits, "
                "proxy, certificates and HTTP/2; set them there."
            )
        socks = proxy is not None and parse_proxy_url(proxy).scheme.startswith("socks")
        if socks and not _installed("socksio"):
            raise ConfigurationError(_NO_SOCKS)
        if http2 and not _installed("h2"):
            raise ConfigurationError("HTTP/2 needs h2: pip install 'httpx[http2]'.")
        self._given = transport
        self._limits = (max_connections, max_keepalive)
        self._proxy = proxy
        self._ca = ca
        self._http2 = http2
        self._context: ssl.SSLContext | None = tls(ca) if ca is not None else None
        # What was made belongs to the event loop it was made in.
        self._made: dict[tuple[asyncio.AbstractEventLoop, str | None], Any] = {}

    def __repr__(self) -> str:
        return f"HttpxTransport({self._given!r})" if self._given is not None else "HttpxTransport()"

    async def send(self, request: UpstreamRequest) -> HttpxResponse:
        """Send one request; returns when the head of the answer is in."""
        carrier = self._carrier(request.proxy)
        httpx = self._library
        try:
            response = await self._sent(carrier, request)
        except AIProxyError:
            raise  # from the body of the request
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
        """Close what was made here; a transport that was given is its giver's to close."""
        made, self._made = self._made, {}
        here = asyncio.get_running_loop()
        for (loop, _), carrier in made.items():
            if loop is here:
                await carrier.aclose()

    async def _sent(self, carrier: Any, request: UpstreamRequest) -> Any:
        httpx = self._library
        broken = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
        # (Which connection it takes is not known: one that was closed meanwhile, perhaps.)
        for last in (not repeatable(request), True):
            try:
                message = httpx.Request(
                    request.method,
                    request.url,
                    headers=list(request.headers),
                    content=request.body,
                    extensions={"timeout": self._timeout},
                )
            except (ValueError, httpx.InvalidURL):
                raise _unsendable() from None  # the cause quotes what may be a secret
            try:
                return await carrier.handle_async_request(message)
            except broken:
                if last:
                    raise
        raise AssertionError("unreachable")

    def _carrier(self, proxy: str | None) -> Any:
        if self._given is not None:
            if proxy:
                raise APIError(
                    ErrorKind.INTERNAL,
                    "This call has an outbound proxy of its own, which the httpx transport that "
                    "was given can not heed.",
                )
            return self._given
        proxy = proxy or self._proxy
        key = (asyncio.get_running_loop(), proxy)
        if key not in self._made:
            if proxy:
                check_proxy(proxy)
            known = list(self._made.items())  # other threads may have loops, too
            self._made = {k: made for k, made in known if not k[0].is_closed()}
            if self._context is None:
                self._context = tls(None)
            connections, keepalive = self._limits
            try:
                self._made[key] = self._library.AsyncHTTPTransport(
                    verify=self._context,
                    http2=self._http2,
                    limits=self._library.Limits(
                        max_connections=connections, max_keepalive_connections=keepalive
                    ),
                    proxy=proxy,
                    trust_env=False,
                )
            except ImportError:  # the proxy of a key or provider, which is only known now
                raise APIError(ErrorKind.INTERNAL, _NO_SOCKS) from None
            except ValueError:  # an older httpx knows no socks5h
                scheme = urlsplit(proxy or "").scheme
                message = f"This httpx takes no outbound proxy by {scheme!r}: upgrade it."
                raise APIError(ErrorKind.INTERNAL, message) from None
        return self._made[key]


class HttpxResponse:
    """An answer of httpx's."""

    def __init__(self, httpx: Any, response: Any, *, raw: bool, max_decoded: int) -> None:
        self._httpx = httpx
        self._response = response
        self.status: int = response.status_code
        headers = [(name.lower(), value) for name, value in response.headers.multi_items()]
        self.headers: Headers
        self.headers, self._undo = content_decoder(headers, raw=raw, max_decoded=max_decoded)
        self._bytes: AsyncIterator[bytes] = aiter(response.stream)

    async def read(self) -> bytes:
        """The next bytes; nothing at the end."""
        return await (self._undo.read(self._more) if self._undo is not None else self._more())

    async def _more(self) -> bytes:
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
        """Close it, in mid-stream with its connection."""
        # A task of its own: httpx loses connections whose closing is cancelled.
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
    """The error for a client; causes are told, URLs (they may hold a key) and hosts are not."""
    match error:
        case httpx.PoolTimeout():
            return APIError(ErrorKind.TIMEOUT, "No connection to the provider became free in time.")
        case httpx.ConnectTimeout():
            return connect_error(host_and_port(url), None)
        case httpx.TimeoutException():
            return APIError(ErrorKind.TIMEOUT, "The provider took too long.")
        case httpx.ConnectError():
            return connect_error(host_and_port(url), _reason(error))
        case httpx.ProxyError():
            message = f"The outbound proxy did not connect to the provider ({_reason(error)})."
            return APIError(ErrorKind.UPSTREAM, message, code="connect_error")
        case httpx.HTTPError():
            return APIError(
                ErrorKind.UPSTREAM, f"The connection to the provider broke: {_reason(error)}."
            )
    # Not what a transport raises: an app behind ASGITransport that failed, or a bug.
    logger.error("a transport failed", exc_info=error)
    return APIError(ErrorKind.UPSTREAM, f"The transport failed ({type(error).__name__}).")


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno or isinstance(cause, ssl.SSLError)):
            return describe_error(cause)
        cause = cause.__cause__ or cause.__context__
    said = str(error).strip().rstrip(".")
    return said[:_LONGEST_REASON] if said else "it was closed"


def _unsendable() -> APIError:
    message = "The request to the provider is no valid HTTP: is there a line end in a key?"
    return APIError(ErrorKind.INTERNAL, message)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _library(transport: Any) -> Any:
    """The package a transport belongs to: httpx, or a fork of the same interface."""
    for base in type(transport).__mro__:
        if base.__name__ == "AsyncBaseTransport":
            return importlib.import_module(base.__module__.partition(".")[0])
    if transport is not None:
        raise ConfigurationError(
            f"{type(transport).__name__} is no transport: expected an httpx.AsyncBaseTransport."
        )
    return importlib.import_module("httpx")
