"""Admission control: limits that are checked before a request is sent and settled after it.

A middleware such as `Quota` puts an `AdmissionControl` into the scope, under GATE_KEY. The app that
sends the request calls `admit` once, as soon as it knows the possible targets, and `settle` once,
when the exchange has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from asgi_aiproxy.usage.record import UsageRecord

if TYPE_CHECKING:
    from asgi_aiproxy.messages import Usage
    from asgi_aiproxy.prices import SentRequest
    from asgi_aiproxy.principal import Principal
    from asgi_aiproxy.stores.base import Store

logger = logging.getLogger("asgi_aiproxy")

# The key of the admission control in an ASGI scope.
GATE_KEY = "asgi_aiproxy.exchange.admission"


class ResponseSample(msgspec.Struct, frozen=True, gc=False):
    """The size of a response in bytes, as far as it was sent, and a sample of its content."""

    size: int = 0
    sample: bytes = b""


EMPTY_SAMPLE = ResponseSample()


class AdmissionControl(Protocol):
    """The limits for one exchange.

    If it has an attribute `estimates` that is False, it does not use the content of requests, and
    bodies are not inspected for it. If it has a coroutine method `extend(record)`, that is called
    with the record so far each time a vendor reports usage within an open WebSocket session; it
    raises APIError to end the session.

    A WebSocket of the Responses API carries many exchanges: a middleware that sets an admission
    control also adds a step `admission`, see `exchange.session_requests`.
    """

    async def admit(
        self,
        operation: str,
        targets: Sequence[tuple[str, str]],
        sent: Callable[[], Sequence[SentRequest]] = lambda: (),
    ) -> None:
        """Admit a request to one of `targets`, each a provider and a model.

        Without targets the request is counted, and costs nothing. `sent` returns what would be
        sent to each of the targets; it is called only if the cost must be estimated. Raises
        APIError if a limit is reached.
        """

    def settle(self, record: UsageRecord, passed: ResponseSample = EMPTY_SAMPLE) -> UsageRecord:
        """Settle an exchange, admitted or not; return its record with the cost.

        `passed` is what to estimate the usage by, if the provider reported none.
        """


class BatchAdmission(Protocol):
    """The budgets of a caller for batches, which a provider runs later.

    An admission control that limits them has it as its attribute `batches`. `name` identifies a
    batch.
    """

    @property
    def limited(self) -> bool:
        """Whether the caller has a budget."""

    @property
    def store(self) -> Store:
        """The store of the budgets."""

    def receipt(self) -> bytes:
        """What `settle` needs for a batch that nothing is charged for."""

    async def charge(self, calls: Sequence[SentRequest]) -> bytes:
        """Charge the highest cost of all calls; returns what `settle` needs. Raises APIError."""

    async def settle(
        self, name: str, receipt: bytes, used: Sequence[tuple[str, str, Usage]]
    ) -> Mapping[str, int | None]:
        """Charge the cost of `used` instead, once: providers, models and tokens.

        Returns the cost in each unit; None where a model has no price.
        """


def settle(
    gate: AdmissionControl | None, record: UsageRecord, passed: ResponseSample = EMPTY_SAMPLE
) -> UsageRecord:
    """Settle an exchange with its admission control, if it has one; return the record.

    Exceptions are logged, so that the record is written on every path.
    """
    if gate is None:
        return record
    try:
        return gate.settle(record, passed)
    except Exception:
        logger.exception("an exchange could not be settled: what it reserved stays charged")
        return record


def must_inspect(principal: Principal, gate: AdmissionControl | None) -> bool:
    """Whether the caller's models or budget depend on the content of its requests."""
    return bool(principal.models) or (gate is not None and getattr(gate, "estimates", True))
