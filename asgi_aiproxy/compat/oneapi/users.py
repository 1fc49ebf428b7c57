"""Users of One API: storage, passwords, sessions and access tokens.

`Users` is all that the rest needs of user storage: find by number, name or access token, create,
change, remove. A session is a signed cookie, so that it is valid in all workers: the number of the
user, the time it began, and an HMAC-SHA-256 over both with a random key of the store and the hash
of the password, so that a new password ends all sessions.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable

import msgspec

from asgi_aiproxy.accounts import NoSuchRowError, RowExistsError
from asgi_aiproxy.accounts.groups import Account
from asgi_aiproxy.compat.oneapi.rows import OneAPIData, User, all_rows, key_digest, row_key
from asgi_aiproxy.principal import Budget

SESSION_SECONDS = 30 * 86400
_NAMES, _ACCESS, _SECRETS = "oneapi.usernames", "oneapi.access", "oneapi.secrets"
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}
_AFF_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"


class NameTakenError(Exception):
    """Another user has this name."""


class Users:
    """The users in a store, each with an account that has its quota."""

    def __init__(self, data: OneAPIData) -> None:
        self._data = data
        self._session_key = b""

    async def find(self, id: int) -> User | None:
        """Return the user with this number, or None."""
        return await self._data.users.find(row_key(id))

    async def by_name(self, name: str) -> User | None:
        """Return the user with this name, or None."""
        found = await self._data.store.get(_NAMES, name)
        return None if found is None else await self.find(int(found))

    async def by_access_token(self, token: str) -> User | None:
        """Return the user with this system access token, or None."""
        digest = key_digest(token)
        found = await self._data.store.get(_ACCESS, digest)
        user = None if found is None else await self.find(int(found))
        return user if user is not None and user.access_token == digest else None

    def all(self) -> AsyncIterator[User]:
        """Yield all users in the order of their numbers."""
        return all_rows(self._data.users)

    async def create(self, user: User, quota: int) -> User:
        """Store a user, with a number if it has none, and its account. Raises NameTakenError."""
        if not user.id:
            user = _replace(user, id=await self._data.new_id("users"))
        number = str(user.id).encode()
        if not await self._data.store.put(_NAMES, user.username, number, expected=None):
            raise NameTakenError(user.username)
        account = Account(
            id=user.account,
            name=user.username,
            budgets=(Budget.units(max(0, quota), shared=True),),
        )
        try:
            await self._data.tokens.accounts.create(user.account, account)
        except RowExistsError:
            pass  # a creation that was interrupted
        if user.access_token:
            await self._data.store.put(_ACCESS, user.access_token, number)
        await self._data.users.put(row_key(user.id), user)
        return user

    async def edit(self, id: int, change: Callable[[User], User]) -> User:
        """Change a user. Raises NoSuchRowError and NameTakenError."""
        before = await self._data.users.get(row_key(id))
        wanted = change(before)
        number = str(id).encode()
        if wanted.username != before.username and not await self._data.store.put(
            _NAMES, wanted.username, number, expected=None
        ):
            raise NameTakenError(wanted.username)
        after = await self._data.users.edit(row_key(id), change)
        if after.username != before.username:
            await self._data.store.drop(_NAMES, before.username)
        if after.access_token != before.access_token:
            await self._data.store.put(_ACCESS, after.access_token, number)
            if before.access_token:
                await self._data.store.drop(_ACCESS, before.access_token)
        if after.status != before.status:
            await self._data.tokens.accounts.edit(
                after.account, lambda row: _with_enabled(row, after.status == 1)
            )
        return after

    async def delete(self, user: User) -> None:
        """Remove a user, its tokens and its account."""
        async for row in all_rows(self._data.token_rows, f"{user.id:010d}."):
            try:
                await self._data.tokens.revoke(row.token_id)
            except NoSuchRowError:
                pass
            await self._data.store.drop("oneapi.tokens", f"{user.id:010d}.{row.id:010d}")
        await self._data.store.drop(_NAMES, user.username)
        if user.access_token:
            await self._data.store.drop(_ACCESS, user.access_token)
        await self._data.users.drop(row_key(user.id))
        await self._data.store.drop("accounts", user.account)

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
        message = f"{text}.{user.password}".encode()
        found = hmac.new(self._session_key, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(found).decode().rstrip("=")


async def hash_password(password: str) -> str:
    """Return a salted hash of a password (scrypt, RFC 7914)."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${(await _scrypt(password, salt)).hex()}"


async def verify_password(password: str, stored: str) -> bool:
    """Return whether a password has this hash."""
    kind, _, rest = stored.partition("$")
    salt, _, digest = rest.partition("$")
    if kind != "scrypt":
        return False  # none was set, or it is a hash of another program
    found = await _scrypt(password, bytes.fromhex(salt))
    return hmac.compare_digest(found.hex(), digest)


async def _scrypt(password: str, salt: bytes) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return await asyncio.to_thread(hashlib.scrypt, data, salt=salt, dklen=32, **_SCRYPT)


def new_aff_code() -> str:
    """Return a code by which new users name the user who invited them."""
    return "".join(secrets.choice(_AFF_LETTERS) for _ in range(4))


def _with_enabled(row: Account, enabled: bool) -> Account:
    return msgspec.structs.replace(row, enabled=enabled)


def _replace(user: User, **changes: object) -> User:
    return msgspec.structs.replace(user, **changes)
