"""`Tokens`: issue, list, edit, rotate and revoke the tokens in a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from asgi_aiproxy.accounts import token as made
from asgi_aiproxy.accounts.groups import Account, Group, TokenOwner
from asgi_aiproxy.accounts.table import Table
from asgi_aiproxy.accounts.token import RetiredSecret, Token
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores.base import Store, check_store

TOKENS, GROUPS, ACCOUNTS, OWNERS = "tokens", "groups", "accounts", "owners"

_FIXED = frozenset({"id", "digest", "created", "owner", "retired_secrets", "pending_vouchers"})
# A later expiry is taken for a mistake, such as milliseconds instead of seconds.
_MAX_EXPIRES = 32_503_680_000.0  # the year 3000


class Tokens:
    """The tokens, groups and accounts of a store.

    ::

        tokens = Tokens(store)
        secret, token = await tokens.issue(name="team-1", limits=Limits(rpm=60))
        await tokens.rotate(token.id, grace=3600)
        await tokens.revoke(token.id)

    Changes take effect in all workers within a second. Methods raise NoSuchRowError for ids that do
    not exist, ConfigurationError for invalid fields, and StoreUnavailableError.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        check_store(store, "Tokens")
        self.store = store
        self.table = Table(store, TOKENS, Token)
        self.groups = Table(store, GROUPS, Group)
        self.accounts = Table(store, ACCOUNTS, Account)
        self.owners = Table(store, OWNERS, TokenOwner)
        self._clock = clock

    async def issue(self, *, secret: str = "", **fields: Any) -> tuple[str, Token]:
        """Issue a token; returns its secret and its row. The secret is not stored and cannot be
        shown again.

        `fields` are those of `Token`. A `secret` of another system is accepted unchanged; it must
        have at least 20 characters. Raises RowExistsError if the token exists already.
        """
        self._check(fields)
        if secret and (len(secret) < 20 or not secret.isprintable() or not secret.isascii()):
            raise ConfigurationError(
                "A token must have at least 20 characters, all of them printable ASCII."
            )
        plain_secret = secret or made.new_secret()
        presented = made.parse_token(plain_secret)[0]
        if presented.key_id:
            raise ConfigurationError(
                "This token cannot be used: its end would be read as the id of a key."
            )
        row = _built(
            Token,
            {**fields, "id": presented.id, "digest": presented.digest, "created": self._clock()},
        )
        await self._check_names(row)
        await self.table.create(row.id, row)
        return plain_secret, row

    async def get(self, id: str) -> Token:
        """Return a token."""
        return await self.table.get(id)

    async def page(self, after: str = "", limit: int = 100) -> list[Token]:
        """Return at most `limit` tokens whose ids follow `after`."""
        return list((await self.table.page(after, limit)).values())

    async def edit(self, id: str, /, **fields: Any) -> Token:
        """Change fields of a token; returns the token."""
        fixed = sorted(_FIXED & set(fields))
        if fixed:
            raise ConfigurationError(f"These fields cannot be changed: {', '.join(fixed)}.")
        self._check(fields)
        await self._check_names(_built(Token, {"id": id, "digest": "", **fields}))
        return await self.table.edit(id, lambda row: _changed(row, fields))

    async def rotate(self, id: str, *, grace: float = 0.0) -> tuple[str, Token]:
        """Replace the secret of a token; the old one is accepted for another `grace` seconds."""
        secret = made.new_secret(id)
        now = self._clock()

        def change(row: Token) -> Token:
            old = tuple(secret_ for secret_ in row.retired_secrets if secret_.until > now)
            if grace > 0:
                old = (*old, RetiredSecret(row.digest, now + grace))
            return _changed(row, {"digest": made.token_digest(secret), "retired_secrets": old})

        return secret, await self.table.edit(id, change)

    async def revoke(self, id: str) -> None:
        """Remove a token: it is refused from now on."""
        await self.table.drop(id)

    def _check(self, fields: Mapping[str, Any]) -> None:
        expires = fields.get("expires")
        if isinstance(expires, int | float) and not self._clock() < expires < _MAX_EXPIRES:
            raise ConfigurationError("expires must be a Unix time in seconds, in the future.")

    async def _check_names(self, row: Token) -> None:
        if row.group and await self.groups.find(row.group) is None:
            raise ConfigurationError(f"There is no group {row.group!r}.")
        if row.account and await self.accounts.find(row.account) is None:
            raise ConfigurationError(f"There is no account {row.account!r}.")


def _built(row: type[Token], fields: Mapping[str, Any]) -> Token:
    """Build a row from fields, whose values may be those of JSON."""
    try:
        return msgspec.convert(msgspec.to_builtins(dict(fields)), row)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{error}.") from error


def _changed(row: Token, fields: Mapping[str, Any]) -> Token:
    return _built(Token, {**msgspec.structs.asdict(row), **fields})
