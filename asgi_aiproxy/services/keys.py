"""Manage the keys of providers: create, import, change, disable, enable, remove and test them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy._slices import in_slices
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, invalid
from asgi_aiproxy.keys import Key, KeyPool, fingerprint
from asgi_aiproxy.keys.key import validate_key
from asgi_aiproxy.keys.key_state import KeyStatus
from asgi_aiproxy.keys.key_store import KeyRow
from asgi_aiproxy.providers import Provider
from asgi_aiproxy.services.address_policy import Destinations, check_redirection
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, Actor, Ok, Page, PageQuery, paginate
from asgi_aiproxy.services.budgets import Positive
from asgi_aiproxy.services.key_audit import KeyAudit, url_without_credentials
from asgi_aiproxy.services.key_import import parse_key_lines
from asgi_aiproxy.services.key_test import KeyTestResult, check_key
from asgi_aiproxy.services.validation import conflict_error, set_fields
from asgi_aiproxy.upstream import Transport

_CONCURRENT_TESTS = 8  # keys that are tested at the same time

Id = Annotated[str, Meta(max_length=200)]
Patterns = tuple[Annotated[str, Meta(min_length=1)], ...]
Url = Annotated[str, Meta(pattern=r"^https?://[^/\s]")]
ProxyUrl = Annotated[str, Meta(pattern=r"^(https?|socks5h?)://[^/\s]")]


class KeyNew(ConcealedStruct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to add; without an id it gets its fingerprint as id. Null means no limit."""

    secret: Annotated[str, Meta(min_length=1)]
    id: Id = ""
    weight: Positive = 1
    priority: int = 0
    models: Patterns = ()
    rpm: Positive | None = None
    tpm: Positive | None = None
    concurrency: Positive | None = None
    proxy: ProxyUrl | None = None
    base_url: Url | None = None
    attributes: dict[str, Any] = {}  # noqa: RUF012 (msgspec copies it)


class KeyEdit(ConcealedStruct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change of a key; omitted fields stay unchanged.

    Requests in flight keep the old `secret`.
    """

    secret: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    weight: Positive | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    models: Patterns | UnsetType | None = UNSET
    rpm: Positive | UnsetType | None = UNSET
    tpm: Positive | UnsetType | None = UNSET
    concurrency: Positive | UnsetType | None = UNSET
    proxy: ProxyUrl | UnsetType | None = UNSET
    base_url: Url | UnsetType | None = UNSET
    attributes: dict[str, Any] | UnsetType | None = UNSET


class KeyOut(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret.

    `in_flight`, `uses`, `failures` and `cooldown_seconds` are those of this worker. `source` is
    `code` for keys of the configuration, `store` for keys added over the admin API.
    """

    id: str
    provider: str
    source: Literal["code", "store"]
    fingerprint: str
    health: str
    cooldown_seconds: float = 0.0
    in_flight: int = 0
    uses: int = 0
    failures: int = 0
    weight: int = 1
    priority: int = 0
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    proxy: bool = False
    base_url: str | None = None


class ProviderOut(msgspec.Struct, frozen=True):
    """A provider, and the number of its keys by health: `ok`, `cooling`, `quarantined`, `dead`,
    `unreadable`.

    `dialect` is the name of the provider's API format.
    """

    name: str
    base_url: str
    dialect: str
    keys: dict[str, int]
    in_flight: int


class Imported(msgspec.Struct, frozen=True):
    """The ids of the keys that were imported."""

    ids: list[str]


class ImportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of an import: with `replace` the imported keys replace all others in the store."""

    replace: bool = False


class KeyTestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a key test: a model to request one token of; without it, the model list is
    requested.
    """

    model: str = ""


class KeyTestQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a test of several keys: the model, and the page of the keys."""

    model: str = ""
    after: str = ""
    limit: int = 100

    def page(self) -> PageQuery:
        """Return the page of keys to test."""
        return PageQuery(self.after, self.limit)


class KeyService:
    """Manages the keys of `pools` and of `providers`.

    `destinations` restricts the addresses that keys may be given; by default all are allowed.
    Changes are recorded in `audit`, by default the audit log of the store that shares the keys of a
    pool; without either they are not recorded. Methods raise APIError, which names the invalid
    field, and StoreUnavailableError.
    """

    def __init__(
        self,
        pools: Iterable[KeyPool],
        providers: Iterable[Provider],
        transport: Transport,
        destinations: Destinations | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._audit = KeyAudit(audit)
        self._destinations = destinations if destinations is not None else Destinations(None)
        self._providers = {provider.name: provider for provider in providers}
        own = {p.name: p.keys for p in self._providers.values() if p.keys is not None}
        self._pools: dict[str, KeyPool] = {}
        for pool in (*own.values(), *pools):
            known = self._pools.setdefault(pool.name, pool)
            if known is not pool:
                raise ConfigurationError(f"Two key pools are named {pool.name!r}.")
        # Names of the pools that belong to a provider
        self._pools_of_providers = {pool.name for pool in own.values()}
        self._transport = transport

    @property
    def pools(self) -> Collection[KeyPool]:
        """All key pools."""
        return self._pools.values()

    # Providers.

    async def providers(self, query: PageQuery) -> Page[ProviderOut]:
        """Return all providers, and pools without a provider, in the order of their names."""
        alone = self._pools.keys() - self._pools_of_providers
        names = sorted(name for name in {*self._providers, *alone} if name > query.after)
        names = names[: query.limit + 1]
        shown = [await self._provider(name) for name in names]
        return paginate(shown, query.limit, lambda provider: provider.name)

    async def provider(self, name: str) -> ProviderOut:
        """Return one provider or pool."""
        if name not in self._providers:
            self._pool(name)
        return await self._provider(name)

    async def _provider(self, name: str) -> ProviderOut:
        provider = self._providers.get(name)
        pool = self._pools.get(name)
        if provider is not None:
            pool = provider.keys
        counts = pool.count_by_health() if pool is not None else {}
        in_flight = pool.in_flight if pool is not None else 0
        if provider is None:
            return ProviderOut(name, "", "", counts, in_flight)
        return ProviderOut(
            name,
            url_without_credentials(provider.base_url),
            provider.dialect.name,
            counts,
            in_flight,
        )

    # Keys.

    async def page(self, name: str, query: PageQuery) -> Page[KeyOut]:
        """Return the keys of a provider in the order of their ids."""
        pool = self._pool(name)
        rows = await _page_of(pool, query)
        ids = {id for id in pool.keys if id > query.after} | rows.keys()
        wanted = sorted(ids, key=str.encode)[: query.limit + 1]
        return paginate(
            await self._to_keys_out(name, wanted, rows), query.limit, lambda key: key.id
        )

    async def get(self, name: str, id: str) -> KeyOut:
        """Return one key."""
        self._find(name, id)
        rows = await _rows_of(self._pool(name), [id])
        return (await self._to_keys_out(name, [id], rows))[0]

    async def create(
        self, name: str, new: KeyNew | Sequence[KeyNew], by: Actor = CODE
    ) -> list[KeyOut]:
        """Add keys; all or none."""
        pool = self._pool(name)
        if isinstance(new, KeyNew):
            new_keys = {"": new}
        else:
            new_keys = {f"[{index}].": item for index, item in enumerate(new)}
        if not new_keys:
            raise invalid("The list contains no keys.")
        keys: dict[str, Key] = {}
        for prefix, item in new_keys.items():
            key = to_key(item, name, prefix)
            if key.id in keys:
                raise conflict_error(
                    f"{prefix}id: {key.id!r} is given more than once.", f"{prefix}id"
                )
            keys[key.id] = key
            await self._destinations.check(key, prefix)
        existing = pool.keys.keys() | (await _rows_of(pool, list(keys))).keys()
        for prefix, id in zip(new_keys, keys, strict=True):
            if id in existing:
                raise conflict_error(f"{prefix}id: the key {id!r} already exists.", f"{prefix}id")
        await pool.add(*keys.values())
        for key in keys.values():
            await self._audit.changed(by, "key.add", pool, key.id, after=key)
        return await self._to_keys_out(name, list(keys), await _rows_of(pool, list(keys)))

    async def load(
        self, name: str, text: bytes, *, replace: bool = False, by: Actor = CODE
    ) -> Imported:
        """Add the keys of a text, or with `replace` put them in place of all others; all or none.

        Raises KeyImportError, which names all invalid lines.
        """
        pool = self._pool(name)
        existing_ids = set() if replace else {*pool.keys}
        # In a thread, because parsing a long list would block the event loop.
        keys = await asyncio.to_thread(
            parse_key_lines, text, lambda new: to_key(new, name, ""), existing_ids, KeyNew
        )
        for key in keys.values():
            if key.base_url is not None or key.proxy is not None:
                await self._destinations.check(key, f"{key.id}: ")
        if replace:
            await pool.replace(keys.values())
        else:
            await pool.add(*keys.values())
        await self._audit.imported(by, pool, list(keys), replace=replace)
        return Imported(list(keys))

    async def edit(self, name: str, id: str, change: KeyEdit, by: Actor = CODE) -> KeyOut:
        """Change a key; `by` is the caller."""
        fields = set_fields(change, models=(), attributes={})
        before = self._find(name, id)
        check_redirection(before, fields, by.principal)
        try:
            key = validate_key(replace(before, **fields), name)
        except ConfigurationError as error:
            raise invalid(str(error), "secret" if "secret" in fields else None) from error
        await self._destinations.check(key, before=before)
        pool = self._pool(name)
        await pool.update(key)
        await self._audit.changed(by, "key.edit", pool, id, before=before, after=key)
        return await self.get(name, id)

    async def remove(self, name: str, id: str, by: Actor = CODE) -> Ok:
        """Remove a key; requests in flight keep it."""
        pool = self._pool(name)
        before = pool.keys.get(id)
        if pool.table is not None and id in pool.keys:
            row = (await _rows_of(pool, [id])).get(id)
            if row is None or not row.hidden:
                message = (
                    f"The key {id!r} is defined in the configuration: it can only be disabled here."
                )
                raise APIError(ErrorKind.INVALID, message, status=409, code="configured")
        try:
            await pool.remove(id)
        except KeyError as error:
            raise key_not_found_error(name, id) from error
        await self._audit.changed(by, "key.remove", pool, id, before=before)
        return Ok()

    async def switch(self, name: str, id: str, *, enabled: bool, by: Actor = CODE) -> KeyOut:
        """Disable a key, or enable it and reset its cooldown and errors."""
        pool = self._pool(name)
        try:
            await (pool.enable(id) if enabled else pool.disable(id))
        except KeyError as error:
            raise key_not_found_error(name, id) from error
        action = "key.enable" if enabled else "key.disable"
        await self._audit.changed(by, action, pool, id)
        return await self.get(name, id)

    # Tests.

    async def try_one(self, name: str, id: str, model: str = "") -> KeyTestResult:
        """Test one key with a request to the provider."""
        key = self._find(name, id)
        if self._is_stored(name, id):
            await self._destinations.check(key)
        return await check_key(self._testable_provider(name), key, self._transport, model=model)

    async def try_all(self, name: str, query: KeyTestQuery) -> Page[KeyTestResult]:
        """Test each key of a page with a request to the provider."""
        provider, keys = self._testable_provider(name), self._pool(name).keys
        page = await self.page(name, query.page())
        room = asyncio.Semaphore(_CONCURRENT_TESTS)

        async def test(id: str) -> KeyTestResult:
            async with room:
                try:
                    if self._is_stored(name, id):
                        await self._destinations.check(keys[id])
                except APIError as error:
                    return KeyTestResult(
                        id=id, ok=False, status=0, latency_ms=0.0, error=error.message
                    )
                return await check_key(provider, keys[id], self._transport, model=query.model)

        ids = [key.id for key in page.data if key.id in keys]
        return Page(list(await asyncio.gather(*map(test, ids))), page.next)

    # Lookup.

    def _pool(self, name: str) -> KeyPool:
        provider = self._providers.get(name)
        pool = provider.keys if provider is not None else self._pools.get(name)
        if pool is None:
            missing = "provider" if provider is None else "key pool of the provider"
            raise APIError(
                ErrorKind.NOT_FOUND, f"The {missing} {name!r} does not exist.", code="not_found"
            )
        return pool

    def _find(self, name: str, id: str) -> Key:
        key = self._pool(name).keys.get(id)
        if key is None:
            raise key_not_found_error(name, id)
        return key

    def _is_stored(self, name: str, id: str) -> bool:
        """Return whether a key was added over the admin API, not by the configuration."""
        return self._pool(name).is_added(id)

    def _testable_provider(self, name: str) -> Provider:
        self._pool(name)
        provider = self._providers.get(name)
        if provider is None:
            message = (
                f"The key pool {name!r} belongs to no provider that AdminApp(providers=) names."
            )
            raise APIError(ErrorKind.INVALID, message, status=409, code="no_provider")
        return provider

    async def _to_keys_out(
        self, name: str, ids: Iterable[str], rows: Mapping[str, KeyRow]
    ) -> list[KeyOut]:
        pool = self._pool(name)
        return [
            key
            async for some in in_slices(ids, 10)
            for key in _to_keys_out(pool, some, await pool.status(some), rows)
        ]


def _to_keys_out(
    pool: KeyPool, ids: Iterable[str], known: Iterable[KeyStatus], rows: Mapping[str, KeyRow]
) -> list[KeyOut]:
    keys = pool.keys
    statuses = {status.id: status for status in known}
    found = []
    for id in ids:
        key, status, row = keys.get(id), statuses.get(id), rows.get(id)
        if key is None or status is None:
            found.append(
                KeyOut(
                    id=id, provider=pool.name, source="store", fingerprint="", health="unreadable"
                )
            )
            continue
        fields = {f: v for f, v in asdict(key).items() if f in KeyOut.__struct_fields__}
        fields |= {
            "proxy": key.proxy is not None,
            "base_url": key.base_url and url_without_credentials(key.base_url),
        }
        found.append(
            KeyOut(
                **fields,
                provider=pool.name,
                source="store" if row is not None and row.hidden else "code",
                fingerprint=fingerprint(key.secret),
                health=status.health,
                cooldown_seconds=round(status.cooldown_seconds, 3),
                in_flight=status.in_flight,
                uses=status.uses,
                failures=status.failures,
            )
        )
    return found


def to_key(new: KeyNew, pool: str, prefix: str) -> Key:
    """Build a key from its fields. Raises APIError, which names the field with the prefix
    `lead`.
    """
    try:
        return validate_key(Key(**msgspec.structs.asdict(new)), pool)
    except ConfigurationError as error:
        field = "id" if not new.id.isprintable() else "secret"
        field = "proxy" if "outbound proxy" in str(error) else field
        raise invalid(f"{prefix}{field}: {error}", f"{prefix}{field}") from error


def key_not_found_error(pool: str, id: str) -> APIError:
    """Return the error for a key that does not exist."""
    return APIError(
        ErrorKind.NOT_FOUND, f"The key {id!r} does not exist in {pool!r}.", code="not_found"
    )


async def _page_of(pool: KeyPool, query: PageQuery) -> dict[str, KeyRow]:
    return {} if pool.table is None else await pool.table.page(query.after, query.limit + 1)


async def _rows_of(pool: KeyPool, ids: list[str]) -> dict[str, KeyRow]:
    """Return the stored rows of some keys."""
    if pool.table is None:
        return {}
    rows = await pool.table.store.rows(pool.table.name, ids)
    return {id: msgspec.json.decode(row, type=KeyRow) for id, row in rows.items()}
