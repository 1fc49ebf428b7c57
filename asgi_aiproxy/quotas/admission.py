"""The gate of one call: takes what it needs from the store, and books what it used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import getrandbits

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import EMPTY_SAMPLE, ResponseSample
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import Pricing, SentRequest
from asgi_aiproxy.prices.ratios import millionths
from asgi_aiproxy.prices.token_estimate import RequestSize, estimate_size
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.quotas import grants as by
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

_NOTHING = Usage()
_MOST = 2**53 - 1  # what a Lua number holds whole

# What was admitted in the store, and, while that is away, in this process.
Taken = tuple[Admitted, Admitted | None]


class CallAdmission:
    """A `Gate`: the limits of one caller, for one exchange.

    `headers` are for its answer. `close` ends what nobody settled.
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
        self._taken: list[Taken] = []
        self._entered = False
        self._settled = False
        self._refused = False
        self.headers: by.Headers = []

    @property
    def estimates(self) -> bool:
        """Whether admission depends on what a call asks for."""
        return bool(self._limits.budgets) or self._limits.tpm is not None

    async def admit_request(self) -> None:
        """Take what any request takes, without knowing what it asks for. Raises APIError."""
        self._entered = True
        await self._take(by.request_grants(self._principal, self._limits))

    async def admit(
        self,
        operation: str,
        targets: Sequence[tuple[str, str]],
        sent: Callable[[], Sequence[SentRequest]] = lambda: (),
    ) -> None:
        """Take what a call takes. Raises APIError."""
        limits = self._limits
        self._operation, self._targets, self._sent, self._sizes = operation, targets, sent, None
        grants = [] if self._entered else by.request_grants(self._principal, limits)
        if not self._limiter.ready:
            await self._limiter.load(limits)
        if self.estimates:
            now = self._limiter.clock()
            sizes = self._known() if targets else ()
            most = max((size.input + size.output for size in sizes), default=0)
            grants += by.token_grants(
                self._principal, limits, most, lambda budget: self._most(budget, sizes), now
            )
        await self._take(grants)

    async def extend(self, record: UsageRecord) -> None:
        """Reserve more of the budgets once an open session has used what it reserved.

        `record` has the usage that the provider reported so far. The new reservation covers what
        was used beyond the earlier ones, and as much again as the session was admitted with.
        Raises APIError if a budget refuses it, or if the store is unavailable (`budgets_away`).
        """
        if not self._targets or not self._limits.budgets:
            return
        used = self._costs(record, record.usage or _NOTHING)
        reserved = {unit: self._reserved(unit) for unit in used}
        now, sizes = self._limiter.clock(), self._known()
        grants: list[Grant] = [
            by.reserve(
                self._principal,
                budget,
                min(spent - reserved[budget.unit] + self._most(budget, sizes), _MOST),
                now,
            )
            for budget in self._limits.budgets
            if (spent := used.get(budget.unit)) and spent >= reserved[budget.unit]
        ]
        try:
            await self._take(grants)
        except APIError:
            self._refused = True
            raise

    def _reserved(self, unit: str) -> int:
        """How much of each budget in `unit` all admissions of this exchange reserved."""
        return sum(_reservation(admitted, unit) for admitted, _ in self._taken)

    def _known(self) -> Sequence[RequestSize]:
        """The sizes of what may leave."""
        if self._sizes is None:
            sizes = [estimate_size(sent, self._longest(sent)) for sent in self._sent()]
            if self._operation in SILENT:
                sizes = [msgspec.structs.replace(size, output=0) for size in sizes]
            self._sizes = sizes
        return self._sizes

    def _longest(self, sent: SentRequest) -> int:
        """How many tokens an answer has at most that the request does not limit."""
        for tariff in self._limiter.tariffs.values():
            known = tariff.max_output(sent.provider, sent.model)
            if known is not None:
                return known
        return self._limiter.default_output

    def _size_of(self, record: UsageRecord) -> RequestSize:
        """The size of what did leave."""
        sizes = self._known()
        for size in sizes:
            if (size.provider, size.model) == (record.provider, record.upstream_model):
                return size
        return sizes[0] if sizes else RequestSize(record.provider, record.upstream_model, 0, 0)

    def _most(self, budget: Budget, sizes: Sequence[RequestSize]) -> int:
        """What the call may cost at most. Raises APIError if nobody can tell."""
        tariff = self._limiter.tariffs.get(budget.unit)
        if tariff is None:
            self._refused = True
            raise APIError(ErrorKind.INTERNAL, NO_TARIFF[budget.unit], code="no_prices")
        most = 0
        for size in sizes:
            who = size.provider, size.model
            cost = tariff.max_cost(*who, size.input, size.output, self._ratio)
            if cost is None:
                self._refused = True
                raise _not_priced(*who)
            most = max(most, cost)
        return min(most, _MOST)

    async def _take(self, grants: Sequence[Grant]) -> None:
        if not grants:
            return
        limiter = self._limiter
        holder = f"{getrandbits(128):032x}"
        try:
            answer = await limiter.store.admit(holder, grants, ttl=limiter.settler.ttl)
        except StoreUnavailableError as error:
            await self._take_without(holder, grants, error)
            return
        except BaseException:  # cancelled, for one: it may have been done all the same
            self._forget(holder, grants)
            raise
        if isinstance(answer, Denied):
            self._refuse(answer)
        else:
            limiter.local.record_request(answer)
            self._have(answer, None, answer)

    async def _take_without(
        self, holder: str, grants: Sequence[Grant], error: StoreUnavailableError
    ) -> None:
        """Do without the store, as it was said that we should."""
        limiter = self._limiter
        modes = {limiter.away(grant) for grant in grants}
        here = [grant for grant in grants if limiter.away(grant) is OutagePolicy.LOCAL_ESTIMATE]
        answer: Admitted | Denied | None = None
        if OutagePolicy.FAIL_CLOSED not in modes:
            answer = Admitted(holder=holder, grants=())
            if here:
                answer = await limiter.local.admit(holder, here)
        if not isinstance(answer, Admitted):
            self._forget(holder, grants)
        if answer is None:
            raise APIError(
                ErrorKind.OVERLOADED,
                "Your limits can not be checked at the moment.",
                retry_after=1.0,
            ) from error
        if isinstance(answer, Denied):
            self._refuse(answer)
        else:
            self._have(Admitted.assumed(holder, grants), answer, answer)

    def _have(self, admitted: Admitted, here: Admitted | None, told: Admitted) -> None:
        self.headers += by.headers(told)
        self._taken.append((admitted, here))
        if admitted.sure:
            self._limiter.settler.keep(admitted)

    def _refuse(self, refused: Denied) -> None:
        self._refused = True
        self.headers += by.denial_headers(refused)
        raise by.denial_error(refused, self._limiter.clock())

    def _forget(self, holder: str, grants: Sequence[Grant]) -> None:
        """Give back what the store may have given without saying so."""
        self._limiter.settler.put(Admitted.assumed(holder, grants), dict.fromkeys(grants, 0))

    # the end

    def settle(self, record: UsageRecord, passed: ResponseSample = EMPTY_SAMPLE) -> UsageRecord:
        """Book how the exchange ended; returns the record with what it cost."""
        principal, limiter = self._principal, self._limiter
        costs: dict[str, int | None] = dict.fromkeys(limiter.units_of(self._limits), 0)
        if self._refused:
            record = msgspec.structs.replace(record, outcome=Outcome.REFUSED)
        if self._targets:
            known = self._sizes is not None
            reckoned = billable_usage(record, lambda: self._size_of(record), passed, known=known)
            costs = self._costs(record, reckoned.usage)
        else:
            reckoned = BillableUsage(record.usage or _NOTHING)
        usage = reckoned.usage
        if not self._settled:
            self._settled = True
            paid = dict.fromkeys(costs, 0) if reckoned.not_charged else costs
            tokens = min(max(usage.input + usage.output, 0), _MOST)
            for taken, share in zip(self._taken, _shares(self._taken, paid), strict=True):
                self._end(taken, partial(_used, tokens=tokens, paid=share))
            self._taken.clear()
        return msgspec.structs.replace(
            record,
            usage=usage if reckoned.estimated else record.usage,
            estimated=reckoned.estimated,
            not_charged=reckoned.not_charged,
            account=principal.account,
            group=principal.group,
            cost=costs.get("usd"),
            units=costs.get("units"),
        )

    def close(self) -> None:
        """End what nobody settled: it is taken to have used what was asked for."""
        if not self._settled:
            self._settled = True
            for taken in self._taken:
                self._end(taken, lambda grant: None)
            self._taken.clear()

    def _costs(self, record: UsageRecord, usage: Usage) -> dict[str, int | None]:
        """The cost of `usage` in each unit; None where the model has no price."""
        tariffs, units = self._limiter.tariffs, self._limiter.units_of(self._limits)
        return {unit: self._cost(tariffs[unit], record, usage) for unit in units}

    def _cost(self, tariff: Pricing, record: UsageRecord, usage: Usage) -> int | None:
        """What was used costs, by the name of the model that has a price.

        What the answer says of its model comes after what was asked for.
        """
        if usage == _NOTHING:
            return 0
        names = [
            name for name in (record.upstream_model, record.model, record.requested_model) if name
        ]
        if not record.upstream_model:
            names.append("")  # by the price that such a call was admitted with
        for model in names:
            cost = tariff.cost(record.provider, model, usage, self._ratio)
            if cost is not None:
                return min(max(cost, 0), _MOST)  # whatever a provider says
        return None

    def _end(self, taken: Taken, used: Callable[[Grant], int | None]) -> None:
        """Settle one admission; where `used` is None it used what it reserved."""
        admitted, here = taken
        self._limiter.settler.put(admitted, _actual(admitted, used))
        if here is not None and here.grants:
            self._limiter.settler_here.put(here, _actual(here, used))


def _not_priced(provider: str, model: str) -> APIError:
    message = f"The model {model!r} has no price, so it cannot be used within a budget."
    if not model:
        message = (
            "This request names no model, or many calls at once: what it costs cannot be told "
            f"within a budget, unless {provider + '/'!r} is given a price."
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
    """What was used of a grant; None if it is what was asked for."""
    if isinstance(grant, BudgetReservation):
        return paid.get(_unit(grant))
    return tokens if isinstance(grant, RateLimit) and grant.name.endswith(":tpm") else None
