"""Encrypt secrets that are stored: authenticated encryption with AES-256-GCM (NIST SP 800-38D).

The parameter `about` names the record that a secret belongs to. It is authenticated with the data
(as AES-GCM's additional data), so that an encrypted secret cannot be moved to another record.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import secrets
from collections.abc import Iterable
from typing import Any, Protocol

from asgi_aiproxy.errors import AIProxyError, ConfigurationError

_ENCRYPTED_PREFIX, _PLAIN_PREFIX = "sealed1:", "plain:"
_SALT_BYTES, _NONCE_BYTES, _TAG_BYTES, _KEY_BYTES = 16, 12, 16, 32
_MIN_PASSPHRASE = 16  # characters
_SCRYPT_PARAMETERS = {"n": 2**15, "r": 8, "p": 1}


class SealError(AIProxyError):
    """A secret cannot be decrypted: wrong key, or the data was changed or moved."""


class SecretCipher(Protocol):
    """Encrypts and decrypts secrets."""

    def encrypt(self, data: bytes, about: str) -> str:
        """Encrypt `data`; returns printable text. `about` names the record."""
        ...

    def decrypt(self, sealed: str, about: str) -> bytes:
        """Decrypt what `encrypt` returned for the same `about`. Raises SealError."""
        ...


class Sealer:
    """Encrypts with the first of `keys` and decrypts with any of them, so that keys can be rotated.

    A key is 32 random bytes in base64 (`Sealer.generate()` returns one), or a passphrase of at
    least 16 characters. From a passphrase the key is derived with scrypt (RFC 7914), which takes
    about a tenth of a second for each new salt; a Sealer reuses the salt that it read last.

    Raises ConfigurationError if `cryptography` is not installed, or a key is too short.
    """

    def __init__(self, keys: str | Iterable[str]) -> None:
        given = [keys] if isinstance(keys, str) or keys is None else list(keys)
        if not all(isinstance(key, str) for key in given):
            raise ConfigurationError(
                "A sealing key must be a string: is its environment variable not set?"
            )
        if not given:
            raise ConfigurationError("A Sealer needs at least one key.")
        try:
            self._aead = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
            self._kdf = importlib.import_module("cryptography.hazmat.primitives.kdf.scrypt")
        except ImportError as error:
            raise ConfigurationError(
                "To encrypt secrets, install cryptography: pip install 'asgi-aiproxy[sealed]'."
            ) from error
        self._keys = [_KeySource(key) for key in given]
        self._ciphers: dict[tuple[int, bytes], Any] = {}
        self._salt = b""

    def __repr__(self) -> str:
        return f"Sealer({len(self._keys)} {'key' if len(self._keys) == 1 else 'keys'})"

    @staticmethod
    def generate() -> str:
        """A new random key."""
        return base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()

    def encrypt(self, data: bytes, about: str) -> str:
        """Encrypt `data`; returns printable text. `about` names the record."""
        salt = self._salt = self._salt or secrets.token_bytes(_SALT_BYTES)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        hidden = self._cipher(0, salt).encrypt(nonce, data, about.encode())
        return _ENCRYPTED_PREFIX + base64.urlsafe_b64encode(salt + nonce + hidden).decode()

    def decrypt(self, sealed: str, about: str) -> bytes:
        """Decrypt what `encrypt`, or `NoEncryption`, returned. Raises SealError."""
        if not sealed.startswith(_ENCRYPTED_PREFIX):
            return NoEncryption().decrypt(sealed, about)
        try:
            raw = base64.urlsafe_b64decode(sealed.removeprefix(_ENCRYPTED_PREFIX))
        except (binascii.Error, ValueError) as error:
            raise SealError("The encrypted secret is damaged.") from error
        salt, nonce = raw[:_SALT_BYTES], raw[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        hidden = raw[_SALT_BYTES + _NONCE_BYTES :]
        if len(hidden) < _TAG_BYTES:
            raise SealError("The encrypted secret is damaged.")
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
            "It was encrypted with a key that this Sealer does not have, or it was changed."
        )

    def _cipher(self, number: int, salt: bytes) -> Any:
        source = self._keys[number]
        name = number, b"" if source.raw else salt
        cipher = self._ciphers.get(name)
        if cipher is None:
            key = source.raw or self._derive(source.phrase, salt)
            cipher = self._ciphers[name] = self._aead.AESGCM(key)
        return cipher

    def _derive(self, phrase: bytes, salt: bytes) -> bytes:
        key: bytes = self._kdf.Scrypt(salt=salt, length=_KEY_BYTES, **_SCRYPT_PARAMETERS).derive(
            phrase
        )
        return key


class NoEncryption:
    """Does not encrypt: for stores that only this process can read, such as MemoryStore."""

    def encrypt(self, data: bytes, about: str) -> str:
        """The data as text."""
        return _PLAIN_PREFIX + data.decode("utf-8", "surrogatepass")

    def decrypt(self, sealed: str, about: str) -> bytes:
        """The data. Raises SealError if it is encrypted."""
        if not sealed.startswith(_PLAIN_PREFIX):
            raise SealError("It is encrypted, and there is no Sealer to decrypt it.")
        return sealed.removeprefix(_PLAIN_PREFIX).encode("utf-8", "surrogatepass")


class _KeySource:
    """A key as given: 32 bytes, or a passphrase from which it is derived."""

    __slots__ = ("phrase", "raw")

    def __init__(self, given: str) -> None:
        self.raw = _raw(given)
        self.phrase = given.encode()
        if not self.raw and len(given) < _MIN_PASSPHRASE:
            raise ConfigurationError(
                f"A sealing key must be 32 bytes in base64, or a passphrase of at least "
                f"{_MIN_PASSPHRASE} characters."
            )


def _raw(given: str) -> bytes:
    """The 32 bytes that a text encodes in base64 (either alphabet); empty if it does not."""
    if len(given) not in (43, 44):
        return b""
    try:
        found = base64.b64decode(given.rstrip("=") + "=", altchars=b"-_", validate=True)
    except ValueError:
        try:
            found = base64.b64decode(given.rstrip("=") + "=", validate=True)
        except ValueError:
            return b""
    return found if len(found) == _KEY_BYTES else b""
