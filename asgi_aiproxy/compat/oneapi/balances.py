"""Quota of users and tokens, as One API shows it: what is left, and what was used.

A quota is a budget in units: what is left is the limit without what was spent and is reserved. What
was used is a sum of its own, so that unlimited tokens and channels have one, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asgi_aiproxy.accounts import Token
from asgi_aiproxy.accounts.groups import Account
from asgi_aiproxy.accounts.token_verifier import make_principal
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.compat.oneapi.rows import OneAPIData, TokenRow
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.services.budgets import LimitUsage, read_limit_usage
from asgi_aiproxy.usage.record import UsageRecord

_USED = "oneapi.used"
_ACCESSED = "oneapi.accessed"  # a table: when a token was last used, by its id
_MAX_UNITS = 2**53 - 1


class Balance(msgspec.Struct, frozen=True):
    """What is left of a quota, what was spent of its budget, and what was used in all."""

    left: int = 0
    spent: int = 0
    used: int = 0
    requests: int = 0


class Balances:
    """Reads and changes quota."""

    def __init__(self, data: OneAPIData) -> None:
        self._data = data

    async def of_users(self, users: Sequence[User]) -> dict[int, Balance]:
        """Return the balance of each user by its number."""
        if not users:
            return {}
        rows = await self._data.store.rows("accounts", [user.account for user in users])
        accounts = {id: msgspec.json.decode(row, type=Account) for id, row in rows.items()}
        principals = [_account_principal(user, accounts.get(user.account)) for user in users]
        usage = await read_limit_usage(self._data.store, principals, self._data.clock())
        names = [name for user in users for name in (f"user:{user.id}", f"requests:{user.id}")]
        sums = await self._data.store.sums(_USED, names)
        return {
            user.id: msgspec.structs.replace(
                _balance(found),
                used=sums.get(f"user:{user.id}", 0),
                requests=sums.get(f"requests:{user.id}", 0),
            )
            for user, found in zip(users, usage, strict=True)
        }

    async def of_tokens(self, rows: Sequence[TokenRow]) -> dict[int, Balance]:
        """Return the balance of each token by its number."""
        if not rows:
            return {}
        stored = await self._data.store.rows("tokens", [row.token_id for row in rows])
        tokens = {id: msgspec.json.decode(value, type=Token) for id, value in stored.items()}
        known = [row for row in rows if row.token_id in tokens]
        principals = [make_principal(tokens[row.token_id], None, None) for row in known]
        usage = await read_limit_usage(self._data.store, principals, self._data.clock())
        sums = await self._data.store.sums(_USED, [f"token:{row.token_id}" for row in known])
        found = {}
        for row, level in zip(known, usage, strict=True):
            balance = _balance(level)
            left = row.remain_quota if row.unlimited_quota else balance.left
            used = sums.get(f"token:{row.token_id}", 0)
            found[row.id] = msgspec.structs.replace(balance, left=left, used=used)
        return found

    async def accessed(self, rows: Sequence[TokenRow]) -> dict[int, int]:
        """Return the Unix time of the last use of each token by its number, if it was used."""
        if not rows:
            return {}
        found = await self._data.store.rows(_ACCESSED, [row.token_id for row in rows])
        return {row.id: int(found[row.token_id]) for row in rows if row.token_id in found}

    async def forget_token(self, row: TokenRow) -> None:
        """Remove what is known of a deleted token."""
        await self._data.store.drop(_ACCESSED, row.token_id)

    async def of_channels(self, ids: Sequence[int]) -> dict[int, int]:
        """Return what was used of each channel by its number."""
        sums = await self._data.store.sums(_USED, [f"channel:{id}" for id in ids])
        return {id: sums.get(f"channel:{id}", 0) for id in ids}

    async def set_user(self, user: User, quota: int) -> None:
        """Set what is left of a user's quota."""
        balance = (await self.of_users([user]))[user.id]
        limit = _limit(balance.spent + quota)
        await self._data.tokens.accounts.edit(user.account, lambda row: _with_limit(row, limit))

    async def add_user(self, user: User, quota: int) -> None:
        """Add to a user's quota; a negative amount takes from it."""
        await self._data.tokens.accounts.edit(
            user.account,
            lambda row: _with_limit(row, _limit(sum(b.limit for b in row.budgets) + quota)),
        )

    async def set_token(self, row: TokenRow, quota: int, *, unlimited: bool) -> None:
        """Set what is left of a token's quota."""
        balance = (await self.of_tokens([row])).get(row.id, Balance())
        budgets = () if unlimited else (Budget.units(_limit(balance.spent + quota)),)

        def change(token: Token) -> Token:
            return msgspec.structs.replace(token, limits=Limits(budgets=budgets))

        await self._data.tokens.table.edit(row.token_id, change)

    async def add_usage(self, record: UsageRecord) -> None:
        """Count an exchange for its user, token and channel."""
        units = 0 if record.not_charged else record.units or 0
        user, channel = record.account.removeprefix("user-"), record.provider
        amounts = {f"token:{record.principal}": units, f"requests:{user}": 1}
        amounts |= {f"user:{user}": units}
        if channel.startswith("channel-"):
            amounts[f"channel:{channel.removeprefix('channel-')}"] = units
        await self._data.store.add(_USED, amounts, once=record.id)
        started = b"%d" % record.started
        await self._data.store.put(_ACCESSED, record.principal, started)


def _account_principal(user: User, account: Account | None) -> Principal:
    budgets = account.budgets if account is not None else ()
    return Principal(user.account, account=user.account, limits=Limits(budgets=budgets))


def _balance(usage: LimitUsage) -> Balance:
    units = [budget for budget in usage.budgets if budget.unit == "units"]
    if not units:
        return Balance()
    return Balance(int(units[0].left), int(units[0].spent + units[0].held))


def _with_limit(row: Account, limit: int) -> Account:
    return msgspec.structs.replace(row, budgets=(Budget.units(limit, shared=True),))


def _limit(units: int) -> int:
    return min(max(0, units), _MAX_UNITS)
