"""An API key of a provider, and the models and limits that it is used with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.patterns import as_patterns

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key of a provider. Without an `id`, the fingerprint of the secret is the id.

    `models` are patterns of the models that the key may be used for (empty: all). Keys with a lower
    `priority` number are used first; `weight` is the share among keys of one priority. `rpm` and
    `tpm` limit requests and tokens per minute, `concurrency` limits concurrent requests. `proxy`
    (URL of an outbound proxy) and `base_url` override those of the provider. `attributes` are read
    by some providers.

    Raises ConfigurationError for an invalid field.
    """

    secret: str = field(repr=False)
    id: str = ""
    weight: int = 1
    priority: int = 0
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    # A proxy URL may contain a password, and attributes may be secret: they are not in the repr.
    proxy: str | None = field(default=None, repr=False)
    base_url: str | None = field(default=None, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.secret, str):
            raise ConfigurationError(
                f"An API key must be a string, not {type(self.secret).__name__}: is its "
                f"environment variable not set?"
            )
        if not self.id:
            object.__setattr__(self, "id", fingerprint(self.secret))
        elif not self.id.isprintable():
            raise ConfigurationError(
                "The id of a key must be printable: it is sent in response headers."
            )
        object.__setattr__(self, "models", as_patterns(self.models))
        if self.weight < 1:
            raise ConfigurationError(
                f"Key {self.id!r}: weight must be at least 1, got {self.weight!r}."
            )
        for name in ("rpm", "tpm", "concurrency"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigurationError(
                    f"Key {self.id!r}: {name} must be at least 1, got {limit!r}."
                )
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"Key {self.id!r}: base_url must begin with http:// or https://."
            )
        check_proxy_url(self.proxy, f"Key {self.id!r}")

    @property
    def limited(self) -> bool:
        """Whether the key has any limit."""
        return (self.rpm, self.tpm, self.concurrency) != (None, None, None)


class KeyExistsError(ConfigurationError):
    """A key with the same id and another secret exists."""

    def __init__(self, pool: str, id: str) -> None:
        super().__init__(
            f"Pool {pool!r}: there is another key with the id {id!r} already. Give this one an id "
            f"of its own; rotate() changes the secret of a key, remove() removes it."
        )
        self.id = id


def check_new(keys: Iterable[Key], known: Mapping[str, Key], pool: str) -> None:
    """Raise KeyExistsError if a key in `known` has the same id as one of `keys` and another
    secret."""
    secrets = {id: key.secret for id, key in known.items()}
    for key in keys:
        if secrets.setdefault(key.id, key.secret) != key.secret:
            raise KeyExistsError(pool, key.id)


def check_proxy_url(url: str | None, owner: str) -> None:
    """Raise ConfigurationError, without quoting the URL, if the URL of an outbound proxy is
    invalid."""
    if url and urlsplit(url).scheme not in PROXY_SCHEMES:
        raise ConfigurationError(
            f"{owner}: the URL of an outbound proxy must begin with http://, https:// or socks5://."
        )


def fingerprint(secret: str) -> str:
    """An identifier of a secret that does not reveal it (128 bits of SHA-256)."""
    return "key-" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def validate_key(key: Key, pool: str) -> Key:
    """Return the key. Raises ConfigurationError if its secret cannot be sent in an HTTP header."""
    if not key.secret:
        raise ConfigurationError(f"Pool {pool!r}: a key is empty (id {key.id!r}).")
    sendable = key.secret.isascii() and key.secret.isprintable()
    if not sendable or key.secret != key.secret.strip():
        raise ConfigurationError(
            f"Pool {pool!r}: the key {key.id!r} cannot be sent in an HTTP header: it contains a "
            f"line break, a leading or trailing space, or characters that are not ASCII."
        )
    return key


def as_list(keys: str | Key | Iterable[str | Key], owner: str) -> list[str | Key]:
    """A list of keys from one key or several. Raises ConfigurationError for anything else."""
    if isinstance(keys, str | Key):
        return [keys]
    if not isinstance(keys, Iterable):
        raise ConfigurationError(
            f"{owner}: expected a key or a list of keys, got {type(keys).__name__}: is its "
            f"environment variable not set?"
        )
    return list(keys)
