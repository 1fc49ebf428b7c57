"""Tokens: issued, listed, edited, rotated and revoked."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy.accounts import Token, Tokens
from asgi_aiproxy.accounts.token import Scope
from asgi_aiproxy.accounts.token_verifier import make_principal
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, invalid
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.services.base import ROOT, Ok, Page, PageQuery, paginate
from asgi_aiproxy.services.budgets import (
    BudgetIn,
    LimitUsage,
    Positive,
    read_limit_usage,
    to_budgets,
    to_limits,
)
from asgi_aiproxy.services.validation import set_fields
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.stores.memory import MemoryStore

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Patterns = tuple[Annotated[str, Meta(min_length=1)], ...]
Status = Literal["active", "disabled", "expired", "exhausted"]

logger = logging.getLogger("asgi_aiproxy")

# What null means for members that are no numbers.
_EMPTY: dict[str, Any] = {"models": (), "networks": (), "budgets": (), "scopes": ()}
_EMPTY |= {"account": "", "group": ""}
_RATES = ("rpm", "tpm", "concurrency")
_GRACE = 30 * 86400.0


class TokenNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to issue. `expires` is Unix time; a `secret` in use elsewhere is taken over.

    None is: no limit; no `models` or `networks`: all.
    """

    name: Name
    secret: str = ""
    enabled: bool = True
    expires: float | None = None
    models: Patterns = ()
    networks: Patterns = ()
    rpm: Positive | None = None
    tpm: Positive | None = None
    concurrency: Positive | None = None
    budgets: tuple[BudgetIn | str, ...] = ()
    account: str = ""
    group: str = ""
    may_choose_key: bool = False
    scopes: tuple[Scope, ...] = ()


class TokenEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a token; what is left out stays, and null takes a restriction away.

    With its `account` goes what the token has spent of its own budgets.
    """

    name: Name | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    expires: float | UnsetType | None = UNSET
    models: Patterns | UnsetType | None = UNSET
    networks: Patterns | UnsetType | None = UNSET
    rpm: Positive | UnsetType | None = UNSET
    tpm: Positive | UnsetType | None = UNSET
    concurrency: Positive | UnsetType | None = UNSET
    budgets: tuple[BudgetIn | str, ...] | UnsetType | None = UNSET
    account: str | UnsetType | None = UNSET
    group: str | UnsetType | None = UNSET
    may_choose_key: bool | UnsetType = UNSET
    scopes: tuple[Scope, ...] | UnsetType | None = UNSET


class TokenOut(msgspec.Struct, frozen=True, kw_only=True):
    """A token, but for its secret: that was shown when it was issued."""

    id: str
    name: str
    status: Status
    created: float
    expires: float | None
    models: tuple[str, ...]
    networks: tuple[str, ...]
    account: str
    group: str
    may_choose_key: bool
    scopes: tuple[Scope, ...]
    limits: LimitUsage


class Issued(msgspec.Struct, frozen=True):
    """A token and its secret, which is shown this once."""

    secret: str
    token: TokenOut


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the secret before stays good."""

    grace: Annotated[float, Meta(ge=0, le=_GRACE)] = 0.0


class TokenService:
    """What can be done about the tokens of a store. Methods raise APIError, which names the field,
    NoSuchRowError, RowExistsError and StoreUnavailableError.

    Only who has the scope `root` may touch tokens that have scopes: `by` is who asks.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self.tokens = Tokens(store, clock=clock)
        self._store = store
        self._clock = clock

    async def page(self, query: PageQuery) -> Page[TokenOut]:
        """Tokens by their ids."""
        rows = await self.tokens.page(query.after, query.limit + 1)
        page = paginate(rows, query.limit, lambda row: row.id)
        return Page(await self._shown(page.data), page.next)

    async def get(self, id: str) -> TokenOut:
        """One token."""
        return (await self._shown([await self.tokens.get(id)]))[0]

    async def issue(self, new: TokenNew, by: Principal = ROOT) -> Issued:
        """A new token."""
        fields = msgspec.structs.asdict(new)
        _may_grant(by, new.scopes)
        limits = to_limits(new.rpm, new.tpm, new.concurrency, new.budgets)
        for name in (*_RATES, "budgets"):
            del fields[name]
        await self._check(fields)
        try:
            secret, row = await self.tokens.issue(**fields, limits=limits)
        except ConfigurationError as error:
            raise invalid(str(error), "secret" if new.secret else None) from error
        return Issued(secret, await self._shown_for_sure(row))

    async def edit(self, id: str, change: TokenEdit, by: Principal = ROOT) -> TokenOut:
        """Change some of a token."""
        fields = set_fields(change, **_EMPTY)
        await self._may_touch(id, by)
        _may_grant(by, fields.get("scopes", ()))
        await self._check(fields)
        limits: dict[str, Any] = {n: fields.pop(n) for n in _RATES if n in fields}
        if "budgets" in fields:
            limits["budgets"] = to_budgets(fields.pop("budgets"))
        before = await self.tokens.get(id)
        row = await self.tokens.table.edit(id, lambda row: _changed(row, fields, limits))
        if row.account != before.account:
            await self._move(before, row)
        return await self._shown_for_sure(row)

    async def _move(self, before: Token, after: Token) -> None:
        """Have what a token has spent of its own budgets counted beside its new account. Calls in
        flight are booked where they began."""
        now, move = self._clock(), secrets.token_hex(8)
        old, new = make_principal(before, None, None), make_principal(after, None, None)
        for budget in before.limits.budgets:
            there, here = (reserve(who, budget, 0, now) for who in (old, new))
            try:
                (level,) = await self._store.peek([there])
                for grant, amount in ((here, level.used), (there, -level.used)):
                    moved = msgspec.structs.replace(grant, amount=amount)
                    await self._store.charge(moved, once=f"{move}:{amount}")
            except StoreUnavailableError:
                logger.error("token %s: what it spent stays with its old account", after.id)

    async def rotate(self, id: str, rotation: Rotation, by: Principal = ROOT) -> Issued:
        """A new secret."""
        await self._may_touch(id, by)
        secret, row = await self.tokens.rotate(id, grace=rotation.grace)
        return Issued(secret, await self._shown_for_sure(row))

    async def revoke(self, id: str, by: Principal = ROOT) -> Ok:
        """Dead at once, and gone."""
        await self._may_touch(id, by)
        await self.tokens.revoke(id)
        return Ok()

    async def _shown_for_sure(self, row: Token) -> TokenOut:
        """A token that was just written: that is not undone, nor its secret lost, because what it
        has used cannot be read. Then that is shown as nothing."""
        try:
            return (await self._shown([row]))[0]
        except StoreUnavailableError:
            unread = MemoryStore(clock=self._clock)
            standing = (
                await read_limit_usage(unread, [make_principal(row, None, None)], self._clock())
            )[0]
            return self._out(row, standing, self._clock())

    async def _shown(self, rows: list[Token]) -> list[TokenOut]:
        now = self._clock()
        callers = [make_principal(row, None, None) for row in rows]
        levels = await read_limit_usage(self._store, callers, now)
        pairs = zip(rows, levels, strict=True)
        return [self._out(row, standing, now) for row, standing in pairs]

    def _out(self, row: Token, standing: LimitUsage, now: float) -> TokenOut:
        return TokenOut(
            id=row.id,
            name=row.name,
            status=_status(row, standing, now),
            created=row.created,
            expires=row.expires,
            models=row.models,
            networks=row.networks,
            account=row.account,
            group=row.group,
            may_choose_key=row.may_choose_key,
            scopes=row.scopes,
            limits=standing,
        )

    async def _check(self, fields: dict[str, Any]) -> None:
        expires = fields.get("expires")
        if expires is not None and not self._clock() < expires < 32_503_680_000:
            raise invalid("expires: it must be a Unix time, in seconds, to come.", "expires")
        try:
            check_networks(fields.get("networks", ()))
        except ConfigurationError as error:
            raise invalid(f"networks: {error}", "networks") from error
        group, account = fields.get("group"), fields.get("account")
        if group and await self.tokens.groups.find(group) is None:
            raise invalid(f"group: there is no group {group!r}.", "group")
        if account and await self.tokens.accounts.find(account) is None:
            raise invalid(f"account: there is no account {account!r}.", "account")

    async def _may_touch(self, id: str, by: Principal) -> None:
        if "root" not in by.scopes:
            _may_grant(by, (await self.tokens.get(id)).scopes)


def _may_grant(by: Principal, scopes: tuple[Scope, ...]) -> None:
    if scopes and "root" not in by.scopes:
        message = "scopes: only who has the scope 'root' may give them, or touch who has any."
        raise APIError(ErrorKind.FORBIDDEN, message, param="scopes")


def _changed(row: Token, fields: dict[str, Any], limits: dict[str, Any]) -> Token:
    changed = msgspec.structs.replace(row.limits, **limits)
    return msgspec.structs.replace(row, **fields, limits=changed)


def _status(row: Token, standing: LimitUsage, now: float) -> Status:
    if not row.enabled:
        return "disabled"
    if row.expires is not None and row.expires <= now:
        return "expired"
    return "exhausted" if standing.exhausted else "active"
