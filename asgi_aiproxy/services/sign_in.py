"""Sign in with a password, sign up, verify addresses, and set new passwords.

Theory of operation. Each attempt to sign in first takes one of a limited number of attempts, per
address of the client, and per name; the limits are in the store, so that workers share them and
concurrent attempts cannot pass them. A success gives its attempts back. The attempts of one address
for one name are fewer than those of all addresses for that name: a stranger that guesses is stopped
long before the user itself is.

What an attempt reveals is the same for a name that does not exist, a wrong password and a disabled
user: the same message, after the same work. Whether an address is known is not revealed either:
signing up with one and resetting a password answer the same in all cases, and the rest is in the
mail to its owner. (That a user name is taken cannot be concealed.)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlencode

import msgspec

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.accounts import Account, Tokens
from asgi_aiproxy.accounts.users import EmailTakenError, InvalidLinkError, User, new_invite_code
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.ip_ranges import address_or_network
from asgi_aiproxy.principal import Budget, Principal
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.invitations import Invitations
from asgi_aiproxy.services.mail import Mail, Mailer
from asgi_aiproxy.services.users import UserService, checked_email, checked_name
from asgi_aiproxy.stores.base import Denied, RateLimit

logger = logging.getLogger("asgi_aiproxy")

SignUpMode = Literal["closed", "invitation", "domains", "open"]
_WINDOW = 600.0
_PER_ADDRESS, _PER_NAME_AND_ADDRESS, _PER_NAME = 30, 10, 100
_SIGN_UPS, _MAILS = 20, 5  # per address of a client or a recipient, in an hour
_HOUR = 3600.0
_VERIFY_SECONDS, _RESET_SECONDS = 3 * 86400.0, 3600.0


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


class SignUpForm(msgspec.Struct, frozen=True, kw_only=True):
    """What a new user enters. `code` is an invitation, or the code of the user that invites it."""

    username: str
    password: str
    email: str = ""
    code: str = ""


class SignInService:
    """Signs users in and up.

    Arguments:

    - `service`: manages the users.
    - `rules`: how users sign up.
    - `mailer`: sends mail; None: nothing is sent, and passwords are reset by operators only.
    - `url`: where browsers reach the console, for links in mail.
    - `name`: the name of the gateway in mail.
    - `clock`: returns Unix time in seconds.

    Methods raise APIError and StoreUnavailableError.
    """

    def __init__(
        self,
        service: UserService,
        *,
        rules: SignUpRules | None = None,
        mailer: Mailer | None = None,
        url: str = "",
        name: str = "AI gateway",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.service = service
        self.rules = rules if rules is not None else SignUpRules()
        self.mailer = mailer
        self._users = service.users
        self._store = service.users.store
        self._tokens = Tokens(self._store, clock=clock)
        self.invitations = Invitations(self._store, audit=service.audit, clock=clock)
        self._url = url.rstrip("/")
        self._name = name
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def verify(self, name: str, password: str, by: Actor) -> User:
        """Return the user with this name, or verified address, and password."""
        name = name.strip()[:254]
        network = address_or_network(by.address)
        key = name.casefold()
        limits = [
            RateLimit("sign-in", f"address:{network}", _PER_ADDRESS, _WINDOW),
            RateLimit("sign-in", f"name:{key}", _PER_NAME, _WINDOW),
            RateLimit("sign-in", f"both:{network}:{key}", _PER_NAME_AND_ADDRESS, _WINDOW),
        ]
        taken = await self._store.admit(secrets.token_hex(16), limits)
        if isinstance(taken, Denied):
            message = "Too many failed attempts. Try again later."
            raise APIError(ErrorKind.LIMITED, message, retry_after=taken.retry_after)
        user = await self._users.by_name(name)
        if user is None and "@" in name:
            user = await self._users.by_email(name)
        stored = user.password if user is not None else ""
        valid = await self.service.passwords.verify(password[:1000], stored)
        if user is None or not valid or not user.enabled:
            message = "The user name or the password is wrong."
            raise APIError(ErrorKind.UNAUTHORIZED, message, code="credentials")
        await self._store.settle(taken, dict.fromkeys(limits, 0))
        if self.rules.verify and user.email and not user.email_verified:
            message = "Verify your e-mail address first: open the link in the mail sent to it."
            raise APIError(ErrorKind.FORBIDDEN, message, code="email")
        changes: dict[str, object] = {"signed_in": self._clock()}
        if self.service.passwords.is_outdated(stored):
            fresh = await self.service.passwords.hash(password)
            changes["password"] = fresh

        def change(row: User) -> User:
            kept = row.password == stored  # not if it was changed meanwhile
            return msgspec.structs.replace(row, **changes) if kept else row

        _, user = await self._users.edit(user.id, change)
        await self._record(by, user, "user.sign_in")
        return user

    async def sign_up(self, form: SignUpForm, by: Actor) -> User | None:
        """Create a user. Returns it if it can sign in at once, None if it is sent a mail first."""
        rules = self.rules
        if rules.mode == "closed":
            message = "Users are created by the operator of this gateway."
            raise APIError(ErrorKind.FORBIDDEN, message, code="sign_up")
        username = checked_name(form.username)
        email = checked_email(form.email.strip()) if form.email.strip() else ""
        if rules.verify and not email:
            raise invalid("email: enter an e-mail address.", "email")
        domain = email.rpartition("@")[2].casefold()
        if rules.mode == "domains" and domain not in {each.casefold() for each in rules.domains}:
            known = ", ".join(rules.domains)
            raise invalid(f"email: the address must be at one of: {known}.", "email")
        password = await self.service.new_password(form.password, username)
        network = address_or_network(by.address)
        await self._limit("sign-up", network, _SIGN_UPS)
        code = form.code.strip()
        inviter = await self._users.by_invite_code(code)
        invitation = await self.invitations.take(code) if inviter is None and code else None
        if rules.mode == "invitation" and invitation is None:
            raise invalid("code: this invitation is not valid.", "code")
        try:
            user = await self.service.add(
                User(
                    id=0,
                    username=username,
                    password=password,
                    email=email,
                    invite_code=new_invite_code(),
                    inviter_id=inviter.id if inviter is not None else 0,
                ),
                self.service.credit,
                by,
            )
        except BaseException:
            if invitation is not None:
                await self.invitations.give_back(invitation)
            raise
        if not rules.verify:
            return await self._welcome(user)
        if await self._users.by_email(email) is not None:
            await self._mail(email, "Your account", _TEXTS["known"], "/reset-password")
        else:
            await self.send_verification(user)
        return None

    async def send_verification(self, user: User) -> None:
        """Send a link to verify the address of a user."""
        link = await self._users.make_link(user.id, "email", _VERIFY_SECONDS, user.email)
        subject = "Verify your e-mail address"
        await self._mail(user.email, subject, _TEXTS["verify"], "/verify-email", link)

    async def verify_email(self, link: str, by: Actor) -> User:
        """Verify the address that a link was sent to."""
        first = False

        def change(row: User) -> User:
            nonlocal first
            first = not row.email_verified
            if row.links["email"].email != row.email:
                raise InvalidLinkError("the address was changed")
            return msgspec.structs.replace(row, email_verified=True)

        try:
            user = await self._users.use_link(link, "email", change)
        except InvalidLinkError as error:
            raise _invalid_link() from error
        except EmailTakenError as error:
            raise _invalid_link() from error
        await self._record(by, user, "user.verify")
        return await self._welcome(user) if first else user

    async def request_reset(self, email: str, by: Actor) -> None:
        """Send a link to set a new password, if a user has verified this address."""
        if self.mailer is None:
            message = "This gateway sends no mail. Ask its operator for a link."
            raise APIError(ErrorKind.FORBIDDEN, message, code="mail")
        email = checked_email(email.strip())
        await self._limit("reset", address_or_network(by.address), _SIGN_UPS)
        task = start(self._send_reset(email), what="mail to reset a password")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until the mail that was requested is sent."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _send_reset(self, email: str) -> None:
        """Send a link in the background: the time of the answer must not show that it is sent."""
        try:
            user = await self._users.by_email(email)
            if user is not None and user.enabled:
                await self._send_reset_link(user, email)
        except Exception:
            logger.exception("a mail to reset a password could not be sent")

    async def _send_reset_link(self, user: User, email: str) -> None:
        link = await self._users.make_link(user.id, "password", _RESET_SECONDS, email)
        await self._mail(user.email, "Set a new password", _TEXTS["reset"], "/password", link)

    async def set_password(self, link: str, password: str, by: Actor) -> User:
        """Set the password of the user that a link was sent to; ends its sessions."""
        try:
            user = await self._users.link_user(link, "password")
            hashed = await self.service.new_password(password, user.username)

            def change(row: User) -> User:
                proved = bool(row.email) and row.links["password"].email == row.email
                return msgspec.structs.replace(
                    row, password=hashed, email_verified=row.email_verified or proved
                )

            user = await self._users.use_link(link, "password", change)
        except (InvalidLinkError, EmailTakenError) as error:
            raise _invalid_link() from error
        await self._record(by, user, "user.password")
        return user

    async def change_password(self, user: User, old: str, new: str, by: Actor) -> User:
        """Change one's own password; ends all other sessions."""
        await self.verify(user.username, old, by)
        hashed = await self.service.new_password(new, user.username)
        _, user = await self._users.edit(
            user.id, lambda row: msgspec.structs.replace(row, password=hashed)
        )
        await self._record(by, user, "user.password")
        return user

    async def invite_code(self, id: int) -> str:
        """Return the code by which new users name this one; empty if users cannot sign up."""
        user = await self._users.get(id)
        return user.invite_code if self.rules.mode in ("open", "domains") else ""

    async def principal(self, id: str, proof: str) -> Principal | None:
        """Return the caller of a session; None if its user is disabled or its password changed."""
        user = await self._users.find(int(id)) if id.isdecimal() else None
        if user is None or not user.enabled:
            return None
        if not secrets.compare_digest(user.session_proof, proof):
            return None
        return await self._users.principal(user)

    async def _welcome(self, user: User) -> User:
        """Give the rewards of an invitation."""
        if user.inviter_id:
            inviter = await self._users.find(user.inviter_id)
            rewards = [(user, self.rules.invited_credit), (inviter, self.rules.inviter_credit)]
            for each, credit in rewards:
                if each is not None and credit is not None:
                    await self._add_credit(each, credit)
        return user

    async def _add_credit(self, user: User, credit: Budget) -> None:
        def add(row: Account) -> Account:
            budgets = {(each.unit, each.per): each for each in row.budgets}
            known = budgets.get((credit.unit, credit.per))
            more = credit.limit + (known.limit if known is not None else 0)
            sum_ = msgspec.structs.replace(known or credit, limit=more, shared=True)
            budgets[credit.unit, credit.per] = sum_
            return msgspec.structs.replace(row, budgets=tuple(budgets.values()))

        await self._tokens.accounts.edit(user.account, add)

    async def _limit(self, kind: str, name: str, limit: int) -> None:
        taken = await self._store.admit(
            secrets.token_hex(16), [RateLimit("sign-in", f"{kind}:{name}", limit, _HOUR)]
        )
        if isinstance(taken, Denied):
            message = "Too many requests of this kind. Try again later."
            raise APIError(ErrorKind.LIMITED, message, retry_after=taken.retry_after)

    async def _mail(self, to: str, subject: str, text: str, page: str, link: str = "") -> None:
        """Send a mail; silently not if this address was sent too many already."""
        if self.mailer is None:
            return
        try:
            await self._limit("mail", to.casefold(), _MAILS)
        except APIError:
            return
        url = self._url + page + (f"?{urlencode({'link': link})}" if link else "")
        body = text.format(name=self._name, url=url)
        await self.mailer(Mail(to=to, subject=f"{self._name}: {subject}", text=body))

    async def _record(self, by: Actor, user: User, action: str) -> None:
        caller = Principal(user.account, user.username)
        by = msgspec.structs.replace(by, principal=caller)
        await self.service.audit.record(by, action, f"user/{user.id}")


def _invalid_link() -> APIError:
    message = "This link is not valid any more. Request a new one."
    return APIError(ErrorKind.INVALID, message, code="link")


_NOT_YOU = "\n\nIf you have not requested this, ignore this mail.\n"
_TEXTS = {
    "verify": "To verify your e-mail address at {name}, open this page:\n\n{url}" + _NOT_YOU,
    "reset": "To set a new password at {name} within an hour, open this page:\n\n{url}" + _NOT_YOU,
    "known": "This address has an account at {name} already. If you do not know its password, "
    "set a new one:\n\n{url}" + _NOT_YOU,
}
