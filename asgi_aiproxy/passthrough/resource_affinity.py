"""Which key holds a resource: a file, a batch, a stored answer is found again only by the key that
made it, or by others of its account."""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from asgi_aiproxy.keys import KeyPool
from asgi_aiproxy.stores.base import StoreUnavailableError

logger = logging.getLogger("asgi_aiproxy")

_MAX_ENTRIES = 10_000  # in this process
_LOOKUP_SECONDS = 3600.0  # seconds for which the store is not asked again
_MAX_LOOKUPS = 4  # of those that one request names
_MAX_BYTES = 300  # of their names

_STRINGS = re.compile(rb'"([^"\\]*)"\s*(:?)')  # and whether it is a name
# The first in an answer is its own: in a stream of events that of the resource it is about.
_CREATED = re.compile(rb'"(?:id|name)"\s*:\s*"([^"\\]{1,300})"')


class ResourceAffinity:
    """The keys of the resources that were made with the keys of a pool.

    Kept in the pool's store, if it has one, so that all workers know: one write for each, and one
    read where a request names one that this process does not know. While the store is away, they
    are taken to be unknown.
    """

    def __init__(self, pool: KeyPool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def remember(self, resource: str, key_id: str, seconds: float) -> None:
        """Note for so long which key made a resource."""
        if self._cached(resource) == key_id:
            return
        self._add_attempt(resource, key_id, seconds)
        table = self._pool.table
        if table is not None:
            try:
                await table.store.add(self._account(resource), {key_id: 1}, ttl=seconds)
            except StoreUnavailableError as error:
                logger.warning("other workers do not know where a resource is: %s", error)

    async def of(self, resources: Iterable[str]) -> str:
        """The key of the first of these that is known; empty if none is."""
        table = self._pool.table
        wanted = [each for each in dict.fromkeys(resources) if len(each) <= _MAX_BYTES]
        for resource in wanted[:_MAX_LOOKUPS]:
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
    """The resource that an answer says was made, by its beginning; empty if it does not."""
    found = _CREATED.search(answer)
    return _short(found[1]) if found is not None else ""


class ResourceReferences:
    """Finds in JSON bodies what members of these names refer to."""

    def __init__(self, names: Iterable[str]) -> None:
        # (They begin with a quote, which is looked for fast, however long a body is.)
        either = '"(?:' + ("|".join(map(re.escape, names)) or "(?!)") + ')"'
        value = r'"[^"\\]{1,300}"|\[[^\]]{0,4000}\]|\{[^}]{0,4000}\}'
        self._any = re.compile(either.encode()).search
        self._find = re.compile(rf"{either}\s*:\s*({value})".encode()).finditer

    def any(self, body: bytes) -> bool:
        """Whether there is any."""
        return self._any(body) is not None

    def all(self, body: bytes) -> list[str]:
        """The resources that are referred to."""
        values = b" ".join([found[1] for found in self._find(body)])
        return [_short(text) for text, name in _STRINGS.findall(values) if text and not name]


def _short(name: bytes) -> str:
    """A resource's own name; Google's come with the path to them, or a whole address."""
    return name.decode("utf-8", "replace").rpartition("/")[2]
