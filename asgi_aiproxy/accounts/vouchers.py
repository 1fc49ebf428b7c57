"""`Vouchers`: made in bulk, redeemed once, onto a token or an account."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Literal, TypeVar

import msgspec

from asgi_aiproxy.accounts.groups import Account
from asgi_aiproxy.accounts.table import Check, Table
from asgi_aiproxy.accounts.token import Token
from asgi_aiproxy.accounts.tokens import Tokens
from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.principal import Budget, Unit
from asgi_aiproxy.stores.base import Store, StoreUnavailableError

VOUCHERS = "vouchers"

# Crockford's letters: none is taken for another. 8 name the voucher, 16 (80 bits) are its secret.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ALIKE = str.maketrans("OIL", "011", "- ")
_ID, _SECRET, _GROUP = 8, 16, 6
_AT_ONCE = 1000
_MOST = 100_000

RedeemTarget = Literal["token", "account"]
Holder = TypeVar("Holder", Token, Account)


class VoucherError(AIProxyError):
    """A voucher cannot be redeemed; the message says why, in words for who tries."""


class Voucher(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is kept of a voucher: of its code only the SHA-256. Times are Unix times.

    It is worth `amount` micro-dollars or units. `name` is that of the lot it was made in.
    `redeemed_by` (`token/<id>` or `account/<id>`) has claimed it; it has the money when it is
    `done`.
    """

    id: str
    digest: str
    amount: int
    unit: Unit = "usd"
    name: str = ""
    created: float = 0.0
    expires: float | None = None
    enabled: bool = True
    redeemed_by: str = ""
    redeemed_at: float = 0.0
    done: bool = False


class Vouchers:
    """The vouchers of a store. Methods may raise StoreUnavailableError; called again after that,
    `redeem` goes on where it stood, and pays once.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self.table = Table(store, VOUCHERS, Voucher)
        self._tokens = Tokens(store, clock=clock)
        self._clock = clock

    async def create(
        self,
        count: int,
        amount: int,
        *,
        unit: Unit = "usd",
        name: str = "",
        expires: float | None = None,
    ) -> list[str]:
        """New vouchers of `amount` micro-dollars or units each: their codes, which are nowhere
        else.

        Raises ConfigurationError for what makes no sense.
        """
        now = self._clock()
        if not 1 <= count <= _MOST:
            raise ConfigurationError(f"Vouchers are made by 1 to {_MOST} at once.")
        if amount < 1 or unit not in ("usd", "units"):
            raise ConfigurationError("A voucher is worth at least 1 micro-dollar or unit.")
        if expires is not None and not now < expires < now + 1e10:
            raise ConfigurationError("expires must be a Unix time, in seconds, that is to come.")
        codes: dict[str, str] = {}
        while len(codes) < count:
            raw = "".join(secrets.choice(_LETTERS) for _ in range(_ID + _SECRET))
            codes.setdefault(raw[:_ID], raw)
        rows = {
            id: Voucher(
                id=id,
                digest=_digest(raw),
                amount=amount,
                unit=unit,
                name=name,
                created=now,
                expires=expires,
            )
            for id, raw in codes.items()
        }
        ids = list(rows)
        for at in range(0, count, _AT_ONCE):
            try:
                await self.table.create_many({id: rows[id] for id in ids[at : at + _AT_ONCE]})
            except BaseException:
                await self._forget(ids[:at])
                raise
        return [_shown(raw) for raw in codes.values()]

    async def _forget(self, ids: Sequence[str]) -> None:
        """Take vouchers back whose codes were not shown. (One that stays cannot be redeemed.)"""
        with suppress(StoreUnavailableError):
            for at in range(0, len(ids), _AT_ONCE):
                some: dict[str, bytes | None] = dict.fromkeys(ids[at : at + _AT_ONCE])
                await self.table.store.put_many(self.table.name, some)

    async def export(self, name: str | None = None) -> AsyncIterator[Voucher]:
        """All vouchers, or those of a lot, by their ids."""
        after = ""
        while page := await self.table.page(after, _AT_ONCE):
            for id, row in page.items():
                if name in (None, row.name):
                    yield row
                after = id

    async def enable(self, id: str, enabled: bool = True) -> Voucher:
        """Let a voucher be redeemed, or not. Raises NoSuchRowError."""
        return await self.table.edit(id, lambda row: msgspec.structs.replace(row, enabled=enabled))

    async def redeem(self, code: str, target: RedeemTarget, id: str) -> Voucher:
        """Pay a voucher onto the budget in all of a token or an account, once.

        Raises VoucherError, or NoSuchRowError if there is no such target.
        """
        raw = code.upper().translate(_ALIKE)
        known = await self.table.find(raw[:_ID])
        if known is None or not secrets.compare_digest(known.digest, _digest(raw)):
            raise VoucherError("There is no such voucher.")
        await self._check_target(target, id, known)
        whose = f"{target}/{id}"
        claimed = await self.table.edit(known.id, lambda row: self._claim(row, whose))

        async def still_open() -> None:
            if (await self.table.get(claimed.id)).done:
                raise _DoneError

        try:
            # What is read after the target shows whether the target, as it was read, was paid.
            await self._credit(target, id, claimed, still_open)
        except _DoneError:
            raise VoucherError("This voucher is redeemed already.") from None
        done = await self.table.edit(
            claimed.id, lambda row: msgspec.structs.replace(row, done=True)
        )
        await self._clean(target, id, claimed)
        return done

    def _claim(self, row: Voucher, whose: str) -> Voucher:
        if row.done or row.redeemed_by not in ("", whose):
            raise VoucherError("This voucher is redeemed already.")
        if row.redeemed_by == whose:
            return row  # it was begun, and not brought to its end
        if not row.enabled:
            raise VoucherError("This voucher is disabled.")
        if row.expires is not None and self._clock() >= row.expires:
            raise VoucherError("This voucher has expired.")
        return msgspec.structs.replace(row, redeemed_by=whose, redeemed_at=self._clock())

    async def _check_target(self, target: RedeemTarget, id: str, voucher: Voucher) -> None:
        if target == "token":
            _paid((await self._tokens.table.get(id)).limits.budgets, voucher)
        else:
            _paid((await self._tokens.accounts.get(id)).budgets, voucher)

    async def _credit(self, target: RedeemTarget, id: str, voucher: Voucher, check: Check) -> None:
        def token(row: Token) -> Token:
            if voucher.id in row.pending_vouchers:
                return row
            limits = msgspec.structs.replace(row.limits, budgets=_paid(row.limits.budgets, voucher))
            pending = (*row.pending_vouchers, voucher.id)
            return msgspec.structs.replace(row, limits=limits, pending_vouchers=pending)

        def account(row: Account) -> Account:
            if voucher.id in row.pending_vouchers:
                return row
            budgets = _paid(row.budgets, voucher)
            return msgspec.structs.replace(
                row, budgets=budgets, pending_vouchers=(*row.pending_vouchers, voucher.id)
            )

        if target == "token":
            await self._tokens.table.edit(id, token, check=check)
        else:
            await self._tokens.accounts.edit(id, account, check=check)

    async def _clean(self, target: RedeemTarget, id: str, voucher: Voucher) -> None:
        """Forget that a voucher was on its way."""

        def without(row: Holder) -> Holder:
            pending = tuple(other for other in row.pending_vouchers if other != voucher.id)
            return msgspec.structs.replace(row, pending_vouchers=pending)

        if target == "token":
            await self._tokens.table.edit(id, without)
        else:
            await self._tokens.accounts.edit(id, without)


class _DoneError(AIProxyError):
    """Somebody else was faster."""


def _paid(budgets: tuple[Budget, ...], voucher: Voucher) -> tuple[Budget, ...]:
    """Budgets with a voucher's worth. Raises VoucherError if there is none that can take it."""
    for at, budget in enumerate(budgets):
        if (budget.unit, budget.per) == (voucher.unit, "total"):
            more = msgspec.structs.replace(budget, limit=budget.limit + voucher.amount)
            return (*budgets[:at], more, *budgets[at + 1 :])
    raise VoucherError(f"There is no budget in {voucher.unit} that this voucher could fill up.")


def _digest(raw: str) -> str:
    return hashlib.sha256(raw.encode()).hexdigest()


def _shown(raw: str) -> str:
    return "-".join(raw[at : at + _GROUP] for at in range(0, len(raw), _GROUP))
