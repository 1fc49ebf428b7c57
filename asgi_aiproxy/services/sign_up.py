"""Sign up: the rules for new users, with a password or an identity of an identity provider."""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Callable
from typing import Literal

import msgspec

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy.accounts import Account, Tokens
from asgi_aiproxy.accounts.users import User, new_invite_code
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.ip_ranges import address_or_network
from asgi_aiproxy.principal import Budget
from asgi_aiproxy.services.attempts import HOUR, TOO_MANY, attempt_limit, take_attempt
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.invitations import Invitations
from asgi_aiproxy.services.users import UserService, checked_email, checked_name

SignUpMode = Literal["closed", "invitation", "domains", "open"]
SIGN_UPS = 20  # per address of a client, in an hour


class SignUpRules(msgspec.Struct, frozen=True, kw_only=True):
    """How users sign up.

    - `mode`: `closed`; `invitation` (with a code of an operator); `domains` (with an address at one
      of `domains`); or `open`.
    - `verify`: whether a user must verify its address before it signs in; requires a mailer.
    - `invited_credit`, `inviter_credit`: added to the budgets of a user that another user has
      invited, and of the other user.
    """

    mode: SignUpMode = "closed"
    domains: tuple[str, ...] = ()
    verify: bool = False
    invited_credit: Budget | None = None
    inviter_credit: Budget | None = None


class SignUpForm(ConcealedStruct, frozen=True, kw_only=True):
    """What a new user enters. `code` is an invitation, or the code of the user that invites it."""

    username: str
    password: str
    email: str = ""
    code: str = ""


class ExternalIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """An account at an identity provider, as the provider has confirmed it.

    - `issuer`, `subject`: identify it for good; a name or an address may change its owner.
    - `email_verified`: whether the provider has verified `email`.
    - `username`, `name`: what it calls its user.
    """

    issuer: str
    subject: str
    email: str = ""
    email_verified: bool = False
    username: str = ""
    name: str = ""

    @property
    def id(self) -> str:
        """The text by which a user has linked it."""
        return f"{self.issuer} {self.subject}"

    @property
    def verified_email(self) -> str:
        """The address if the provider has verified it; else empty."""
        return self.email if self.email_verified else ""


class SignUp:
    """Creates users by `rules`. Methods raise APIError and StoreUnavailableError."""

    def __init__(
        self,
        service: UserService,
        rules: SignUpRules,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules
        self._service = service
        self._users = service.users
        self._store = service.users.store
        self._tokens = Tokens(self._store, clock=clock)
        self._invitations = Invitations(self._store, audit=service.audit, clock=clock)

    async def with_password(self, form: SignUpForm, by: Actor) -> User:
        """Create a user with a password; its address is not verified yet."""
        self._check_open()
        username = checked_name(form.username)
        email = checked_email(form.email.strip()) if form.email.strip() else ""
        if self.rules.verify and not email:
            raise invalid("email: enter an e-mail address.", "email")
        self._check_domain(email)
        await self._count(by)
        password = await self._service.new_password(form.password, username)
        row = User(id=0, username=username, password=password, email=email)
        return await self._create(row, form.code, by)

    async def with_identity(self, identity: ExternalIdentity, code: str, by: Actor) -> User:
        """Create a user that signs in with an identity, and give the rewards of its invitation."""
        self._check_open()
        email = identity.verified_email
        if self.rules.verify and not email:
            message = (
                "This account has no verified e-mail address. Verify it there, then sign in again."
            )
            raise APIError(ErrorKind.FORBIDDEN, message, code="identity_unverified")
        self._check_domain(email)
        await self._count(by)
        row = User(
            id=0,
            username=await self._free_name(identity),
            display_name=_printable(identity.name)[:100],
            email=checked_email(email) if email else "",
            email_verified=bool(email),
            identities=(identity.id,),
        )
        return await self.welcome(await self._create(row, code, by))

    async def welcome(self, user: User) -> User:
        """Give the rewards of an invitation."""
        if user.inviter_id:
            inviter = await self._users.find(user.inviter_id)
            rewards = [(user, self.rules.invited_credit), (inviter, self.rules.inviter_credit)]
            for each, credit in rewards:
                if each is not None and credit is not None:
                    await self._add_credit(each, credit)
        return user

    def _check_open(self) -> None:
        if self.rules.mode == "closed":
            message = "Users are created by the operator of this gateway."
            raise APIError(ErrorKind.FORBIDDEN, message, code="sign_up")

    def _check_domain(self, email: str) -> None:
        if self.rules.mode == "domains" and not is_at(email, self.rules.domains):
            known = ", ".join(self.rules.domains)
            raise invalid(f"email: the address must be at one of: {known}.", "email")

    async def _count(self, by: Actor) -> None:
        """Raise APIError (429) if too many users have signed up from one address."""
        limit = attempt_limit("sign-up", address_or_network(by.address), SIGN_UPS, HOUR)
        await take_attempt(self._store, [limit], TOO_MANY)

    async def _create(self, row: User, code: str, by: Actor) -> User:
        """Store a new user, with its invitation used. Raises APIError if it has none and must."""
        code = code.strip()
        inviter = await self._users.by_invite_code(code)
        invitation = await self._invitations.take(code) if inviter is None and code else None
        if self.rules.mode == "invitation" and invitation is None:
            raise invalid("code: this invitation is not valid.", "code")
        row = msgspec.structs.replace(
            row,
            invite_code=new_invite_code(),
            inviter_id=inviter.id if inviter is not None else 0,
        )
        try:
            return await self._service.add(row, self._service.credit, by)
        except BaseException:
            if invitation is not None:
                await self._invitations.give_back(invitation)
            raise

    async def _free_name(self, identity: ExternalIdentity) -> str:
        """Return a user name that no other user has, like the one at the provider."""
        wanted = identity.username or identity.email.partition("@")[0] or identity.name
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", _ascii(wanted)).strip("._-")[:40]
        base = base if len(base) > 1 else "user"
        name = base
        while await self._users.by_name(name) is not None:
            name = f"{base}-{secrets.token_hex(3)}"
        return name

    async def _add_credit(self, user: User, credit: Budget) -> None:
        def add(row: Account) -> Account:
            budgets = {(each.unit, each.per): each for each in row.budgets}
            known = budgets.get((credit.unit, credit.per))
            more = credit.limit + (known.limit if known is not None else 0)
            sum_ = msgspec.structs.replace(known or credit, limit=more, shared=True)
            budgets[credit.unit, credit.per] = sum_
            return msgspec.structs.replace(row, budgets=tuple(budgets.values()))

        await self._tokens.accounts.edit(user.account, add)


def is_at(email: str, domains: tuple[str, ...]) -> bool:
    """Whether an address is at one of the domains (not below one)."""
    domain = email.rpartition("@")[2].casefold()
    return bool(domain) and domain in {each.casefold() for each in domains}


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable())
