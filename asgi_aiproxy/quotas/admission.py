"""Admission of one call: reserve its limits before it is sent, settle them when it has ended.

Theory of operation:

1. *Estimate.* For each target that may serve the call, the largest possible size (input and output
   tokens) is estimated, and priced. The most expensive target counts: whichever serves, the budget
   suffices.
2. *Reserve.* All grants of the call (requests and tokens per minute, a concurrency slot, a part of
   each budget) are requested from the store in one round trip, and given all or none. A refusal
   becomes a 429 that says what is exhausted and when to retry.
3. *Outage.* If the store is unavailable, the `OutagePolicy` of each grant decides: refuse, admit
   without counting, or count in this process. What the store may have given without answering is
   given back later, so nothing stays reserved.
4. *Settle.* When the exchange has ended, its usage is priced (measured by the provider, or
   estimated) and replaces the reservation. Settlements are queued: the store applies each exactly
   once, however often it is tried. A call that is never settled is charged what it reserved.

A session that stays open (`extend`) reserves again once it has used its reservation.

So a budget is exceeded at most by what requests in flight were estimated too low.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import getrandbits

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import EMPTY_SAMPLE, ResponseSample
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import Pricing, SentRequest
from asgi_aiproxy.prices.applied import AppliedPrice
from asgi_aiproxy.prices.call_price import price_call
from asgi_aiproxy.prices.ratios import millionths
from asgi_aiproxy.prices.token_estimate import RequestSize, estimate_size
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.quotas import grants as by
from asgi_aiproxy.quotas.batches import BatchBudget
from asgi_aiproxy.quotas.limiter import NO_TARIFF, Limiter
from asgi_aiproxy.quotas.usage_estimate import SILENT, BillableUsage, billable_usage
from asgi_aiproxy.stores.base import (
    Admitted,
    BudgetReservation,
    Denied,
    Grant,
    OutagePolicy,
    RateLimit,
    StoreUnavailableError,
)
from asgi_aiproxy.usage.record import Outcome, UsageRecord

_NO_USAGE = Usage()
_MAX_AMOUNT = 2**53 - 1  # the largest integer that a Lua number represents exactly

# What was admitted in the store, and, while that is unavailable, in this process.
Taken = tuple[Admitted, Admitted | None]


class CallAdmission:
    """The admission control of one exchange, by the limits of its caller.

    `headers` belong on its response. `close` settles a call that was not settled.
    """

    def __init__(self, limiter: Limiter, principal: Principal, limits: Limits) -> None:
        self._limiter = limiter
        self._principal = principal
        self._limits = limits
        self._ratio = millionths(principal.price_ratio)
        self._targets: Sequence[tuple[str, str]] = ()
        self._operation = ""
        self._sent: Callable[[], Sequence[SentRequest]] = lambda: ()
        self._sizes: Sequence[RequestSize] | None = None
        self._reservations: list[Taken] = []
        self._request_admitted = False
        self._settled = False
        self._refused = False
        self._price: AppliedPrice | None = None
        self.headers: by.Headers = []

    @property
    def estimates(self) -> bool:
        """Whether admission depends on the size or price of the request."""
        return bool(self._limits.budgets) or self._limits.tpm is not None

    @property
    def batches(self) -> BatchBudget:
        """The budgets of the caller, for batches."""
        return BatchBudget(self._limiter, self._principal, self._limits, self._ratio)

    async def admit_request(self) -> None:
        """Reserve what every request needs, before its body is known. Raises APIError."""
        self._request_admitted = True
        await self._reserve(by.request_grants(self._principal, self._limits))

    async def admit(
        self,
        operation: str,
        targets: Sequence[tuple[str, str]],
        sent: Callable[[], Sequence[SentRequest]] = lambda: (),
    ) -> None:
        """Reserve what the call needs; see `AdmissionControl.admit`. Raises APIError."""
        limits = self._limits
        self._operation, self._targets, self._sent, self._sizes = operation, targets, sent, None
        if not self._limiter.ready:
            await self._limiter.load(limits)
        sizes = self._request_sizes() if targets and self.estimates else ()
        await self._reserve(self.grants(sizes))

    def grants(self, sizes: Sequence[RequestSize]) -> list[Grant]:
        """What a call needs that may be sent in these sizes. Raises APIError if one has no
        price.
        """
        principal, limits = self._principal, self._limits
        grants = [] if self._request_admitted else by.request_grants(principal, limits)
        if self.estimates:
            max_tokens = max((size.input + size.output for size in sizes), default=0)
            cost = partial(self._max_cost, sizes=sizes)
            grants += by.token_grants(principal, limits, max_tokens, cost, self._limiter.clock())
        return grants

    def list_cost(self, size: RequestSize) -> int | None:
        """The highest cost of a request in micro-dollars; None without a price."""
        tariff = self._limiter.tariffs.get("usd")
        if tariff is None:
            return None
        ratio = size.price_ratio(self._ratio)
        return tariff.max_cost(size.provider, size.model, size.input, size.output, ratio)

    async def extend(self, record: UsageRecord) -> None:
        """Reserve more of the budgets once an open session has used what it reserved.

        `record` has the usage that the provider reported so far. The new reservation covers what
        was used beyond the earlier ones, and as much again as the session was admitted with.
        Raises APIError if a budget refuses it, or if the store is unavailable (`budgets_away`).
        """
        if not self._targets or not self._limits.budgets:
            return
        used = self._costs(record, record.usage or _NO_USAGE)
        reserved = {unit: self._reserved(unit) for unit in used}
        now, sizes = self._limiter.clock(), self._request_sizes()
        grants: list[Grant] = [
            by.reserve(
                self._principal,
                budget,
                min(spent - reserved[budget.unit] + self._max_cost(budget, sizes), _MAX_AMOUNT),
                now,
            )
            for budget in self._limits.budgets
            if (spent := used.get(budget.unit)) and spent >= reserved[budget.unit]
        ]
        try:
            await self._reserve(grants)
        except APIError:
            self._refused = True
            raise

    def _reserved(self, unit: str) -> int:
        """How much of each budget in `unit` all admissions of this exchange reserved."""
        return sum(_reservation(admitted, unit) for admitted, _ in self._reservations)

    def _request_sizes(self) -> Sequence[RequestSize]:
        """The estimated sizes of the requests that may be sent, one for each target."""
        if self._sizes is None:
            sizes = [
                estimate_size(sent, self.max_output(sent.provider, sent.model))
                for sent in self._sent()
            ]
            if self._operation in SILENT:
                sizes = [msgspec.structs.replace(size, output=0) for size in sizes]
            self._sizes = sizes
        return self._sizes

    def max_output(self, provider: str, model: str) -> int:
        """The maximum number of output tokens if the request sets no limit."""
        for tariff in self._limiter.tariffs.values():
            known = tariff.max_output(provider, model)
            if known is not None:
                return known
        return self._limiter.default_output

    def _size_of(self, record: UsageRecord) -> RequestSize:
        """The estimated size of the request that was sent."""
        sizes = self._request_sizes()
        for size in sizes:
            if (size.provider, size.model) == (record.provider, record.upstream_model):
                return size
        return sizes[0] if sizes else RequestSize(record.provider, record.upstream_model, 0, 0)

    def _max_cost(self, budget: Budget, sizes: Sequence[RequestSize]) -> int:
        """The highest cost of the call. Raises APIError if a target has no price."""
        tariff = self._limiter.tariffs.get(budget.unit)
        if tariff is None:
            self._refused = True
            raise APIError(ErrorKind.INTERNAL, NO_TARIFF[budget.unit], code="no_prices")
        highest_cost = 0
        for size in sizes:
            target = size.provider, size.model
            ratio = size.price_ratio(self._ratio)
            amounts = (size.input, size.output, ratio)
            cost = (
                tariff.max_cost(*target, *amounts)
                if size.units == _NO_USAGE
                else tariff.max_cost(*target, *amounts, size.units)
            )
            if cost is None:
                self._refused = True
                raise _no_price_error(*target)
            highest_cost = max(highest_cost, cost)
        return min(highest_cost, _MAX_AMOUNT)

    async def _reserve(self, grants: Sequence[Grant]) -> None:
        if not grants:
            return
        limiter = self._limiter
        holder = f"{getrandbits(128):032x}"
        try:
            answer = await limiter.store.admit(holder, grants, ttl=limiter.settler.ttl)
        except StoreUnavailableError as error:
            await self._reserve_during_outage(holder, grants, error)
            return
        except BaseException:  # for example cancelled: the store may have reserved all the same
            self._forget(holder, grants)
            raise
        if isinstance(answer, Denied):
            self._refuse(answer)
        else:
            limiter.local.record_request(answer)
            self._keep(answer, None, answer)

    async def _reserve_during_outage(
        self, holder: str, grants: Sequence[Grant], error: StoreUnavailableError
    ) -> None:
        """Decide by the outage policies, while the store is unavailable."""
        limiter = self._limiter
        modes = {limiter.away(grant) for grant in grants}
        counted_locally = [
            grant for grant in grants if limiter.away(grant) is OutagePolicy.LOCAL_ESTIMATE
        ]
        answer: Admitted | Denied | None = None
        if OutagePolicy.FAIL_CLOSED not in modes:
            answer = Admitted(holder=holder, grants=())
            if counted_locally:
                answer = await limiter.local.admit(holder, counted_locally)
        if not isinstance(answer, Admitted):
            self._forget(holder, grants)
        if answer is None:
            raise APIError(
                ErrorKind.OVERLOADED,
                "Your limits cannot be checked at the moment; try again.",
                retry_after=1.0,
            ) from error
        if isinstance(answer, Denied):
            self._refuse(answer)
        else:
            self._keep(Admitted.assumed(holder, grants), answer, answer)

    def _keep(self, admitted: Admitted, local: Admitted | None, decisive: Admitted) -> None:
        self.headers += by.headers(decisive)
        self._reservations.append((admitted, local))
        if admitted.sure:
            self._limiter.settler.keep(admitted)

    def _refuse(self, refused: Denied) -> None:
        self._refused = True
        self.headers += by.denial_headers(refused)
        raise by.denial_error(refused, self._limiter.clock())

    def _forget(self, holder: str, grants: Sequence[Grant]) -> None:
        """Give back what the store may have reserved without answering."""
        self._limiter.settler.put(Admitted.assumed(holder, grants), dict.fromkeys(grants, 0))

    # settlement

    def settle(self, record: UsageRecord, passed: ResponseSample = EMPTY_SAMPLE) -> UsageRecord:
        """Settle by the usage of an exchange that has ended; returns its record with the cost."""
        principal, limiter = self._principal, self._limiter
        costs: dict[str, int | None] = dict.fromkeys(limiter.units_of(self._limits), 0)
        if self._refused:
            record = msgspec.structs.replace(record, outcome=Outcome.REFUSED)
        if self._targets:
            size_known = self._sizes is not None
            billable = billable_usage(
                record,
                lambda: self._size_of(record),
                passed,
                known=size_known,
                by_units=self._priced_by_units(record),
            )
            costs = self._costs(record, billable.usage)
        else:
            billable = BillableUsage(record.usage or _NO_USAGE)
        usage = billable.usage
        if not self._settled:
            self._settled = True
            paid = dict.fromkeys(costs, 0) if billable.not_charged else costs
            tokens = min(max(usage.input + usage.output, 0), _MAX_AMOUNT)
            for taken, share in zip(
                self._reservations, _shares(self._reservations, paid), strict=True
            ):
                self._end(taken, partial(_used, tokens=tokens, paid=share))
            self._reservations.clear()
        return msgspec.structs.replace(
            record,
            usage=usage if billable.estimated else record.usage,
            estimated=billable.estimated,
            not_charged=billable.not_charged,
            account=principal.account,
            group=principal.group,
            cost=costs.get("usd"),
            units=costs.get("units"),
            price=self._price,
        )

    def close(self) -> None:
        """Settle a call that was not settled: it is charged what it reserved."""
        if not self._settled:
            self._settled = True
            for taken in self._reservations:
                self._end(taken, lambda grant: None)
            self._reservations.clear()

    def _priced_by_units(self, record: UsageRecord) -> bool:
        """Whether the usage has images, characters, seconds or search units that have a price."""
        used = record.usage
        if used is None or not (
            used.images or used.characters or used.audio_seconds or used.search_units
        ):
            return False
        where = record.provider, record.upstream_model
        return any(tariff.has_units(*where) for tariff in self._limiter.tariffs.values())

    def _costs(self, record: UsageRecord, usage: Usage) -> dict[str, int | None]:
        """The cost of `usage` in each unit; None where the model has no price."""
        tariffs, units = self._limiter.tariffs, self._limiter.units_of(self._limits)
        return {unit: self._cost(tariffs[unit], record, usage) for unit in units}

    def _cost(self, tariff: Pricing, record: UsageRecord, usage: Usage) -> int | None:
        """The cost of usage, by the first name of the model that has a price.

        The name that was sent comes first, then the one in the response. None without a price.
        """
        if usage == _NO_USAGE:
            self._price = None
            return 0
        names = [
            name for name in (record.upstream_model, record.model, record.requested_model) if name
        ]
        if not record.upstream_model:
            names.append("")  # the price by which such a call was admitted
        ratio = self._ratio
        if self._sizes:  # those of a caller with a budget
            ratio = self._size_of(record).price_ratio(ratio)
        priced = price_call(tariff, record.provider, names, usage, ratio)
        if priced is None:
            return None
        if tariff.unit == "usd":
            self._price = priced.price
        return min(max(priced.cost, 0), _MAX_AMOUNT)  # whatever a provider reports

    def _end(self, taken: Taken, used: Callable[[Grant], int | None]) -> None:
        """Settle one admission; where `used` is None it used what it reserved."""
        admitted, here = taken
        self._limiter.settler.put(admitted, _actual(admitted, used))
        if here is not None and here.grants:
            self._limiter.settler_here.put(here, _actual(here, used))


def _no_price_error(provider: str, model: str) -> APIError:
    message = f"The model {model!r} has no price, so it cannot be used within a budget."
    if not model:
        message = (
            "This request names no model, or contains many calls, so its cost is unknown. Within a "
            f"budget it needs a price for {provider + '/'!r}: the operator can set one."
        )
    return APIError(ErrorKind.FORBIDDEN, message, param="model", code="model_not_priced")


def _actual(admitted: Admitted, used: Callable[[Grant], int | None]) -> dict[Grant, int]:
    return {grant: amount for grant in admitted.grants if (amount := used(grant)) is not None}


def _reservation(admitted: Admitted, unit: str) -> int:
    """How much an admission reserved of each budget in `unit`: the same of all of them."""
    return max(
        (
            grant.amount
            for grant in admitted.grants
            if isinstance(grant, BudgetReservation) and _unit(grant) == unit
        ),
        default=0,
    )


def _shares(
    taken: Sequence[Taken], paid: Mapping[str, int | None]
) -> Iterator[Mapping[str, int | None]]:
    """What each admission pays: up to what it reserved, and the last one the remainder."""
    remaining = dict(paid)
    for admitted, _ in taken[:-1]:
        share = {
            unit: cost if cost is None else min(cost, _reservation(admitted, unit))
            for unit, cost in remaining.items()
        }
        yield share
        for unit, cost in share.items():
            if (left := remaining[unit]) is not None:
                remaining[unit] = left - (cost or 0)
    if taken:
        yield remaining


def _unit(grant: BudgetReservation) -> str:
    return grant.name.split(":")[-2]


def _used(grant: Grant, tokens: int, paid: Mapping[str, int | None]) -> int | None:
    """What was used of a grant; None if it is what was reserved."""
    if isinstance(grant, BudgetReservation):
        return paid.get(_unit(grant))
    return tokens if isinstance(grant, RateLimit) and grant.name.endswith(":tpm") else None
