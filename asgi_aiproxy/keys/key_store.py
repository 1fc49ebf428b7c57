"""Keys in a table of the store: limits and weights in plain text, secrets encrypted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.keys.encryption import NoEncryption, SealError, SecretCipher
from asgi_aiproxy.keys.key import Key, KeyExistsError, validate_key
from asgi_aiproxy.stores.base import Store

_MAX_ATTEMPTS = 50  # at a compare-and-set, while other processes write the same rows


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of the table: the fields of `Key`. Secret, proxy and attributes are encrypted in
    `hidden`.

    With an empty `hidden` the row enables or disables the key of the same id that is given in code.
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


class _EncryptedFields(ConcealedStruct, frozen=True, omit_defaults=True):
    secret: str
    proxy: str | None = None
    attributes: dict[str, Any] = {}  # noqa: RUF012 (msgspec copies it)


class StoredKey(NamedTuple):
    """A row as a pool reads it. `key` is None if the row is about a key given in code, or cannot be
    read; then `error` is the reason.
    """

    key: Key | None
    enabled: bool
    error: str = ""


class KeyStore:
    """The keys of the pool named `pool` in a store.

    `cipher` encrypts secrets. Without one, keys can be enabled and disabled but not written. All
    methods may raise StoreUnavailableError.
    """

    def __init__(self, store: Store, pool: str, cipher: SecretCipher | None = None) -> None:
        self.store = store
        self.pool = pool
        self.cipher = cipher
        self.name = f"keys:{pool}"
        self._read: dict[str, tuple[bytes, StoredKey]] = {}
        self._decode_row = msgspec.json.Decoder(KeyRow).decode
        self._encode_row = msgspec.json.Encoder().encode

    async def keys(self) -> dict[str, StoredKey]:
        """All keys. The error of a row that cannot be read never contains its secret."""
        rows = await self.store.rows(self.name)
        known = self._read
        fresh = {id: row for id, row in rows.items() if id not in known or known[id][0] != row}
        if fresh:  # many rows take long to decrypt, and so does the first one with a passphrase
            decrypted = await asyncio.to_thread(self._decrypt_all, fresh)
        else:
            decrypted = {}
        self._read = {id: decrypted.get(id) or known[id] for id in rows}
        return {id: stored for id, (_, stored) in self._read.items()}

    async def page(self, after: str = "", limit: int = 100) -> dict[str, KeyRow]:
        """At most `limit` rows whose ids come after `after`, without decrypting them. A damaged row
        is shown as disabled.
        """
        rows = await self.store.page(self.name, after, limit)
        return {id: self._parse_or_damaged(row) for id, row in rows.items()}

    async def put(self, *keys: Key, overwrite: bool = True) -> None:
        """Write keys, all or none, replacing those with the same ids.

        A disabled key stays disabled if its secret is the same. Raises ConfigurationError if a key
        is invalid or the cipher is missing, and, without `overwrite`, KeyExistsError if a key with
        the same id has another secret.
        """
        new = _by_id(keys, self.pool)
        for _ in range(_MAX_ATTEMPTS):
            before = await self.store.rows(self.name, list(new))
            for id, row in before.items():
                if not overwrite and self._has_other_secret(new[id], row):
                    raise KeyExistsError(self.pool, id)
            rows = {id: self._row(key, before.get(id)) for id, key in new.items()}
            expected = {id: before.get(id) for id in new}
            if not await self.store.put_many(self.name, rows, expected=expected):
                return
        raise self._too_many_conflicts()

    async def replace(self, keys: Iterable[Key]) -> None:
        """Make these all the keys of the table, in one step. Raises as `put` does."""
        new = _by_id(keys, self.pool)
        for _ in range(_MAX_ATTEMPTS):
            before = await self.store.rows(self.name)
            rows: dict[str, bytes | None] = {
                id: None for id, row in before.items() if not self._only_enables(row)
            }
            rows |= {id: self._row(key, before.get(id)) for id, key in new.items()}
            expected = {id: before.get(id) for id in rows}
            if not await self.store.put_many(self.name, rows, expected=expected):
                return
        raise self._too_many_conflicts()

    async def drop(self, id: str) -> bool:
        """Remove a key; returns whether there was one.

        A row that only disables a key given in code stays; `set_enabled` changes it.
        """
        for _ in range(_MAX_ATTEMPTS):
            before = await self.store.get(self.name, id)
            if before is None or self._only_enables(before):
                return False
            if not await self.store.put_many(self.name, {id: None}, expected={id: before}):
                return True
        raise self._too_many_conflicts()

    async def set_enabled(self, id: str, *, enabled: bool) -> None:
        """Enable or disable a key. Without a row it is taken for one given in code."""
        for _ in range(_MAX_ATTEMPTS):
            before = await self.store.get(self.name, id)
            row = self._parse(id, before) if before is not None else KeyRow()
            row = msgspec.structs.replace(row, enabled=enabled)
            after = self._encode_row(row) if row.hidden or not enabled else None
            done = await self.store.put_many(self.name, {id: after}, expected={id: before})
            if not done:
                return
        raise self._too_many_conflicts()

    async def reencrypt(self) -> int:
        """Encrypt all secrets with the first key of the cipher; returns how many there are.

        Raises SealError, naming the id, if one cannot be decrypted; the rows with smaller ids are
        done by then.
        """
        count = 0
        for id in sorted(await self.store.rows(self.name)):
            for _ in range(_MAX_ATTEMPTS):
                before = await self.store.get(self.name, id)
                row = self._parse(id, before) if before is not None else KeyRow()
                if not row.hidden:
                    break
                hidden = self._encrypt(self._decrypt(id, row.hidden), id)
                after = self._encode_row(msgspec.structs.replace(row, hidden=hidden))
                if await self.store.put(self.name, id, after, expected=before):
                    count += 1
                    break
            else:
                raise self._too_many_conflicts()
        return count

    def _row(self, key: Key, before: bytes | None) -> bytes:
        hidden = _EncryptedFields(key.secret, key.proxy, dict(key.attributes))
        enabled = True
        if before is not None:
            known = self._stored(key.id, before)
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
            hidden=self._encrypt(msgspec.json.encode(hidden), key.id),
        )
        return self._encode_row(row)

    def _decrypt_all(self, rows: Mapping[str, bytes]) -> dict[str, tuple[bytes, StoredKey]]:
        return {id: (row, self._stored(id, row)) for id, row in rows.items()}

    def _stored(self, id: str, value: bytes) -> StoredKey:
        enabled = False
        try:
            row = self._parse(id, value)
            enabled = row.enabled
            if not row.hidden:
                return StoredKey(None, enabled)
            hidden = msgspec.json.decode(self._decrypt(id, row.hidden), type=_EncryptedFields)
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

    def _parse(self, id: str, value: bytes) -> KeyRow:
        try:
            return self._decode_row(value)
        except msgspec.MsgspecError:
            raise self._damaged(id) from None

    def _parse_or_damaged(self, value: bytes) -> KeyRow:
        try:
            return self._decode_row(value)
        except msgspec.MsgspecError:
            return KeyRow(enabled=False, hidden="damaged")

    def _has_other_secret(self, key: Key, row: bytes) -> bool:
        """Whether a row holds another secret than this key; one that cannot be decrypted may."""
        if self._only_enables(row):
            return False
        known = self._stored(key.id, row).key
        return known is None or known.secret != key.secret

    def _only_enables(self, value: bytes) -> bool:
        """Whether a row only enables or disables a key given in code."""
        return not self._parse_or_damaged(value).hidden

    def _damaged(self, id: str) -> SealError:
        return SealError(f"The row of key {id!r} of pool {self.pool!r} is damaged.")

    def _decrypt(self, id: str, hidden: str) -> bytes:
        try:
            return (self.cipher or NoEncryption()).decrypt(hidden, self._context(id))
        except SealError as error:
            raise SealError(f"Key {id!r} of pool {self.pool!r}: {error}") from None

    def _encrypt(self, data: bytes, id: str) -> str:
        if self.cipher is None:
            raise ConfigurationError(
                f"Pool {self.pool!r}: secrets must be encrypted before they are stored: pass "
                f"sealer=Sealer(...) (in a configuration file: sealing_keys)."
            )
        return self.cipher.encrypt(data, self._context(id))

    def _context(self, id: str) -> str:
        return f"{self.pool}\0{id}"

    def _too_many_conflicts(self) -> AIProxyError:
        return AIProxyError(
            f"The keys of pool {self.pool!r} could not be written: other processes change them all "
            f"the time. Try again."
        )


def _by_id(keys: Iterable[Key], pool: str) -> dict[str, Key]:
    by_id: dict[str, Key] = {}
    for key in keys:
        if key.id in by_id:
            raise ConfigurationError(f"Pool {pool!r}: two keys have the same id: {key.id!r}.")
        by_id[key.id] = validate_key(key, pool)
    return by_id
