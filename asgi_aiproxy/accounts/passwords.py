"""Hashes of passwords: Argon2id (RFC 9106) with the extra `accounts`, else scrypt (RFC 7914).

Both kinds are verified whichever is used for new ones, so that users of a gateway without the extra
stay when it is installed; a successful verification of the other kind asks for a new hash. With the
extra, bcrypt hashes that were imported from another program are verified too. Hashing runs in
threads, a few at a time, because each hash needs tens of megabytes and of milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from importlib.util import find_spec
from typing import TYPE_CHECKING

from asgi_aiproxy.errors import ConfigurationError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_SCRYPT = {"n": 2**14, "r": 8, "p": 1}
_CONCURRENT = 2
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}")
_BCRYPT_BYTES = 72  # the maximum length of a password


class Passwords:
    """Makes and verifies hashes of passwords.

    `time_cost` and `memory_cost` (KiB) are the costs of Argon2id, by default those that RFC 9106
    recommends where memory is limited: 3 passes over 64 MiB.
    """

    def __init__(self, *, time_cost: int = 3, memory_cost: int = 65536) -> None:
        self._argon2 = find_spec("argon2") is not None
        self._time_cost = time_cost
        self._memory_cost = memory_cost
        self._slots = asyncio.Semaphore(_CONCURRENT)

    async def hash(self, password: str) -> str:
        """Return a salted hash of a password."""
        async with self._slots:
            return await asyncio.to_thread(self._hash, _encoded(password))

    async def verify(self, password: str, stored: str) -> bool:
        """Return whether a password has the `stored` hash.

        Without a stored hash the answer is False, after the same work, so that the time does not
        show whether there is one. Raises ConfigurationError if the hash needs the extra `accounts`.
        """
        async with self._slots:
            return await asyncio.to_thread(self._verify, _encoded(password), stored)

    def is_outdated(self, stored: str) -> bool:
        """Return whether a new hash of the same password would be of another kind or cost."""
        if not self._argon2:
            return not stored.startswith("scrypt$")
        if not stored.startswith("$argon2"):
            return True
        return self._hasher().check_needs_rehash(stored)

    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher

        return PasswordHasher(self._time_cost, self._memory_cost, parallelism=4)

    def _hash(self, password: bytes) -> str:
        if self._argon2:
            return self._hasher().hash(password)
        salt = secrets.token_bytes(16)
        return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"

    def _verify(self, password: bytes, stored: str) -> bool:
        if stored.startswith("$argon2"):
            if not self._argon2:
                raise ConfigurationError(
                    "The hash of this password needs Argon2: pip install 'asgi-aiproxy[accounts]'"
                )
            from argon2.exceptions import InvalidHashError, VerificationError

            try:
                return self._hasher().verify(stored, password)
            except (VerificationError, InvalidHashError):
                return False
        if is_bcrypt(stored):
            return _verify_bcrypt(password, stored)
        kind, _, rest = stored.partition("$")
        salt, _, digest = rest.partition("$")
        if kind != "scrypt":
            self._hash(password)  # no password was set, or it is a hash of another program
            return False
        return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), digest)


def is_bcrypt(stored: str) -> bool:
    """Return whether this is a bcrypt hash that can be verified: with at most 2**14 rounds, so that
    an imported hash cannot keep a thread busy for minutes.
    """
    return _BCRYPT.fullmatch(stored) is not None


def _verify_bcrypt(password: bytes, stored: str) -> bool:
    try:
        import bcrypt
    except ImportError as error:
        raise ConfigurationError(
            "The hash of this password needs bcrypt: pip install 'asgi-aiproxy[accounts]'"
        ) from error
    if len(password) > _BCRYPT_BYTES or b"\0" in password:
        return False
    return bcrypt.checkpw(password, stored.encode())


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _scrypt(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(password, salt=salt, dklen=32, **_SCRYPT)
