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
from collections.abc import Callable, Iterable
from typing import Literal
from urllib.parse import urlencode, urlsplit

import msgspec

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.accounts.users import EmailTakenError, InvalidLinkError, User
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.ip_ranges import address_or_network
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.services.attempts import (
    HOUR,
    TOO_MANY,
    attempt_limit,
    give_back,
    take_attempt,
    take_password_attempt,
)
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.external_sign_in import ExternalSignIn
from asgi_aiproxy.services.identity_providers import IdentityProvider
from asgi_aiproxy.services.mail import Mail, Mailer
from asgi_aiproxy.services.passkeys import Passkeys
from asgi_aiproxy.services.second_factor import SecondFactors
from asgi_aiproxy.services.sign_up import SIGN_UPS, SignUp, SignUpForm, SignUpRules
from asgi_aiproxy.services.turnstile import Turnstile
from asgi_aiproxy.services.users import UserService, checked_email

logger = logging.getLogger("asgi_aiproxy")

_MAILS = 5  # per recipient, in an hour
_VERIFY_SECONDS, _RESET_SECONDS = 3 * 86400.0, 3600.0


class SignInService:
    """Signs users in and up.

    Arguments:

    - `service`: manages the users.
    - `rules`: how users sign up.
    - `mailer`: sends mail; None: nothing is sent, and passwords are reset by operators only.
    - `url`: where browsers reach the console, for links in mail and for identity providers.
    - `name`: the name of the gateway in mail.
    - `providers`: identity providers at which users sign in.
    - `factors`: second factors; None: there are none.
    - `passkeys`: passkeys; None: there are none.
    - `turnstile`: checks that sign-up and mail are requested by persons; None: nothing is checked.
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
        providers: Iterable[IdentityProvider] = (),
        factors: SecondFactors | None = None,
        passkeys: Passkeys | None = None,
        turnstile: Turnstile | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.service = service
        self.rules = rules if rules is not None else SignUpRules()
        self.mailer = mailer
        self.url = url.rstrip("/")
        self.factors = factors
        self.passkeys = passkeys
        self.turnstile = turnstile
        self.new_users = SignUp(service, self.rules, clock=clock)
        self.external = ExternalSignIn(service, self.new_users, providers)
        self._users = service.users
        self._store = service.users.store
        self._name = name
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def verify(self, name: str, password: str, by: Actor) -> User:
        """Return the user with this name, or verified address, and password."""
        name = name.strip()[:254]
        taken = await take_password_attempt(self._store, name, by.address)
        user = await self._users.by_name(name)
        if user is None and "@" in name:
            user = await self._users.by_email(name)
        stored = user.password if user is not None else ""
        valid = await self.service.passwords.verify(password[:1000], stored)
        if user is None or not valid or not user.enabled:
            message = "The user name or the password is wrong."
            raise APIError(ErrorKind.UNAUTHORIZED, message, code="credentials")
        await give_back(self._store, taken)
        self._check_address(user)
        if self.service.passwords.is_outdated(stored):
            fresh = await self.service.passwords.hash(password)

            def change(row: User) -> User:
                kept = row.password == stored  # not if it was changed meanwhile
                return msgspec.structs.replace(row, password=fresh) if kept else row

            _, user = await self._users.edit(user.id, change)
        return user

    async def verify_passkey(
        self, passkeys: Passkeys, challenge: str, response: str, by: Actor
    ) -> User:
        """Return the user of the passkey that has signed a challenge, see `Passkeys.verify`."""
        user = await passkeys.verify(challenge, response, by)
        self._check_address(user)
        return user

    def _check_address(self, user: User) -> None:
        if self.rules.verify and user.email and not user.email_verified:
            message = "Verify your e-mail address first: open the link in the mail sent to it."
            raise APIError(ErrorKind.FORBIDDEN, message, code="email")

    async def signed_in(self, user: User, by: Actor) -> User:
        """Record that a user has taken all steps of a sign-in."""
        now = self._clock()
        _, user = await self._users.edit(
            user.id, lambda row: msgspec.structs.replace(row, signed_in=now)
        )
        await self.service.record(by, user, "user.sign_in")
        return user

    async def sign_up(self, form: SignUpForm, by: Actor) -> User | None:
        """Create a user. Returns it if it can sign in at once, None if it is sent a mail first."""
        user = await self.new_users.with_password(form, by)
        if not self.rules.verify:
            return await self.new_users.welcome(user)
        email = user.email
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
            return msgspec.structs.replace(row, email_verified=True)

        try:
            user = await self._users.use_link(link, "email", change)
        except InvalidLinkError as error:
            raise _invalid_link() from error
        except EmailTakenError as error:
            raise _invalid_link() from error
        await self.service.record(by, user, "user.verify")
        return await self.new_users.welcome(user) if first else user

    async def request_reset(self, email: str, by: Actor) -> None:
        """Send a link to set a new password, if a user has verified this address."""
        if self.mailer is None:
            message = "This gateway sends no mail. Ask its operator for a link."
            raise APIError(ErrorKind.FORBIDDEN, message, code="mail")
        email = checked_email(email.strip())
        network = address_or_network(by.address)
        limit = attempt_limit("reset", network, SIGN_UPS, HOUR)
        await take_attempt(self._store, [limit], TOO_MANY)
        task = start(self._send_reset(email), what="mail to reset a password")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for mail that was requested, and close connections."""
        await self.drain()
        if self.turnstile is not None:
            await self.turnstile.aclose()

    async def drain(self) -> None:
        """Wait until the mail that was requested is sent."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _send_reset(self, email: str) -> None:
        """Send a link in the background: the time of the answer must not show that it is sent."""
        try:
            user = await self._users.by_email(email)
            if user is not None and user.enabled:
                await self._send_reset_link(user)
        except Exception:
            logger.exception("a mail to reset a password could not be sent")

    async def _send_reset_link(self, user: User) -> None:
        link = await self._users.make_link(user.id, "password", _RESET_SECONDS, user.email)
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
        await self.service.record(by, user, "user.password")
        return user

    async def change_password(self, user: User, new: str, by: Actor) -> User:
        """Change the password of a user that has confirmed who it is; ends its other sessions."""
        hashed = await self.service.new_password(new, user.username)
        _, user = await self._users.edit(
            user.id, lambda row: msgspec.structs.replace(row, password=hashed)
        )
        await self.service.record(by, user, "user.password")
        return user

    async def invite_code(self, id: int) -> str:
        """Return the code by which new users name this one; empty if users cannot sign up."""
        user = await self._users.get(id)
        return user.invite_code if self.rules.mode in ("open", "domains") else ""

    async def principal(self, id: str, proof: str) -> Principal | None:
        """Return the caller of a session; None if it has ended, see `recall`."""
        user = await self.recall(id, proof)
        if user is None or self.next_step(user) == "enrol":
            return None
        return await self._users.principal(user)

    async def recall(self, id: str, proof: str) -> User | None:
        """Return the user of a session; None if it is disabled, or what it signs in with or its
        role was changed since.
        """
        user = await self._users.find(int(id)) if id.isdecimal() else None
        if user is None or not user.enabled:
            return None
        return user if secrets.compare_digest(user.session_proof, proof) else None

    def next_step(self, user: User) -> Literal["code", "enrol", "done"]:
        """Return what a user must do after its password or identity provider: enter a code, set up
        a second factor, or nothing.
        """
        if user.totp is not None:
            return "code"
        required = self.factors is not None and self.factors.is_required(user)
        return "enrol" if required else "done"

    def confirmation(self, user: User) -> Literal["password", "code", "provider"]:
        """Return with what a user confirms that it is still the one that has signed in."""
        if user.totp is not None:
            return "code"
        return "password" if user.password else "provider"

    async def confirm(self, user: User, secret: str, by: Actor) -> None:
        """Check that a user is still the one that has signed in. Raises APIError."""
        kind = self.confirmation(user)
        if kind == "code":
            await self.second_factors.check(user, secret, by)
        elif kind == "password":
            await self.verify(user.username, secret, by)
        else:
            message = "Confirm that it is you: sign in again."
            raise APIError(ErrorKind.FORBIDDEN, message, code="confirm")

    @property
    def second_factors(self) -> SecondFactors:
        """The second factors. Raises APIError (500) if there are none: what a user has set up is
        never ignored.
        """
        if self.factors is None:
            message = "Second factors are not configured. Ask the operator of this gateway."
            raise APIError(ErrorKind.INTERNAL, message, code="second_factor")
        return self.factors

    @property
    def origin(self) -> str:
        """Scheme and host at which browsers reach the console; empty if `url` is not set."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    async def _mail(self, to: str, subject: str, text: str, page: str, link: str = "") -> None:
        """Send a mail; silently not if this address was sent too many already."""
        if self.mailer is None:
            return
        try:
            limit = attempt_limit("mail", to.casefold(), _MAILS, HOUR)
            await take_attempt(self._store, [limit], TOO_MANY)
        except APIError:
            return
        url = self.url + page + (f"?{urlencode({'link': link})}" if link else "")
        body = text.format(name=self._name, url=url)
        await self.mailer(Mail(to=to, subject=f"{self._name}: {subject}", text=body))


def _invalid_link() -> APIError:
    message = "This link is no longer valid. Request a new one."
    return APIError(ErrorKind.INVALID, message, code="link")


_NOT_YOU = "\n\nIf you have not requested this, ignore this mail.\n"
_TEXTS = {
    "verify": "To verify your e-mail address at {name}, open this page:\n\n{url}" + _NOT_YOU,
    "reset": "To set a new password at {name} within an hour, open this page:\n\n{url}" + _NOT_YOU,
    "known": "This address has an account at {name} already. If you do not know its password, "
    "set a new one:\n\n{url}" + _NOT_YOU,
}
