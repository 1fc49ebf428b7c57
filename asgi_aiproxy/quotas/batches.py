"""Budgets of batches: many calls that a provider makes later. Theory of operation.

A batch runs for hours, longer than a reservation of a process lasts. So the highest cost of all
its calls is charged when it is created, in one step with the check that the budgets allow it. What
was charged is kept in the store under the batch's id. When its results are read, or it has ended
without any, the difference to what was really used is given back, whichever worker sees that: the
store applies the correction once, and what was kept is removed after it. A batch whose results
are never read stays charged.

Vendors charge half the list price for batches (OpenAI, Anthropic), so this is what counts here.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import getrandbits

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import SentRequest
from asgi_aiproxy.prices.token_estimate import estimate_size
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.quotas import grants as by
from asgi_aiproxy.quotas.limiter import Limiter
from asgi_aiproxy.stores.base import Admitted, BudgetReservation

_KEPT_SECONDS = 60.0 * 86_400
_MAX_AMOUNT = 2**53 - 1
_HALF = 2


class _Charged(msgspec.Struct, frozen=True, array_like=True):
    account: str
    name: str
    unit: str
    amount: int
    keep: float | None


_receipt = msgspec.json.Decoder(list[_Charged]).decode
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
        return _encode(
            [
                _Charged(grant.account, grant.name, unit, grant.amount, grant.keep)
                for grant, unit in zip(taken, units, strict=True)
            ]
        )

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

    async def keep(self, name: str, receipt: bytes) -> None:
        """Keep what was charged for a batch, under a name of the batch."""
        await self._limiter.store.set_entry(f"batch:{name}", receipt, seconds=_KEPT_SECONDS)

    async def find(self, name: str) -> bytes | None:
        """What was charged for a batch; None if it is settled, or not known."""
        return await self._limiter.store.get_entry(f"batch:{name}")

    async def settle(
        self, name: str, receipt: bytes, used: Sequence[tuple[str, str, Usage]]
    ) -> None:
        """Replace what was charged by the cost of `used`, once: providers, models and tokens."""
        store = self._limiter.store
        for charged in _receipt(receipt):
            actual = self._cost(charged.unit, used)
            if actual is None:
                continue  # a model without a price: it stays charged
            correction = BudgetReservation(
                charged.account, charged.name, actual - charged.amount, None, keep=charged.keep
            )
            await store.charge(correction, once=f"batch {name} {charged.name}")
        await store.delete_entry(f"batch:{name}")

    def _cost(self, unit: str, used: Sequence[tuple[str, str, Usage]]) -> int | None:
        tariff, total = self._limiter.tariffs[unit], 0
        for provider, model, usage in used:
            cost = tariff.cost(provider, model, usage, self._ratio // _HALF)
            if cost is None:
                return None
            total += cost
        return min(total, _MAX_AMOUNT)
