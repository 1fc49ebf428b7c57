"""Users and sessions of One API.

The users are those of `asgi_aiproxy.accounts.users`. A session is a signed cookie, so that it is
valid in all workers: the number of the user, the time it began, and an HMAC-SHA-256 over both with
a random key of the store and what the user signs in with, so that a new password, second factor or
role ends all sessions, also a new password of `root` in the configuration.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable

import msgspec

from asgi_aiproxy.accounts import NoSuchRowError
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.accounts.users import User, Users
from asgi_aiproxy.compat.oneapi.rows import ROOT, OneAPIData, all_rows, key_digest
from asgi_aiproxy.principal import Budget

SESSION_SECONDS = 30 * 86400
_SECRETS = "oneapi.secrets"


class OneAPIUsers:
    """The users of the gateway, as One API's calls need them: the quota of each is a budget in
    units of its account.
    """

    def __init__(
        self, data: OneAPIData, passwords: Passwords | None = None, *, root_digest: str = ""
    ) -> None:
        self._root_digest = root_digest
        self.passwords = passwords if passwords is not None else Passwords()
        self._data = data
        self._users = Users(data.store, clock=data.clock)
        self._session_key = b""

    async def find(self, id: int) -> User | None:
        """Return the user with this number, or None."""
        return _grouped(await self._users.find(id))

    async def get(self, id: int) -> User:
        """Return the user with this number. Raises NoSuchRowError."""
        user = await self._users.get(id)
        return _grouped(user) or user

    async def by_name(self, name: str) -> User | None:
        """Return the user with this name, or None."""
        return _grouped(await self._users.by_name(name))

    async def by_access_token(self, token: str) -> User | None:
        """Return the user with this system access token, or None."""
        return _grouped(await self._users.by_access_token(key_digest(token)))

    async def by_invite_code(self, code: str) -> User | None:
        """Return the user with this code, or None."""
        return _grouped(await self._users.by_invite_code(code))

    async def all(self) -> AsyncIterator[User]:
        """Yield all users in the order of their numbers."""
        async for user in self._users.all():
            yield _grouped(user) or user

    async def create(self, user: User, quota: int) -> User:
        """Store a user, with a number if it has none, and its account. Raises NameTakenError."""
        return await self._users.create(user, (Budget.units(max(0, quota), shared=True),))

    async def edit(self, id: int, change: Callable[[User], User]) -> User:
        """Change a user. Raises NoSuchRowError, NameTakenError and EmailTakenError."""
        return (await self._users.edit(id, lambda row: change(_grouped(row) or row)))[1]

    async def delete(self, user: User) -> None:
        """Remove a user, its tokens and its account."""
        async for row in all_rows(self._data.token_rows, f"{user.id:010d}."):
            try:
                await self._data.tokens.revoke(row.token_id)
            except NoSuchRowError:
                pass
            await self._data.store.drop("oneapi.tokens", f"{user.id:010d}.{row.id:010d}")
        await self._users.delete(user.id)

    # sessions

    async def open_session(self, user: User) -> str:
        """Return the value of a session cookie."""
        text = f"{user.id}.{self._data.now()}"
        return f"{text}.{await self._signature(text, user)}"

    async def session_user(self, cookie: str) -> User | None:
        """Return the user of a session cookie; None if it is invalid or has expired."""
        text, _, signature = cookie.rpartition(".")
        id, _, began = text.partition(".")
        if not (id.isdecimal() and began.isdecimal() and len(id) < 10 and len(began) < 12):
            return None
        user = await self.find(int(id))
        if user is None or self._data.now() - int(began) > SESSION_SECONDS:
            return None
        expected = await self._signature(text, user)
        valid = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
        return user if valid else None

    async def _signature(self, text: str, user: User) -> str:
        if not self._session_key:
            fresh = secrets.token_bytes(32)
            await self._data.store.put(_SECRETS, "session", fresh, expected=None)
            self._session_key = await self._data.store.get(_SECRETS, "session") or fresh
        configured = self._root_digest if user.role == ROOT else ""
        message = f"{text}.{user.session_proof}{configured}".encode()
        found = hmac.new(self._session_key, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(found).decode().rstrip("=")


def _grouped(user: User | None) -> User | None:
    """Return a user with One API's name for the group of users without another one."""
    if user is None or user.group:
        return user
    return msgspec.structs.replace(user, group="default")
