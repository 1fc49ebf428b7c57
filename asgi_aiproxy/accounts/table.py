"""Typed rows in a table of the store, changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec

from asgi_aiproxy.errors import AIProxyError
from asgi_aiproxy.stores.base import Store

Row = TypeVar("Row", bound=msgspec.Struct)
Check = Callable[[], Awaitable[None]]

_ATTEMPTS = 50


class NoSuchRowError(AIProxyError):
    """A row with this id does not exist."""


class RowExistsError(AIProxyError):
    """A row with this id exists already."""


class Table(Generic[Row]):
    """Rows of the type `row` in the table `name` of `store`. All methods may raise
    StoreUnavailableError.
    """

    def __init__(self, store: Store, name: str, row: type[Row]) -> None:
        self.store = store
        self.name = name
        self._decode = msgspec.json.Decoder(row).decode
        self._encode = msgspec.json.Encoder().encode

    async def find(self, id: str) -> Row | None:
        """Return a row, or None."""
        found = await self.store.get(self.name, id)
        return None if found is None else self._decode(found)

    async def get(self, id: str) -> Row:
        """Return a row. Raises NoSuchRowError."""
        found = await self.find(id)
        if found is None:
            raise self._missing(id)
        return found

    async def page(self, after: str = "", limit: int = 100) -> dict[str, Row]:
        """Return at most `limit` rows whose ids follow `after`, in the order of their ids."""
        found = await self.store.page(self.name, after, limit)
        return {id: self._decode(value) for id, value in found.items()}

    async def create(self, id: str, row: Row) -> None:
        """Write a new row. Raises RowExistsError."""
        if not await self.store.put(self.name, id, self._encode(row), expected=None):
            raise RowExistsError(f"There is a row {id!r} in {self.name} already.")

    async def create_many(self, rows: dict[str, Row]) -> None:
        """Write new rows, all or none. Raises RowExistsError, which names an existing one."""
        values: dict[str, bytes | None] = {id: self._encode(row) for id, row in rows.items()}
        taken = await self.store.put_many(self.name, values, expected=dict.fromkeys(rows))
        if taken:
            raise RowExistsError(f"There is a row {taken[0]!r} in {self.name} already.")

    async def put(self, id: str, row: Row) -> None:
        """Write a row, replacing any existing one."""
        await self.store.put(self.name, id, self._encode(row))

    async def edit(
        self, id: str, change: Callable[[Row], Row], *, check: Check | None = None
    ) -> Row:
        """Replace a row by the result of `change(row)`, without losing concurrent changes.

        `check` is called after each time that the row is read, before it is written. Returns the
        new row. Raises NoSuchRowError, and what `change` and `check` raise.
        """
        return (await self.change(id, change, check=check))[1]

    async def change(
        self, id: str, change: Callable[[Row], Row], *, check: Check | None = None
    ) -> tuple[Row, Row]:
        """Do the same as `edit`; return the row before and after the change."""
        for _ in range(_ATTEMPTS):
            before = await self.store.get(self.name, id)
            if before is None:
                raise self._missing(id)
            if check is not None:
                await check()
            old = self._decode(before)
            row = change(old)
            after = self._encode(row)
            if after == before or await self.store.put(self.name, id, after, expected=before):
                return old, row
        raise AIProxyError(
            f"The row {id!r} in {self.name} could not be changed: other processes change it at "
            "the same time. Try again."
        )

    async def drop(self, id: str) -> None:
        """Remove a row. Raises NoSuchRowError."""
        if not await self.store.drop(self.name, id):
            raise self._missing(id)

    def _missing(self, id: str) -> NoSuchRowError:
        return NoSuchRowError(f"There is no row {id!r} in {self.name}.")
