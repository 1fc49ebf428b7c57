"""Management calls about redemption codes, which are vouchers in quota units."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import Any

import msgspec

from asgi_aiproxy.accounts import NoSuchRowError, VoucherError
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.accounts.vouchers import voucher_id
from asgi_aiproxy.compat.oneapi import management as m
from asgi_aiproxy.compat.oneapi.rows import (
    DISABLED,
    ENABLED,
    THIRD,
    RedemptionRow,
    all_rows,
    key_digest,
    row_key,
)
from asgi_aiproxy.compat.routing import CompatCall, Route

_MAX_NAME, _MAX_COUNT = 20, 100
_BY_KEY = "oneapi.redemption_keys"


class Redemptions:
    """Creates and redeems codes."""

    def __init__(self, base: m.Management) -> None:
        self._base = base
        self._redeeming: dict[str, asyncio.Lock] = {}

    async def create(
        self, user_id: int, name: str, quota: int, key: str = "", *, id: int = 0, created: int = 0
    ) -> str:
        """Create a code worth `quota` units and return it. Raises ConfigurationError."""
        data = self._base.data
        key = key or secrets.token_hex(16)
        id = id or await data.new_id("redemptions")
        await data.vouchers.adopt(key, quota, unit="units", name=name)
        row = RedemptionRow(
            id=id,
            user_id=user_id,
            key=data.encrypt(key, f"redemption:{id}"),
            name=name,
            quota=quota,
            created_time=created or data.now(),
        )
        await data.redemptions.create(row_key(id), row)
        await data.store.put(_BY_KEY, key_digest(key), str(id).encode())
        return key

    async def redeem(self, key: str, user: User) -> int:
        """Add a code to the quota of a user, once, and return what it is worth.

        Raises VoucherError if the code is invalid, was used or is disabled.
        """
        lock = self._redeeming.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                return await self._redeem(key, user)
        finally:
            if not lock.locked():
                self._redeeming.pop(key, None)

    async def _redeem(self, key: str, user: User) -> int:
        data = self._base.data
        id = await data.store.get(_BY_KEY, key_digest(key))
        row = await data.redemptions.find(row_key(int(id))) if id is not None else None
        if row is None:
            raise VoucherError("The redemption code is invalid.")
        if row.status == DISABLED:
            raise VoucherError("The redemption code is disabled.")
        if row.status != ENABLED:
            raise VoucherError("The redemption code has been used already.")
        await data.vouchers.redeem(key, "account", user.account)
        now = data.now()
        await data.redemptions.edit(
            row_key(row.id),
            lambda old: msgspec.structs.replace(old, status=THIRD, redeemed_time=now),
        )
        return row.quota


class RedemptionRoutes:
    """The routes below `/api/redemption`."""

    def __init__(self, base: m.Management, redemptions: Redemptions) -> None:
        self._base = base
        self._redemptions = redemptions

    def routes(self) -> list[Route]:
        """Return all routes."""
        admin, path = self._base.route, "/api/redemption"
        return [
            Route("GET", path, admin(m.ADMINISTRATOR, self._page)),
            Route("GET", f"{path}/search", admin(m.ADMINISTRATOR, self._search)),
            Route("POST", path, admin(m.ADMINISTRATOR, self._create)),
            Route("PUT", path, admin(m.ADMINISTRATOR, self._edit)),
            Route("GET", f"{path}/:id", admin(m.ADMINISTRATOR, self._get)),
            Route("DELETE", f"{path}/:id", admin(m.ADMINISTRATOR, self._delete)),
        ]

    async def _page(self, call: CompatCall, user: User) -> Any:
        rows = [row async for row in all_rows(self._base.data.redemptions)]
        return [self._shown(row) for row in m.page_of(call, rows)]

    async def _search(self, call: CompatCall, user: User) -> Any:
        keyword = call.query.get("keyword", "")
        return [
            self._shown(row)
            async for row in all_rows(self._base.data.redemptions)
            if m.matches_keyword(keyword, row.id, row.name)
        ]

    async def _get(self, call: CompatCall, user: User) -> Any:
        return self._shown(await self._row(m.number(call.names["id"])))

    async def _create(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        name = _checked_name(m.text_member(body, "name"))
        count = m.int_member(body, "count")
        if not 0 < count <= _MAX_COUNT:
            raise m.ManagementError(f"count: must be from 1 to {_MAX_COUNT}.")
        quota = _checked_quota(m.int_member(body, "quota"))
        return [await self._redemptions.create(user.id, name, quota) for _ in range(count)]

    async def _edit(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        row = await self._row(m.int_member(body, "id"))
        changes: dict[str, Any] = {}
        if call.query.get("status_only"):
            status = m.int_member(body, "status")
            if status not in (ENABLED, DISABLED, THIRD):
                raise m.ManagementError("status: must be 1 (enabled), 2 (disabled) or 3 (used).")
            changes["status"] = status
            # (Vouchers may also be redeemed elsewhere: with `Vouchers`, or in the console.)
            with suppress(NoSuchRowError):  # an imported code that was used
                await self._base.data.vouchers.enable(self._voucher(row), status == ENABLED)
        else:
            changes["name"] = _checked_name(m.text_member(body, "name"))
            changes["quota"] = _checked_quota(m.int_member(body, "quota"))
            if changes["quota"] != row.quota:
                key = self._base.data.decrypt(row.key, f"redemption:{row.id}")
                await self._base.data.vouchers.change_amount(key, changes["quota"])
        after = await self._base.data.redemptions.edit(
            row_key(row.id), lambda old: msgspec.structs.replace(old, **changes)
        )
        return self._shown(after)

    async def _delete(self, call: CompatCall, user: User) -> Any:
        row = await self._row(m.number(call.names["id"]))
        key = self._base.data.decrypt(row.key, f"redemption:{row.id}")
        with suppress(NoSuchRowError):
            await self._base.data.vouchers.table.drop(self._voucher(row))
        await self._base.data.store.drop(_BY_KEY, key_digest(key))
        await self._base.data.redemptions.drop(row_key(row.id))
        return m.NO_DATA

    def _voucher(self, row: RedemptionRow) -> str:
        return voucher_id(self._base.data.decrypt(row.key, f"redemption:{row.id}"))

    async def _row(self, id: int) -> RedemptionRow:
        return await self._base.data.redemptions.get(row_key(max(0, id)))

    def _shown(self, row: RedemptionRow) -> dict[str, Any]:
        return {
            "id": row.id,
            "user_id": row.user_id,
            "key": self._base.data.decrypt(row.key, f"redemption:{row.id}"),
            "status": row.status,
            "name": row.name,
            "quota": row.quota,
            "created_time": row.created_time,
            "redeemed_time": row.redeemed_time,
            "count": 0,
        }


def _checked_name(name: str) -> str:
    if not 0 < len(name) <= _MAX_NAME:
        raise m.ManagementError(f"name: must have 1 to {_MAX_NAME} characters.")
    return name


def _checked_quota(quota: int) -> int:
    if quota < 1:
        raise m.ManagementError("quota: must be at least 1.")
    return quota
