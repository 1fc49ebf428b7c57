"""Groups, which set prices and providers, and accounts, whose budgets several tokens share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy.accounts import Account, Group, RowExistsError, Tokens
from asgi_aiproxy.principal import Limits, Principal
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, Actor, Ok, Page, PageQuery, paginate
from asgi_aiproxy.services.budgets import BudgetIn, LimitUsage, read_limit_usage, to_budgets
from asgi_aiproxy.services.raises import BudgetRaise
from asgi_aiproxy.services.roles import check_account, check_new_account
from asgi_aiproxy.services.validation import conflict_error, set_fields
from asgi_aiproxy.stores.base import Store

Id = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\s/]+$")]
Ratio = Annotated[float, Meta(ge=0, le=1_000_000)]
Patterns = tuple[Annotated[str, Meta(min_length=1)], ...]


class GroupNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group to create: the price ratio of its members, and patterns of the providers and keys
    that may serve them (empty: all).
    """

    name: Id
    ratio: Ratio = 1.0
    providers: Patterns = ()
    keys: Patterns = ()


class GroupEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change of a group; omitted fields stay unchanged."""

    ratio: Ratio | UnsetType = UNSET
    providers: Patterns | UnsetType | None = UNSET
    keys: Patterns | UnsetType | None = UNSET


class GroupOut(msgspec.Struct, frozen=True):
    """A group."""

    name: str
    ratio: float
    providers: tuple[str, ...]
    keys: tuple[str, ...]


class AccountNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account to create; its budgets are shared by all its tokens."""

    id: Id
    name: str = ""
    enabled: bool = True
    budgets: tuple[BudgetIn | str, ...] = ()


class AccountEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change of an account; omitted fields stay unchanged."""

    name: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    budgets: tuple[BudgetIn | str, ...] | UnsetType | None = UNSET


class AccountOut(msgspec.Struct, frozen=True):
    """An account, and the usage of its budgets."""

    id: str
    name: str
    enabled: bool
    limits: LimitUsage


class GroupService:
    """Manages the groups of a store. Raises the same errors as `TokenService`.

    Changes are recorded in `audit`, by default the audit log of the store.
    """

    def __init__(self, store: Store, *, audit: AuditLog | None = None) -> None:
        self._groups = Tokens(store).groups
        self._audit = audit if audit is not None else AuditLog(store)

    async def page(self, query: PageQuery) -> Page[GroupOut]:
        """Return groups in the order of their names."""
        rows = await self._groups.page(query.after, query.limit + 1)
        return paginate([_group(row) for row in rows.values()], query.limit, lambda row: row.name)

    async def get(self, name: str) -> GroupOut:
        """Return one group."""
        return _group(await self._groups.get(name))

    async def create(self, new: GroupNew, by: Actor = CODE) -> GroupOut:
        """Create a group."""
        row = Group(**msgspec.structs.asdict(new))
        try:
            await self._groups.create(new.name, row)
        except RowExistsError as error:
            raise conflict_error(f"name: the group {new.name!r} already exists.", "name") from error
        await self._audit.record(by, "group.create", f"group/{row.name}", after=_audited(row))
        return _group(row)

    async def edit(self, name: str, change: GroupEdit, by: Actor = CODE) -> GroupOut:
        """Change a group."""
        fields = set_fields(change, providers=(), keys=())
        before, row = await self._groups.change(
            name, lambda row: msgspec.structs.replace(row, **fields)
        )
        await self._audit.record(
            by, "group.edit", f"group/{name}", before=_audited(before), after=_audited(row)
        )
        return _group(row)

    async def drop(self, name: str, by: Actor = CODE) -> Ok:
        """Remove a group; its tokens are refused until they are given another one."""
        before = await self._groups.get(name)
        await self._groups.drop(name)
        await self._audit.record(by, "group.remove", f"group/{name}", before=_audited(before))
        return Ok()


class AccountService:
    """Manages the accounts of a store. Raises the same errors as `TokenService`.

    Changes are recorded in `audit`, by default the audit log of the store.
    """

    def __init__(
        self,
        store: Store,
        *,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._audit = audit if audit is not None else AuditLog(store, clock=clock)
        self._accounts = Tokens(store).accounts
        self._clock = clock

    async def page(self, query: PageQuery) -> Page[AccountOut]:
        """Return accounts in the order of their ids."""
        rows = await self._accounts.page(query.after, query.limit + 1)
        page = paginate(list(rows.values()), query.limit, lambda row: row.id)
        return Page(await self._to_accounts_out(page.data), page.next)

    async def get(self, id: str) -> AccountOut:
        """Return one account."""
        return (await self._to_accounts_out([await self._accounts.get(id)]))[0]

    async def create(self, new: AccountNew, by: Actor = CODE) -> AccountOut:
        """Create an account."""
        check_new_account(by, new.id)
        row = Account(
            id=new.id,
            name=new.name,
            enabled=new.enabled,
            budgets=to_budgets(new.budgets, shared=True),
        )
        try:
            await self._accounts.create(new.id, row)
        except RowExistsError as error:
            raise conflict_error(f"id: the account {new.id!r} already exists.") from error
        await self._audit.record(by, "account.create", f"account/{row.id}", after=_audited(row))
        return (await self._to_accounts_out([row]))[0]

    async def edit(self, id: str, change: AccountEdit, by: Actor = CODE) -> AccountOut:
        """Change an account, if it is not that of a user whose role is not below the caller's."""
        await check_account(self._store, by, id)
        fields = set_fields(change, name="", budgets=())
        if "budgets" in fields:
            fields["budgets"] = to_budgets(fields["budgets"], shared=True)
        before, row = await self._accounts.change(
            id, lambda row: msgspec.structs.replace(row, **fields)
        )
        await self._audit.record(
            by, "account.edit", f"account/{id}", before=_audited(before), after=_audited(row)
        )
        return (await self._to_accounts_out([row]))[0]

    async def raise_budget(self, id: str, more: BudgetRaise, by: Actor = CODE) -> AccountOut:
        """Raise one of the budgets of an account for some time; `edit` says of which."""
        await check_account(self._store, by, id)
        now = self._clock()
        before, row = await self._accounts.change(
            id, lambda row: msgspec.structs.replace(row, budgets=more.applied(row.budgets, now))
        )
        await self._audit.record(
            by, "account.raise", f"account/{id}", before=_audited(before), after=_audited(row)
        )
        return (await self._to_accounts_out([row]))[0]

    async def drop(self, id: str, by: Actor = CODE) -> Ok:
        """Remove an account, of those that `edit` changes; its tokens are refused."""
        await check_account(self._store, by, id)
        before = await self._accounts.get(id)
        await self._accounts.drop(id)
        await self._audit.record(by, "account.remove", f"account/{id}", before=_audited(before))
        return Ok()

    async def _to_accounts_out(self, rows: list[Account]) -> list[AccountOut]:
        callers = [
            Principal(row.id, account=row.id, limits=Limits(budgets=row.budgets)) for row in rows
        ]
        levels = await read_limit_usage(self._store, callers, self._clock())
        return [
            AccountOut(row.id, row.name, row.enabled, standing)
            for row, standing in zip(rows, levels, strict=True)
        ]


def _audited(row: Group | Account) -> dict[str, Any]:
    """The members of a group or an account for the audit log."""
    plain: dict[str, Any] = msgspec.to_builtins(row)
    plain.pop("pending_vouchers", None)
    return plain


def _group(row: Group) -> GroupOut:
    return GroupOut(row.name, row.ratio, row.providers, row.keys)
