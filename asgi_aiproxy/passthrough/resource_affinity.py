"""Find the key that holds a resource: a file, a batch or a stored response can only be used with
the key that created it, or with others of its account.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from asgi_aiproxy.keys import KeyPool
from asgi_aiproxy.stores.base import StoreUnavailableError

logger = logging.getLogger("asgi_aiproxy")

_MAX_ENTRIES = 10_000  # in the cache of this process
_LOOKUP_SECONDS = 3600.0  # seconds for which an unknown resource is not looked up again
_MAX_LOOKUPS = 4  # maximum number of resources of one request that are looked up
_MAX_BYTES = 300  # maximum length of their names in bytes

_STRINGS = re.compile(rb'"([^"\\]*)"\s*(:?)')  # a string, and whether it is a member name
# The first id in a response is its own; in a stream of events it is that of the resource.
_CREATED = re.compile(rb'"(?:id|name)"\s*:\s*"([^"\\]{1,300})"')


class ResourceAffinity:
    """Remembers which key of a pool has created a resource.

    Entries are kept in the pool's store, if it has one, for all workers: one write for each, and
    one read for a resource that is not in the cache of this process. While the store is
    unavailable, resources are treated as unknown.
    """

    def __init__(self, pool: KeyPool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def remember(self, resource: str, key_id: str, seconds: float) -> None:
        """Remember for `seconds` which key has created a resource."""
        if self._cached(resource) == key_id:
            return
        self._add_attempt(resource, key_id, seconds)
        table = self._pool.table
        if table is not None:
            try:
                await table.store.add(self._account(resource), {key_id: 1}, ttl=seconds)
            except StoreUnavailableError as error:
                logger.warning("the key of a resource could not be written to the store: %s", error)

    async def of(self, resources: Iterable[str]) -> str:
        """Return the id of the key of the first resource that is known; empty if all are
        unknown.
        """
        table = self._pool.table
        names = [name for name in dict.fromkeys(resources) if len(name) <= _MAX_BYTES]
        for resource in names[:_MAX_LOOKUPS]:
            key_id = self._cached(resource)
            if not key_id and table is not None:
                try:
                    keys = await table.store.sums(self._account(resource))
                except StoreUnavailableError:
                    return ""
                key_id = next(iter(keys), "")
                if key_id:
                    self._add_attempt(resource, key_id, _LOOKUP_SECONDS)
            if key_id:
                return key_id
        return ""

    def _cached(self, resource: str) -> str:
        key_id, until = self._known.get(resource, ("", 0.0))
        return key_id if until > self._clock() else ""

    def _add_attempt(self, resource: str, key_id: str, seconds: float) -> None:
        self._known[resource] = key_id, self._clock() + seconds
        self._known.move_to_end(resource)
        if len(self._known) > _MAX_ENTRIES:
            self._known.popitem(last=False)

    def _account(self, resource: str) -> str:
        return f"home:{self._pool.name}:{resource}"


def created_resource_id(answer: bytes) -> str:
    """Return the id of the resource that a response has created, from its beginning; empty if
    unknown.
    """
    found = _CREATED.search(answer)
    return _last_segment(found[1]) if found is not None else ""


class ResourceReferences:
    """Finds the resources that are referred to by members with certain names in JSON bodies."""

    def __init__(self, names: Iterable[str]) -> None:
        # (The names begin with a quote, which is searched for quickly in long bodies.)
        either = '"(?:' + ("|".join(map(re.escape, names)) or "(?!)") + ')"'
        value = r'"[^"\\]{1,300}"|\[[^\]]{0,4000}\]|\{[^}]{0,4000}\}'
        self._any = re.compile(either.encode()).search
        self._find = re.compile(rf"{either}\s*:\s*({value})".encode()).finditer

    def any(self, body: bytes) -> bool:
        """Return whether the body has such a reference."""
        return self._any(body) is not None

    def all(self, body: bytes) -> list[str]:
        """Return the resources that the body refers to."""
        values = b" ".join([found[1] for found in self._find(body)])
        return [_last_segment(text) for text, name in _STRINGS.findall(values) if text and not name]


def _last_segment(name: bytes) -> str:
    """Return the last part of a resource's name; Google's names include the path or the whole
    address.
    """
    return name.decode("utf-8", "replace").rpartition("/")[2]
