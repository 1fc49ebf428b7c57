"""Translate limits into grants of the store, and its answers into headers and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.principal import Budget, Limits, Principal
from asgi_aiproxy.quotas.periods import (
    is_within,
    keep_seconds,
    period_kind,
    period_name,
    seconds_to_end,
)
from asgi_aiproxy.stores.base import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    Grant,
    RateLimit,
)

EXHAUSTED = "insufficient_quota"
Headers = list[tuple[bytes, bytes]]


def account_name(principal: Principal) -> str:
    """The name under which the store keeps usage: the account of a caller, or the caller itself."""
    return f"caller:{principal.account or principal.id}"


def reserve(principal: Principal, budget: Budget, amount: int, now: float) -> BudgetReservation:
    """A grant that reserves an amount of a budget, or (amount 0) only reads it."""
    whose = "" if budget.shared else f"{principal.id}:"
    return BudgetReservation(
        account_name(principal),
        f"{whose}{budget.unit}:{period_name(budget.per, now)}",
        amount,
        budget.limit_at(now) if is_within(budget.per, now) else 0,
        keep=keep_seconds(budget.per),
    )


def request_grants(principal: Principal, limits: Limits) -> list[Grant]:
    """The grants that every request needs, whatever its size."""
    account, id = account_name(principal), principal.id
    grants: list[Grant] = []
    if limits.rpm is not None:
        grants.append(RateLimit(account, f"{id}:rpm", limits.rpm))
    if limits.concurrency is not None:
        grants.append(ConcurrencySlot(account, f"{id}:slots", limits.concurrency))
    return grants


def token_grants(
    principal: Principal, limits: Limits, tokens: int, cost: Callable[[Budget], int], now: float
) -> Iterator[Grant]:
    """The grants of a call that may use up to `tokens`, and cost up to `cost(budget)`."""
    if limits.tpm is not None:
        # A call larger than the limit of a minute is admitted when nothing else is counted.
        amount = min(tokens, limits.tpm)
        yield RateLimit(account_name(principal), f"{principal.id}:tpm", limits.tpm, amount=amount)
    for budget in limits.budgets:
        yield reserve(principal, budget, cost(budget), now)


def denial_error(refused: Denied, now: float) -> APIError:
    """The error for a call that was refused."""
    grant, retry_after = refused.grant, refused.retry_after
    if isinstance(grant, BudgetReservation):
        return _exhausted(grant, refused.left, now)
    if isinstance(grant, ConcurrencySlot):
        message = f"Rate limit reached: {grant.limit} concurrent requests."
        return APIError(ErrorKind.LIMITED, message, retry_after=retry_after or 1.0)
    what = "tokens" if grant.name.endswith(":tpm") else "requests"
    limit = grant.limit if isinstance(grant, RateLimit) else 0
    message = f"Rate limit reached: {limit} {what} per minute, {refused.left} left."
    return APIError(ErrorKind.LIMITED, message, retry_after=retry_after or 1.0)


def _exhausted(grant: BudgetReservation, left: int, now: float) -> APIError:
    unit, which = grant.name.split(":")[-2:]
    per = period_kind(which)
    of = "budget" if per == "total" else f"budget of this {per}"
    if ".." in per:
        first, _, last = per.partition("..")
        of = f"budget from {first} to {last}"
    whose = f"The {of} of your account" if grant.name.count(":") == 1 else f"Your {of}"
    if left:
        need, have = format_amount(grant.amount, unit), format_amount(left, unit)
        message = f"{whose} has {have} left, and this request may cost {need}."
    elif not is_within(per, now):
        message = f"{whose} cannot be spent today."
    else:
        message = f"{whose} is used up."
    retry_after = seconds_to_end(per, now)
    return APIError(ErrorKind.LIMITED, message, code=EXHAUSTED, retry_after=retry_after)


def budget_name(grant: BudgetReservation) -> str:
    """The name of a budget for people, such as `usd per day` or `shared units`."""
    unit, which = grant.name.split(":")[-2:]
    kind = period_kind(which)
    per = "" if kind == "total" else f" {kind}" if ".." in kind else f" per {kind}"
    return f"{'' if grant.name.count(':') > 1 else 'shared '}{unit}{per}"


def format_amount(amount: int, unit: str) -> str:
    """Format an amount of US dollars or quota units."""
    return f"${amount / 1_000_000:.6f}" if unit == "usd" else f"{amount} units"


def headers(admitted: Admitted) -> Headers:
    """`x-ratelimit-*` headers as OpenAI sends them: limit, remaining, and time to full reset."""
    found: Headers = []
    for grant, left in zip(admitted.grants, admitted.left, strict=False):
        if isinstance(grant, RateLimit) and grant.limit is not None and left is not None:
            found += _rate(grant, left, grant.window)
    return found


def denial_headers(refused: Denied) -> Headers:
    """The same for a refusal. Clients must not retry an exhausted budget."""
    grant = refused.grant
    if isinstance(grant, RateLimit):
        return _rate(grant, refused.left, refused.retry_after or grant.window)
    if isinstance(grant, BudgetReservation):
        return [(b"x-should-retry", b"false")]
    return []


def _rate(grant: RateLimit, left: int, reset: float) -> Headers:
    what = b"tokens" if grant.name.endswith(":tpm") else b"requests"
    return [
        (b"x-ratelimit-limit-" + what, b"%d" % (grant.limit or 0)),
        (b"x-ratelimit-remaining-" + what, b"%d" % left),
        (b"x-ratelimit-reset-" + what, b"%ds" % -(-reset // 1)),
    ]
