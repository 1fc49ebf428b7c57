"""The audit log: every change, with its caller, time and origin.

Theory of operation. Every service that changes something appends one entry to a log of the store
after the change was made: the caller, the action, the object, and the members that changed, with
their values before and after. Entries are only ever appended; a store has no operation to change
one. They hold no secret: the services pass in rows without digests, and keys with the fingerprint
of their secret. Entries that are older than `retention_seconds`, or more than `max_entries`, are
removed, the oldest first.

An entry is also written to the Python log `asgi_aiproxy.audit`. If the store fails between a change
and its entry, the change stays, and the entry is in that log as an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from random import getrandbits
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from asgi_aiproxy.errors import ConfigurationError, invalid
from asgi_aiproxy.services.base import MAX_PAGE_ROWS, Actor, LogId, Page
from asgi_aiproxy.stores.base import Store, StoreUnavailableError, check_store
from asgi_aiproxy.stores.retention import trim_log

logger = logging.getLogger("asgi_aiproxy.audit")

_READ_ROWS = 500  # entries that are read from the store together
_TRIM_SECONDS = 60.0  # between two searches for entries that are too old
_MAX_VALUES_BYTES = 16 * 1024  # of the members of one entry
_MAX_NAMES = 100  # of members that are omitted

Values = Mapping[str, Any]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change.

    - `id`, `at`: a random id, and Unix time.
    - `actor`, `actor_name`: id and name of the caller; `source`: its origin (`admin`, `cli`,
      `code` ...); `address`: its IP address or host; `request_id`: of its request.
    - `action`: what was done, such as `token.edit`.
    - `target`: the object, such as `token/<id>`.
    - `before`, `after`: the members that changed; null if the object did not exist.
    """

    id: str
    at: float
    action: str
    target: str
    actor: str = ""
    actor_name: str = ""
    source: str = ""
    address: str = ""
    request_id: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter of the audit log: all given fields must match.

    `action` and `target` also match the beginning of one, up to a dot or a slash: `token` matches
    `token.edit`. `since` and `until` are Unix times.
    """

    actor: str = ""
    source: str = ""
    action: str = ""
    target: str = ""
    since: float | None = None
    until: float | None = None
    after: LogId = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE_ROWS)] = 100

    def matches(self, entry: AuditEntry) -> bool:
        """Whether an entry matches."""
        return (
            self.actor in ("", entry.actor, entry.actor_name)
            and self.source in ("", entry.source)
            and f"{entry.action}.".startswith(f"{self.action}." if self.action else "")
            and f"{entry.target}/".startswith(f"{self.target}/" if self.target else "")
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
        )


_decode = msgspec.json.Decoder(AuditEntry).decode
_encode = msgspec.json.Encoder().encode


class AuditLog:
    """Records changes in a store, and reads them.

    The last `max_entries` entries are kept, for `retention_seconds` (None: without a time limit).
    `name` is the name of the log in the store. Raises ConfigurationError if a limit is not
    positive.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_entries: int = 100_000,
        retention_seconds: float | None = None,
        name: str = "audit",
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_store(store, "AuditLog")
        if max_entries < 1 or (retention_seconds is not None and not retention_seconds > 0):
            raise ConfigurationError(
                "AuditLog: max_entries must be at least 1, and retention_seconds > 0 or None."
            )
        self._store = store
        self._max_entries = max_entries
        self._retention = retention_seconds
        self._name = name
        self._clock = clock
        self._trim_due = 0.0

    def __repr__(self) -> str:
        return f"AuditLog({self._store!r})"

    async def record(
        self,
        by: Actor,
        action: str,
        target: str,
        *,
        before: Values | None = None,
        after: Values | None = None,
    ) -> None:
        """Append an entry for a change that was made.

        With both `before` and `after`, only the members that differ are kept. A store that is
        unavailable is logged.
        """
        if before is not None and after is not None:
            before, after = _changed_members(before, after)
        entry = AuditEntry(
            id=f"{getrandbits(128):032x}",
            at=self._clock(),
            actor=by.principal.id,
            actor_name=by.principal.name,
            source=by.source,
            address=by.address,
            request_id=by.request_id,
            action=action,
            target=target,
            before=_bounded(before),
            after=_bounded(after),
        )
        data = _encode(entry)
        logger.info("%s", data.decode(), extra={"audit": entry})
        try:
            await self._store.append(self._name, data, maxlen=self._max_entries, once=entry.id)
            await self._trim()
        except StoreUnavailableError:
            logger.error("the store is unavailable; this entry may be missing: %s", data.decode())

    async def page(self, query: AuditQuery) -> Page[AuditEntry]:
        """Return the entries that match, newest first.

        Raises APIError for an invalid position, and StoreUnavailableError.
        """
        oldest = self._oldest()
        found: list[AuditEntry] = []
        after = query.after
        while True:
            try:
                rows = await self._store.read(self._name, after, _READ_ROWS, newest=True)
            except ValueError as error:
                message = f"after: the entry {query.after!r} does not exist."
                raise invalid(message, "after") from error
            for after, value in rows:
                entry = _decode(value)
                if entry.at >= oldest and query.matches(entry):
                    found.append(entry)
                    if len(found) == query.limit:
                        return Page(found, after)
            if len(rows) < _READ_ROWS:
                return Page(found)

    def _oldest(self) -> float:
        """The Unix time from which on entries are kept."""
        return self._clock() - self._retention if self._retention is not None else 0.0

    async def _trim(self) -> None:
        """Remove the entries that are too old, at most once a minute."""
        now = self._clock()
        if self._retention is not None and now >= self._trim_due:
            self._trim_due = now + _TRIM_SECONDS
            oldest = self._oldest()
            await trim_log(self._store, self._name, lambda value: _decode(value).at < oldest)


def _changed_members(before: Values, after: Values) -> tuple[Values, Values]:
    names = [n for n in {**before, **after} if before.get(n) != after.get(n)]
    return (
        {n: before[n] for n in names if n in before},
        {n: after[n] for n in names if n in after},
    )


def _bounded(values: Values | None) -> dict[str, Any] | None:
    """The members as plain values; only their names if they are too large."""
    if values is None:
        return None
    plain: dict[str, Any] = msgspec.to_builtins(dict(values))
    if len(_encode(plain)) > _MAX_VALUES_BYTES:
        return {"omitted": sorted(plain)[:_MAX_NAMES]}
    return plain
