"""`Vouchers`: created in batches, each redeemed once, by a token or an account."""

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

# Crockford's base 32, without letters that look alike. 8 characters are the id, 16 (80 bits) the
# secret.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NORMALIZED = str.maketrans("OIL", "011", "- ")
_ID, _SECRET, _GROUP = 8, 16, 6
_ROWS_PER_WRITE = 1000
_MAX_VOUCHERS = 100_000

RedeemTarget = Literal["token", "account"]
Holder = TypeVar("Holder", Token, Account)


class VoucherError(AIProxyError):
    """A voucher cannot be redeemed; the message gives the reason, for the person who redeems it."""


class Voucher(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A stored voucher. Its code is not stored, only the SHA-256 of it. Times are Unix times.

    It is worth `amount` micro-dollars or units. `name` is the name of its batch. `redeemed_by`
    (`token/<id>` or `account/<id>`) is set when the redemption begins; `done` is true once the
    budget has been raised.
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
    """The vouchers of a store. Methods may raise StoreUnavailableError.

    If `redeem` raises it, calling `redeem` again continues the redemption; the voucher is paid
    once.
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
        """Create vouchers of `amount` micro-dollars or units each, and return their codes.

        The codes are not stored and cannot be shown again. `expires` is a Unix time. Raises
        ConfigurationError if an argument is invalid.
        """
        now = self._clock()
        if not 1 <= count <= _MAX_VOUCHERS:
            raise ConfigurationError(f"count must be an integer from 1 to {_MAX_VOUCHERS}.")
        if amount < 1 or unit not in ("usd", "units"):
            raise ConfigurationError("A voucher must be worth at least 1 micro-dollar or unit.")
        if expires is not None and not now < expires < now + 1e10:
            raise ConfigurationError("expires must be a Unix time in seconds, in the future.")
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
        for start in range(0, count, _ROWS_PER_WRITE):
            try:
                await self.table.create_many(
                    {id: rows[id] for id in ids[start : start + _ROWS_PER_WRITE]}
                )
            except BaseException:
                await self._remove_rows(ids[:start])
                raise
        return [_formatted_code(raw) for raw in codes.values()]

    async def adopt(self, code: str, amount: int, *, unit: Unit = "usd", name: str = "") -> Voucher:
        """Store a voucher with the `code` of another system, worth `amount`.

        The code must have at least 24 letters and digits; case and dashes make no difference.
        Raises ConfigurationError for an invalid argument, and RowExistsError if a voucher with the
        same first eight characters exists.
        """
        raw = code.upper().translate(_NORMALIZED)
        if len(raw) < _ID + _SECRET or not (raw.isascii() and raw.isalnum()):
            raise ConfigurationError(
                f"code: must have at least {_ID + _SECRET} characters, letters and digits only."
            )
        if not 1 <= amount < 2**53 or unit not in ("usd", "units"):
            raise ConfigurationError("A voucher must be worth at least 1 micro-dollar or unit.")
        row = Voucher(
            id=raw[:_ID],
            digest=_digest(raw),
            amount=amount,
            unit=unit,
            name=name,
            created=self._clock(),
        )
        await self.table.create(row.id, row)
        return row

    async def change_amount(self, code: str, amount: int) -> Voucher:
        """Change what a voucher is worth. Raises NoSuchRowError, and VoucherError once it is
        redeemed.
        """
        id = voucher_id(code)

        def change(row: Voucher) -> Voucher:
            if row.redeemed_by:
                raise VoucherError("This voucher has already been redeemed.")
            return msgspec.structs.replace(row, amount=amount)

        return await self.table.edit(id, change)

    async def _remove_rows(self, ids: Sequence[str]) -> None:
        """Remove vouchers whose codes were not returned. (One that remains cannot be redeemed.)"""
        with suppress(StoreUnavailableError):
            for start in range(0, len(ids), _ROWS_PER_WRITE):
                rows: dict[str, bytes | None] = dict.fromkeys(ids[start : start + _ROWS_PER_WRITE])
                await self.table.store.put_many(self.table.name, rows)

    async def export(self, name: str | None = None) -> AsyncIterator[Voucher]:
        """Yield all vouchers, or those of a batch, in the order of their ids."""
        after = ""
        while page := await self.table.page(after, _ROWS_PER_WRITE):
            for id, row in page.items():
                if name in (None, row.name):
                    yield row
                after = id

    async def enable(self, id: str, enabled: bool = True) -> Voucher:
        """Allow or forbid that a voucher is redeemed. Raises NoSuchRowError."""
        return await self.table.edit(id, lambda row: msgspec.structs.replace(row, enabled=enabled))

    async def redeem(self, code: str, target: RedeemTarget, id: str) -> Voucher:
        """Add a voucher to the total budget of a token or an account, once.

        Raises VoucherError, or NoSuchRowError if the target does not exist.
        """
        raw = code.upper().translate(_NORMALIZED)
        voucher = await self.table.find(raw[:_ID])
        if voucher is None or not secrets.compare_digest(voucher.digest, _digest(raw)):
            raise VoucherError("The voucher code is invalid.")
        await self._check_target(target, id, voucher)
        redeemed_by = f"{target}/{id}"
        claimed = await self.table.edit(voucher.id, lambda row: self._claim(row, redeemed_by))

        async def still_open() -> None:
            if (await self.table.get(claimed.id)).done:
                raise _DoneError

        try:
            # Read after the target: shows whether the target, as it was read, has been paid
            # already.
            await self._credit(target, id, claimed, still_open)
        except _DoneError:
            raise VoucherError("This voucher has already been redeemed.") from None
        redeemed = await self.table.edit(
            claimed.id, lambda row: msgspec.structs.replace(row, done=True)
        )
        await self._clean(target, id, claimed)
        return redeemed

    def _claim(self, row: Voucher, redeemed_by: str) -> Voucher:
        if row.done or row.redeemed_by not in ("", redeemed_by):
            raise VoucherError("This voucher has already been redeemed.")
        if row.redeemed_by == redeemed_by:
            return row  # the redemption had begun and is continued
        if not row.enabled:
            raise VoucherError("This voucher is disabled.")
        if row.expires is not None and self._clock() >= row.expires:
            raise VoucherError("This voucher has expired.")
        return msgspec.structs.replace(row, redeemed_by=redeemed_by, redeemed_at=self._clock())

    async def _check_target(self, target: RedeemTarget, id: str, voucher: Voucher) -> None:
        if target == "token":
            _with_credit((await self._tokens.table.get(id)).limits.budgets, voucher)
        else:
            _with_credit((await self._tokens.accounts.get(id)).budgets, voucher)

    async def _credit(self, target: RedeemTarget, id: str, voucher: Voucher, check: Check) -> None:
        def token(row: Token) -> Token:
            if voucher.id in row.pending_vouchers:
                return row
            limits = msgspec.structs.replace(
                row.limits, budgets=_with_credit(row.limits.budgets, voucher)
            )
            pending = (*row.pending_vouchers, voucher.id)
            return msgspec.structs.replace(row, limits=limits, pending_vouchers=pending)

        def account(row: Account) -> Account:
            if voucher.id in row.pending_vouchers:
                return row
            budgets = _with_credit(row.budgets, voucher)
            return msgspec.structs.replace(
                row, budgets=budgets, pending_vouchers=(*row.pending_vouchers, voucher.id)
            )

        if target == "token":
            await self._tokens.table.edit(id, token, check=check)
        else:
            await self._tokens.accounts.edit(id, account, check=check)

    async def _clean(self, target: RedeemTarget, id: str, voucher: Voucher) -> None:
        """Remove a voucher from the pending ones of its target."""

        def without(row: Holder) -> Holder:
            pending = tuple(other for other in row.pending_vouchers if other != voucher.id)
            return msgspec.structs.replace(row, pending_vouchers=pending)

        if target == "token":
            await self._tokens.table.edit(id, without)
        else:
            await self._tokens.accounts.edit(id, without)


class _DoneError(AIProxyError):
    """Another process has finished the redemption."""


def _with_credit(budgets: tuple[Budget, ...], voucher: Voucher) -> tuple[Budget, ...]:
    """Return the budgets with the voucher's amount added. Raises VoucherError if no budget fits."""
    for index, budget in enumerate(budgets):
        if (budget.unit, budget.per) == (voucher.unit, "total"):
            raised = msgspec.structs.replace(budget, limit=budget.limit + voucher.amount)
            return (*budgets[:index], raised, *budgets[index + 1 :])
    raise VoucherError(
        f"The target has no total budget in {voucher.unit} that this voucher could be added to."
    )


def voucher_id(code: str) -> str:
    """Return the id of the voucher with a code."""
    return code.upper().translate(_NORMALIZED)[:_ID]


def _digest(raw: str) -> str:
    return hashlib.sha256(raw.encode()).hexdigest()


def _formatted_code(raw: str) -> str:
    return "-".join(raw[start : start + _GROUP] for start in range(0, len(raw), _GROUP))
