"""Invitations: codes of operators with which new users sign up."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from asgi_aiproxy.accounts import NoSuchRowError
from asgi_aiproxy.accounts.table import Table
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, Actor, Ok, Page, PageQuery, paginate
from asgi_aiproxy.stores.base import Store

_MAX_EXPIRES = 32_503_680_000


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation: `id` is the beginning of the SHA-256 of its code, `left` how many users may
    still sign up with it, `created` and `expires` are Unix times.
    """

    id: str
    note: str = ""
    left: int = 1
    created: float = 0.0
    expires: float | None = None


class InvitationNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An invitation to create, for `uses` users, until the Unix time `expires`."""

    uses: Annotated[int, Meta(ge=1, le=100_000)] = 1
    note: Annotated[str, Meta(max_length=200)] = ""
    expires: float | None = None


class InvitationCode(msgspec.Struct, frozen=True):
    """A new invitation, with the code, which is shown only now."""

    code: str
    invitation: Invitation


class Invitations:
    """The invitations in a store. Raises the same errors as `TokenService`."""

    def __init__(
        self,
        store: Store,
        *,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = Table(store, "invitations", Invitation)
        self._audit = audit if audit is not None else AuditLog(store, clock=clock)
        self._clock = clock

    async def page(self, query: PageQuery) -> Page[Invitation]:
        """Return invitations in the order of their ids."""
        rows = await self._table.page(query.after, query.limit + 1)
        return paginate(list(rows.values()), query.limit, lambda row: row.id)

    async def create(self, new: InvitationNew, by: Actor = CODE) -> InvitationCode:
        """Create an invitation."""
        now = self._clock()
        if new.expires is not None and not now < new.expires < _MAX_EXPIRES:
            raise invalid("expires: must be a Unix time in seconds, in the future.", "expires")
        code = secrets.token_urlsafe(18)
        row = Invitation(
            id=_id(code), note=new.note, left=new.uses, created=now, expires=new.expires
        )
        await self._table.create(row.id, row)
        target = f"invitation/{row.id}"
        await self._audit.record(by, "invitation.create", target, after=msgspec.to_builtins(row))
        return InvitationCode(code, row)

    async def drop(self, id: str, by: Actor = CODE) -> Ok:
        """Remove an invitation."""
        await self._table.drop(id)
        await self._audit.record(by, "invitation.remove", f"invitation/{id}")
        return Ok()

    async def take(self, code: str) -> str | None:
        """Use an invitation once; returns its id, or None if it is not valid."""

        def use(row: Invitation) -> Invitation:
            if row.left < 1 or (row.expires is not None and row.expires <= self._clock()):
                raise _UsedError
            return msgspec.structs.replace(row, left=row.left - 1)

        try:
            return (await self._table.edit(_id(code), use)).id
        except (NoSuchRowError, _UsedError):
            return None

    async def give_back(self, id: str) -> None:
        """Undo `take`, for a user that could not be created."""
        await self._table.edit(id, lambda row: msgspec.structs.replace(row, left=row.left + 1))


class _UsedError(Exception):
    """An invitation is used up, or has expired."""


def _id(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()[:32]
