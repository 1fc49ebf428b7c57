"""What One API keeps beside the accounts, tokens and vouchers of this package: rows with numbers.

Clients of One API name users, tokens, channels and redemption codes by numbers, read a token's key
from the list, and expect members that `asgi_aiproxy.accounts` does not have. These rows hold that;
budgets, digests of tokens and vouchers are in the tables of `accounts`, where the relay reads them:
the user N is the account `user-N`. Keys are encrypted (`SecretCipher`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec

from asgi_aiproxy.accounts import Tokens, Vouchers
from asgi_aiproxy.accounts.table import Table
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.encryption import NoEncryption, SecretCipher
from asgi_aiproxy.stores.base import Store, check_store
from asgi_aiproxy.stores.memory import MemoryStore

GUEST, COMMON, ADMIN, ROOT = 0, 1, 10, 100
ENABLED, DISABLED, THIRD = 1, 2, 3  # the third is: expired, used, disabled automatically
EXHAUSTED = 4
_PAGE_ROWS = 1000

Row = TypeVar("Row", bound=msgspec.Struct)


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A token of a user. `token_id` is its id in `accounts`, `key` its encrypted key.

    `remain_quota` counts only for an unlimited token; else the quota is a budget.
    """

    id: int
    user_id: int
    token_id: str
    key: str
    name: str
    status: int = ENABLED
    created_time: int = 0
    expired_time: int = -1
    unlimited_quota: bool = False
    remain_quota: int = 0
    models: str | None = None
    subnet: str | None = None


class ChannelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A channel: one key of a vendor, for some models and groups. `key` is encrypted."""

    id: int
    type: int = 0
    key: str = ""
    key_digest: str = ""
    status: int = ENABLED
    name: str = ""
    weight: int = 0
    created_time: int = 0
    test_time: int = 0
    response_time: int = 0
    base_url: str = ""
    other: str | None = None
    balance: float = 0.0
    balance_updated_time: int = 0
    models: str = ""
    group: str = "default"
    model_mapping: str = ""
    priority: int = 0
    config: str = ""
    system_prompt: str | None = None


class RedemptionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A redemption code, which is a voucher. `key` is the encrypted code."""

    id: int
    user_id: int
    key: str
    name: str
    quota: int
    status: int = ENABLED
    created_time: int = 0
    redeemed_time: int = 0


class OneAPIData:
    """The tables of One API in a store.

    Arguments:

    - `store`: keeps all of it.
    - `sealer`: encrypts keys; may be left out for a store in memory.
    - `clock`: returns Unix time in seconds.

    Raises ConfigurationError if keys would leave the process without encryption.
    """

    def __init__(
        self,
        store: Store,
        sealer: SecretCipher | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_store(store, "OneAPIRoutes")
        if sealer is None:
            if not isinstance(store, MemoryStore):
                raise ConfigurationError(
                    "OneAPIRoutes: keys of channels must be encrypted before they are stored: "
                    "sealer=Sealer(...), or sealing_keys in the settings."
                )
            sealer = NoEncryption()
        self.store = store
        self.clock = clock
        self._sealer = sealer
        self.tokens = Tokens(store, clock=clock)
        self.vouchers = Vouchers(store, clock=clock)
        self.token_rows = Table(store, "oneapi.tokens", TokenRow)
        self.channels = Table(store, "oneapi.channels", ChannelRow)
        self.redemptions = Table(store, "oneapi.redemptions", RedemptionRow)

    def now(self) -> int:
        """The Unix time in seconds."""
        return int(self.clock())

    async def new_id(self, kind: str) -> int:
        """Return the next number of a kind of rows."""
        return (await self.store.add("oneapi.ids", {kind: 1}))[kind]

    async def reserve_ids(self, kind: str, highest: int) -> None:
        """Have `new_id` return numbers above `highest`, after rows with numbers were imported."""
        known = (await self.store.sums("oneapi.ids", [kind])).get(kind, 0)
        if known < highest:
            await self.store.add("oneapi.ids", {kind: highest - known})

    def encrypt(self, secret: str, about: str) -> str:
        """Encrypt a key of the row `about`."""
        return self._sealer.encrypt(secret.encode(), f"oneapi:{about}")

    def decrypt(self, text: str, about: str) -> str:
        """Decrypt the key of the row `about`. Raises SealError."""
        return self._sealer.decrypt(text, f"oneapi:{about}").decode()


def row_key(id: int) -> str:
    """Return the key of the row with this number, by which rows are in order."""
    return f"{id:010d}"


def token_key(user_id: int, id: int) -> str:
    """Return the key of a token's row: those of one user follow each other."""
    return f"{user_id:010d}.{id:010d}"


async def all_rows(table: Table[Row], prefix: str = "") -> AsyncIterator[Row]:
    """Yield the rows of a table in the order of their keys; only those that begin with `prefix`."""
    after = prefix
    while page := await table.page(after, _PAGE_ROWS):
        for key, row in page.items():
            if not key.startswith(prefix):
                return
            yield row
            after = key


def key_digest(key: str) -> str:
    """Return a digest by which an exact key is found."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
