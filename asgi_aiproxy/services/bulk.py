"""One change of several tokens or keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from asgi_aiproxy._slices import give_way
from asgi_aiproxy.errors import AIProxyError, invalid
from asgi_aiproxy.services.base import MAX_PAGE_ROWS, Actor
from asgi_aiproxy.services.keys import KeyService
from asgi_aiproxy.services.tokens import TokenEdit, TokenService
from asgi_aiproxy.services.validation import to_api_error
from asgi_aiproxy.stores.base import StoreUnavailableError

Ids = Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_PAGE_ROWS)]
_DAY_SECONDS = 86_400.0


class TokenSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tokens to change. `extend` moves the end of those that expire by `days`, counted from now if
    it has passed.
    """

    ids: Ids
    action: Literal["enable", "disable", "extend", "revoke"]
    days: Annotated[float, Meta(gt=0, le=36_500)] | None = None


class KeySelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of a provider to change."""

    ids: Ids
    action: Literal["enable", "disable", "remove"]


class FailedChange(msgspec.Struct, frozen=True):
    """A row that was not changed, and why."""

    id: str
    message: str


class BulkResult(msgspec.Struct, frozen=True):
    """The ids that were changed, and those that were not."""

    done: list[str]
    failed: list[FailedChange]


async def change_tokens(
    service: TokenService, selection: TokenSelection, by: Actor, clock: Callable[[], float]
) -> BulkResult:
    """Change tokens one by one. Raises APIError without `days`, and StoreUnavailableError."""
    days = selection.days
    if selection.action == "extend" and days is None:
        raise invalid("days: is missing; extend moves the end by so many days.", "days")

    async def change(id: str) -> object:
        if selection.action == "revoke":
            return await service.revoke(id, by)
        if selection.action != "extend":
            return await service.edit(id, TokenEdit(enabled=selection.action == "enable"), by)
        expires = (await service.get(id)).expires
        if expires is None:
            return None
        until = max(expires, clock()) + (days or 0) * _DAY_SECONDS
        return await service.edit(id, TokenEdit(expires=until), by)

    return await _each(selection.ids, change)


async def change_keys(
    service: KeyService, provider: str, selection: KeySelection, by: Actor
) -> BulkResult:
    """Change keys one by one. Raises StoreUnavailableError."""

    async def change(id: str) -> object:
        if selection.action == "remove":
            return await service.remove(provider, id, by)
        return await service.switch(provider, id, enabled=selection.action == "enable", by=by)

    return await _each(selection.ids, change)


async def _each(ids: Iterable[str], change: Callable[[str], Awaitable[Any]]) -> BulkResult:
    result = BulkResult([], [])
    for id in dict.fromkeys(ids):
        try:
            await change(id)
        except AIProxyError as error:
            if isinstance(error, StoreUnavailableError):
                raise
            result.failed.append(FailedChange(id, to_api_error(error).message))
        else:
            result.done.append(id)
        await give_way()
    return result
