"""Users: people who sign in with a name and a password, kept in a store.

Theory of operation. A user has a number; the user N spends the budgets of the account `user-N`, so
that all tokens that it makes share what it has. A user that is disabled has a disabled account, so
its tokens are refused, too.

Names, verified e-mail addresses, linked identities, access tokens and invitation codes are unique.
They are rows of the same table as the users, which point to a number, and are written in one step
together with the user: two users never have the same name, also if a process ends in between. An
address that is not verified yet is not unique: anyone may claim it, its owner proves it.

A session holds the `session_proof` of its user: a new password, role or second factor, and linking
or unlinking an identity, end all sessions from before.

A one-time link (to set a password, to verify an address) is a row member with the digest of its
secret. Using it removes it in the same compare-and-set step that makes its change, so it is used
once; a new link of the same kind replaces it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import unicodedata
from collections.abc import AsyncIterator, Callable
from typing import Literal

import msgspec

from asgi_aiproxy.accounts.groups import Account
from asgi_aiproxy.accounts.passkey import Passkey
from asgi_aiproxy.accounts.table import NoSuchRowError, RowExistsError
from asgi_aiproxy.accounts.tokens import Tokens
from asgi_aiproxy.accounts.totp import SecondFactor
from asgi_aiproxy.errors import AIProxyError
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.stores.base import Store, check_store

USERS = "users"
USER, OPERATOR, ROOT_USER = 1, 10, 100  # the numbers of One API
ROLE_NAMES = {USER: "user", OPERATOR: "operator", ROOT_USER: "root"}
_SCOPES = {USER: (), OPERATOR: ("write",), ROOT_USER: ("root",)}
_FIRST = 1  # the number that One API gives to its user `root`; others follow
_ATTEMPTS, _PAGE_ROWS = 50, 500
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"

LinkKind = Literal["password", "email"]


class NameTakenError(AIProxyError):
    """Another user has this name."""


class EmailTakenError(AIProxyError):
    """Another user has verified this e-mail address."""


class IdentityTakenError(AIProxyError):
    """Another user has linked this identity."""


class InvalidLinkError(AIProxyError):
    """A one-time link does not exist, was used, or has expired."""


class OneTimeLink(msgspec.Struct, frozen=True):
    """A link that was sent to a user: the SHA-256 of its secret, the Unix time until which it is
    valid, and the address that it was sent to.
    """

    digest: str
    until: float
    email: str = ""


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user.

    - `id`, `username`: its number, and the name that it signs in with.
    - `password`: a hash; empty: it cannot sign in with a password.
    - `role`: 1 (user), 10 (operator) or 100 (root).
    - `email_verified`: whether it has proved that it receives mail at `email`.
    - `group`: the group that sets its prices and providers.
    - `access_token`: the digest of its access token for One API's management calls.
    - `invite_code`: by which new users name it; `inviter_id` is the user that it has named.
    - `identities`: the accounts at identity providers with which it signs in (`issuer subject`).
    - `totp`: its second factor, which it needs to sign in with a password or at a provider.
    - `passkeys`: the passkeys with which it signs in.
    - `created`, `signed_in`: Unix times; `links`: its one-time links.
    """

    id: int
    username: str
    password: str = ""
    display_name: str = ""
    role: int = USER
    enabled: bool = True
    email: str = ""
    email_verified: bool = False
    group: str = ""
    access_token: str = ""
    invite_code: str = ""
    inviter_id: int = 0
    identities: tuple[str, ...] = ()
    totp: SecondFactor | None = None
    passkeys: tuple[Passkey, ...] = ()
    created: float = 0.0
    signed_in: float = 0.0
    links: dict[LinkKind, OneTimeLink] = {}

    @property
    def account(self) -> str:
        """The id of the account with its budgets, and of its principal."""
        return f"user-{self.id}"

    @property
    def role_name(self) -> str:
        """The name of the role."""
        return ROLE_NAMES[_known_role(self.role)]

    @property
    def second_factor(self) -> bool:
        """Whether it has a second factor."""
        return self.totp is not None

    @property
    def session_proof(self) -> str:
        """A digest that changes with what a user signs in with, and with its role."""
        second = self.totp.secret if self.totp is not None else ""
        linked = (*sorted(self.identities), *sorted(each.id for each in self.passkeys))
        facts = (self.id, self.password, self.role, second, *linked)
        return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()


class Users:
    """The users in a store. Methods may raise StoreUnavailableError."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        check_store(store, "Users")
        self.store = store
        self.clock = clock
        self._tokens = Tokens(store, clock=clock)

    async def find(self, id: int) -> User | None:
        """Return the user with this number, or None."""
        found = await self.store.get(USERS, _row(id))
        return None if found is None else _decode(found)

    async def get(self, id: int) -> User:
        """Return the user with this number. Raises NoSuchRowError."""
        found = await self.find(id)
        if found is None:
            raise _missing(id)
        return found

    async def by_name(self, name: str) -> User | None:
        """Return the user with this name, or None."""
        return await self._by(_name(name))

    async def by_email(self, email: str) -> User | None:
        """Return the user that has verified this address, or None."""
        return await self._by(_email(email)) if email else None

    async def by_identity(self, identity: str) -> User | None:
        """Return the user that has linked this identity, or None."""
        return await self._by(f"identity/{identity}") if identity else None

    async def by_access_token(self, digest: str) -> User | None:
        """Return the user whose access token has this digest, or None."""
        return await self._by(f"access/{digest}") if digest else None

    async def by_invite_code(self, code: str) -> User | None:
        """Return the user with this invitation code, or None."""
        return await self._by(f"invite/{code}") if code else None

    async def page(self, after: int = 0, limit: int = 100) -> list[User]:
        """Return at most `limit` users whose numbers follow `after`."""
        found = await self.store.page(USERS, _row(after), limit)
        return [_decode(value) for key, value in found.items() if key.startswith("id/")]

    async def all(self) -> AsyncIterator[User]:
        """Yield all users in the order of their numbers."""
        after = 0
        while page := await self.page(after, _PAGE_ROWS):
            for user in page:
                yield user
            after = page[-1].id

    async def create(self, user: User, budgets: tuple[Budget, ...] = ()) -> User:
        """Store a user, with a number if it has none, and its account with shared `budgets`.

        Raises NameTakenError, EmailTakenError or IdentityTakenError.
        """
        created = user.created or self.clock()
        id = user.id or await self._new_id()
        if user.id:
            await self._reserve(user.id)
        user = msgspec.structs.replace(user, id=id, created=created)
        await self._check_free(None, user)
        account = Account(id=user.account, name=user.username, budgets=budgets)
        try:
            await self._tokens.accounts.create(user.account, account)
        except RowExistsError:
            pass  # a creation that was interrupted
        if not await self._write(None, None, user):
            await self._check_free(None, user)
            raise NameTakenError(user.username)
        return user

    async def edit(self, id: int, change: Callable[[User], User]) -> tuple[User, User]:
        """Replace a user by `change(user)`; returns it before and after.

        Raises NoSuchRowError, NameTakenError, EmailTakenError, IdentityTakenError, and what
        `change` raises.
        """
        for _ in range(_ATTEMPTS):
            stored = await self.store.get(USERS, _row(id))
            if stored is None:
                raise _missing(id)
            before = _decode(stored)
            after = change(before)
            if after == before:
                return before, after
            if await self._write(stored, before, after):
                if after.enabled != before.enabled:
                    await self._enable_account(after)
                return before, after
            await self._check_free(before, after)
        raise AIProxyError(f"The user {id} is changed by other processes. Try again.")

    async def _enable_account(self, user: User) -> None:
        await self._tokens.accounts.edit(
            user.account, lambda row: msgspec.structs.replace(row, enabled=user.enabled)
        )

    async def delete(self, id: int) -> User:
        """Remove a user, its tokens and its account. Raises NoSuchRowError."""
        for _ in range(_ATTEMPTS):
            stored = await self.store.get(USERS, _row(id))
            if stored is None:
                raise _missing(id)
            user = _decode(stored)
            if await self._write(stored, user, None):
                break
        else:
            raise AIProxyError(f"The user {id} is changed by other processes. Try again.")
        owner = f"user/{user.account}"
        owned = await self._tokens.owners.find(owner)
        for token in owned.tokens if owned is not None else ():
            await self.store.drop(self._tokens.table.name, token)
        await self.store.drop(self._tokens.owners.name, owner)
        await self.store.drop(self._tokens.accounts.name, user.account)
        return user

    async def principal(self, user: User) -> Principal:
        """Return the user as a caller, with the settings of its group and its account."""
        account = await self._tokens.accounts.find(user.account)
        group = await self._tokens.groups.find(user.group) if user.group else None
        return Principal(
            user.account,
            user.display_name or user.username,
            limits=Limits(budgets=account.budgets if account is not None else ()),
            account=user.account if account is not None else "",
            group=group.name if group is not None else "",
            price_ratio=group.ratio if group is not None else 1.0,
            providers=group.providers if group is not None else (),
            keys=group.keys if group is not None else (),
            scopes=_SCOPES[_known_role(user.role)],
        )

    # one-time links

    async def make_link(self, id: int, kind: LinkKind, seconds: float, email: str = "") -> str:
        """Return the secret of a new one-time link, valid for `seconds`. Raises NoSuchRowError."""
        secret = secrets.token_urlsafe(32)
        link = OneTimeLink(_digest(secret), self.clock() + seconds, email)
        await self.edit(id, lambda u: msgspec.structs.replace(u, links={**u.links, kind: link}))
        return f"{id}.{secret}"

    async def link_user(self, text: str, kind: LinkKind) -> User:
        """Return the user of a link that is valid. Raises InvalidLinkError."""
        id, _, secret = text.partition(".")
        user = (
            await self.find(int(id)) if id.isascii() and id.isdecimal() and len(id) < 10 else None
        )
        if user is None:
            raise InvalidLinkError("unknown")
        self._check_link(user, kind, secret)
        return user

    async def use_link(self, text: str, kind: LinkKind, change: Callable[[User], User]) -> User:
        """Change a user by its link, which is used up then; returns the user.

        Raises InvalidLinkError, and what `edit` raises.
        """
        user = await self.link_user(text, kind)

        def used(row: User) -> User:
            self._check_link(row, kind, text.partition(".")[2])
            rest = {known: link for known, link in row.links.items() if known != kind}
            return msgspec.structs.replace(change(row), links=rest)

        return (await self.edit(user.id, used))[1]

    def _check_link(self, user: User, kind: LinkKind, secret: str) -> None:
        link = user.links.get(kind)
        expected = link.digest if link is not None else ""
        if not secrets.compare_digest(expected, _digest(secret)):
            raise InvalidLinkError("unknown")
        if link is None or link.until <= self.clock() or not user.enabled:
            raise InvalidLinkError("expired")
        if link.email and link.email != user.email:
            raise InvalidLinkError("the address was changed")

    # rows

    async def _new_id(self) -> int:
        ids = await self.store.add("users.ids", {"users": 1})
        return ids["users"] + _FIRST

    async def _reserve(self, highest: int) -> None:
        """Have `_new_id` return numbers above `highest`."""
        known = (await self.store.sums("users.ids", ["users"])).get("users", 0) + _FIRST
        if known < highest:
            await self.store.add("users.ids", {"users": highest - known})

    async def _by(self, key: str) -> User | None:
        found = await self.store.get(USERS, key)
        user = None if found is None else await self.find(int(found))
        return user if user is not None and key in _keys(user) else None

    async def _write(self, stored: bytes | None, before: User | None, after: User | None) -> bool:
        """Write a user together with what is unique about it; False if a row has changed."""
        user = after if after is not None else before
        if user is None:
            return True
        old = _keys(before) if before is not None else set()
        new = _keys(after) if after is not None else set()
        row, number = _row(user.id), str(user.id).encode()
        rows: dict[str, bytes | None] = dict.fromkeys(old - new)
        rows |= dict.fromkeys(new - old, number)
        rows[row] = _encode(after) if after is not None else None
        expected: dict[str, bytes | None] = {row: stored, **dict.fromkeys(new - old)}
        return not await self.store.put_many(USERS, rows, expected=expected)

    async def _check_free(self, before: User | None, after: User) -> None:
        """Raise the error for what is unique and another user has."""
        for key in sorted(_keys(after) - (_keys(before) if before is not None else set())):
            if await self.store.get(USERS, key) is not None:
                raise _TAKEN.get(key.partition("/")[0], NameTakenError)(key)


def new_invite_code(length: int = 8) -> str:
    """Return a code by which new users name the user that has invited them."""
    return "".join(secrets.choice(_CODE_LETTERS) for _ in range(length))


def _known_role(role: int) -> int:
    return max((known for known in ROLE_NAMES if known <= role), default=USER)


_TAKEN: dict[str, type[AIProxyError]] = {"email": EmailTakenError, "identity": IdentityTakenError}


def _keys(user: User) -> set[str]:
    """Return the rows that point to a user."""
    found = {_name(user.username)}
    found.update(f"identity/{identity}" for identity in user.identities)
    if user.email and user.email_verified:
        found.add(_email(user.email))
    if user.access_token:
        found.add(f"access/{user.access_token}")
    if user.invite_code:
        found.add(f"invite/{user.invite_code}")
    return found


def _row(id: int) -> str:
    return f"id/{id:010d}"


def folded(name: str) -> str:
    """Return a user name as it is compared: without differences of case and of width."""
    return unicodedata.normalize("NFKC", name).casefold()


def _name(name: str) -> str:
    return f"name/{folded(name)}"


def _email(email: str) -> str:
    return "email/" + email.casefold()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _missing(id: int) -> NoSuchRowError:
    return NoSuchRowError(f"There is no user {id}.")


_decode = msgspec.json.Decoder(User).decode
_encode = msgspec.json.Encoder().encode
