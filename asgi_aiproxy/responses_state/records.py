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
import hashlib
import logging
import time
import zlib

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, require_int_at_least
from asgi_aiproxy.keys.encryption import NoEncryption, SealError, SecretCipher
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.responses_state.history import History, Segment
from asgi_aiproxy.stores.base import Store, StoreUnavailableError, check_store
from asgi_aiproxy.stores.entries import ExpiringEntries
from asgi_aiproxy.stores.memory import MemoryStore

logger = logging.getLogger("asgi_aiproxy")

_ROUTE_BYTES = 4 * 1024 * 1024  # of routes in this process, about 20,000 of them
_MAX_ID = 256  # characters


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
      provider, and go on with another provider. Off by default.
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

    def __repr__(self) -> str:
        return f"ResponseState({self._store!r}, stash={self.stash})"

    async def get(self, owner: Principal, id: str) -> StoredResponse | None:
        """The record of a caller's response, None if there is none.

        Raises APIError if the store is unavailable.
        """
        name = _name(owner, id)
        if not name:
            return None
        try:
            data = await self._read(name)
        except StoreUnavailableError as error:
            raise APIError(
                ErrorKind.OVERLOADED,
                "Earlier responses cannot be read at the moment; try again.",
                retry_after=1.0,
            ) from error
        if data is None:
            return None
        try:
            row = _row(data)
            history = History(row.provider, row.key_id, row.model, row.kept, row.tokens)
            if not row.content:
                return StoredResponse(history)
            content = await asyncio.to_thread(self._decrypt, name, row.content)
        except (msgspec.MsgspecError, SealError, zlib.error) as error:
            logger.warning("a stored response cannot be read: %s", error)
            return None
        history = msgspec.structs.replace(history, segments=content.segments)
        return StoredResponse(history, content.response, content.input)

    async def put(self, owner: Principal, id: str, found: StoredResponse) -> bool:
        """Remember a response; returns whether its content is kept.

        Failures of the store are logged: the response was given all the same.
        """
        name = _name(owner, id)
        if not name:
            return False
        size = found.history.size
        keep = self.stash and found.history.segments is not None and size <= self.max_bytes
        if self.stash and size > self.max_bytes:
            logger.warning(
                "a response is not kept: its conversation has %d bytes, and max_bytes is %d",
                size,
                self.max_bytes,
            )
        if not keep and not found.history.kept:
            return False
        history = found.history
        row = _Row(history.provider, history.key_id, history.model, history.kept, history.tokens)
        if keep:
            hidden = await asyncio.to_thread(self._encrypt, name, found)
            row = msgspec.structs.replace(row, content=hidden)
        try:
            await self._write(name, _json.encode(row))
        except StoreUnavailableError as error:
            logger.warning("a response cannot be continued: it was not stored: %s", error)
            return False
        return keep

    async def delete(self, owner: Principal, id: str) -> bool:
        """Forget a response; returns whether it was known. Raises APIError."""
        name = _name(owner, id)
        if not name:
            return False
        try:
            if self._store is not None:
                return await self._store.delete_entry(name)
        except StoreUnavailableError as error:
            raise APIError(
                ErrorKind.OVERLOADED,
                "The response cannot be deleted at the moment; try again.",
                retry_after=1.0,
            ) from error
        return self._routes.delete(name, time.monotonic())

    async def _read(self, name: str) -> bytes | None:
        if self._store is not None:
            return await self._store.get_entry(name)
        return self._routes.get(name, time.monotonic())

    async def _write(self, name: str, data: bytes) -> None:
        if self._store is not None:
            await self._store.set_entry(name, data, seconds=self._seconds)
            return
        now = time.monotonic()
        self._routes.set(name, data, now + self._seconds, now)

    # (In a thread: the first use of a passphrase takes a tenth of a second.)

    def _encrypt(self, name: str, found: StoredResponse) -> str:
        segments = found.history.segments or ()
        response = found.response if found.response is not None else msgspec.Raw(b"null")
        plain = _json.encode(_Content(segments, found.input or (), response))
        # (A cipher that does not encrypt takes text.)
        return self._cipher.encrypt(base64.b64encode(zlib.compress(plain, 1)), name)

    def _decrypt(self, name: str, hidden: str) -> _Content:
        return _content(zlib.decompress(base64.b64decode(self._cipher.decrypt(hidden, name))))


def _name(owner: Principal, id: str) -> str:
    """The name of a record; empty for an id that no response can have."""
    if not id or len(id) > _MAX_ID or not id.isascii() or not id.isprintable():
        return ""
    account = f"account:{owner.account}" if owner.account else f"id:{owner.id}"
    digest = hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"response:{digest}:{id}"
