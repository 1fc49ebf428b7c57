"""Announcements: texts that the console shows to all visitors, for some time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy.accounts.table import Table
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, Actor, Ok, Page, PageQuery, paginate
from asgi_aiproxy.services.validation import set_fields
from asgi_aiproxy.stores.base import Store

ANNOUNCEMENTS = "announcements"

Level = Literal["info", "warning"]
AnnouncementText = Annotated[str, Meta(min_length=1, max_length=2000)]


class Announcement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored announcement: plain text, shown from `since` until `until` (Unix times; None: at
    once, and until it is removed).
    """

    id: str
    text: str
    level: Level = "info"
    since: float | None = None
    until: float | None = None


class AnnouncementNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An announcement to make."""

    text: AnnouncementText
    level: Level = "info"
    since: float | None = None
    until: float | None = None


class AnnouncementEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change of an announcement; omitted fields stay unchanged."""

    text: AnnouncementText | UnsetType = UNSET
    level: Level | UnsetType = UNSET
    since: float | UnsetType | None = UNSET
    until: float | UnsetType | None = UNSET


class AnnouncementService:
    """Manages the announcements of a store. Raises the same errors as `TokenService`."""

    def __init__(
        self,
        store: Store,
        *,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = Table(store, ANNOUNCEMENTS, Announcement)
        self._audit = audit if audit is not None else AuditLog(store, clock=clock)
        self._clock = clock

    async def current(self) -> Page[Announcement]:
        """Return the announcements that are shown now, at most 100."""
        now = self._clock()
        rows = (await self._table.page("", 100)).values()
        return Page([row for row in rows if (row.since or 0) <= now < (row.until or now + 1)])

    async def page(self, query: PageQuery) -> Page[Announcement]:
        """Return all announcements in the order of their ids."""
        rows = await self._table.page(query.after, query.limit + 1)
        return paginate(list(rows.values()), query.limit, lambda row: row.id)

    async def get(self, id: str) -> Announcement:
        """Return one announcement."""
        return await self._table.get(id)

    async def create(self, new: AnnouncementNew, by: Actor = CODE) -> Announcement:
        """Make an announcement."""
        row = Announcement(id=secrets.token_hex(6), **msgspec.structs.asdict(new))
        await self._table.create(row.id, row)
        await self._audit.record(by, "announcement.create", _name(row.id), after=_audited(row))
        return row

    async def edit(self, id: str, change: AnnouncementEdit, by: Actor = CODE) -> Announcement:
        """Change an announcement."""
        before = await self._table.get(id)
        fields = set_fields(change)
        row = await self._table.edit(id, lambda row: msgspec.structs.replace(row, **fields))
        await self._audit.record(
            by, "announcement.edit", _name(id), before=_audited(before), after=_audited(row)
        )
        return row

    async def drop(self, id: str, by: Actor = CODE) -> Ok:
        """Remove an announcement."""
        before = await self._table.get(id)
        await self._table.drop(id)
        await self._audit.record(by, "announcement.remove", _name(id), before=_audited(before))
        return Ok()


def _name(id: str) -> str:
    return f"announcement/{id}"


def _audited(row: Announcement) -> dict[str, Any]:
    return msgspec.structs.asdict(row)
