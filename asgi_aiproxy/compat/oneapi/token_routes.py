"""Management calls about a user's own tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asgi_aiproxy.accounts import Token
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.compat.oneapi import management as m
from asgi_aiproxy.compat.oneapi.balances import Balance
from asgi_aiproxy.compat.oneapi.rows import (
    DISABLED,
    ENABLED,
    EXHAUSTED,
    THIRD,
    TokenRow,
    all_rows,
    token_key,
)
from asgi_aiproxy.compat.routing import CompatCall, Route
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks

_MAX_NAME = 30
_PREFIX = "sk-"


class TokenRoutes:
    """The routes below `/api/token`."""

    def __init__(self, base: m.Management) -> None:
        self._base = base

    def routes(self) -> list[Route]:
        """Return all routes."""
        user = self._base.route
        return [
            Route("GET", "/api/token", user(m.USER, self._page)),
            Route("GET", "/api/token/search", user(m.USER, self._search)),
            Route("POST", "/api/token", user(m.USER, self._create)),
            Route("PUT", "/api/token", user(m.USER, self._edit)),
            Route("GET", "/api/token/:id", user(m.USER, self._get)),
            Route("DELETE", "/api/token/:id", user(m.USER, self._delete)),
        ]

    async def create(self, user: User, body: Mapping[str, Any], secret: str = "") -> TokenRow:
        """Issue a token for a user, with its quota.

        Raises ManagementError, ConfigurationError and RowExistsError.
        """
        fields = _fields(body)
        data = self._base.data
        id = await data.new_id("tokens")
        secret, token = await data.tokens.issue(
            secret=secret, name=fields["name"], account=user.account
        )
        row = TokenRow(
            id=id,
            user_id=user.id,
            token_id=token.id,
            key=data.encrypt(secret.removeprefix(_PREFIX), f"token:{id}"),
            created_time=data.now(),
            **fields,
        )
        await data.token_rows.create(token_key(user.id, id), row)
        await self._apply(row, set(_QUOTA_FIELDS))
        return row

    async def _apply(self, row: TokenRow, changed: set[str]) -> None:
        """Bring the token in `accounts` up to date with its row."""
        expires = None if row.expired_time == -1 else float(row.expired_time)

        def change(token: Token) -> Token:
            return msgspec.structs.replace(
                token,
                name=row.name,
                enabled=row.status != DISABLED,
                expires=expires,
                models=tuple(_split(row.models)),
                networks=tuple(_split(row.subnet)),
            )

        await self._base.data.tokens.table.edit(row.token_id, change)
        if changed & set(_QUOTA_FIELDS):
            await self._base.balances.set_token(
                row, row.remain_quota, unlimited=row.unlimited_quota
            )

    async def _page(self, call: CompatCall, user: User) -> Any:
        rows = [row async for row in self._rows(user)]
        return await m.shown_page(call, rows, self._shown, _ORDERS)

    async def _search(self, call: CompatCall, user: User) -> Any:
        keyword = call.query.get("keyword", "")
        rows = [row async for row in self._rows(user) if row.name.startswith(keyword)]
        return await self._shown(rows)

    async def _get(self, call: CompatCall, user: User) -> Any:
        row = await self._row(user, m.number(call.names["id"]))
        return (await self._shown([row]))[0]

    async def _create(self, call: CompatCall, user: User) -> Any:
        row = await self.create(user, await call.fields())
        return (await self._shown([row]))[0]

    async def _edit(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        row = await self._row(user, m.int_member(body, "id"))
        shown = (await self._shown([row]))[0]
        status = m.int_member(body, "status")
        if status == ENABLED and shown["status"] == THIRD:
            raise m.ManagementError(
                "The token has expired: change its expiry before you enable it."
            )
        if status == ENABLED and shown["status"] == EXHAUSTED:
            raise m.ManagementError(
                "The quota of the token is used up: raise it before you enable it."
            )
        if call.query.get("status_only"):
            changes: dict[str, Any] = {"status": _status(status)}
        else:
            changes = _fields(body)
            changes["status"] = _status(status) if status else row.status
        after = await self._base.data.token_rows.edit(
            token_key(user.id, row.id), lambda old: msgspec.structs.replace(old, **changes)
        )
        await self._apply(after, set(changes))
        return (await self._shown([after]))[0]

    async def _delete(self, call: CompatCall, user: User) -> Any:
        row = await self._row(user, m.number(call.names["id"]))
        await self._base.data.tokens.revoke(row.token_id)
        await self._base.data.token_rows.drop(token_key(user.id, row.id))
        await self._base.balances.forget_token(row)
        return m.NO_DATA

    def _rows(self, user: User) -> Any:
        return all_rows(self._base.data.token_rows, token_key(user.id, 0)[:11])

    async def _row(self, user: User, id: int) -> TokenRow:
        if id <= 0:
            raise m.ManagementError("id: must be the number of a token.")
        return await self._base.data.token_rows.get(token_key(user.id, id))

    async def _shown(self, rows: list[TokenRow]) -> list[dict[str, Any]]:
        balances = await self._base.balances.of_tokens(rows)
        accessed = await self._base.balances.accessed(rows)
        return [
            self._shown_row(
                row, balances.get(row.id, Balance()), accessed.get(row.id, row.created_time)
            )
            for row in rows
        ]

    def _shown_row(self, row: TokenRow, balance: Balance, accessed: int) -> dict[str, Any]:
        return {
            "id": row.id,
            "user_id": row.user_id,
            "key": self._base.data.decrypt(row.key, f"token:{row.id}"),
            "status": self._status_of(row, balance),
            "name": row.name,
            "created_time": row.created_time,
            "accessed_time": accessed,
            "expired_time": row.expired_time,
            "remain_quota": balance.left,
            "unlimited_quota": row.unlimited_quota,
            "used_quota": balance.used,
            "models": row.models,
            "subnet": row.subnet,
        }

    def _status_of(self, row: TokenRow, balance: Balance) -> int:
        if row.status == DISABLED:
            return DISABLED
        if row.expired_time != -1 and row.expired_time <= self._base.data.now():
            return THIRD
        return EXHAUSTED if not row.unlimited_quota and balance.left <= 0 else ENABLED


_ORDERS = ("remain_quota", "used_quota")
_QUOTA_FIELDS = ("remain_quota", "unlimited_quota")


def _fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a token that callers may set. Raises ManagementError."""
    name = m.text_member(body, "name")
    if not 0 < len(name) <= _MAX_NAME:
        raise m.ManagementError(f"name: must have 1 to {_MAX_NAME} characters.")
    subnet = body.get("subnet")
    if subnet is not None:
        try:
            check_networks(_split(m.text_member(body, "subnet")))
        except ConfigurationError as error:
            raise m.ManagementError(f"subnet: {error}") from error
    models = body.get("models")
    if models is not None:
        models = m.text_member(body, "models")
    return {
        "name": name,
        "expired_time": m.int_member(body, "expired_time", -1) or -1,
        "remain_quota": m.int_member(body, "remain_quota"),
        "unlimited_quota": m.bool_member(body, "unlimited_quota"),
        "models": models,
        "subnet": subnet,
    }


def _status(value: int) -> int:
    if value not in (ENABLED, DISABLED):
        raise m.ManagementError("status: must be 1 (enabled) or 2 (disabled).")
    return value


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
