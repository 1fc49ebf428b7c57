"""RedisStore: the store that many processes share."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, Self, TypeVar

import msgspec

from asgi_aiproxy.stores.base import (
    ANYTHING,
    Admitted,
    AnyValue,
    BudgetReservation,
    Denied,
    Expected,
    Grant,
    Hold,
    Settled,
    StoreUnavailableError,
    UsageLevel,
    check,
)
from asgi_aiproxy.stores.redis import scripts
from asgi_aiproxy.stores.redis.admission import Admissions, ClusterAdmissions
from asgi_aiproxy.stores.redis.change_poller import ChangePoller
from asgi_aiproxy.stores.redis.client import RedisClient, RedisClusterClient
from asgi_aiproxy.stores.redis.connection import ConnectionFactory, parse_url
from asgi_aiproxy.stores.redis.keyspace import Keyspace, milliseconds
from asgi_aiproxy.stores.redis.pipeline import Argument, encode_command
from asgi_aiproxy.stores.redis.scripts import ADD, APPEND, DROP, HOLD, HOLDS, LIFT, PAGE, PUT, SUMS
from asgi_aiproxy.stores.redis.server_check import survey

logger = logging.getLogger("asgi_aiproxy")

P = ParamSpec("P")
R = TypeVar("R")

_LARGE_VALUE = 64 * 1024  # bytes of an entry from which on the same holds
_SUMS_TOGETHER = 1000  # that are read in one piece
_LARGE_CALL = 500  # rows or records from which on a call uses the connection for large calls

_MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


def _parses(method: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Make a method raise StoreUnavailableError for a reply of the wrong type, as from a faulty
    proxy: callers handle that error."""

    @functools.wraps(method)
    async def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(*args, **kwargs)
        except _MALFORMED as error:
            name = type(error).__name__
            raise StoreUnavailableError(f"Redis: an unexpected reply: {name}: {error}") from error

    return checked


class RedisStore:
    """A store in Redis or Valkey (6.2 or newer): one server, Sentinel, or a cluster, by its URL.

    Every call is one round trip (all sums of an account: one for every thousand), shared with other
    calls of the same event loop turn, and ends within `timeout` seconds (on a cluster within twice
    that). Calls that transfer whole tables use a connection of their own and `patience` seconds.
    All keys begin with `prefix`. A store can be used by one event loop at a time. Raises
    ConfigurationError if the URL is invalid.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = "aiproxy",
        timeout: float = 0.5,
        patience: float = 10.0,
    ) -> None:
        target = parse_url(url)
        self._shown = target.shown
        self._names = names = Keyspace(prefix)
        load = [encode_command(("CLIENT", "SETNAME", "asgi_aiproxy"))]
        load += [encode_command(("SCRIPT", "LOAD", script.text)) for script in scripts.ALL]
        kind = RedisClusterClient if target.kind == "cluster" else RedisClient
        self._client = kind(
            target, ConnectionFactory(target, timeout=timeout, optional=load), timeout
        )
        self._large_client = kind(target, ConnectionFactory(target, timeout=timeout), patience)
        admissions = ClusterAdmissions if self._client.clustered else Admissions
        self._admissions = admissions(self._client, names)
        self._watch = ChangePoller(self.version)

    def __repr__(self) -> str:
        return f"RedisStore({self._shown!r})"

    # tables

    @_parses
    async def get(self, table: str, key: str) -> bytes | None:
        """One row's value, or None."""
        names = self._names
        return _value(await self._client.call(names.tag(table), "HGET", names.key(table, "t"), key))

    @_parses
    async def rows(self, table: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        """All rows, or those of `keys` that exist."""
        names = self._names
        name, tag = names.key(table, "t"), names.tag(table)
        if keys is None:
            return _pairs(await (await self._large(tag)).call(tag, "HGETALL", name))
        if not keys:
            return {}
        client = self._client if len(keys) < _LARGE_CALL else await self._large(tag)
        values = await client.call(tag, "HMGET", name, *keys)
        pairs = zip(keys, map(_value, values), strict=True)
        return {key: value for key, value in pairs if value is not None}

    @_parses
    async def page(self, table: str, after: str = "", limit: int = 100) -> dict[str, bytes]:
        """At most `limit` rows whose keys come after `after`, in the order of the keys' UTF-8."""
        names = self._names
        keys, tag = [names.key(table, "t"), names.key(table, "i")], names.tag(table)
        client = self._client if limit < _LARGE_CALL else await self._large(tag)
        return _pairs(await client.run(tag, PAGE, keys, after, limit))

    async def put(
        self, table: str, key: str, value: bytes, *, expected: Expected = ANYTHING
    ) -> bool:
        """Write a row if the current value is `expected` (None: no row); returns whether it was."""
        wanted = {} if isinstance(expected, AnyValue) else {key: expected}
        return not await self.put_many(table, {key: value}, expected=wanted)

    @_parses
    async def put_many(
        self,
        table: str,
        rows: Mapping[str, bytes | None],
        *,
        expected: Mapping[str, bytes | None] | None = None,
    ) -> list[str]:
        """Write all rows, or none; returns the keys whose rows are not as `expected`."""
        expected = expected or {}
        arguments: list[Argument] = [len(expected)]
        for key, value in (*expected.items(), *rows.items()):
            arguments += (key, 0 if value is None else 1, value or b"")
        tag = self._names.tag(table)
        client = self._client if len(rows) < _LARGE_CALL else await self._large(tag)
        wrong = await client.run(tag, PUT, self._table(table), *arguments)
        self._watch.poll_now()
        return [key.decode("utf-8", "surrogatepass") for key in wrong]

    @_parses
    async def drop(self, table: str, key: str) -> bool:
        """Remove a row; returns whether there was one."""
        names = self._names
        done = await self._client.run(names.tag(table), DROP, self._table(table), key)
        self._watch.poll_now()
        return bool(done)

    @_parses
    async def version(self, name: str) -> int:
        """A number that grows with every change of a table, or of the holds of an account."""
        names = self._names
        return int(await self._client.call(names.tag(name), "GET", names.key(name, "v")) or 0)

    def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` in the running loop within a second of a change; returns how to stop."""
        return self._watch.add(name, changed)

    async def _large(self, tag: str) -> RedisClient:
        """The client for large calls, after a check that the server answers at all."""
        await self._client.try_call(tag, "PING")  # an error reply is a response, too
        return self._large_client

    def _table(self, table: str) -> list[str]:
        return [self._names.key(table, kind) for kind in ("t", "i", "v")]

    # admission

    @_parses
    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        *,
        ttl: float = 60.0,
        one_of: Sequence[Sequence[Grant]] = (),
    ) -> Admitted | Denied:
        """Take all of `grants`, and the first of `one_of` that can be taken whole, or nothing."""
        check(holder, grants, one_of, ttl)
        return await self._admissions.admit(holder, grants, ttl, one_of)

    @_parses
    async def settle(
        self, admitted: Admitted, actual: Mapping[Grant, int] | None = None
    ) -> Settled:
        """Free slots, and correct rate limits and budgets to what was really used."""
        return await self._admissions.settle(admitted, actual or {})

    @_parses
    async def renew(self, admitted: Admitted, ttl: float) -> bool:
        """Extend slots and reservations to `ttl` seconds from now; False if one had expired."""
        return await self._admissions.renew(admitted, ttl)

    @_parses
    async def charge(self, budget: BudgetReservation, *, once: str) -> int:
        """Add `budget.amount` to what is spent, regardless of the cap; returns the amount spent."""
        return await self._admissions.charge(budget, once)

    @_parses
    async def peek(self, grants: Sequence[Grant]) -> list[UsageLevel]:
        """How much of each is used now."""
        return await self._admissions.peek(grants) if grants else []

    # holds

    @_parses
    async def hold(self, account: str, name: str, seconds: float, value: bytes = b"") -> bool:
        """Set a hold, unless one that ends later exists; returns whether it was set."""
        names = self._names
        keys = [names.key(account, "h"), names.key(account, "v")]
        tag = names.tag(account)
        done = await self._client.run(tag, HOLD, keys, name, milliseconds(seconds), value)
        self._watch.poll_now()
        return bool(done)

    @_parses
    async def lift(self, account: str, name: str) -> bool:
        """End a hold; returns whether there was one."""
        names = self._names
        keys = [names.key(account, "h"), names.key(account, "v")]
        done = await self._client.run(names.tag(account), LIFT, keys, name)
        self._watch.poll_now()
        return bool(done)

    @_parses
    async def holds(self, account: str) -> dict[str, Hold]:
        """All holds of an account, by name."""
        names = self._names
        tag = names.tag(account)
        flat = await self._client.run(tag, HOLDS, [names.key(account, "h")])
        return {
            _text(name): Hold(left / 1000, value)
            for name, left, value in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        }

    # counters

    @_parses
    async def add(
        self,
        account: str,
        amounts: Mapping[str, int],
        *,
        ttl: float | None = None,
        once: str = "",
    ) -> dict[str, int]:
        """Add to sums; returns the new ones."""
        names = self._names
        keys = [names.key(account, "n")]
        if once:
            keys.append(names.once(account, "add", once))
        arguments: list[Argument] = [0 if ttl is None else milliseconds(ttl)]
        for name, amount in amounts.items():
            arguments += (name, amount)
        sums = await self._client.run(names.tag(account), ADD, keys, *arguments)
        return dict(zip(amounts, sums, strict=True))

    @_parses
    async def sums(self, account: str, names: Collection[str] | None = None) -> dict[str, int]:
        """All sums, or those of `names`; sums that were never added to are missing."""
        key, tag = self._names.key(account, "n"), self._names.tag(account)
        if names is None:
            return await self._all_sums(tag, key)
        if not names:
            return {}
        values = await self._client.call(tag, "HMGET", key, *names)
        return {
            name: int(value) for name, value in zip(names, values, strict=True) if value is not None
        }

    async def _all_sums(self, tag: str, key: str) -> dict[str, int]:
        # In pieces, because the event loop does nothing else while it reads one.
        client = await self._large(tag)
        found: dict[str, int] = {}
        cursor: bytes = b"0"
        try:
            while True:
                cursor, packed = await client.run(tag, SUMS, [key], cursor, _SUMS_TOGETHER)
                found |= _decode_amounts(packed) if packed else {}
                if cursor == b"0":
                    return found
        except msgspec.DecodeError:  # a name has a lone surrogate
            pairs = _pairs(await client.call(tag, "HGETALL", key))
            return {name: int(amount) for name, amount in pairs.items()}

    # logs

    @_parses
    async def append(
        self, log: str, record: bytes, *, maxlen: int | None = None, once: str = ""
    ) -> None:
        """Append a record; about the last `maxlen` are kept."""
        names = self._names
        keys = [names.key(log, "l")]
        if once:
            keys.append(names.once(log, "append", once))
        await self._client.run(names.tag(log), APPEND, keys, maxlen or 0, record)

    @_parses
    async def read(
        self, log: str, after: str = "", limit: int = 100, *, newest: bool = False
    ) -> list[tuple[str, bytes]]:
        """Records with their ids, after (with `newest`: before) the id `after`."""
        key, tag = self._names.key(log, "l"), self._names.tag(log)
        start = f"({after}" if after else ("+" if newest else "-")
        command = ("XREVRANGE", key, start, "-") if newest else ("XRANGE", key, start, "+")
        client = self._client if limit < _LARGE_CALL else await self._large(tag)
        found = await client.call(tag, *command, "COUNT", limit)
        return [(_text(number), fields[1]) for number, fields in found]

    @_parses
    async def trim(self, log: str, until: str) -> None:
        """Remove the records up to the id `until`."""
        moment, _, number = until.partition("-")
        first_kept = f"{moment}-{int(number or 0) + 1}"
        tag = self._names.tag(log)
        await self._client.call(tag, "XTRIM", self._names.key(log, "l"), "MINID", first_kept)

    # entries

    @_parses
    async def set_entry(self, name: str, value: bytes, *, seconds: float) -> None:
        """Set an entry for `seconds`, replacing one of this name."""
        tag = self._names.tag(name)
        client = self._client if len(value) < _LARGE_VALUE else await self._large(tag)
        await client.call(tag, "SET", self._entry(name), value, "PX", milliseconds(seconds))

    @_parses
    async def get_entry(self, name: str) -> bytes | None:
        """The value of an entry; None if there is none, or it has expired."""
        return _value(await self._client.call(self._names.tag(name), "GET", self._entry(name)))

    @_parses
    async def delete_entry(self, name: str) -> bool:
        """Remove an entry; returns whether there was one."""
        return bool(await self._client.call(self._names.tag(name), "DEL", self._entry(name)))

    def _entry(self, name: str) -> str:
        return self._names.key(name, "x")

    # lifetime

    async def aclose(self) -> None:
        """Close all connections; a later use opens them again."""
        await self._watch.aclose()
        await self._client.aclose()
        await self._large_client.aclose()

    async def __aenter__(self) -> Self:
        tag, key = self._names.tag("survey"), self._names.key("survey", "v")
        try:
            for warning in await survey(self._client, self._shown, tag, key):
                logger.warning(warning)
        except StoreUnavailableError as error:
            logger.warning("%s: the store is unavailable: %s", self._shown, error)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


_decode_amounts = msgspec.msgpack.Decoder(dict[str, int], strict=False).decode


def _value(reply: object) -> bytes | None:
    if reply is None or isinstance(reply, bytes):
        return reply
    raise TypeError(f"a value must not be {type(reply).__name__}")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _pairs(reply: object) -> dict[str, bytes]:
    """Names and values of a reply: a map in RESP3, a flat list in RESP2 and from scripts."""
    if isinstance(reply, dict):
        return {_text(name): value for name, value in reply.items()}
    assert isinstance(reply, list)  # noqa: S101 (no other type is possible)
    return {_text(name): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
