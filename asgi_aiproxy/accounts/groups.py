"""Groups and accounts, whose settings several tokens share, and owners of tokens."""

from __future__ import annotations

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.principal import Budget


class Group(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A group of tokens: `ratio` multiplies the list price for its members.

    `providers` and `keys` are patterns of the providers and of the ids of keys that may serve them
    (empty: all). Raises ConfigurationError if the ratio is negative.
    """

    name: str
    ratio: float = 1.0
    providers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < float("inf"):
            raise ConfigurationError(f"The ratio of a group cannot be {self.ratio}.")


class Account(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """An account, whose budgets several tokens share.

    `pending_vouchers` are the ids of vouchers whose redemption has begun and is not finished.
    """

    id: str
    name: str = ""
    enabled: bool = True
    budgets: tuple[Budget, ...] = ()
    pending_vouchers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(budget.shared for budget in self.budgets):
            raise ConfigurationError(
                "The budgets of an account must be shared: Budget(..., shared=True)."
            )


class TokenOwner(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The tokens that a caller has created for itself: when (Unix time), by id."""

    tokens: dict[str, float] = {}
