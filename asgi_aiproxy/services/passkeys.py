"""Passkeys: add one to an account, and sign in with it (WebAuthn Level 2).

Theory of operation. A passkey is a key pair on a device of the user, made for one site. The server
sends a random challenge; the device signs it together with the origin of the page and a counter,
after the user has unlocked it (user verification). So a passkey is two factors in one: a sign-in
with it needs neither password nor code. Passkeys are discoverable: the device says for which user
one is, without a name to enter.

The site is that of the configured URL of the console, never that of a request. Browsers name the
user by a handle: its number, and a digest of the URL, because two consoles at one host share the
devices' passkeys, and a new one replaces that with the same handle.

A challenge is remembered for one browser and one purpose, and used once: that is the caller's part.
The counter is compared with the stored one in the same change that replaces it, so that of two
responses with one counter one is accepted. Attestation is not requested: any device will do.

https://www.w3.org/TR/webauthn-2/
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy.accounts.passkey import Passkey
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, invalid
from asgi_aiproxy.ip_ranges import address_or_network
from asgi_aiproxy.services.attempts import (
    HOUR,
    TOO_MANY,
    TOO_MANY_ATTEMPTS,
    attempt_limit,
    give_back,
    take_attempt,
)
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.users import UserService

_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_PASSKEYS = 10
_MAX_NAME = 50  # characters
_MAX_RESPONSE = 64 * 1024  # characters
_FAILURES, _FAILURE_SECONDS = 30, 600.0  # of one address
_BEGINNINGS = 200  # per address of a client, in an hour: each is remembered for some minutes


class Challenge(msgspec.Struct, frozen=True):
    """What a page needs to call the browser: `options` is JSON, `challenge` is in base64url."""

    options: str
    challenge: str


class Passkeys:
    """Passkeys of the users of `service`. The caller keeps challenges, see above.

    Arguments:

    - `url`: where browsers reach the console; https, or at localhost, with a host name.
    - `name`: the name of the gateway, which devices show.
    - `clock`: returns Unix time in seconds.

    Requires `pip install 'asgi-aiproxy[passkeys]'`. Raises ConfigurationError if it is missing, or
    the URL cannot have passkeys. Methods raise APIError and StoreUnavailableError.
    """

    def __init__(
        self,
        service: UserService,
        *,
        url: str,
        name: str = "AI gateway",
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import webauthn
        except ImportError as error:
            raise ConfigurationError(
                "Passkeys require: pip install 'asgi-aiproxy[passkeys]'"
            ) from error
        self._site, self._origin, path = _site_of(url)
        self._library: Any = webauthn
        # Of a response that is damaged or not genuine, in any part of it.
        self._failures = (
            webauthn.helpers.exceptions.WebAuthnException,
            ValueError,
            TypeError,
            LookupError,
            RecursionError,
        )
        self._service = service
        self._users = service.users
        self._name = name
        self._tag = hashlib.sha256(f"{self._origin}{path}".encode()).hexdigest()[:16]
        self._clock = clock

    # add and remove

    def registration(self, user: User, name: str) -> Challenge:
        """Return what a page needs to make a passkey for a user, which is to have this name."""
        if not 0 < len(name) <= _MAX_NAME:
            raise invalid(f"name: must have 1 to {_MAX_NAME} characters.", "name")
        structs = self._library.helpers.structs
        required = structs.UserVerificationRequirement.REQUIRED
        options = self._library.generate_registration_options(
            rp_id=self._site,
            rp_name=self._name,
            user_id=f"{user.id}.{self._tag}".encode(),
            user_name=user.username,
            user_display_name=user.display_name or user.username,
            authenticator_selection=structs.AuthenticatorSelectionCriteria(
                resident_key=structs.ResidentKeyRequirement.REQUIRED, user_verification=required
            ),
            exclude_credentials=[
                structs.PublicKeyCredentialDescriptor(id=self._bytes(each.id))
                for each in user.passkeys
            ],
        )
        return self._challenge(options)

    async def add(self, user: User, challenge: str, response: str, name: str, by: Actor) -> User:
        """Add the passkey that a browser has made for a challenge; ends the user's other sessions.

        `response` is the browser's credential as JSON.
        """
        try:
            found = self._library.verify_registration_response(
                credential=response[:_MAX_RESPONSE],
                expected_challenge=self._bytes(challenge),
                expected_rp_id=self._site,
                expected_origin=self._origin,
                require_user_verification=True,
            )
        except self._failures as error:
            raise _refused() from error
        passkey = Passkey(
            id=self._text(found.credential_id),
            public_key=self._text(found.credential_public_key),
            sign_count=found.sign_count,
            name=name,
            created=self._clock(),
        )

        def change(row: User) -> User:
            if any(each.id == passkey.id for each in row.passkeys):
                raise _refused()
            if len(row.passkeys) >= _MAX_PASSKEYS:
                message = "A user can have at most 10 passkeys. Remove one first."
                raise APIError(ErrorKind.INVALID, message, code="passkeys")
            return msgspec.structs.replace(row, passkeys=(*row.passkeys, passkey))

        _, user = await self._users.edit(user.id, change)
        await self._service.record(by, user, "user.passkey")
        return user

    async def remove(self, user: User, id: str, by: Actor) -> User:
        """Remove a passkey of a user; ends its other sessions."""

        def change(row: User) -> User:
            rest = tuple(each for each in row.passkeys if each.id != id)
            return msgspec.structs.replace(row, passkeys=rest)

        before, user = await self._users.edit(user.id, change)
        if before != user:
            await self._service.record(by, user, "user.passkey.remove")
        return user

    # sign in

    async def authentication(self, by: Actor) -> Challenge:
        """Return what a page needs to have a user sign in with any passkey of this console."""
        limit = attempt_limit("passkeys", address_or_network(by.address), _BEGINNINGS, HOUR)
        await take_attempt(self._users.store, [limit], TOO_MANY)
        required = self._library.helpers.structs.UserVerificationRequirement.REQUIRED
        options = self._library.generate_authentication_options(
            rp_id=self._site, user_verification=required
        )
        return self._challenge(options)

    async def verify(self, challenge: str, response: str, by: Actor) -> User:
        """Return the user of the passkey that has signed a challenge.

        `response` is the browser's credential as JSON.
        """
        network = address_or_network(by.address)
        limit = attempt_limit("passkey", network, _FAILURES, _FAILURE_SECONDS)
        taken = await take_attempt(self._users.store, [limit], TOO_MANY_ATTEMPTS)
        id, credential = self._user_and_credential(response[:_MAX_RESPONSE])
        user = await self._users.find(id)
        if user is None or not user.enabled:
            raise _refused()

        def change(row: User) -> User:
            kept = {each.id: each for each in row.passkeys}
            passkey = kept.get(self._text(credential.raw_id))
            if passkey is None:
                raise _refused()
            count = self._verified_count(challenge, credential, passkey)
            used = msgspec.structs.replace(passkey, sign_count=count, used=self._clock())
            return msgspec.structs.replace(row, passkeys=tuple((kept | {used.id: used}).values()))

        _, user = await self._users.edit(id, change)
        await give_back(self._users.store, taken)
        return user

    def _user_and_credential(self, response: str) -> tuple[int, Any]:
        """Return the number of the user that a response names, and the response.

        Raises APIError.
        """
        try:
            parsed = self._library.helpers.parse_authentication_credential_json(response)
            id, _, tag = (parsed.response.user_handle or b"").decode().partition(".")
            if secrets.compare_digest(tag, self._tag) and id.isascii() and len(id) < 10:
                return int(id), parsed
        except self._failures as error:
            raise _refused() from error
        raise _refused()

    def _verified_count(self, challenge: str, credential: Any, passkey: Passkey) -> int:
        """Return the new counter of a passkey. Raises APIError unless it has signed a challenge."""
        try:
            found = self._library.verify_authentication_response(
                credential=credential,
                expected_challenge=self._bytes(challenge),
                expected_rp_id=self._site,
                expected_origin=self._origin,
                credential_public_key=self._bytes(passkey.public_key),
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            )
        except self._failures as error:
            raise _refused() from error
        return int(found.new_sign_count)

    def _challenge(self, options: Any) -> Challenge:
        text = self._library.options_to_json(options)
        return Challenge(text, self._text(options.challenge))

    def _bytes(self, text: str) -> bytes:
        return bytes(self._library.base64url_to_bytes(text))

    def _text(self, data: bytes) -> str:
        return str(self._library.helpers.bytes_to_base64url(data))


def _site_of(url: str) -> tuple[str, str, str]:
    """Return the site (relying party id) and the origin of a URL, as browsers write them, and its
    path. Raises ConfigurationError.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""  # in lower case
    secure = parts.scheme == "https" or (parts.scheme == "http" and host == "localhost")
    port: int | None = None
    try:
        port = parts.port
    except ValueError:
        secure = False
    if not secure or not host or not host.isascii() or _is_address(host):
        raise ConfigurationError(
            "Passkeys: url must be that of the console, with https:// and a host name in ASCII "
            f"(http:// for localhost only), got {url!r}."
        )
    implied = port in (None, _DEFAULT_PORTS[parts.scheme])
    origin = f"{parts.scheme}://{host}" if implied else f"{parts.scheme}://{host}:{port}"
    return host, origin, parts.path.rstrip("/")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refused() -> APIError:
    message = "This passkey was not accepted. Start again."
    return APIError(ErrorKind.UNAUTHORIZED, message, code="passkey")
