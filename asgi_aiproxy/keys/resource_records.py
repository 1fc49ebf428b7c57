"""Remember which key of a pool created a vendor's resource, and for which caller. Theory of
operation.

A file, a batch, a vector store or a stored response belongs to an account of the vendor: it is only
found with the key that created it, or with another one of that account. All callers of a gateway
share the keys, so the vendor does not separate them either. `ResourceRecords` therefore keeps, for
each resource that is created with a key of the pool, the id of the key and the owner: a digest of
the caller's account (see `Principal.tenant`).

A record is written once and never changed. It is kept in memory, up to a number of bytes, for all
apps with this pool, and as an entry of the pool's store, if it has one, for all workers.
`ResourceOwnership` says what follows from it: `recorded` refuses resources that are recorded as
another owner's, `strict` also those without a record, and `off` none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.patterns import as_patterns, matches_any
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.stores.entries import ExpiringEntries

logger = logging.getLogger("asgi_aiproxy")

OwnerCheck = Literal["recorded", "strict", "off"]

_MAX_ID = 300  # characters
_LOCAL_BYTES = 2 * 1024 * 1024
_LOOKUP_SECONDS = 3600.0  # for which a record of the store is kept in memory


@dataclass(frozen=True)
class ResourceOwnership:
    """Which resources of vendors callers may use that share the keys of a pool.

    Arguments:

    - `check`: `"recorded"` refuses resources that another account created through the gateway,
      `"strict"` also those that were not created through it, `"off"` none.
    - `shared`: patterns of the ids of resources that all callers may use, such as `"vs_docs*"`.
    - `store`: keeps the records, in place of the store of the provider's keys.

    Raises ConfigurationError if an argument is invalid.
    """

    check: OwnerCheck = "recorded"
    shared: Sequence[str] = ()
    store: Store | None = None

    def __post_init__(self) -> None:
        if self.check not in get_args(OwnerCheck):
            known = ", ".join(get_args(OwnerCheck))
            raise ConfigurationError(f"Unknown owner check {self.check!r}. There are: {known}.")
        object.__setattr__(self, "shared", as_patterns(self.shared))

    def shares(self, id: str) -> bool:
        """Whether all callers may use a resource."""
        return bool(self.shared) and matches_any(tuple(self.shared), id)

    def allows(self, id: str, record: ResourceRecord | None, owner: str, *, certain: bool) -> bool:
        """Whether `owner` may use a resource. `certain`: the id is certainly that of one."""
        if self.check == "off" or not owner or self.shares(id):
            return True
        if record is None or not record.owner:
            return self.check != "strict" or not certain
        return record.owner == owner


class ResourceRecord(NamedTuple):
    """Whose a resource is, and the id of the key that created it."""

    owner: str
    key_id: str


class ResourceRecords:
    """The records of the resources that were created with the keys of a pool.

    `pool` is its name, `find_store` returns the store that keeps them, and `clock` the time in
    seconds.
    """

    def __init__(
        self,
        pool: str,
        find_store: Callable[[], Store | None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._find_store = find_store
        self._clock = clock
        self._local = ExpiringEntries(_LOCAL_BYTES)

    async def remember(self, id: str, record: ResourceRecord, seconds: float) -> None:
        """Keep the record of a new resource for `seconds`; one that is known is not changed.

        While the store is unavailable it is kept in this process only.
        """
        if not id or len(id) > _MAX_ID or self._cached(id) is not None:
            return
        name, value = self._name(id), f"{record.owner} {record.key_id}".encode()
        self._keep(name, value, seconds)
        if (store := self._find_store()) is not None:
            try:
                await store.set_entry(name, value, seconds=seconds)
            except StoreUnavailableError as error:
                logger.warning("the record of a resource could not be stored: %s", error)

    async def find(self, id: str) -> ResourceRecord | None:
        """The record of a resource; None if it has none. Raises StoreUnavailableError."""
        if not id or len(id) > _MAX_ID:
            return None
        found = self._cached(id)
        if found is not None or (store := self._find_store()) is None:
            return found
        value = await store.get_entry(self._name(id))
        if value is None:
            return None
        self._keep(self._name(id), value, _LOOKUP_SECONDS)
        return _decoded(value)

    async def key_of(self, ids: Iterable[str]) -> str:
        """The id of the key of the first resource with a record; empty without one, and while the
        store is unavailable.
        """
        try:
            for id in ids:
                if (record := await self.find(id)) is not None:
                    return record.key_id
        except StoreUnavailableError:
            pass
        return ""

    def _cached(self, id: str) -> ResourceRecord | None:
        value = self._local.get(self._name(id), self._clock())
        return _decoded(value) if value is not None else None

    def _keep(self, name: str, value: bytes, seconds: float) -> None:
        now = self._clock()
        self._local.set(name, value, now + seconds, now)

    def _name(self, id: str) -> str:
        return f"resource:{self._pool}:{id}"


def _decoded(value: bytes) -> ResourceRecord:
    owner, _, key_id = value.decode().partition(" ")
    return ResourceRecord(owner, key_id)
