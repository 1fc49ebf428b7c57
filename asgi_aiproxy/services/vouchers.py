"""Manage vouchers: create them in batches, export and redeem them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from asgi_aiproxy.accounts import NoSuchRowError, Voucher, VoucherError, Vouchers
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.principal import Budget
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import CODE, Actor, Page, PageQuery, paginate
from asgi_aiproxy.services.budgets import MICRO
from asgi_aiproxy.services.csv_export import csv_lines, csv_time
from asgi_aiproxy.stores.base import Store

Status = Literal["open", "redeemed", "disabled", "expired"]
Place = Annotated[str, Meta(pattern=r"^(token|account)/.+$")]


class VouchersNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Vouchers to create, all of the same worth, in US dollars or in units. `name` is the name of
    the batch.
    """

    count: Annotated[int, Meta(ge=1, le=100_000)]
    usd: Annotated[float, Meta(gt=0, le=1_000_000)] | UnsetType = UNSET
    units: Annotated[int, Meta(ge=1, lt=2**53)] | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=200)] = ""
    expires: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.usd, UnsetType) is isinstance(self.units, UnsetType):
            raise invalid("usd: vouchers must have a worth in either usd or units.", "usd")


class VoucherCodes(msgspec.Struct, frozen=True):
    """The codes, which are shown only now."""

    codes: list[str]


class VoucherEdit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a voucher may be redeemed."""

    enabled: bool


class Redemption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code, and the target whose budget it is added to: `token/<id>` or `account/<id>`."""

    code: Annotated[str, Meta(min_length=1, max_length=200)]
    target: Place


class VoucherOut(msgspec.Struct, frozen=True, kw_only=True):
    """A voucher without its code. Times are Unix times."""

    id: str
    name: str
    status: Status
    amount: float
    unit: str
    created: float
    expires: float | None
    redeemed_by: str
    redeemed_at: float


class BatchQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of a batch; all vouchers if it is omitted."""

    name: str | None = None


class VoucherService:
    """Manages the vouchers of a store. Raises the same errors as `TokenService`.

    Changes are recorded in `audit`, by default the audit log of the store.
    """

    def __init__(
        self,
        store: Store,
        *,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audit = audit if audit is not None else AuditLog(store, clock=clock)
        self._vouchers = Vouchers(store, clock=clock)
        self._clock = clock

    async def page(self, query: PageQuery) -> Page[VoucherOut]:
        """Return vouchers in the order of their ids."""
        rows = await self._vouchers.table.page(query.after, query.limit + 1)
        return paginate(
            [self._to_voucher_out(row) for row in rows.values()], query.limit, lambda row: row.id
        )

    async def get(self, id: str) -> VoucherOut:
        """Return one voucher."""
        return self._to_voucher_out(await self._vouchers.table.get(id))

    async def create(self, new: VouchersNew, by: Actor = CODE) -> VoucherCodes:
        """Create vouchers; their codes are not stored and cannot be shown again."""
        if new.expires is not None and not self._clock() < new.expires < 32_503_680_000:
            raise invalid("expires: must be a Unix time in seconds, in the future.", "expires")
        if isinstance(new.units, int):
            worth = Budget.units(new.units)
        else:
            worth = Budget.usd(new.usd if isinstance(new.usd, int | float) else 0)
        if worth.limit < 1:
            raise invalid("usd: a voucher must be worth at least 0.000001.", "usd")
        codes = await self._vouchers.create(
            new.count, worth.limit, unit=worth.unit, name=new.name, expires=new.expires
        )
        created = msgspec.structs.asdict(new) | {"amount": worth.limit, "unit": worth.unit}
        for name in ("usd", "units"):
            del created[name]
        await self._audit.record(by, "voucher.create", f"batch/{new.name}", after=created)
        return VoucherCodes(codes)

    async def all(self, query: BatchQuery) -> list[VoucherOut]:
        """Return all vouchers of a batch."""
        return [self._to_voucher_out(row) async for row in self._vouchers.export(query.name)]

    async def export(self, query: BatchQuery) -> str:
        """Export all vouchers of a batch as CSV (RFC 4180), without their codes."""
        rows: list[list[Any]] = [list(VoucherOut.__struct_fields__)]
        async for row in self._vouchers.export(query.name):
            values = msgspec.structs.asdict(self._to_voucher_out(row))
            for name in ("created", "expires", "redeemed_at"):
                values[name] = csv_time(values[name])
            rows.append(list(values.values()))
        return csv_lines(rows)

    async def enable(self, id: str, enabled: bool, by: Actor = CODE) -> VoucherOut:
        """Allow or forbid that a voucher is redeemed."""
        row = await self._vouchers.enable(id, enabled)
        await self._audit.record(by, "voucher.edit", f"voucher/{id}", after={"enabled": enabled})
        return self._to_voucher_out(row)

    async def redeem(self, redemption: Redemption, by: Actor = CODE) -> VoucherOut:
        """Redeem a voucher, once."""
        kind, _, id = redemption.target.partition("/")
        try:
            row = await self._vouchers.redeem(
                redemption.code, "token" if kind == "token" else "account", id
            )
        except VoucherError as error:
            message, field = str(error), "target" if "budget" in str(error) else "code"
            raise APIError(
                ErrorKind.INVALID, f"{field}: {message}", status=409, param=field, code="voucher"
            ) from error
        except NoSuchRowError as error:
            raise invalid(f"target: the {kind} {id!r} does not exist.", "target") from error
        redeemed = {"target": redemption.target, "amount": row.amount, "unit": row.unit}
        await self._audit.record(by, "voucher.redeem", f"voucher/{row.id}", after=redeemed)
        return self._to_voucher_out(row)

    def _to_voucher_out(self, row: Voucher) -> VoucherOut:
        return VoucherOut(
            id=row.id,
            name=row.name,
            status=self._status(row),
            amount=row.amount / MICRO if row.unit == "usd" else row.amount,
            unit=row.unit,
            created=row.created,
            expires=row.expires,
            redeemed_by=row.redeemed_by,
            redeemed_at=row.redeemed_at,
        )

    def _status(self, row: Voucher) -> Status:
        if row.redeemed_by:
            return "redeemed"
        if not row.enabled:
            return "disabled"
        return "expired" if row.expires is not None and row.expires <= self._clock() else "open"
