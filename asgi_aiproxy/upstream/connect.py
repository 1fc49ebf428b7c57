"""Open connections: address lookup, outbound proxies, TLS; and the errors when that fails.

Addresses of both families are tried in turn, each 0.25 s after the one before, and the first that
answers is used (RFC 8305). Outbound proxies are HTTP (CONNECT, RFC 9110 9.3.6) and SOCKS5
(RFC 1928, RFC 1929).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream.connection import Connection, ConnectionEndedError
from asgi_aiproxy.upstream.http1 import HTTPProtocolError, request_head

logger = logging.getLogger("asgi_aiproxy")

# Seconds for which one address is tried alone before the next is tried as well (RFC 8305).
_ATTEMPT_DELAY = 0.25
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_IN_TARGET = "!$%&'()*+,-./:;=?@_~[]"
_MAX_CACHED_URL = 512
_KEEPALIVE_IDLE = 60  # seconds without traffic after which the peer is probed


@dataclass(frozen=True, slots=True, repr=False)
class Destination:
    """The destination of a request. Connections with the same `origin` can be shared."""

    origin: tuple[str, str, int, str | None]
    host: str
    port: int
    secure: bool
    proxy: str | None
    authority: str  # for the header `host`
    target: str  # for the request line
    proxy_authorization: str | None = None


def parse_destination(url: str, proxy: str | None) -> Destination:
    """Parse a URL. Raises ValueError if it is invalid, ConfigurationError if the proxy URL is."""
    # Long URLs are not cached: they are many, and each is used once.
    return (
        _parse_destination(url, proxy)
        if len(url) <= _MAX_CACHED_URL
        else _parse_destination.__wrapped__(url, proxy)
    )


@lru_cache(maxsize=4096)
def _parse_destination(url: str, proxy: str | None) -> Destination:
    parts = urlsplit(url)
    host, port = _address(parts)
    if parts.scheme not in ("http", "https"):
        raise ValueError("not an http URL")
    secure = parts.scheme == "https"
    named = f"[{host}]" if ":" in host else host
    authority = named if port == _PORTS[parts.scheme] else f"{named}:{port}"
    target = quote(parts.path, safe=_IN_TARGET) or "/"
    if parts.query:
        target += "?" + quote(parts.query, safe=_IN_TARGET)
    authorization = None
    if proxy is not None:
        through = parse_proxy_url(proxy)
        if not secure and through.scheme in ("http", "https"):
            target = f"http://{authority}{target}"
            authorization = _basic(through)
    return Destination(
        (parts.scheme, host, port, proxy),
        host,
        port,
        secure,
        proxy,
        authority,
        target,
        authorization,
    )


def parse_proxy_url(proxy: str) -> SplitResult:
    """Parse the URL of an outbound proxy. Raises ConfigurationError, which does not quote
    the URL.
    """
    try:
        parts = urlsplit(proxy)
        _address(parts)
    except ValueError:
        raise ConfigurationError("The outbound proxy URL is invalid.") from None
    if parts.scheme not in _PORTS:
        raise ConfigurationError(
            f"The scheme of an outbound proxy URL must be one of {', '.join(_PORTS)}, not "
            f"{parts.scheme!r}."
        )
    return parts


def tls(ca: str | Path | bytes | None) -> ssl.SSLContext:
    """Return an SSL context that trusts the system's authorities, Mozilla's, and `ca`."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    with suppress(ImportError):  # some systems have no certificate authorities
        import certifi

        context.load_verify_locations(certifi.where())
    if ca is not None:
        context.load_verify_locations(cadata=read_pem(ca).decode("ascii"))
    return context


def read_pem(ca: str | Path | bytes) -> bytes:
    """Return the content of a PEM file, given as its path or its content. Raises
    ConfigurationError.
    """
    name = "The CA"
    if isinstance(ca, str) and ca.lstrip().startswith("-----BEGIN"):
        ca = ca.encode()
    if not isinstance(ca, bytes):
        name = f"The CA file {str(ca)!r}"
        try:
            ca = Path(ca).read_bytes()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise ConfigurationError(f"{name} cannot be read: {why}.") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca.decode("ascii"))
    except (ValueError, ssl.SSLError) as error:
        raise ConfigurationError(f"{name} contains no certificates in PEM format.") from error
    return ca


async def connect(destination: Destination, context: ssl.SSLContext | None) -> Connection:
    """Open a connection that is ready for requests. Raises OSError, APIError.

    `context` may be None unless `needs_tls(where)`.
    """
    proxy = parse_proxy_url(destination.proxy) if destination.proxy is not None else None
    host, port = (destination.host, destination.port) if proxy is None else _address(proxy)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(loop), sock=await _connect_any(loop, host, port)
    )
    try:
        if proxy is not None:
            if proxy.scheme == "https" and context is not None:
                await connection.start_tls(context, host)
            if proxy.scheme.startswith("socks5"):
                await _connect_socks(connection, proxy, destination)
            elif destination.secure:
                await _open_tunnel(connection, proxy, destination)
        if destination.secure and context is not None:
            await connection.start_tls(context, destination.host)
    except BaseException:
        connection.abort()
        raise
    return connection


def needs_tls(destination: Destination) -> bool:
    """Whether a connection to this destination needs an SSL context."""
    return destination.secure or (
        destination.proxy is not None and destination.proxy.startswith("https:")
    )


def describe_error(error: BaseException) -> str:
    """Return the reason why a connection failed, without host names or credentials."""
    match error:
        case ssl.SSLCertVerificationError():
            # Without the rest of the message ("certificate is not valid for '...'"), which contains
            # the host name.
            return f"its certificate is not trusted ({error.verify_message.partition(',')[0]})"
        case ssl.SSLError():
            return f"TLS failed ({(error.reason or 'no reason given').replace('_', ' ').lower()})"
        case socket.gaierror():
            return "its name cannot be resolved"
        case OSError() if error.errno:
            return os.strerror(error.errno)
        case HTTPProtocolError() | ConnectionEndedError():
            return str(error)
    return "it was reset" if isinstance(error, ConnectionError) else type(error).__name__


def host_and_port(url: str) -> str:
    """Host and port of a URL, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def check_proxy(url: str) -> None:
    """Raise APIError if an outbound proxy URL is invalid; the message does not quote it."""
    try:
        parse_proxy_url(url)
    except ConfigurationError as error:
        raise APIError(ErrorKind.INTERNAL, str(error)) from None


def connect_error(to: str, why: str | None, *, proxied: bool = False) -> APIError:
    """Log that a connection `to` a host failed, and return the error for the client.

    `why` is the cause, None for a timeout; `proxied`: the connection was made through an outbound
    proxy. The address is logged only: callers must not learn the address of an internal server.
    """
    through = " through the outbound proxy" if proxied else ""
    outcome = "took too long" if why is None else f"failed: {why}"
    logger.warning("the connection to %s%s %s", to, through, outcome)
    message = f"The connection to the provider{through} {outcome}. Try again later."
    if why is None:
        return APIError(ErrorKind.TIMEOUT, message, code="connect_timeout")
    return APIError(ErrorKind.UPSTREAM, message, code="connect_error")


async def _connect_any(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A connected socket, to the first of the host's addresses that answers."""
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = _alternate_families(found)
    if len(addresses) == 1:
        return await _connect(loop, *addresses[0])
    trying: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError("no address")
    winner: socket.socket | None = None
    try:
        for family, address in addresses:
            trying.add(loop.create_task(_connect(loop, family, address)))
            last = (family, address) == addresses[-1]
            while trying and winner is None:
                wait = None if last else _ATTEMPT_DELAY
                done, trying = await asyncio.wait(
                    trying, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    error = task.exception()
                    if error is not None:
                        failure = error
                    elif winner is None:
                        winner = task.result()
                    else:
                        task.result().close()
                if not last:
                    break
            if winner is not None:
                return winner
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_close_result)
    raise failure


def _close_result(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(loop: asyncio.AbstractEventLoop, family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A model may take minutes to answer: probe whether the peer still exists.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE_IDLE)
                break
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _alternate_families(found: Sequence[tuple[Any, ...]]) -> list[tuple[int, Any]]:
    """The addresses of both families alternately, so that a broken family costs little time."""
    addresses = list(dict.fromkeys((entry[0], entry[4]) for entry in found))
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    other = [entry for entry in addresses if entry[0] != addresses[0][0]]
    both = [entry for pair in zip(first, other, strict=False) for entry in pair]
    return both + first[len(other) :] + other[len(first) :]


async def _open_tunnel(
    connection: Connection, proxy: SplitResult, destination: Destination
) -> None:
    """Open a tunnel through an HTTP proxy. Raises APIError if it refuses."""
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    target = f"{host}:{destination.port}"
    headers = [("host", target)]
    authorization = _basic(proxy)
    if authorization is not None:
        headers.append(("proxy-authorization", authorization))
    answer = connection.start("CONNECT", request_head("CONNECT", target, headers), None, None)
    while not answer.begun:
        await connection.changed()
    if not 200 <= answer.status < 300:
        raise _proxy_refused(f"HTTP {answer.status}")
    connection.change_protocol()


async def _connect_socks(
    connection: Connection, proxy: SplitResult, destination: Destination
) -> None:
    """Connect through a SOCKS5 proxy (RFC 1928, RFC 1929). Raises APIError if it refuses."""
    user, password = _credentials(proxy)
    if max(len(user), len(password)) > 255:
        raise _proxy_refused("the credentials are too long for SOCKS")
    connection.write(b"\x05\x02\x00\x02" if user else b"\x05\x01\x00")
    chosen = await connection.read_raw(2)
    connection.change_protocol()
    if chosen == b"\x05\x02" and user:
        connection.write(b"\x01%c%b%c%b" % (len(user), user, len(password), password))
        verdict = await connection.read_raw(2)
        connection.change_protocol()
        if verdict[1:] != b"\0":
            raise _proxy_refused("wrong credentials")
    elif chosen != b"\x05\x00":
        raise _proxy_refused("it accepts no authentication method offered")
    host = (
        destination.host.encode("idna")
        if ":" not in destination.host
        else destination.host.encode()
    )
    connection.write(b"\x05\x01\x00\x03%c%b%b" % (len(host), host, destination.port.to_bytes(2)))
    head = await connection.read_raw(5)
    if head[0] != 5:
        raise _proxy_refused("the reply is not SOCKS5")
    if head[1] != 0:
        raise _proxy_refused(f"SOCKS error {head[1]}")
    # The address that it connected from: 4 bytes, a name behind its length, or 16 bytes.
    left = {1: 4 - 1, 3: head[4], 4: 16 - 1}.get(head[3])
    if left is None:
        raise _proxy_refused(f"SOCKS address type {head[3]} is unknown")
    await connection.read_raw(left + 2)
    connection.change_protocol()


def _proxy_refused(why: str) -> APIError:
    message = f"The outbound proxy did not connect to the provider ({why})."
    return APIError(ErrorKind.UPSTREAM, message, code="connect_error")


def _address(parts: SplitResult) -> tuple[str, int]:
    """Host and port of a URL. Raises ValueError."""
    host = parts.hostname
    if not host or any(sign.isspace() or sign < "!" for sign in host):
        raise ValueError("a URL without a host")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    return host, parts.port if parts.port is not None else _PORTS.get(parts.scheme, 0)


def _credentials(proxy: SplitResult) -> tuple[bytes, bytes]:
    return unquote(proxy.username or "").encode(), unquote(proxy.password or "").encode()


def _basic(proxy: SplitResult) -> str | None:
    if proxy.username is None:
        return None
    return "Basic " + base64.b64encode(b":".join(_credentials(proxy))).decode()
