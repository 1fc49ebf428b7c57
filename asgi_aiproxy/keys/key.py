"""A provider's key, and what it may be used for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.patterns import as_patterns

PROXIES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Key:
    """A provider's key. Without an id it is known by its fingerprint.

    `models` are patterns of the models it may be used for (none: all). Keys of a lower `priority`
    number are used first. `rpm`, `tpm` and `concurrency` limit requests and tokens a minute and
    requests at once. `proxy` and `base_url` replace the provider's. `attributes` are for a
    provider's own use.
    """

    secret: str = field(repr=False)
    id: str = ""
    weight: int = 1
    priority: int = 0
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    # A proxy's password, and whatever attributes hold, are as secret as the key.
    proxy: str | None = field(default=None, repr=False)
    base_url: str | None = field(default=None, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.secret, str):
            raise ConfigurationError(
                f"A key is a text, not {type(self.secret).__name__}: is its environment variable "
                f"not set?"
            )
        if not self.id:
            object.__setattr__(self, "id", fingerprint(self.secret))
        elif not self.id.isprintable():
            raise ConfigurationError("The id of a key must be printable, it is told in headers.")
        object.__setattr__(self, "models", as_patterns(self.models))
        if self.weight < 1:
            raise ConfigurationError(f"Key {self.id!r}: the weight must be at least 1.")
        for name in ("rpm", "tpm", "concurrency"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigurationError(f"Key {self.id!r}: {name} must be at least 1.")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"Key {self.id!r}: base_url must begin with http:// or https://."
            )
        check_proxy_url(self.proxy, f"Key {self.id!r}")

    @property
    def limited(self) -> bool:
        """Whether its use is counted."""
        return any(limit is not None for limit in (self.rpm, self.tpm, self.concurrency))


class KeyExistsError(ConfigurationError):
    """There is another key of the same id."""

    def __init__(self, pool: str, id: str) -> None:
        super().__init__(
            f"Pool {pool!r}: there is another key with the id {id!r} already. Give this one an id "
            f"of its own; rotate() gives a key a new secret, remove() takes it out."
        )
        self.id = id


def check_new(keys: Iterable[Key], known: Mapping[str, Key], pool: str) -> None:
    """Raise KeyExistsError if one of `keys` has an id under which there is another secret."""
    secrets = {id: key.secret for id, key in known.items()}
    for key in keys:
        if secrets.setdefault(key.id, key.secret) != key.secret:
            raise KeyExistsError(pool, key.id)


def check_proxy_url(url: str | None, owner: str) -> None:
    """Raise ConfigurationError, which does not quote it, if an outbound proxy's URL is none."""
    if url and urlsplit(url).scheme not in PROXIES:
        raise ConfigurationError(
            f"{owner}: an outbound proxy's address begins with http://, https:// or socks5://."
        )


def fingerprint(secret: str) -> str:
    """A name for a secret that tells nothing of it, and that no other secret has (128 bits)."""
    return "key-" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def validate_key(key: Key, pool: str) -> Key:
    """The same key. Raises ConfigurationError if no request could carry its secret."""
    if not key.secret:
        raise ConfigurationError(f"Pool {pool!r}: a key is empty (id {key.id!r}).")
    sendable = key.secret.isascii() and key.secret.isprintable()
    if not sendable or key.secret != key.secret.strip():
        raise ConfigurationError(
            f"Pool {pool!r}: the key {key.id!r} holds what no HTTP header can carry: a "
            f"line break or a space at its end, or letters that are not ASCII."
        )
    return key


def as_list(keys: str | Key | Iterable[str | Key], owner: str) -> list[str | Key]:
    """Keys however they are given: one, or several."""
    if isinstance(keys, str | Key):
        return [keys]
    if not isinstance(keys, Iterable):
        raise ConfigurationError(
            f"{owner}: expected a key or several, got {type(keys).__name__}: is its environment "
            f"variable not set?"
        )
    return list(keys)
