"""Secrets at rest: sealed with authenticated encryption, AES-256-GCM (NIST SP 800-38D).

What is sealed can be read by who has the key, and only where it was put: what it is `about` is
sealed in with it, so that it can not be passed off as something else.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import secrets
from collections.abc import Iterable
from typing import Any, Protocol

from asgi_aiproxy.errors import AIProxyError, ConfigurationError

_SEALED, _PLAIN = "sealed1:", "plain:"
_SALT, _NONCE, _KEY = 16, 12, 32  # bytes
_SHORTEST = 16  # characters of a passphrase
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}


class SealError(AIProxyError):
    """What is sealed can not be opened: by another key, or it was changed or moved."""


class SecretCipher(Protocol):
    """What seals and opens."""

    def encrypt(self, data: bytes, about: str) -> str:
        """A printable text that hides `data`."""
        ...

    def decrypt(self, sealed: str, about: str) -> bytes:
        """What was sealed. Raises SealError."""
        ...


class Sealer:
    """Seals with the first of `keys`, and opens with any: so keys can be changed.

    A key is 32 random bytes in base64 (`Sealer.generate()` makes one), or a passphrase of at least
    16 characters. Of a passphrase the key is derived by scrypt (RFC 7914), which takes about a
    tenth of a second for each salt that is met; a sealer uses the salt that it met last.

    Raises ConfigurationError if `cryptography` is not installed, or a key is too short.
    """

    def __init__(self, keys: str | Iterable[str]) -> None:
        given = [keys] if isinstance(keys, str) or keys is None else list(keys)
        if not all(isinstance(key, str) for key in given):
            raise ConfigurationError(
                "A sealing key is a text: is its environment variable not set?"
            )
        if not given:
            raise ConfigurationError("A Sealer needs a key.")
        try:
            self._aead = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
            self._kdf = importlib.import_module("cryptography.hazmat.primitives.kdf.scrypt")
        except ImportError as error:
            raise ConfigurationError(
                "To seal secrets, install cryptography: pip install 'asgi-aiproxy[sealed]'."
            ) from error
        self._keys = [_Source(key) for key in given]
        self._ciphers: dict[tuple[int, bytes], Any] = {}
        self._salt = b""

    def __repr__(self) -> str:
        return f"Sealer({len(self._keys)} {'key' if len(self._keys) == 1 else 'keys'})"

    @staticmethod
    def generate() -> str:
        """A new key."""
        return base64.urlsafe_b64encode(secrets.token_bytes(_KEY)).decode()

    def encrypt(self, data: bytes, about: str) -> str:
        """A printable text that hides `data`."""
        salt = self._salt = self._salt or secrets.token_bytes(_SALT)
        nonce = secrets.token_bytes(_NONCE)
        hidden = self._cipher(0, salt).encrypt(nonce, data, about.encode())
        return _SEALED + base64.urlsafe_b64encode(salt + nonce + hidden).decode()

    def decrypt(self, sealed: str, about: str) -> bytes:
        """What was sealed; what `Unsealed` wrote is read, too. Raises SealError."""
        if not sealed.startswith(_SEALED):
            return NoEncryption().decrypt(sealed, about)
        try:
            raw = base64.urlsafe_b64decode(sealed.removeprefix(_SEALED))
        except (binascii.Error, ValueError) as error:
            raise SealError("What is sealed is damaged.") from error
        salt, nonce = raw[:_SALT], raw[_SALT : _SALT + _NONCE]
        hidden = raw[_SALT + _NONCE :]
        if len(hidden) < _SALT:
            raise SealError("What is sealed is damaged.")
        for number in range(len(self._keys)):
            try:
                data: bytes = self._cipher(number, salt).decrypt(nonce, hidden, about.encode())
            except Exception as error:
                if type(error).__name__ != "InvalidTag":
                    raise
                continue
            self._salt = salt
            return data
        raise SealError(
            "It was sealed with another key than those of this Sealer, or it was changed."
        )

    def _cipher(self, number: int, salt: bytes) -> Any:
        source = self._keys[number]
        name = number, b"" if source.raw else salt
        cipher = self._ciphers.get(name)
        if cipher is None:
            key = source.raw or self._derived(source.phrase, salt)
            cipher = self._ciphers[name] = self._aead.AESGCM(key)
        return cipher

    def _derived(self, phrase: bytes, salt: bytes) -> bytes:
        key: bytes = self._kdf.Scrypt(salt=salt, length=_KEY, **_SCRYPT).derive(phrase)
        return key


class NoEncryption:
    """Seals nothing: for stores that nobody else can read, such as one within the process."""

    def encrypt(self, data: bytes, about: str) -> str:
        """The data, as text."""
        return _PLAIN + data.decode("utf-8", "surrogatepass")

    def decrypt(self, sealed: str, about: str) -> bytes:
        """The data. Raises SealError if it is sealed after all."""
        if not sealed.startswith(_PLAIN):
            raise SealError("It is sealed, and there is no Sealer to open it.")
        return sealed.removeprefix(_PLAIN).encode("utf-8", "surrogatepass")


class _Source:
    """Where a key comes from: it is there, or derived of a passphrase."""

    __slots__ = ("phrase", "raw")

    def __init__(self, given: str) -> None:
        self.raw = _raw(given)
        self.phrase = given.encode()
        if not self.raw and len(given) < _SHORTEST:
            raise ConfigurationError(
                f"A sealing key is 32 bytes in base64, or a passphrase of at least {_SHORTEST} "
                f"characters."
            )


def _raw(given: str) -> bytes:
    """The 32 bytes that a text is in base64, of either alphabet; empty if it is not."""
    if len(given) not in (43, 44):
        return b""
    try:
        found = base64.b64decode(given.rstrip("=") + "=", altchars=b"-_", validate=True)
    except ValueError:
        try:
            found = base64.b64decode(given.rstrip("=") + "=", validate=True)
        except ValueError:
            return b""
    return found if len(found) == _KEY else b""
