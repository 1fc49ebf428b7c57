"""Manage tokens: issue, list, change, rotate and revoke them."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy._slices import in_slices
from asgi_aiproxy.accounts import Token, Tokens
from asgi_aiproxy.accounts.token import Scope
from asgi_aiproxy.accounts.token_verifier import make_principal
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, invalid
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.principal import Principal, check_tags
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, Actor, Ok, Page, PageQuery, paginate
from asgi_aiproxy.services.budgets import (
    BudgetIn,
    LimitUsage,
    Positive,
    read_limit_usage,
    to_budgets,
    to_limits,
)
from asgi_aiproxy.services.raises import BudgetRaise
from asgi_aiproxy.services.roles import check_account
from asgi_aiproxy.services.validation import set_fields
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.stores.memory import MemoryStore

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Patterns = tuple[Annotated[str, Meta(min_length=1)], ...]
Status = Literal["active", "disabled", "expired", "exhausted"]

logger = logging.getLogger("asgi_aiproxy")

# The meaning of null for members that are not numbers.
_EMPTY: dict[str, Any] = {"models": (), "networks": (), "budgets": (), "scopes": ()}
_EMPTY |= {"account": "", "group": "", "tags": {}}
_RATES = ("rpm", "tpm", "concurrency")
_MAX_GRACE_SECONDS = 30 * 86400.0


class TokenNew(ConcealedStruct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to issue. `expires` is Unix time; `secret` is the secret of another system, to be
    kept in use.

    Null means no limit; empty `models` or `networks` allow all.
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
    tags: dict[str, str] = {}  # noqa: RUF012 (msgspec copies it)


class TokenEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change of a token; omitted fields stay unchanged, null removes a restriction.

    If `account` changes, the amounts that the token has spent of its own budgets move with it.
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
    tags: dict[str, str] | UnsetType | None = UNSET


class TokenOut(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret, which was shown when it was issued. `owner` is the caller that
    created it for itself.
    """

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
    tags: dict[str, str]
    limits: LimitUsage
    owner: str = ""


class Issued(ConcealedStruct, frozen=True):
    """A token and its secret, which is shown only now."""

    secret: str
    token: TokenOut


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of seconds for which the old secret is still accepted."""

    grace: Annotated[float, Meta(ge=0, le=_MAX_GRACE_SECONDS)] = 0.0


class TokenService:
    """Manages the tokens of a store.

    Methods raise APIError, which names the field, NoSuchRowError, RowExistsError and
    StoreUnavailableError. Tokens with scopes can only be managed with the scope `root`, and tokens
    of a user's account by users with a higher role and by itself; `by` is the caller. Changes are
    recorded in `audit`, by default the audit log of the store.
    """

    def __init__(
        self,
        store: Store,
        *,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tokens = Tokens(store, clock=clock)
        self._audit = audit if audit is not None else AuditLog(store, clock=clock)
        self._store = store
        self._clock = clock

    async def page(self, query: PageQuery) -> Page[TokenOut]:
        """Return tokens in the order of their ids."""
        rows = await self.tokens.page(query.after, query.limit + 1)
        page = paginate(rows, query.limit, lambda row: row.id)
        return Page(await self._to_tokens_out(page.data), page.next)

    async def get(self, id: str) -> TokenOut:
        """Return one token."""
        return (await self._to_tokens_out([await self.tokens.get(id)]))[0]

    async def many(self, ids: list[str]) -> list[TokenOut]:
        """Return those of some tokens that exist, in the order of `ids`."""
        rows = await self._store.rows(self.tokens.table.name, ids)
        found = [msgspec.json.decode(rows[id], type=Token) for id in ids if id in rows]
        return await self._to_tokens_out(found)

    async def issue(self, new: TokenNew, by: Actor = CODE, *, owner: str = "") -> Issued:
        """Issue a token; `owner` is the caller that creates it for itself."""
        fields = msgspec.structs.asdict(new)
        _may_grant(by.principal, new.scopes)
        await check_account(self._store, by, new.account, own=True)
        limits = to_limits(new.rpm, new.tpm, new.concurrency, new.budgets)
        for name in (*_RATES, "budgets"):
            del fields[name]
        await self._check(fields)
        try:
            secret, row = await self.tokens.issue(**fields, limits=limits, owner=owner)
        except ConfigurationError as error:
            raise invalid(str(error), "secret" if new.secret else None) from error
        await self._audit.record(by, "token.issue", f"token/{row.id}", after=_audited(row))
        return Issued(secret, await self._to_token_out_after_write(row))

    async def edit(self, id: str, change: TokenEdit, by: Actor = CODE) -> TokenOut:
        """Change a token."""
        fields = set_fields(change, **_EMPTY)
        await self._may_touch(id, by)
        _may_grant(by.principal, fields.get("scopes", ()))
        await check_account(self._store, by, fields.get("account") or "", own=True)
        await self._check(fields)
        limits: dict[str, Any] = {n: fields.pop(n) for n in _RATES if n in fields}
        if "budgets" in fields:
            limits["budgets"] = to_budgets(fields.pop("budgets"))
        before, row = await self.tokens.table.change(id, lambda row: _changed(row, fields, limits))
        await self._audit.record(
            by, "token.edit", f"token/{id}", before=_audited(before), after=_audited(row)
        )
        if row.account != before.account:
            await self._move(before, row)
        return await self._to_token_out_after_write(row)

    async def _move(self, before: Token, after: Token) -> None:
        """Move what a token has spent of its own budgets to its new account.

        Requests in flight are charged to the account under which they began.
        """
        now, move = self._clock(), secrets.token_hex(8)
        old_caller, new_caller = (
            make_principal(before, None, None),
            make_principal(after, None, None),
        )
        for budget in before.limits.budgets:
            source, target = (reserve(c, budget, 0, now) for c in (old_caller, new_caller))
            try:
                (level,) = await self._store.peek([source])
                for grant, amount in ((target, level.used), (source, -level.used)):
                    charge = msgspec.structs.replace(grant, amount=amount)
                    await self._store.charge(charge, once=f"{move}:{amount}")
            except StoreUnavailableError:
                logger.error(
                    "token %s: its spending could not be moved from its old account", after.id
                )

    async def raise_budget(self, id: str, more: BudgetRaise, by: Actor = CODE) -> TokenOut:
        """Raise one of the budgets of a token for some time."""
        await self._may_touch(id, by)
        now = self._clock()

        def change(row: Token) -> Token:
            return _changed(row, {}, {"budgets": more.applied(row.limits.budgets, now)})

        before, row = await self.tokens.table.change(id, change)
        await self._audit.record(
            by, "token.raise", f"token/{id}", before=_audited(before), after=_audited(row)
        )
        return await self._to_token_out_after_write(row)

    async def rotate(self, id: str, rotation: Rotation, by: Actor = CODE) -> Issued:
        """Replace the secret of a token."""
        await self._may_touch(id, by)
        secret, row = await self.tokens.rotate(id, grace=rotation.grace)
        grace = {"grace": rotation.grace}
        await self._audit.record(by, "token.rotate", f"token/{id}", after=grace)
        return Issued(secret, await self._to_token_out_after_write(row))

    async def revoke(self, id: str, by: Actor = CODE) -> Ok:
        """Remove a token: all workers refuse it within a second."""
        await self._may_touch(id, by)
        before = await self.tokens.get(id)
        await self.tokens.revoke(id)
        await self._audit.record(by, "token.revoke", f"token/{id}", before=_audited(before))
        return Ok()

    async def _to_token_out_after_write(self, row: Token) -> TokenOut:
        """Return a token that was just written, even if its usage cannot be read.

        The secret must not be lost because the store fails after the write; then the usage is shown
        as zero.
        """
        try:
            return (await self._to_tokens_out([row]))[0]
        except StoreUnavailableError:
            unread = MemoryStore(clock=self._clock)
            usage = (
                await read_limit_usage(unread, [make_principal(row, None, None)], self._clock())
            )[0]
            return self._to_token_out(row, usage, self._clock())

    async def _to_tokens_out(self, rows: list[Token]) -> list[TokenOut]:
        now = self._clock()
        found = []
        async for some in in_slices(rows, 10):
            callers = [make_principal(row, None, None) for row in some]
            levels = await read_limit_usage(self._store, callers, now)
            pairs = zip(some, levels, strict=True)
            found += [self._to_token_out(row, usage, now) for row, usage in pairs]
        return found

    def _to_token_out(self, row: Token, usage: LimitUsage, now: float) -> TokenOut:
        return TokenOut(
            id=row.id,
            name=row.name,
            status=_status(row, usage, now),
            created=row.created,
            expires=row.expires,
            models=row.models,
            networks=row.networks,
            account=row.account,
            group=row.group,
            may_choose_key=row.may_choose_key,
            scopes=row.scopes,
            tags=row.tags,
            limits=usage,
            owner=row.owner,
        )

    async def _check(self, fields: dict[str, Any]) -> None:
        expires = fields.get("expires")
        if expires is not None and not self._clock() < expires < 32_503_680_000:
            raise invalid("expires: must be a Unix time in seconds, in the future.", "expires")
        try:
            check_networks(fields.get("networks", ()))
        except ConfigurationError as error:
            raise invalid(f"networks: {error}", "networks") from error
        try:
            check_tags(fields.get("tags", {}))
        except ConfigurationError as error:
            raise invalid(f"tags: {error}", "tags") from error
        group, account = fields.get("group"), fields.get("account")
        if group and await self.tokens.groups.find(group) is None:
            raise invalid(f"group: the group {group!r} does not exist.", "group")
        if account and await self.tokens.accounts.find(account) is None:
            raise invalid(f"account: the account {account!r} does not exist.", "account")

    async def _may_touch(self, id: str, by: Actor) -> None:
        if "root" not in by.principal.scopes:
            row = await self.tokens.get(id)
            _may_grant(by.principal, row.scopes)
            await check_account(self._store, by, row.account, own=True)


def _may_grant(caller: Principal, scopes: tuple[Scope, ...]) -> None:
    if scopes and "root" not in caller.scopes:
        message = (
            "scopes: only a token with the scope 'root' may grant scopes, or change "
            "tokens that have any."
        )
        raise APIError(ErrorKind.FORBIDDEN, message, param="scopes")


def _audited(row: Token) -> dict[str, Any]:
    """The members of a token for the audit log, without those that its secrets are checked by."""
    hidden = ("digest", "retired_secrets", "pending_vouchers")
    return {name: value for name, value in _plain(row).items() if name not in hidden}


def _plain(row: Token) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(row)
    return plain


def _changed(row: Token, fields: dict[str, Any], limits: dict[str, Any]) -> Token:
    changed = msgspec.structs.replace(row.limits, **limits)
    return msgspec.structs.replace(row, **fields, limits=changed)


def _status(row: Token, usage: LimitUsage, now: float) -> Status:
    if not row.enabled:
        return "disabled"
    if row.expires is not None and row.expires <= now:
        return "expired"
    return "exhausted" if usage.exhausted else "active"
