"""A gateway token: what it is made of, and what its row in the store says."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from typing import Literal

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.principal import Limits

Scope = Literal["read", "write", "root"]

# "sk-", the token's id, and its secret part: 38 of 62 letters are 226 bits. A key's id may follow.
_LETTERS = string.ascii_letters + string.digits
_ID, _SECRET = 10, 38
_FORM = re.compile(rf"(sk-([0-9A-Za-z]{{{_ID}}})[0-9A-Za-z]{{{_SECRET}}})(?:-(.+))?", re.ASCII)


class RetiredSecret(msgspec.Struct, frozen=True):
    """A secret that was replaced, and until when it is still good (Unix time)."""

    digest: str
    until: float


class Token(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is kept of a token: its secret is not, only its SHA-256.

    (Nothing slower is needed: 226 bits cannot be guessed.) `models` are patterns, `networks` ranges
    of addresses. `account` is whose budgets it shares, `group` sets prices and who serves it.
    `may_choose_key` lets its user name the key that serves: by `TOKEN-keyid`, or in `aiproxy-key`.
    `scopes`
    are what it may do at the admin API. `pending_vouchers` are the ids of vouchers
    whose redemption has begun and is not finished. Times are Unix times.

    Raises ConfigurationError for what cannot be.
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
    retired_secrets: tuple[RetiredSecret, ...] = ()
    pending_vouchers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_networks(self.networks)
        if any(budget.shared for budget in self.limits.budgets):
            raise ConfigurationError("A shared budget is an account's, not a token's.")
        if any(not pattern for pattern in self.models):
            raise ConfigurationError("The name of a model is empty.")

    def accepts(self, digest: str, now: float) -> float | None:
        """Until when (Unix time) a secret of this digest is good, None if it is not.

        A secret that does not expire is good to the end of all days.
        """
        if secrets.compare_digest(digest, self.digest):
            return self.expires if self.expires is not None else float("inf")
        for old in self.retired_secrets:
            if secrets.compare_digest(digest, old.digest) and now < old.until:
                return min(old.until, self.expires if self.expires is not None else old.until)
        return None


class PresentedToken(msgspec.Struct, frozen=True):
    """A token as a caller shows it: where its row is, what it must match, and the key it names."""

    id: str
    digest: str
    key_id: str = ""


def new_secret(id: str = "") -> str:
    """A new token to be shown once; with the `id` of one there is."""
    made = id or "".join(secrets.choice(_LETTERS) for _ in range(_ID))
    return f"sk-{made}" + "".join(secrets.choice(_LETTERS) for _ in range(_SECRET))


def token_digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def parse_token(token: str) -> list[PresentedToken]:
    """What a token may mean, the likeliest first.

    One that was made elsewhere has no id within: it is found by the beginning of its digest, and
    what follows its last dash may be a key's id, or not.
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
