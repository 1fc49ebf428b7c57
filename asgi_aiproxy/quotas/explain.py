"""What the limits and budgets of a caller say to a request, without reserving anything."""

from __future__ import annotations

from collections.abc import Sequence

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.exchange.explain import LimitReport, LimitsExplanation
from asgi_aiproxy.prices.token_estimate import RequestSize
from asgi_aiproxy.principal import Limits, Principal
from asgi_aiproxy.quotas import grants as by
from asgi_aiproxy.quotas.admission import CallAdmission
from asgi_aiproxy.quotas.limiter import Limiter
from asgi_aiproxy.stores.base import (
    BudgetReservation,
    Denied,
    Grant,
    NotOnHold,
    RateLimit,
    UsageLevel,
)


async def explain_limits(
    limiter: Limiter,
    principal: Principal,
    limits: Limits,
    targets: Sequence[tuple[str, str]],
    size: int,
    output: int | None,
) -> LimitsExplanation:
    """Explain the limits of a caller for a request of `size` input tokens to `targets`.

    `output` is the highest number of output tokens; None: that of the model. Raises
    StoreUnavailableError.
    """
    admission = CallAdmission(limiter, principal, limits)
    await limiter.load(limits)
    sizes = [
        RequestSize(
            *target, size, admission.max_output(*target) if output is None else output, usual=size
        )
        for target in targets
    ]
    costs = tuple(admission.list_cost(each) for each in sizes)
    try:
        grants = admission.grants(sizes)
    except APIError as error:
        return LimitsExplanation((), costs, error)
    levels = await limiter.store.peek(grants) if grants else []
    reports, refusal = [], None
    for grant, level in zip(grants, levels, strict=True):
        report = _report(grant, level)
        if report is None:
            continue
        reports.append(report)
        if report.refuses and refusal is None:
            left = max(report.limit - report.used, 0)
            refusal = by.denial_error(Denied(grant=grant, left=left), limiter.clock())
    return LimitsExplanation(tuple(reports), costs, refusal)


def _report(grant: Grant, level: UsageLevel) -> LimitReport | None:
    used = level.used + level.held
    if isinstance(grant, BudgetReservation):
        name, limit, needed = by.budget_name(grant), grant.cap, grant.amount
    elif isinstance(grant, NotOnHold):
        return None
    else:
        needed = grant.amount if isinstance(grant, RateLimit) else 1
        name, limit = grant.name.rpartition(":")[2], grant.limit
    if limit is None:
        return None
    refuses = used + needed > limit
    return LimitReport(name=_NAMES.get(name, name), limit=limit, used=used, needed=needed,
                       refuses=refuses)  # fmt: skip


_NAMES = {"rpm": "requests per minute", "tpm": "tokens per minute", "slots": "concurrent requests"}
