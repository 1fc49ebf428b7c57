"""Connections to Redis by redis-py: TCP, TLS, Unix sockets, authentication, Sentinel.

The address of a server is a URL:

- `redis://user:password@host:6379/0`, `rediss://` for TLS, `unix:///path`;
- `redis+sentinel://user:password@host:26379,host:26379/mymaster/0`;
- `redis+cluster://user:password@host:7000,host:7001`.

`rediss+sentinel` and `rediss+cluster` use TLS. Query parameters are arguments of redis-py's
connections, such as `ssl_ca_certs=/path`; `sentinel_username` and `sentinel_password` are for the
Sentinels themselves.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError as BrokenError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores.base import StoreUnavailableError
from asgi_aiproxy.stores.redis.pipeline import Connect, Connection, ErrorReply, encode_command

logger = logging.getLogger("asgi_aiproxy")

Address = tuple[str, int]

# Every server that works answers this, with a null reply or an error.
_ALIVE = encode_command(("GET", "aiproxy:alive"))
# Error codes of commands that the server does not support or allow.
_UNSUPPORTED = ("ERR", "NOPERM")
# The codes that redis-py, before version 8, cuts off and says by the class of the error.
_CODES: dict[type[Exception], str] = {
    AskError: "ASK",
    ClusterCrossSlotError: "CROSSSLOT",
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    MovedError: "MOVED",
    NoPermissionError: "NOPERM",
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}


class RedisAddress(msgspec.Struct, frozen=True):
    """A parsed URL: the kind of set-up, and the servers to connect to."""

    kind: Literal["server", "sentinel", "cluster"]
    shown: str  # without the password
    url: str  # of one server, without an address unless it is the only one
    seeds: tuple[Address, ...] = ()
    master: str = ""
    sentinel_options: tuple[tuple[str, str], ...] = ()  # options for connections to the Sentinels


_ADDRESS = (
    "The URL of a Redis server must begin with redis://, rediss://, unix://, redis+sentinel:// or "
    "redis+cluster://"
)


def parse_url(url: str) -> RedisAddress:
    """Parse a URL. Raises ConfigurationError, which never quotes a password."""
    try:
        split = urlsplit(url)
        hosts = split.netloc.rpartition("@")[2]
    except ValueError:  # a bracket that is not closed
        raise ConfigurationError(f"{_ADDRESS}; this one cannot be parsed.") from None
    scheme, _, kind = split.scheme.partition("+")
    known = kind in ("", "sentinel", "cluster") and scheme in ("redis", "rediss", "unix")
    if not known or not url[len(split.scheme) :].startswith("://"):
        raise ConfigurationError(f"{_ADDRESS}; this one does not.")
    if "@" in f"{split.path}?{split.query}#{split.fragment}":
        raise ConfigurationError(
            "A user or a password in the URL of a Redis server must be percent-encoded: "
            "'/' is %2F, '?' is %3F, '#' is %23, '@' is %40."
        )
    users, at, _ = split.netloc.rpartition("@")
    shown = urlunsplit((split.scheme, hosts, split.path, "", ""))
    if not kind:
        return RedisAddress("server", shown, url)
    default = 26379 if kind == "sentinel" else 6379
    try:
        seeds = tuple(_address(host, default) for host in hosts.split(",") if host)
    except ValueError:
        raise ConfigurationError(f"{shown!r}: a port is not a number.") from None
    if not seeds:
        raise ConfigurationError(f"{shown!r} names no host.")
    master, path = "", split.path
    if kind == "sentinel":
        master, _, number = split.path.strip("/").partition("/")
        path = f"/{number}" if number else ""
        if not master:
            raise ConfigurationError(
                f"{shown!r} does not name the master: redis+sentinel://host:26379/mymaster"
            )
        options = parse_qsl(split.query)
        own = {name.removeprefix("sentinel_"): value for name, value in options if _own(name)}
        query = urlencode([(name, value) for name, value in options if not _own(name)])
        url = _url(scheme, users + at, path, query)
        return RedisAddress("sentinel", shown, url, seeds, master, tuple(own.items()))
    return RedisAddress("cluster", shown, _url(scheme, users + at, "", split.query), seeds)


def _own(option: str) -> bool:
    return option.startswith("sentinel_")


def _url(scheme: str, users: str, path: str, query: str) -> str:
    return urlunsplit((scheme, f"{users}localhost", path, query, ""))


def _address(text: str, default: int) -> Address:
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon and "]" not in port else (text, default)


def _without_introduction() -> dict[str, Any]:
    """Arguments with which redis-py does not send CLIENT SETINFO, which some servers refuse."""
    known = inspect.signature(AbstractConnection.__init__).parameters
    names = ("driver_info",) if "driver_info" in known else ("lib_name", "lib_version")
    return dict.fromkeys(names)


class ConnectionFactory:
    """Opens connections to the servers of one address.

    `optional` commands are sent first on each connection. A server may refuse them, or close the
    connection because of them, as proxies do: then they are omitted from then on. So connecting
    needs no commands but AUTH and SELECT, if the URL has credentials or a database. (RESP3 would
    need HELLO.) `timeout` is in seconds. Raises ConfigurationError for an invalid URL argument.
    """

    def __init__(
        self, target: RedisAddress, *, timeout: float, optional: Iterable[bytes] = ()
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._optional = list(optional)
        try:
            pool: Any = ConnectionPool.from_url(
                target.url,
                socket_timeout=None,  # Pipeline limits the time
                socket_connect_timeout=timeout,
                retry_on_timeout=False,
                health_check_interval=0,
                protocol=2,
                **_without_introduction(),
            )
            self._class: type[AbstractConnection] = pool.connection_class
            self._arguments: dict[str, Any] = dict(pool.connection_kwargs)
            pool.make_connection()  # raises now if an argument is invalid
        except (TypeError, ValueError, OSError, RedisError) as error:
            raise ConfigurationError(f"{target.shown!r}: {error}") from error

    def to(self, address: Address | None = None) -> Connect:
        """A function that connects to `address`, or to the server of the URL."""

        async def connect() -> Connection:
            return await self._open(address)

        return connect

    async def _open(self, address: Address | None) -> Connection:
        if self._optional:
            try:
                return await self._open_and_check(address, self._timeout / 2)
            except (StoreUnavailableError, TimeoutError):
                pass  # possibly because of the optional commands
        optional, self._optional = self._optional, []
        try:
            opened = await self._open_and_check(address, None)
        except BaseException:
            self._optional = optional
            raise
        if optional:
            logger.info(
                "%s refuses CLIENT SETNAME or SCRIPT LOAD: they are not used", self._target.shown
            )
        return opened

    async def _open_and_check(self, address: Address | None, seconds: float | None) -> Connection:
        """A connection to a server that has answered, after the optional commands."""
        async with asyncio.timeout(seconds):
            opened = await self._open_connection(address)
            try:
                await opened.send(b"".join((*self._optional, _ALIVE)))
                replies = [await opened.read() for _ in (*self._optional, _ALIVE)]
            except BaseException:
                await opened.aclose()
                raise
        self._optional = [
            command
            for command, reply in zip(self._optional, replies, strict=False)
            if not (isinstance(reply, ErrorReply) and reply.code in _UNSUPPORTED)
        ]
        return opened

    async def _open_connection(self, address: Address | None) -> RedisConnection:
        arguments = self._arguments
        try:
            if self._target.kind == "sentinel":
                address = await self._master()
            if address is not None:
                arguments = arguments | {"host": address[0], "port": address[1]}
            connection: Any = self._class(**arguments)
            opened = RedisConnection(connection)
            try:
                await connection.connect()
            except BaseException:
                await opened.aclose()
                raise
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"Redis: {error}") from error
        return opened

    async def _master(self) -> Address:
        make: Any = Sentinel
        share = self._timeout / (
            len(self._target.seeds) + 1
        )  # the Sentinels are tried one after the other
        options = {
            "socket_timeout": share,
            "socket_connect_timeout": share,
            "retry": Retry(NoBackoff(), 0),
            **dict(self._target.sentinel_options),
        }
        if issubclass(self._class, SSLConnection):
            options["ssl"] = True
            options |= {n: v for n, v in self._arguments.items() if n.startswith("ssl_")}
        sentinel = make(self._target.seeds, sentinel_kwargs=options)
        try:
            host, port = await sentinel.discover_master(self._target.master)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return host, port


class RedisConnection:
    """A connection of redis-py, without its retries."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        """Send; raises StoreUnavailableError."""
        if not self._connection.is_connected:  # redis-py would connect again
            raise StoreUnavailableError("Redis: the connection is closed.")
        try:
            await self._connection.send_packed_command(data, check_health=False)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def read(self) -> Any:
        """The next reply, possibly ErrorReply. Raises StoreUnavailableError at the end."""
        try:
            return await self._connection.read_response(disable_decoding=True)
        except BusyLoadingError as error:
            return ErrorReply("LOADING", str(error))
        except BrokenError as error:
            raise StoreUnavailableError(f"Redis: {error}") from error
        except ResponseError as error:
            return rejected(error)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def aclose(self) -> None:
        """Close, now."""
        try:
            await self._connection.disconnect(nowait=True)
        except (RedisError, OSError):
            pass


def rejected(error: ResponseError) -> ErrorReply:
    """An error reply with its code, which redis-py cuts off the text if it knows it.

    From version 8 on it is in `status_code`; before, ERR is what is left when there is no other.
    """
    known = getattr(error, "status_code", None) or _CODES.get(type(error))
    if known:
        return ErrorReply(known, str(error))
    code, _, text = str(error).partition(" ")
    return ErrorReply(code, text) if code.isupper() else ErrorReply("ERR", str(error))
