"""Self-service: what callers have used themselves, without what is the operator's business."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.services.base import Actor, LogId, Page
from asgi_aiproxy.services.own_tokens import OwnTokenService
from asgi_aiproxy.services.receipts import Receipt, to_receipt
from asgi_aiproxy.services.usage import (
    Limit,
    NearQuery,
    RecordOut,
    SumOut,
    UsageQuery,
    UsageService,
)
from asgi_aiproxy.services.vouchers import Redemption, VoucherOut, VoucherService
from asgi_aiproxy.usage.ledger import Query, State
from asgi_aiproxy.usage.record import Outcome


class OwnUsageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter of one's own exchanges, see `UsageQuery`. `principal` is the id of an own token."""

    principal: str = ""
    model: str = ""
    state: State | None = None
    since: float | None = None
    until: float | None = None
    after: LogId = ""
    limit: Limit = 100
    scan: Annotated[int, Meta(ge=1)] | None = None


class OwnDaysQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The UTC days from `since` to `until`, and optionally one of the caller's tokens."""

    principal: str = ""
    since: date | None = None
    until: date | None = None


class OwnRecordOut(msgspec.Struct, frozen=True, kw_only=True):
    """One's own exchange: the members of `RecordOut` that concern the caller."""

    id: str
    request_id: str
    principal: str
    face: str
    operation: str
    requested_model: str
    model: str
    usage: Usage | None
    outcome: Outcome
    status: int
    error: str
    started: float
    first_byte: float | None
    duration: float
    account: str
    cost: int | None
    units: int | None
    usd: float | None
    estimated: bool
    not_charged: bool
    near: str


class OwnExchangeOut(msgspec.Struct, frozen=True):
    """One of the caller's exchanges, and its receipt."""

    record: OwnRecordOut
    receipt: Receipt


class VoucherCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code to redeem for the caller's own budget, or for that of its account."""

    code: Annotated[str, Meta(min_length=1, max_length=200)]


class OwnUsageService:
    """Reads the usage of callers, each its own, and redeems vouchers for them.

    Own are the exchanges of the caller and of the tokens that it has created. Methods raise
    APIError and StoreUnavailableError.
    """

    def __init__(
        self, tokens: OwnTokenService, usage: UsageService, vouchers: VoucherService
    ) -> None:
        self._tokens = tokens
        self._usage = usage
        self._vouchers = vouchers

    async def page(self, query: OwnUsageQuery, caller: Principal) -> Page[OwnRecordOut]:
        """Return the caller's exchanges, newest first."""
        fields = msgspec.structs.asdict(query)
        principals = await self._principals(fields.pop("principal"), caller)
        wanted = UsageQuery(**fields)
        filter_ = msgspec.structs.replace(wanted.query(), principals=principals)
        found = await self._usage.matching(filter_, wanted)
        return Page([to_own(record) for record in found.data], found.next)

    async def get(self, id: str, query: NearQuery, caller: Principal) -> OwnRecordOut:
        """Return one of the caller's exchanges."""
        return to_own(await self._own_record(id, query, caller))

    async def exchange(self, id: str, query: NearQuery, caller: Principal) -> OwnExchangeOut:
        """Return one of the caller's exchanges and its receipt."""
        record = await self._own_record(id, query, caller)
        return OwnExchangeOut(to_own(record), to_receipt(record))

    async def _own_record(self, id: str, query: NearQuery, caller: Principal) -> RecordOut:
        principals = await self._principals("", caller)
        return await self._usage.get(id, query, Query(principals=principals))

    async def daily(self, query: OwnDaysQuery, caller: Principal) -> Page[SumOut]:
        """Return the caller's sums of each day."""
        names = list(await self._principals(query.principal, caller))
        return await self._usage.days_of("principal", names, query.since, query.until)

    async def redeem(self, code: VoucherCode, by: Actor) -> VoucherOut:
        """Redeem a voucher for the account of the caller, or for the caller if it is a token."""
        caller = by.principal
        if not caller.account and caller.id not in await self._tokens.ids(caller):
            message = "You have neither an account nor a token with a budget to add a voucher to."
            raise APIError(ErrorKind.INVALID, message, status=409, code="voucher")
        target = f"account/{caller.account}" if caller.account else f"token/{caller.id}"
        return await self._vouchers.redeem(Redemption(code.code, target), by)

    async def filter(self, query: Query, caller: Principal) -> Query:
        """Return a filter that matches only the caller's own exchanges."""
        principals = await self._principals(query.principal, caller)
        return msgspec.structs.replace(query, principal="", principals=principals)

    async def _principals(self, principal: str, caller: Principal) -> tuple[str, ...]:
        """Return the ids of the caller and its tokens, or the one that is wanted."""
        own = dict.fromkeys((caller.id, *await self._tokens.ids(caller)))
        if not caller.id:
            raise APIError(ErrorKind.FORBIDDEN, "A caller without an id has no usage of its own.")
        if principal and principal not in own:
            raise invalid(f"principal: {principal!r} is not one of your tokens.", "principal")
        return (principal,) if principal else tuple(own)


def to_own(record: RecordOut) -> OwnRecordOut:
    """Return the members of a record that concern its caller."""
    names = OwnRecordOut.__struct_fields__
    return OwnRecordOut(**{name: getattr(record, name) for name in names})
