"""Route commands to one server, or to the node of a cluster that has the slot of the account."""

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
_MAX_ATTEMPTS = 5  # at one call, while the cluster redirects it
_REDIRECTIONS = ("MOVED", "ASK", "TRYAGAIN")


def slot_of(account: str) -> int:
    """The hash slot of all keys of an account (CRC16 of the text between the braces).

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
    """
    return binascii.crc_hqx(account.encode("utf-8", "surrogatepass"), 0) % SLOTS


class RedisClient:
    """Calls to one server; each ends within `timeout` seconds."""

    clustered = False

    def __init__(
        self, target: RedisAddress, connections: ConnectionFactory, timeout: float
    ) -> None:
        self._target = target
        self._connections = connections
        self._timeout = timeout
        self._pipeline = self._new_pipeline(None)
        self._by_digest = True  # whether scripts may be called by their digests

    async def run(self, tag: str, script: Script, keys: list[str], *arguments: Argument) -> Any:
        """Run a script on keys that all have the hash tag. Raises StoreUnavailableError."""
        return unwrap_reply(await self.try_run(tag, script, keys, *arguments))

    async def try_run(self, tag: str, script: Script, keys: list[str], *arguments: Argument) -> Any:
        """Run a script; the reply may be ErrorReply. Raises StoreUnavailableError."""
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
        """Run a command on a key with the hash tag. Raises StoreUnavailableError."""
        return unwrap_reply(await self._call(tag, command))

    async def try_call(self, tag: str, *command: Argument) -> Any:
        """Run a command; the reply may be ErrorReply. Raises StoreUnavailableError."""
        return await self._call(tag, command)

    async def aclose(self) -> None:
        """Close all connections; a later call opens again."""
        await self._pipeline.aclose()

    async def _call(self, tag: str, command: tuple[Argument, ...]) -> Any:
        return await self._pipeline.call(*command)

    def _new_pipeline(self, address: Address | None) -> Pipeline:
        name = self._target.shown if address is None else f"{address[0]}:{address[1]}"
        return Pipeline(self._connections.to(address), name=name, timeout=self._timeout)


class RedisClusterClient(RedisClient):
    """Calls to the node of a cluster that has the slot; each ends within twice `timeout` seconds.

    The owners of slots are read from any node, and again when a node fails. A redirected call was
    not carried out, so it is sent to the other node. While a slot moves between nodes, scripts on
    several keys cannot run; they are tried again until the time is over.
    """

    clustered = True

    def __init__(
        self, target: RedisAddress, connections: ConnectionFactory, timeout: float
    ) -> None:
        super().__init__(target, connections, timeout)
        self._pipelines: dict[Address, Pipeline] = {}
        self._owners: list[Address | None] = []
        self._reading_owners: asyncio.Task[None] | None = None

    async def _call(self, tag: str, command: tuple[Argument, ...]) -> Any:
        async with asyncio.timeout(2 * self._timeout) as limit:
            try:
                return await self._routed(slot_of(tag), command)
            except StoreUnavailableError:
                self._owners = []  # another node may have the slot now
                raise
            except TimeoutError:
                if limit.expired():
                    raise StoreUnavailableError(
                        "Redis: the cluster did not answer in time."
                    ) from None
                raise

    async def _routed(self, slot: int, command: tuple[Argument, ...]) -> Any:
        if not self._owners:
            await self._read_owners()
        address = self._owners[slot] if self._owners else None
        asking = False
        for _ in range(_MAX_ATTEMPTS):
            if address is None:
                raise StoreUnavailableError(f"Redis: no node of the cluster has the slot {slot}.")
            pipeline = self._pipeline_to(address)
            if asking:
                pipeline.call("ASKING").add_done_callback(_ignore_result)
            reply = await pipeline.call(*command)
            if not isinstance(reply, ErrorReply) or reply.code not in _REDIRECTIONS:
                return reply
            if reply.code == "TRYAGAIN":
                await asyncio.sleep(self._timeout / _MAX_ATTEMPTS)
                continue
            asking = reply.code == "ASK"
            address = _redirection_address(reply.text, address)
            if not asking and self._owners:
                self._owners[slot] = address
        raise StoreUnavailableError("Redis: a slot of the cluster is moving to another node.")

    async def _read_owners(self) -> None:
        """Read the owners of the slots; concurrent calls share one reading."""
        loop = asyncio.get_running_loop()
        if (
            self._reading_owners is None
            or self._reading_owners.done()
            or self._reading_owners.get_loop() is not loop
        ):
            self._reading_owners = loop.create_task(self._query_owners())
        reading = self._reading_owners
        await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.result()

    async def _query_owners(self) -> None:
        error: StoreUnavailableError | None = None
        connected = [address for address, pipeline in self._pipelines.items() if pipeline.connected]
        for address in dict.fromkeys((*connected, *self._target.seeds, *self._pipelines)):
            try:
                reply = unwrap_reply(await self._pipeline_to(address).call("CLUSTER", "SLOTS"))
            except StoreUnavailableError as failure:
                error = failure
                continue
            owners: list[Address | None] = [None] * SLOTS
            for first, last, (host, port, *_), *_ in reply:
                name = host.decode() if host else address[0]
                owners[first : last + 1] = [(name, port)] * (last + 1 - first)
            self._owners = owners
            return
        raise error or StoreUnavailableError("Redis: no node of the cluster can be reached.")

    def _pipeline_to(self, address: Address) -> Pipeline:
        pipeline = self._pipelines.get(address)
        if pipeline is None:
            pipeline = self._pipelines[address] = self._new_pipeline(address)
        return pipeline

    async def aclose(self) -> None:
        """Close all connections; a later call opens again."""
        if self._reading_owners is not None:
            self._reading_owners.cancel()
        for pipeline in self._pipelines.values():
            await pipeline.aclose()


def _ignore_result(reply: asyncio.Future[Any]) -> None:
    if not reply.cancelled():
        reply.exception()  # the next call fails for the same reason


def _redirection_address(text: str, known: Address) -> Address:
    """The address in a redirection, `slot host:port`; without a host it is the same host."""
    host, _, port = text.split()[-1].rpartition(":")
    return host or known[0], int(port)


def refuses(reply: ErrorReply, command: str) -> bool:
    """Whether the server does not know or not allow a command, so that it was not carried out."""
    return reply.code in ("ERR", "NOPERM") and command.lower() in reply.text.lower()


def unwrap_reply(reply: Any) -> Any:
    """Return a reply. Raises StoreUnavailableError for an ErrorReply."""
    if isinstance(reply, ErrorReply):
        raise StoreUnavailableError(f"Redis: {reply.code} {reply.text}")
    return reply
