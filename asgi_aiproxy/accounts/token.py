"""A gateway token: the format of its secret, and its row in the store."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from typing import Literal

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.principal import Limits, check_tags

Scope = Literal["read", "write", "root"]

# "sk-", the token's id, and its secret part: 38 characters out of 62 are 226 bits. A key's id may
# follow.
_LETTERS = string.ascii_letters + string.digits
_ID, _SECRET = 10, 38
_FORM = re.compile(rf"(sk-([0-9A-Za-z]{{{_ID}}})[0-9A-Za-z]{{{_SECRET}}})(?:-(.+))?", re.ASCII)


class RetiredSecret(msgspec.Struct, frozen=True):
    """A replaced secret, and until when it is accepted (Unix time)."""

    digest: str
    until: float


class Token(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A stored token. Its secret is not stored, only the SHA-256 of it.

    (A slower hash is not needed: 226 bits cannot be guessed.) `models` are patterns of model names,
    `networks` IP address ranges. `account` is the account whose budgets it shares; `group` sets
    prices and the providers that may serve it. `may_choose_key` lets its user select the API key
    that serves a request: by `TOKEN-keyid`, or in `aiproxy-key`. `scopes` are its rights at the
    admin API, `tags` those of its usage records. `owner` is the caller that created it for itself,
    `token/<id>` or `user/<id>`; if that token is removed or disabled, this one is refused, too.
    `pending_vouchers` are the ids of vouchers whose redemption has begun and is not finished. Times
    are Unix times.

    Raises ConfigurationError if a field is invalid.
    """

    id: str
    digest: str
    name: str = ""
    created: float = 0.0
    enabled: bool = True
    expires: float | None = None
    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    limits: Limits = Limits()
    account: str = ""
    group: str = ""
    may_choose_key: bool = False
    scopes: tuple[Scope, ...] = ()
    tags: dict[str, str] = {}
    owner: str = ""
    retired_secrets: tuple[RetiredSecret, ...] = ()
    pending_vouchers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_networks(self.networks)
        check_tags(self.tags)
        if any(budget.shared for budget in self.limits.budgets):
            raise ConfigurationError(
                "A token cannot have a shared budget: give it to the token's account."
            )
        if any(not pattern for pattern in self.models):
            raise ConfigurationError("models: a name or pattern must not be empty.")

    def accepts(self, digest: str, now: float) -> float | None:
        """Return until when (Unix time) a secret with this digest is accepted; None if it is not
        accepted.

        The result is infinity for a secret that does not expire.
        """
        if secrets.compare_digest(digest, self.digest):
            return self.expires if self.expires is not None else float("inf")
        for old in self.retired_secrets:
            if secrets.compare_digest(digest, old.digest) and now < old.until:
                return min(old.until, self.expires if self.expires is not None else old.until)
        return None


class PresentedToken(msgspec.Struct, frozen=True):
    """A token as a caller presents it: the id of its row, its digest, and the id of the key it
    selects.
    """

    id: str
    digest: str
    key_id: str = ""


def new_secret(id: str = "") -> str:
    """Return a new secret, which is shown once: of a new token, or of the one with this `id`."""
    made = id or "".join(secrets.choice(_LETTERS) for _ in range(_ID))
    return f"sk-{made}" + "".join(secrets.choice(_LETTERS) for _ in range(_SECRET))


def token_digest(secret: str) -> str:
    """Return the digest of a secret, which is stored in place of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def parse_token(token: str) -> list[PresentedToken]:
    """Return the possible readings of a presented token, the most likely one first.

    A token that was created elsewhere contains no id: it is found by the beginning of its digest,
    and the part after its last dash may be the id of a key or not.
    """
    found = _FORM.fullmatch(token)
    if found is not None:
        return [PresentedToken(found[2], token_digest(found[1]), found[3] or "")]
    meanings = [_foreign(token)]
    head, dash, key_id = token.rpartition("-")
    if dash and head and key_id:
        meanings.append(_foreign(head, key_id))
    return meanings


def _foreign(secret: str, key_id: str = "") -> PresentedToken:
    hashed = token_digest(secret)
    return PresentedToken("x" + hashed[: _ID - 1], hashed, key_id)
