"""Budgets of batches: many calls that a provider makes later. Theory of operation.

A batch runs for hours, longer than a reservation of a process lasts. So the highest cost of all
its calls is charged when it is created, in one step with the check that the budgets allow it; a
receipt says what was charged. When it is known what the batch used, the difference is given back,
whichever worker sees that: the store applies a correction once. (`asgi_aiproxy.open_batches` keeps
receipts and finds out what was used.)

Vendors charge half the list price for batches (OpenAI, Anthropic), so this is what counts here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import getrandbits

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import SentRequest
from asgi_aiproxy.prices.token_estimate import estimate_size
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.quotas import grants as by
from asgi_aiproxy.quotas.limiter import Limiter
from asgi_aiproxy.stores.base import Admitted, BudgetReservation, Store

_MAX_AMOUNT = 2**53 - 1
_HALF = 2


class _Charged(msgspec.Struct, frozen=True, array_like=True):
    account: str
    name: str
    unit: str
    amount: int
    keep: float | None


class _Receipt(msgspec.Struct, frozen=True, array_like=True):
    ratio: int  # the caller's price ratio in millionths
    charged: tuple[_Charged, ...] = ()


_receipt = msgspec.json.Decoder(_Receipt).decode
_encode = msgspec.json.Encoder().encode


class BatchBudget:
    """The budgets of a caller, for batches; see `exchange.admission.BatchAdmission`.

    `ratio` is the caller's price ratio in millionths.
    """

    def __init__(self, limiter: Limiter, principal: Principal, limits: Limits, ratio: int) -> None:
        self._limiter = limiter
        self._principal = principal
        self._limits = limits
        self._ratio = ratio

    @property
    def limited(self) -> bool:
        """Whether the caller has a budget."""
        return bool(self._limits.budgets)

    @property
    def store(self) -> Store:
        """The store of the budgets."""
        return self._limiter.store

    def receipt(self) -> bytes:
        """What `settle` needs for a batch that nothing is charged for."""
        return _encode(_Receipt(self._ratio))

    async def charge(self, calls: Sequence[SentRequest]) -> bytes:
        """Charge the highest cost of all calls; returns what `settle` needs. Raises APIError."""
        limiter, now = self._limiter, self._limiter.clock()
        if not limiter.ready:
            await limiter.load(self._limits)
        taken = [
            by.reserve(self._principal, budget, self._max_cost(budget, calls), now)
            for budget in self._limits.budgets
        ]
        requests = by.request_grants(self._principal, self._limits)
        holder = f"{getrandbits(128):032x}"
        answer = await limiter.store.admit(holder, [*requests, *taken], ttl=limiter.settler.ttl)
        if not isinstance(answer, Admitted):
            raise by.denial_error(answer, now)
        await limiter.store.settle(answer)
        units = [budget.unit for budget in self._limits.budgets]
        charged = [
            _Charged(grant.account, grant.name, unit, grant.amount, grant.keep)
            for grant, unit in zip(taken, units, strict=True)
        ]
        return _encode(_Receipt(self._ratio, tuple(charged)))

    def _max_cost(self, budget: Budget, calls: Sequence[SentRequest]) -> int:
        tariff = self._limiter.tariffs[budget.unit]
        total = 0
        for call in calls:
            known = tariff.max_output(call.provider, call.model)
            default = self._limiter.default_output if known is None else known
            size = estimate_size(call, default)
            ratio = size.price_ratio(self._ratio) // _HALF
            cost = tariff.max_cost(call.provider, call.model, size.input, size.output, ratio)
            if cost is None:
                raise APIError(
                    ErrorKind.FORBIDDEN,
                    f"The model {call.model!r} has no price, so it cannot be used within a budget.",
                    param="model",
                    code="model_not_priced",
                )
            total += cost
        return min(total, _MAX_AMOUNT)

    async def settle(
        self, name: str, receipt: bytes, used: Sequence[tuple[str, str, Usage]]
    ) -> Mapping[str, int | None]:
        """Replace what was charged by the cost of `used`, once; see `BatchAdmission.settle`."""
        limiter, known = self._limiter, _receipt(receipt)
        if not limiter.ready:
            await limiter.load(self._limits)
        units = limiter.units_of(self._limits) | {charged.unit for charged in known.charged}
        costs = {unit: self._cost(unit, used, known.ratio) for unit in units}
        for charged in known.charged:
            actual = costs[charged.unit]
            if actual is None:
                continue  # a model without a price: it stays charged
            correction = BudgetReservation(
                charged.account, charged.name, actual - charged.amount, None, keep=charged.keep
            )
            await limiter.store.charge(correction, once=f"batch {name} {charged.name}")
        return costs

    def _cost(self, unit: str, used: Sequence[tuple[str, str, Usage]], ratio: int) -> int | None:
        tariff, total = self._limiter.tariffs[unit], 0
        for provider, model, usage in used:
            cost = tariff.cost(provider, model, usage, ratio // _HALF)
            if cost is None:
                return None
            total += cost
        return min(total, _MAX_AMOUNT)
