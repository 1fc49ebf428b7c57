"""What is remembered of responses, for requests that name one. Theory of operation.

A record belongs to one caller: its name in the store contains a digest of the caller's account (or
of its id). A request of another caller looks under another name, so that an id which exists for
somebody else is in every respect the same as one that does not exist.

A record always holds the *route*: provider, API key and model of the response, and whether the
provider keeps it. That is small and not secret. With a *stash* it also holds the content: the
conversation up to the response, and the response itself. The content is compressed, and encrypted
for the name of its record, so that it can be neither read in the store nor moved to another caller.
It holds the whole conversation, not a reference to the record before: each record then expires, and
is deleted, on its own, and a request needs one read, however long the conversation is.

Without a store, routes are kept in this process: enough for one worker.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
import zlib
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import getrandbits, uniform
from weakref import WeakValueDictionary

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, require_int_at_least
from asgi_aiproxy.keys.encryption import NoEncryption, SealError, SecretCipher
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.responses_state.history import History, Segment
from asgi_aiproxy.stores.base import (
    Admitted,
    ConcurrencySlot,
    Store,
    StoreUnavailableError,
    check_store,
)
from asgi_aiproxy.stores.entries import ExpiringEntries
from asgi_aiproxy.stores.memory import MemoryStore

logger = logging.getLogger("asgi_aiproxy")

_ROUTE_BYTES = 4 * 1024 * 1024  # of routes in this process, about 20,000 of them
_MAX_ID = 256  # characters
# How long a change of a record may take. Others wait for longer than that, so that a worker which
# ended in the middle of a change fails none of them.
_MAX_CHANGE_SECONDS = 10.0
_MAX_WAIT_SECONDS = 15.0
_MAX_PAUSE_SECONDS = 0.2


class StoredResponse(msgspec.Struct, frozen=True):
    """A record: the history up to a response, and the response with the items of its request.

    `response` and `input` are None where the content is not kept.
    """

    history: History
    response: msgspec.Raw | None = None
    input: tuple[msgspec.Raw, ...] | None = None


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    provider: str
    key_id: str = ""
    model: str = ""
    kept: bool = False
    tokens: int = 0
    content: str = ""  # encrypted


class _Content(msgspec.Struct, frozen=True):
    segments: tuple[Segment, ...]
    input: tuple[msgspec.Raw, ...]
    response: msgspec.Raw


_row = msgspec.json.Decoder(_Row).decode
_content = msgspec.json.Decoder(_Content).decode


class ResponseState:
    """Remembers responses of the Responses API, for requests that refer to them.

    Arguments:

    - `store`: where all workers remember them. Without one only this process does.
    - `stash`: keep the content of conversations, so that clients can refer to responses of any
      provider, and continue with another one. Off by default.
    - `sealer`: encrypts the content. Required unless the store is a `MemoryStore`.
    - `seconds`: how long a response is remembered.
    - `max_bytes`: the largest conversation that is kept, in bytes before compression.

    Raises ConfigurationError if an argument is invalid.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        stash: bool = False,
        sealer: SecretCipher | None = None,
        seconds: float = 86_400.0,
        max_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        if store is not None:
            check_store(store, "ResponseState")
        if stash and store is None:
            raise ConfigurationError(
                "ResponseState: a stash needs a store, as in ResponseState(MemoryStore(), "
                "stash=True)."
            )
        if stash and sealer is None and not isinstance(store, MemoryStore):
            raise ConfigurationError(
                "ResponseState: conversations must be encrypted before they are stored: pass "
                "sealer=Sealer(...) (in a configuration file: sealing_keys)."
            )
        require_int_at_least(max_bytes=max_bytes)
        if not seconds > 0:
            raise ConfigurationError(f"ResponseState: seconds must be > 0, got {seconds!r}.")
        self.stash = stash
        self.max_bytes = max_bytes
        self._store = store
        self._seconds = seconds
        self._cipher: SecretCipher = sealer if sealer is not None else NoEncryption()
        self._routes = ExpiringEntries(_ROUTE_BYTES)
        # (A lock lasts as long as a change that holds it or waits for it.)
        self._changing: WeakValueDictionary[tuple[AbstractEventLoop, str], asyncio.Lock]
        self._changing = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"ResponseState({self._store!r}, stash={self.stash})"

    async def get(self, owner: Principal, id: str) -> StoredResponse | None:
        """The record of a caller's response, None if there is none.

        Raises APIError if the store is unavailable.
        """
        name = record_name("response", owner, id)
        data = await self.read(name)
        if data is None:
            return None
        try:
            row = _row(data)
            history = History(row.provider, row.key_id, row.model, row.kept, row.tokens)
            if not row.content:
                return StoredResponse(history)
            content = _content(await self.decrypt(name, row.content))
        except (msgspec.MsgspecError, SealError) as error:
            logger.warning("a stored response cannot be read: %s", error)
            return None
        history = msgspec.structs.replace(history, segments=content.segments)
        return StoredResponse(history, content.response, content.input)

    async def put(self, owner: Principal, id: str, found: StoredResponse) -> bool:
        """Remember a response; returns whether its content is kept.

        Failures of the store are logged: the response was given all the same.
        """
        name, history = record_name("response", owner, id), found.history
        keep = self.stash and history.segments is not None and history.size <= self.max_bytes
        if self.stash and history.size > self.max_bytes:
            logger.warning(
                "a response is not kept: its conversation has %d bytes, and max_bytes is %d",
                history.size,
                self.max_bytes,
            )
        if not name or not (keep or history.kept):
            return False
        row = _Row(history.provider, history.key_id, history.model, history.kept, history.tokens)
        if keep:
            response = found.response if found.response is not None else msgspec.Raw(b"null")
            content = _Content(history.segments or (), found.input or (), response)
            row = msgspec.structs.replace(
                row, content=await self.encrypt(name, _json.encode(content))
            )
        try:
            await self.write(name, _json.encode(row))
        except StoreUnavailableError as error:
            logger.warning("a response cannot be continued: it was not stored: %s", error)
            return False
        return keep

    async def delete(self, owner: Principal, id: str) -> bool:
        """Forget a response; returns whether it was known. Raises APIError."""
        return await self.remove(record_name("response", owner, id))

    # records by their names

    async def read(self, name: str) -> bytes | None:
        """A record; None if there is none. Raises APIError if the store is unavailable."""
        if self._store is None or not name:
            return self._routes.get(name, time.monotonic())
        try:
            return await self._store.get_entry(name)
        except StoreUnavailableError as error:
            raise _unavailable_error() from error

    async def write(self, name: str, data: bytes) -> None:
        """Write a record. Raises StoreUnavailableError."""
        if self._store is not None:
            await self._store.set_entry(name, data, seconds=self._seconds)
            return
        now = time.monotonic()
        self._routes.set(name, data, now + self._seconds, now)

    async def remove(self, name: str) -> bool:
        """Remove a record; returns whether there was one. Raises APIError."""
        if self._store is None or not name:
            return self._routes.delete(name, time.monotonic())
        try:
            return await self._store.delete_entry(name)
        except StoreUnavailableError as error:
            raise _unavailable_error() from error

    # (In a thread: the first use of a passphrase takes a tenth of a second.)

    async def encrypt(self, name: str, data: bytes) -> str:
        """Compress and encrypt the content of a record."""
        # (A cipher that does not encrypt takes text.)
        return await asyncio.to_thread(
            lambda: self._cipher.encrypt(base64.b64encode(zlib.compress(data, 1)), name)
        )

    async def decrypt(self, name: str, hidden: str) -> bytes:
        """The content of a record. Raises SealError."""

        def work() -> bytes:
            try:
                return zlib.decompress(base64.b64decode(self._cipher.decrypt(hidden, name)))
            except (ValueError, zlib.error) as error:
                raise SealError("The content is damaged.") from error

        return await asyncio.to_thread(work)

    @asynccontextmanager
    async def changing(self, name: str) -> AsyncIterator[None]:
        """A block in which no other request changes a record. Raises APIError (409).

        Requests of this process wait in the order in which they came; only the first of them
        competes with other processes for the record in the store.
        """
        assert self._store is not None  # noqa: S101 (there is no content without a store)
        lock = self._changing.setdefault((asyncio.get_running_loop(), name), asyncio.Lock())
        async with lock:
            try:
                admitted = await self._reserve_change(self._store, name)
                try:
                    yield
                finally:
                    await self._store.settle(admitted)
            except StoreUnavailableError as error:
                raise _unavailable_error() from error

    async def _reserve_change(self, store: Store, name: str) -> Admitted:
        holder = f"{getrandbits(128):032x}"
        slot = ConcurrencySlot(name, "change", 1)
        pause, give_up_at = 0.01, time.monotonic() + _MAX_WAIT_SECONDS
        while True:
            admitted = await store.admit(holder, [slot], ttl=_MAX_CHANGE_SECONDS)
            if isinstance(admitted, Admitted):
                return admitted
            if time.monotonic() > give_up_at:
                raise APIError(
                    ErrorKind.INVALID,
                    "Other requests change this conversation at the same time; try again.",
                    status=409,
                    code="conversation_locked",
                )
            await asyncio.sleep(pause * uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)


def _unavailable_error() -> APIError:
    return APIError(
        ErrorKind.OVERLOADED,
        "Earlier responses are not available at the moment; try again.",
        retry_after=1.0,
    )


def record_name(kind: str, owner: Principal, id: str) -> str:
    """The name of a caller's record; empty for an id that none can have."""
    if not id or len(id) > _MAX_ID or not id.isascii() or not id.isprintable():
        return ""
    return f"{kind}:{owner.tenant}:{id}"
