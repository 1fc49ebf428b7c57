"""Credentials that expire, fetched by one worker for all that share a store. Theory of operation.

The store holds one row for each key of a provider: the credential, encrypted for this row, and what
the source needs to renew it. A worker that needs a newer credential

1. reads the row: if another worker has renewed it, that is the credential;
2. takes the row's only slot, which expires with its holder, and reads the row again;
3. fetches, writes the row and frees the slot.

A worker that finds the slot taken uses the credential in the row while that is valid; otherwise it
reads the row again until there is something new in it, or the slot is free. A failure is written to
the row as well, for a few seconds: not every worker waits for a source that fails. While the store
is unavailable, each worker fetches for itself.

The name of a row has a digest of the key; a key that says "what this machine provides" is the same
for all workers, so they must run under the same identity.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from random import getrandbits

import msgspec

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy.keys.encryption import SealError, SecretCipher
from asgi_aiproxy.stores.base import Admitted, ConcurrencySlot, Store, StoreUnavailableError

logger = logging.getLogger("asgi_aiproxy")

_TABLE = "credentials"
_LEASE_SECONDS = 60.0  # longer than a fetch may take
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0


class Credential(ConcealedStruct, frozen=True, omit_defaults=True):
    """What is sent in place of a key: `secret`, until the Unix time `expires_at` in seconds.

    `state` is what the source needs to renew it, such as a refresh token that is valid once.
    """

    secret: str
    expires_at: float
    state: str = ""


class CredentialFailure(msgspec.Struct, frozen=True):
    """Why there is no credential, until the Unix time `retry_at` in seconds."""

    message: str
    retry_at: float


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    hidden: str = ""  # a Credential, encrypted
    failure: CredentialFailure | None = None


_row = msgspec.json.Decoder(_Row).decode
_credential = msgspec.json.Decoder(Credential).decode
_encode = msgspec.json.Encoder().encode

_Stored = tuple[Credential | None, CredentialFailure | None]
Fetch = Callable[[str], Awaitable[Credential | CredentialFailure]]


class SharedCredentials:
    """The credentials of the keys of one provider in a store.

    `provider` is its name, `cipher` encrypts them, `clock` returns Unix seconds.
    """

    def __init__(
        self, store: Store, cipher: SecretCipher, provider: str, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._provider = provider
        self._clock = clock

    async def obtain(
        self, secret: str, known: Credential | None, fetch: Fetch, *, valid_until: float
    ) -> Credential | CredentialFailure:
        """Return a credential for a key, fetched unless one is valid beyond `valid_until`.

        `known` is the credential that this worker has. `fetch` takes the state of the last
        credential.
        """
        name = f"{self._provider}:{hashlib.sha256(secret.encode()).hexdigest()[:32]}"
        pause = _FIRST_PAUSE
        try:
            while True:
                if found := self._usable(await self._read(name), valid_until):
                    return found
                holder = f"{getrandbits(128):032x}"
                slot = ConcurrencySlot(f"{_TABLE}:{name}", "fetch", 1)
                admitted = await self._store.admit(holder, [slot], ttl=_LEASE_SECONDS)
                if isinstance(admitted, Admitted):
                    try:
                        return await self._renew(name, known, fetch, valid_until)
                    finally:
                        await self._store.settle(admitted)
                if found := self._usable(await self._read(name), self._clock()):
                    return found
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE)
        except StoreUnavailableError as error:
            logger.warning("credentials of %s are not shared: %s", self._provider, error)
            return await fetch(known.state if known is not None else "")

    def _usable(self, stored: _Stored, valid_until: float) -> Credential | CredentialFailure | None:
        """What makes a fetch unnecessary: a credential that is valid for long enough, or a failure
        of which it is too soon to try again.
        """
        credential, failure = stored
        if credential is not None and credential.expires_at > valid_until:
            return credential
        if failure is None or failure.retry_at <= self._clock():
            return None
        if credential is not None and credential.expires_at > self._clock():
            return credential
        return failure

    async def _renew(
        self, name: str, known: Credential | None, fetch: Fetch, valid_until: float
    ) -> Credential | CredentialFailure:
        stored = await self._read(name)
        if found := self._usable(stored, valid_until):
            return found  # another worker was faster
        last = stored[0]
        if last is None or (known is not None and known.expires_at > last.expires_at):
            last = known
        found = await fetch(last.state if last is not None else "")
        if isinstance(found, Credential):
            await self._write(name, found)
            return found
        await self._write(name, last, found)  # (its state is still needed)
        return last if last is not None and last.expires_at > self._clock() else found

    async def _read(self, name: str) -> _Stored:
        data = await self._store.get(_TABLE, name)
        if data is None:
            return None, None
        try:
            row = _row(data)
            if not row.hidden:
                return None, row.failure
            # (In a thread: the first use of a passphrase takes a tenth of a second.)
            text = await asyncio.to_thread(self._cipher.decrypt, row.hidden, name)
            return _credential(text), row.failure
        except (msgspec.MsgspecError, SealError) as error:
            logger.warning("a stored credential of %s cannot be read: %s", self._provider, error)
            return None, None

    async def _write(
        self, name: str, found: Credential | None, failure: CredentialFailure | None = None
    ) -> None:
        hidden = ""
        if found is not None:
            hidden = await asyncio.to_thread(self._cipher.encrypt, _encode(found), name)
        try:
            await self._store.put(_TABLE, name, _encode(_Row(hidden, failure)))
        except StoreUnavailableError as error:
            logger.warning("a credential of %s was not stored: %s", self._provider, error)
