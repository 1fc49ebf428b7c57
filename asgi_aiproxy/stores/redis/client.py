"""The way to where something is kept: one server, or the node of a cluster that has its slot."""

from __future__ import annotations

import asyncio
import binascii
import logging
from typing import Any

from asgi_aiproxy.stores.base import StoreUnavailableError
from asgi_aiproxy.stores.redis.connection import Address, ConnectionFactory, RedisAddress
from asgi_aiproxy.stores.redis.pipeline import Argument, ErrorReply, Pipeline
from asgi_aiproxy.stores.redis.scripts import Script

logger = logging.getLogger("asgi_aiproxy")

SLOTS = 16384
_HOPS = 5  # attempts at one call
_ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN")


def slot_of(account: str) -> int:
    """The slot of all that is tagged with an account (CRC16 of what is between the braces)."""
    return binascii.crc_hqx(account.encode("utf-8", "surrogatepass"), 0) % SLOTS


class RedisClient:
    """Calls, each bounded in time, to one server."""

    clustered = False

    def __init__(self, target: RedisAddress, dialler: ConnectionFactory, timeout: float) -> None:
        self._target = target
        self._dialler = dialler
        self._timeout = timeout
        self._pipe = self._made(None)
        self._by_digest = True  # whether scripts may be called by their digests

    async def run(self, tag: str, script: Script, keys: list[str], *arguments: Argument) -> Any:
        """Run a script on keys that all have the tag. Raises StoreUnavailableError."""
        return unwrap_reply(await self.try_run(tag, script, keys, *arguments))

    async def try_run(self, tag: str, script: Script, keys: list[str], *arguments: Argument) -> Any:
        """Run a script; the reply may be `Rejected`. Raises StoreUnavailableError."""
        command = (len(keys), *keys, *arguments)
        reply: Any = None
        if self._by_digest:
            reply = await self._call(tag, ("EVALSHA", script.sha, *command))
            refused = isinstance(reply, ErrorReply) and refuses(reply, "EVALSHA")
            if not refused and not (isinstance(reply, ErrorReply) and reply.code == "NOSCRIPT"):
                return reply
            if refused:
                self._by_digest = False
                logger.info("%s refuses EVALSHA: EVAL is used", self._target.shown)
        return await self._call(tag, ("EVAL", script.text, *command))

    async def call(self, tag: str, *command: Argument) -> Any:
        """Run a command on a key that has the tag. Raises StoreUnavailableError."""
        return unwrap_reply(await self._call(tag, command))

    async def ask(self, tag: str, *command: Argument) -> Any:
        """Run a command; the reply may be `Rejected`. Raises StoreUnavailableError."""
        return await self._call(tag, command)

    async def aclose(self) -> None:
        """Close all connections; a later call opens again."""
        await self._pipe.aclose()

    async def _call(self, tag: str, command: tuple[Argument, ...]) -> Any:
        return await self._pipe.call(*command)

    def _made(self, address: Address | None) -> Pipeline:
        name = self._target.shown if address is None else f"{address[0]}:{address[1]}"
        return Pipeline(self._dialler.to(address), name=name, timeout=self._timeout)


class RedisClusterClient(RedisClient):
    """Calls, each bounded in time, to the node that has what it is about.

    Who has which slot is asked of any node, and again when a node fails. A call that was redirected
    was not executed, so it is sent on. While a slot is on its way from one node to another, scripts
    on several keys can not run; they are tried again until their time is over.
    """

    clustered = True

    def __init__(self, target: RedisAddress, dialler: ConnectionFactory, timeout: float) -> None:
        super().__init__(target, dialler, timeout)
        self._pipes: dict[Address, Pipeline] = {}
        self._owners: list[Address | None] = []
        self._asking: asyncio.Task[None] | None = None

    async def _call(self, tag: str, command: tuple[Argument, ...]) -> Any:
        async with asyncio.timeout(2 * self._timeout) as limit:
            try:
                return await self._routed(slot_of(tag), command)
            except StoreUnavailableError:
                self._owners = []  # somebody else may have the slot by now
                raise
            except TimeoutError:
                if limit.expired():
                    raise StoreUnavailableError("Redis: the cluster is in disorder.") from None
                raise

    async def _routed(self, slot: int, command: tuple[Argument, ...]) -> Any:
        if not self._owners:
            await self._ask()
        address = self._owners[slot] if self._owners else None
        asking = False
        for _ in range(_HOPS):
            if address is None:
                raise StoreUnavailableError(f"Redis: no node of the cluster has the slot {slot}.")
            pipe = self._pipe_to(address)
            if asking:
                pipe.call("ASKING").add_done_callback(_unheeded)
            reply = await pipe.call(*command)
            if not isinstance(reply, ErrorReply) or reply.code not in _ELSEWHERE:
                return reply
            if reply.code == "TRYAGAIN":
                await asyncio.sleep(self._timeout / _HOPS)
                continue
            asking = reply.code == "ASK"
            address = _place(reply.text, address)
            if not asking and self._owners:
                self._owners[slot] = address
        raise StoreUnavailableError("Redis: a slot of the cluster is on its way to another node.")

    async def _ask(self) -> None:
        """Ask who has which slot; calls that want to know at the same time ask once."""
        loop = asyncio.get_running_loop()
        if self._asking is None or self._asking.done() or self._asking.get_loop() is not loop:
            self._asking = loop.create_task(self._find())
        asking = self._asking
        await asyncio.wait((asking,))
        if not asking.cancelled():
            asking.result()

    async def _find(self) -> None:
        error: StoreUnavailableError | None = None
        connected = [address for address, pipe in self._pipes.items() if pipe.connected]
        for address in dict.fromkeys((*connected, *self._target.seeds, *self._pipes)):
            try:
                reply = unwrap_reply(await self._pipe_to(address).call("CLUSTER", "SLOTS"))
            except StoreUnavailableError as failure:
                error = failure
                continue
            owners: list[Address | None] = [None] * SLOTS
            for first, last, (host, port, *_), *_ in reply:
                name = host.decode() if host else address[0]
                owners[first : last + 1] = [(name, port)] * (last + 1 - first)
            self._owners = owners
            return
        raise error or StoreUnavailableError("Redis: no node of the cluster is known.")

    def _pipe_to(self, address: Address) -> Pipeline:
        pipe = self._pipes.get(address)
        if pipe is None:
            pipe = self._pipes[address] = self._made(address)
        return pipe

    async def aclose(self) -> None:
        """Close all connections; a later call opens again."""
        if self._asking is not None:
            self._asking.cancel()
        for pipe in self._pipes.values():
            await pipe.aclose()


def _unheeded(reply: asyncio.Future[Any]) -> None:
    if not reply.cancelled():
        reply.exception()  # the call that follows fails of the same


def _place(text: str, known: Address) -> Address:
    """Where a redirection points: `slot host:port`; without a host it is the same one."""
    host, _, port = text.split()[-1].rpartition(":")
    return host or known[0], int(port)


def refuses(reply: ErrorReply, command: str) -> bool:
    """Whether a server does not know a command, or does not allow it: so it was not executed."""
    return reply.code in ("ERR", "NOPERM") and command.lower() in reply.text.lower()


def unwrap_reply(reply: Any) -> Any:
    """A reply that is not a refusal. Raises StoreUnavailableError."""
    if isinstance(reply, ErrorReply):
        raise StoreUnavailableError(f"Redis: {reply.code} {reply.text}")
    return reply
