"""Keys in a table of the store: what may be seen of them in the open, their secrets sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.keys.encryption import NoEncryption, SealError, SecretCipher
from asgi_aiproxy.keys.key import Key, KeyExistsError, validate_key
from asgi_aiproxy.stores.base import Store

_ATTEMPTS = 50


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored of a key; see `Key`. Its secret, proxy and attributes are `hidden`.

    Without anything hidden it is about the key of the same id that is given in code.
    """

    enabled: bool = True
    weight: int = 1
    priority: int = 0
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    base_url: str | None = None
    hidden: str = ""


class _EncryptedFields(msgspec.Struct, frozen=True, omit_defaults=True):
    secret: str
    proxy: str | None = None
    attributes: dict[str, Any] = {}


class StoredKey(NamedTuple):
    """A row as a pool reads it: `key` is None if it is about one given in code, or unreadable;
    then `error` tells why.
    """

    key: Key | None
    enabled: bool
    error: str = ""


class KeyStore:
    """The keys of the pool `pool` in a store.

    Secrets are sealed by `sealer`. Without one, nothing can be written but whether keys are
    enabled. All methods may raise StoreUnavailableError.
    """

    def __init__(self, store: Store, pool: str, sealer: SecretCipher | None = None) -> None:
        self.store = store
        self.pool = pool
        self.name = f"keys:{pool}"
        self._sealer = sealer
        self._read: dict[str, tuple[bytes, StoredKey]] = {}
        self._decode = msgspec.json.Decoder(KeyRow).decode
        self._encode = msgspec.json.Encoder().encode

    async def keys(self) -> dict[str, StoredKey]:
        """All rows, read. Those that can not be read tell why, and never their secret."""
        rows = await self.store.rows(self.name)
        known = self._read
        fresh = {id: row for id, row in rows.items() if id not in known or known[id][0] != row}
        if fresh:  # opening many takes its time, and so does the first with a passphrase
            opened = await asyncio.to_thread(self._open_all, fresh)
        else:
            opened = {}
        self._read = {id: opened.get(id) or known[id] for id in rows}
        return {id: stored for id, (_, stored) in self._read.items()}

    async def page(self, after: str = "", limit: int = 100) -> dict[str, KeyRow]:
        """At most `limit` rows whose ids come after `after`, nothing opened; a damaged one as one
        that is disabled.
        """
        rows = await self.store.page(self.name, after, limit)
        return {id: self._shown(row) for id, row in rows.items()}

    async def put(self, *keys: Key, others: bool = True) -> None:
        """Write keys, all or none, in place of those of the same ids.

        A key that is disabled stays so as long as its secret is the same. Raises
        ConfigurationError if there is no sealer, or a key can not be used; and, unless `others` may
        be replaced, KeyExistsError if a key of the same id has another secret.
        """
        made = _by_id(keys, self.pool)
        for _ in range(_ATTEMPTS):
            before = await self.store.rows(self.name, list(made))
            for id, row in before.items():
                if not others and self._is_another(made[id], row):
                    raise KeyExistsError(self.pool, id)
            rows = {id: self._row(key, before.get(id)) for id, key in made.items()}
            expected = {id: before.get(id) for id in made}
            if not await self.store.put_many(self.name, rows, expected=expected):
                return
        raise self._contested()

    async def replace(self, keys: Iterable[Key]) -> None:
        """Make these all the keys of the table, in one step. Raises as `put` does."""
        made = _by_id(keys, self.pool)
        for _ in range(_ATTEMPTS):
            before = await self.store.rows(self.name)
            rows: dict[str, bytes | None] = {
                id: None for id, row in before.items() if not self._is_switch(row)
            }
            rows |= {id: self._row(key, before.get(id)) for id, key in made.items()}
            expected = {id: before.get(id) for id in rows}
            if not await self.store.put_many(self.name, rows, expected=expected):
                return
        raise self._contested()

    async def drop(self, id: str) -> bool:
        """Remove a key; whether there was one.

        What says that a key given in code is disabled is no key, and stays: `switch` ends it.
        """
        for _ in range(_ATTEMPTS):
            before = await self.store.get(self.name, id)
            if before is None or self._is_switch(before):
                return False
            if not await self.store.put_many(self.name, {id: None}, expected={id: before}):
                return True
        raise self._contested()

    async def set_enabled(self, id: str, *, enabled: bool) -> None:
        """Enable or disable a key; without a row it is one given in code."""
        for _ in range(_ATTEMPTS):
            before = await self.store.get(self.name, id)
            row = self._readable(id, before) if before is not None else KeyRow()
            row = msgspec.structs.replace(row, enabled=enabled)
            after = self._encode(row) if row.hidden or not enabled else None
            done = await self.store.put_many(self.name, {id: after}, expected={id: before})
            if not done:
                return
        raise self._contested()

    async def reencrypt(self) -> int:
        """Seal all secrets with the sealer's first key; returns how many there are.

        Raises SealError, naming the key's id, if one can not be opened; those before it, by their
        ids, are done.
        """
        count = 0
        for id in sorted(await self.store.rows(self.name)):
            for _ in range(_ATTEMPTS):
                before = await self.store.get(self.name, id)
                row = self._readable(id, before) if before is not None else KeyRow()
                if not row.hidden:
                    break
                hidden = self._seal(self._opened(id, row.hidden), id)
                after = self._encode(msgspec.structs.replace(row, hidden=hidden))
                if await self.store.put(self.name, id, after, expected=before):
                    count += 1
                    break
            else:
                raise self._contested()
        return count

    def _row(self, key: Key, before: bytes | None) -> bytes:
        hidden = _EncryptedFields(key.secret, key.proxy, dict(key.attributes))
        enabled = True
        if before is not None:
            known = self._open(key.id, before)
            enabled = known.enabled or (known.key is not None and known.key.secret != key.secret)
        row = KeyRow(
            enabled=enabled,
            weight=key.weight,
            priority=key.priority,
            models=key.models,
            rpm=key.rpm,
            tpm=key.tpm,
            concurrency=key.concurrency,
            base_url=key.base_url,
            hidden=self._seal(msgspec.json.encode(hidden), key.id),
        )
        return self._encode(row)

    def _open_all(self, rows: Mapping[str, bytes]) -> dict[str, tuple[bytes, StoredKey]]:
        return {id: (row, self._open(id, row)) for id, row in rows.items()}

    def _open(self, id: str, value: bytes) -> StoredKey:
        enabled = False
        try:
            row = self._readable(id, value)
            enabled = row.enabled
            if not row.hidden:
                return StoredKey(None, enabled)
            hidden = msgspec.json.decode(self._opened(id, row.hidden), type=_EncryptedFields)
            key = Key(
                hidden.secret,
                id=id,
                weight=row.weight,
                priority=row.priority,
                models=row.models,
                rpm=row.rpm,
                tpm=row.tpm,
                concurrency=row.concurrency,
                proxy=hidden.proxy,
                base_url=row.base_url,
                attributes=hidden.attributes,
            )
            return StoredKey(validate_key(key, self.pool), enabled)
        except AIProxyError as error:
            return StoredKey(None, enabled, str(error))
        except msgspec.MsgspecError:
            return StoredKey(None, enabled, str(self._damaged(id)))

    def _readable(self, id: str, value: bytes) -> KeyRow:
        try:
            return self._decode(value)
        except msgspec.MsgspecError:
            raise self._damaged(id) from None

    def _shown(self, value: bytes) -> KeyRow:
        try:
            return self._decode(value)
        except msgspec.MsgspecError:
            return KeyRow(enabled=False, hidden="damaged")

    def _is_another(self, key: Key, row: bytes) -> bool:
        """Whether a row holds another key than this; one that cannot be opened may."""
        if self._is_switch(row):
            return False
        known = self._open(key.id, row).key
        return known is None or known.secret != key.secret

    def _is_switch(self, value: bytes) -> bool:
        """Whether a row is only about a key that is given in code."""
        return not self._shown(value).hidden

    def _damaged(self, id: str) -> SealError:
        return SealError(f"The row of key {id!r} of pool {self.pool!r} is damaged.")

    def _opened(self, id: str, hidden: str) -> bytes:
        try:
            return (self._sealer or NoEncryption()).decrypt(hidden, self._about(id))
        except SealError as error:
            raise SealError(f"Key {id!r} of pool {self.pool!r}: {error}") from None

    def _seal(self, data: bytes, id: str) -> str:
        if self._sealer is None:
            raise ConfigurationError(
                f"Pool {self.pool!r}: secrets are sealed before they are stored: give it a Sealer "
                f"(in a configuration: sealing_keys)."
            )
        return self._sealer.encrypt(data, self._about(id))

    def _about(self, id: str) -> str:
        return f"{self.pool}\0{id}"

    def _contested(self) -> AIProxyError:
        return AIProxyError(f"The keys of pool {self.pool!r} are changed too often by others.")


def _by_id(keys: Iterable[Key], pool: str) -> dict[str, Key]:
    made: dict[str, Key] = {}
    for key in keys:
        if key.id in made:
            raise ConfigurationError(f"Pool {pool!r}: two keys have the same id: {key.id!r}.")
        made[key.id] = validate_key(key, pool)
    return made
