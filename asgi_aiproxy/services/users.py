"""Manage users: list, create, change, remove them, and make links to set a password.

Callers change only users whose role is below their own (see `asgi_aiproxy.services.roles`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.accounts.users import (
    EmailTakenError,
    IdentityTakenError,
    NameTakenError,
    User,
    Users,
    new_invite_code,
)
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.principal import Budget, Principal
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, MAX_PAGE_ROWS, Actor, Ok, Page
from asgi_aiproxy.services.budgets import BudgetIn, to_budgets
from asgi_aiproxy.services.roles import ROLE_NUMBERS, check_role
from asgi_aiproxy.services.validation import conflict_error, set_fields
from asgi_aiproxy.stores.base import Store

Role = Literal["user", "operator", "root"]
DisplayName = Annotated[str, Meta(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]

LINK_SECONDS = 24 * 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,49}")
_EMAIL = re.compile(  # the addresses of HTML's <input type=email>, with a dot in the domain
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{2,63}"
)
_MIN_PASSWORD, _MAX_PASSWORD, _MAX_EMAIL = 10, 200, 254


class UserNew(ConcealedStruct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user to create. Without `password` it sets one with the link of the response. `budgets` are
    those of its account; by default those of new users.
    """

    username: str
    role: Role = "user"
    password: str = ""
    display_name: DisplayName = ""
    email: str = ""
    group: Annotated[str, Meta(max_length=100)] = ""
    budgets: tuple[BudgetIn | str, ...] | None = None


class UserEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change of a user; omitted fields stay unchanged."""

    display_name: DisplayName | UnsetType = UNSET
    email: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    group: Annotated[str, Meta(max_length=100)] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class UserOut(msgspec.Struct, frozen=True, kw_only=True):
    """A user. `account` is the id of its account, `identities` are those at identity providers
    (`issuer subject`), `second_factor` is whether it has one, `passkeys` is how many it has; times
    are Unix times, 0 for never.
    """

    id: int
    username: str
    display_name: str
    role: Role
    enabled: bool
    email: str
    email_verified: bool
    group: str
    account: str
    inviter_id: int
    identities: tuple[str, ...]
    second_factor: bool
    passkeys: int
    created: float
    signed_in: float


class UserCreated(ConcealedStruct, frozen=True):
    """A new user, and the secret of its link to set a password; empty if it has one."""

    user: UserOut
    link: str = ""


class PasswordLink(ConcealedStruct, frozen=True):
    """The secret of a link to set a password, valid once, until a Unix time."""

    link: str
    until: float


class UserQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One page of users: at most `limit`, whose numbers follow `after`."""

    after: Annotated[int, Meta(ge=0, le=10**9)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE_ROWS)] = 100


class UserService:
    """Manages the users of a store. Raises the same errors as `TokenService`.

    Arguments:

    - `credit`: the budgets of new users; by default nothing: 0 US dollars.
    - `passwords`: makes hashes.
    - `audit`: where changes are recorded, by default the audit log of the store.
    - `clock`: returns Unix time in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        credit: tuple[Budget, ...] = (Budget.usd(0, shared=True),),
        passwords: Passwords | None = None,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.users = Users(store, clock=clock)
        self.credit = credit
        self.passwords = passwords if passwords is not None else Passwords()
        self.audit = audit if audit is not None else AuditLog(store, clock=clock)
        self._clock = clock

    async def page(self, query: UserQuery) -> Page[UserOut]:
        """Return users in the order of their numbers."""
        rows = await self.users.page(query.after, query.limit + 1)
        more = str(rows[query.limit - 1].id) if len(rows) > query.limit else None
        return Page([user_out(row) for row in rows[: query.limit]], more)

    async def get(self, id: int) -> UserOut:
        """Return one user."""
        return user_out(await self.users.get(id))

    async def create(self, new: UserNew, by: Actor = CODE) -> UserCreated:
        """Create a user with a role below that of the caller."""
        check_role(by, ROLE_NUMBERS[new.role])
        email = checked_email(new.email) if new.email else ""
        budgets = self.credit if new.budgets is None else to_budgets(new.budgets, shared=True)
        password = await self.new_password(new.password, new.username) if new.password else ""
        row = User(
            id=0,
            username=checked_name(new.username),
            password=password,
            display_name=new.display_name,
            role=ROLE_NUMBERS[new.role],
            email=email,
            email_verified=bool(email),
            group=new.group,
            invite_code=new_invite_code(),
        )
        row = await self.add(row, budgets, by)
        link = "" if password else await self.users.make_link(row.id, "password", LINK_SECONDS)
        return UserCreated(user_out(row), link)

    async def add(self, row: User, budgets: tuple[Budget, ...], by: Actor) -> User:
        """Store a new user. Raises APIError (409) if its name or address is taken."""
        try:
            row = await self.users.create(row, budgets)
        except NameTakenError as error:
            message = f"username: the user {row.username!r} already exists."
            raise conflict_error(message, "username") from error
        except EmailTakenError as error:
            raise _email_taken() from error
        except IdentityTakenError as error:  # the same sign-in, twice at the same time
            raise conflict_error("Another user has linked this account.", "identity") from error
        await self.audit.record(by, "user.create", f"user/{row.id}", after=_audited(row))
        return row

    async def edit(self, id: int, change: UserEdit, by: Actor = CODE) -> UserOut:
        """Change a user whose role is below that of the caller."""
        fields = set_fields(change)
        if "role" in fields:
            fields["role"] = ROLE_NUMBERS[fields["role"]]
            check_role(by, fields["role"])
        if "email" in fields:
            fields["email"] = checked_email(fields["email"]) if fields["email"] else ""
            fields["email_verified"] = bool(fields["email"])

        def changed(row: User) -> User:
            check_role(by, row.role)
            return msgspec.structs.replace(row, **fields)

        return await self._change(id, "user.edit", changed, by)

    async def make_password_link(self, id: int, by: Actor = CODE) -> PasswordLink:
        """Return a link to set a password, for a user with a role below that of the caller."""
        check_role(by, (await self.users.get(id)).role)
        link = await self.users.make_link(id, "password", LINK_SECONDS)
        await self.audit.record(by, "user.link", f"user/{id}")
        return PasswordLink(link, self._clock() + LINK_SECONDS)

    async def reset_second_factor(self, id: int, by: Actor = CODE) -> UserOut:
        """Remove the second factor of a user with a role below that of the caller."""

        def changed(row: User) -> User:
            check_role(by, row.role)
            return msgspec.structs.replace(row, totp=None)

        return await self._change(id, "user.second_factor.reset", changed, by)

    async def remove_passkeys(self, id: int, by: Actor = CODE) -> UserOut:
        """Remove all passkeys of a user with a role below that of the caller."""

        def changed(row: User) -> User:
            check_role(by, row.role)
            return msgspec.structs.replace(row, passkeys=())

        return await self._change(id, "user.passkeys.remove", changed, by)

    async def drop(self, id: int, by: Actor = CODE) -> Ok:
        """Remove a user whose role is below that of the caller, its tokens and its account."""
        check_role(by, (await self.users.get(id)).role)
        row = await self.users.delete(id)
        await self.audit.record(by, "user.remove", f"user/{id}", before=_audited(row))
        return Ok()

    async def new_password(self, password: str, username: str) -> str:
        """Return the hash of a new password. Raises APIError if it is too weak."""
        if not _MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
            message = f"password: must have {_MIN_PASSWORD} to {_MAX_PASSWORD} characters."
            raise invalid(message, "password")
        if password.casefold() == username.casefold() or len(set(password)) < 4:
            raise invalid("password: this password is too easy to guess.", "password")
        return await self.passwords.hash(password)

    async def record(self, by: Actor, row: User, action: str) -> None:
        """Record in the audit log what a user has done for itself."""
        by = msgspec.structs.replace(by, principal=Principal(row.account, row.username))
        await self.audit.record(by, action, f"user/{row.id}")

    async def _change(
        self, id: int, action: str, change: Callable[[User], User], by: Actor
    ) -> UserOut:
        try:
            before, row = await self.users.edit(id, change)
        except EmailTakenError as error:
            raise _email_taken() from error
        await self.audit.record(
            by, action, f"user/{id}", before=_audited(before), after=_audited(row)
        )
        return user_out(row)


def checked_name(name: str) -> str:
    """Return a user name. Raises APIError if it is invalid."""
    if not _NAME.fullmatch(name):
        raise invalid(
            "username: must have 2 to 50 characters: letters, digits, '.', '_' and '-'; the first "
            "one a letter or a digit.",
            "username",
        )
    return name


def checked_email(email: str) -> str:
    """Return an e-mail address. Raises APIError if it is invalid."""
    if len(email) > _MAX_EMAIL or not _EMAIL.fullmatch(email):
        raise invalid("email: must be an e-mail address, such as name@example.com.", "email")
    return email


def user_out(row: User) -> UserOut:
    """Return the members of a user that are not secret."""
    names = UserOut.__struct_fields__
    fields: dict[str, Any] = {name: getattr(row, name) for name in names}
    return UserOut(**{**fields, "role": row.role_name, "passkeys": len(row.passkeys)})


def _email_taken() -> APIError:
    return conflict_error("email: another user has this address.", "email")


def _audited(row: User) -> dict[str, Any]:
    """The members of a user for the audit log: without hashes, digests and times of sign-ins."""
    plain: dict[str, Any] = msgspec.to_builtins(user_out(row))
    plain.pop("signed_in")
    return plain
