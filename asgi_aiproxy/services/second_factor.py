"""Second factors: set one up, require it at sign-in, recover from its loss.

Theory of operation. Setting one up has two steps: a secret is shown, and becomes the second factor
of the user when it has entered a code of it. From then on each sign-in needs a code after the
password or the identity provider. A role may require a second factor: its users set one up at their
next sign-in, and have no session before.

Six digits can be guessed, so attempts are limited by user, over ten minutes and over a day, from
all addresses together; it takes the password to get this far. Recovery codes are too long to be
guessed, and have a limit of their own, so that guesses do not lock out a user that has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import msgspec

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy.accounts.totp import (
    SecondFactor,
    accepted_step,
    check_installed,
    enrolment_url,
    is_code,
    new_recovery_codes,
    new_secret,
    qr_code,
    recovery_digest,
)
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, invalid
from asgi_aiproxy.keys.encryption import SealError, SecretCipher
from asgi_aiproxy.services.attempts import TOO_MANY_ATTEMPTS, attempt_limit, give_back, take_attempt
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.roles import ROLE_NUMBERS
from asgi_aiproxy.services.users import Role, UserService

_WINDOW, _DAY = 600.0, 86400.0
_PER_WINDOW, _PER_DAY = 10, 50
_WRONG = "The code is wrong or has already been used."


class Enrolment(ConcealedStruct, frozen=True):
    """What a user needs to set up its authenticator: a secret, the `otpauth:` URL, and the URL as a
    QR code, an SVG element.
    """

    secret: str
    url: str
    svg: str


class SecondFactors:
    """Second factors of the users of `service`.

    Arguments:

    - `cipher`: encrypts the secrets of authenticators in the store.
    - `required`: the roles whose users need a second factor.
    - `name`: the name of the gateway in authenticators.
    - `clock`: returns Unix time in seconds.

    Requires `pip install 'asgi-aiproxy[accounts]'`. Raises ConfigurationError if it is missing.
    Methods raise APIError and StoreUnavailableError.
    """

    def __init__(
        self,
        service: UserService,
        *,
        cipher: SecretCipher,
        required: Collection[Role] = (),
        name: str = "AI gateway",
        clock: Callable[[], float] = time.time,
    ) -> None:
        unknown = set(required) - ROLE_NUMBERS.keys()
        if unknown:
            raise ConfigurationError(f"SecondFactors: unknown role {sorted(unknown)[0]!r}.")
        check_installed()
        self._service = service
        self._users = service.users
        self._store = service.users.store
        self._cipher = cipher
        self._required = frozenset(required)
        self._name = name
        self._clock = clock

    def is_required(self, user: User) -> bool:
        """Whether the role of a user requires a second factor."""
        return user.role_name in self._required

    def new_secret(self, user: User) -> str:
        """Return a new secret for a user, encrypted, to be shown and then confirmed."""
        return self._cipher.encrypt(new_secret().encode(), _about(user))

    def enrolment(self, user: User, sealed: str) -> Enrolment:
        """Return what a user needs to set up its authenticator for a secret of `new_secret`."""
        secret = self._opened(user, sealed)
        url = enrolment_url(secret, user.username, self._name)
        return Enrolment(secret, url, qr_code(url))

    async def enable(self, user: User, sealed: str, code: str, by: Actor) -> tuple[User, list[str]]:
        """Make a secret the second factor of a user that has entered a code of it.

        Returns the user and its recovery codes. Ends the user's other sessions.
        """
        now = self._clock()
        step = accepted_step(self._opened(user, sealed), _plain(code), now, 0)
        if step is None:
            message = "code: it is not the code that the authenticator shows now."
            raise invalid(message, "code")
        codes = new_recovery_codes()
        factor = SecondFactor(
            secret=sealed,
            since=now,
            last_step=step,
            recovery=tuple(map(recovery_digest, codes)),
        )
        _, user = await self._users.edit(
            user.id, lambda row: msgspec.structs.replace(row, totp=factor)
        )
        await self._service.record(by, user, "user.second_factor")
        return user, codes

    async def check(self, user: User, code: str, by: Actor) -> User:
        """Accept a code of the authenticator, or a recovery code, which is used up then."""
        code = _plain(code)
        kind = "code" if is_code(code) else "recovery"
        limits = [
            attempt_limit(kind, str(user.id), _PER_WINDOW, _WINDOW),
            attempt_limit(f"{kind}-day", str(user.id), _PER_DAY, _DAY),
        ]
        taken = await take_attempt(self._store, limits, TOO_MANY_ATTEMPTS)
        change = self._with_step if kind == "code" else _without_recovery_code
        _, user = await self._users.edit(user.id, lambda row: change(row, code))
        await give_back(self._store, taken)
        if kind == "recovery":
            await self._service.record(by, user, "user.recovery_code")
        return user

    async def new_codes(self, user: User, by: Actor) -> list[str]:
        """Replace the recovery codes of a user; returns the new ones."""
        codes = new_recovery_codes()

        def change(row: User) -> User:
            factor = msgspec.structs.replace(
                _factor(row), recovery=tuple(map(recovery_digest, codes))
            )
            return msgspec.structs.replace(row, totp=factor)

        await self._users.edit(user.id, change)
        await self._service.record(by, user, "user.recovery_codes")
        return codes

    async def remove(self, user: User, by: Actor) -> User:
        """Remove one's own second factor; ends all other sessions."""
        if self.is_required(user):
            message = "Your role requires a second factor."
            raise APIError(ErrorKind.FORBIDDEN, message, code="second_factor")
        _, user = await self._users.edit(
            user.id, lambda row: msgspec.structs.replace(row, totp=None)
        )
        await self._service.record(by, user, "user.second_factor.remove")
        return user

    def _with_step(self, row: User, code: str) -> User:
        factor = _factor(row)
        secret = self._opened(row, factor.secret)
        step = accepted_step(secret, code, self._clock(), factor.last_step)
        if step is None:
            raise _wrong()
        return msgspec.structs.replace(row, totp=msgspec.structs.replace(factor, last_step=step))

    def _opened(self, user: User, sealed: str) -> str:
        try:
            return self._cipher.decrypt(sealed, _about(user)).decode()
        except SealError as error:
            message = "The second factor of this user cannot be read. An operator can remove it."
            raise APIError(ErrorKind.INTERNAL, message, code="second_factor") from error


def _without_recovery_code(row: User, code: str) -> User:
    factor, digest = _factor(row), recovery_digest(code)
    if digest not in factor.recovery:
        raise _wrong()
    left = tuple(each for each in factor.recovery if each != digest)
    return msgspec.structs.replace(row, totp=msgspec.structs.replace(factor, recovery=left))


def _factor(row: User) -> SecondFactor:
    if row.totp is None:
        raise _wrong()
    return row.totp


def _wrong() -> APIError:
    return APIError(ErrorKind.UNAUTHORIZED, _WRONG, code="code")


def _plain(code: str) -> str:
    return code.strip().replace(" ", "")[:64]


def _about(user: User) -> str:
    return f"second factor of user {user.id}"
