"""Sign in, sign up and link with accounts at identity providers.

Theory of operation. An identity (issuer and subject) belongs to at most one user. The user of an
identity is, in this order:

1. the user that has linked it;
2. the user that has verified the same address here, if the provider has verified it too and
   `link_by_email` holds: it is linked from then on. An address that one of the two sides has not
   verified never leads to a user: anyone can claim it;
3. a new user, if the rules for sign-up allow it.

A user that is signed in links an identity of its own choice, whatever the addresses are.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

import msgspec

from asgi_aiproxy.accounts.users import IdentityTakenError, User
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.ip_ranges import address_or_network
from asgi_aiproxy.services.attempts import HOUR, TOO_MANY, attempt_limit, take_attempt
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.identity_providers import IdentityProvider, PendingAuthorization
from asgi_aiproxy.services.sign_up import ExternalIdentity, SignUp, is_at
from asgi_aiproxy.services.users import UserService

_MAX_IDENTITIES = 10
_BEGINNINGS = 200  # per address of a client, in an hour: each is remembered for some minutes


class ExternalSignIn:
    """Finds the users of identities at `providers`; `new_users` creates those that have none yet.

    Raises ConfigurationError if two providers have the same name. Methods raise APIError and
    StoreUnavailableError.
    """

    def __init__(
        self, service: UserService, new_users: SignUp, providers: Iterable[IdentityProvider]
    ) -> None:
        given = list(providers)
        self.providers: Mapping[str, IdentityProvider] = {each.name: each for each in given}
        if len(self.providers) < len(given):
            raise ConfigurationError("Two identity providers have the same name.")
        self._service = service
        self._users = service.users
        self._new_users = new_users

    async def begin(
        self, name: str, redirect_uri: str, by: Actor, *, fresh: bool = False
    ) -> tuple[str, PendingAuthorization]:
        """Return the URL to send the browser to, and what must be remembered meanwhile.

        With `fresh` the provider must let the user sign in again.
        """
        provider = self._provider(name)
        network = address_or_network(by.address)
        limit = attempt_limit("provider", network, _BEGINNINGS, HOUR)
        await take_attempt(self._users.store, [limit], TOO_MANY)
        pending = PendingAuthorization(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=redirect_uri,
            fresh=fresh,
        )
        return await provider.authorization_url(pending), pending

    async def identity(
        self, name: str, pending: PendingAuthorization, answer: Mapping[str, str]
    ) -> ExternalIdentity:
        """Return the identity for the query with which the browser came back."""
        provider = self._provider(name)
        if not secrets.compare_digest(answer.get("state", "").encode(), pending.state.encode()):
            message = "This sign-in was begun in another browser, or is too old. Start again."
            raise APIError(ErrorKind.INVALID, message, code="state")
        if "error" in answer:
            message = f"The sign-in at {provider.label} was not completed. Start again."
            raise APIError(ErrorKind.UNAUTHORIZED, message, code="identity_provider")
        identity = await provider.identity(pending, answer)
        if provider.email_domains and not is_at(identity.verified_email, provider.email_domains):
            known = ", ".join(provider.email_domains)
            message = f"Only accounts with a verified address at one of {known} can sign in."
            raise APIError(ErrorKind.FORBIDDEN, message, code="identity_domain")
        return identity

    async def user_of(
        self, name: str, identity: ExternalIdentity, by: Actor, *, code: str = ""
    ) -> User:
        """Return the user of an identity; a new one if the rules allow it.

        `code` is an invitation for a new user.
        """
        user = await self._users.by_identity(identity.id)
        if user is None and self._provider(name).link_by_email and identity.verified_email:
            user = await self._users.by_email(identity.verified_email)
            if user is not None and user.enabled:
                user = await self._link(user, identity, by)
        if user is None:
            user = await self._new_users.with_identity(identity, code, by)
        if not user.enabled:
            message = "This user is disabled. Ask the operator of this gateway."
            raise APIError(ErrorKind.FORBIDDEN, message, code="disabled")
        return user

    async def link(self, user: User, identity: ExternalIdentity, by: Actor) -> User:
        """Link an identity with a user that is signed in; ends its other sessions."""
        return await self._link(user, identity, by)

    async def unlink(self, user: User, identity: str, by: Actor) -> User:
        """Remove a link; ends the user's other sessions.

        Raises APIError if the user could not sign in any more.
        """

        def change(row: User) -> User:
            rest = tuple(each for each in row.identities if each != identity)
            if not rest and not row.password:
                message = "Set a password first: without one you could no longer sign in."
                raise APIError(ErrorKind.INVALID, message, code="last_identity")
            return msgspec.structs.replace(row, identities=rest)

        _, user = await self._users.edit(user.id, change)
        await self._service.record(by, user, "user.unlink")
        return user

    def label(self, identity: str) -> str:
        """Return the name for people of the provider of a linked identity."""
        for provider in self.providers.values():
            if provider.issuer == identity.partition(" ")[0]:
                return provider.label
        return identity.partition(" ")[0]

    async def _link(self, user: User, identity: ExternalIdentity, by: Actor) -> User:
        def change(row: User) -> User:
            if identity.id in row.identities:
                return row
            if len(row.identities) >= _MAX_IDENTITIES:
                message = "A user can link at most 10 accounts. Remove one first."
                raise APIError(ErrorKind.INVALID, message, code="identities")
            return msgspec.structs.replace(row, identities=(*row.identities, identity.id))

        try:
            before, user = await self._users.edit(user.id, change)
        except IdentityTakenError as error:
            message = "Another user has linked this account."
            raise APIError(ErrorKind.INVALID, message, status=409, code="identity_taken") from error
        if before != user:
            await self._service.record(by, user, "user.link_identity")
        return user

    def _provider(self, name: str) -> IdentityProvider:
        if name not in self.providers:
            raise APIError(ErrorKind.NOT_FOUND, f"The identity provider {name!r} does not exist.")
        return self.providers[name]
