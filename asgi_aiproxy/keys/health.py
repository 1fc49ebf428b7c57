"""Classify a response: what its status means for the key that was used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from asgi_aiproxy.errors import RefusalScope


class Health(StrEnum):
    """The health of a key. A `dead` key stays so until an operator enables it."""

    OK = "ok"
    COOLING = "cooling"  # over a limit: not used until the cooldown ends
    QUARANTINED = "quarantined"  # refused: tried again by one request at a time
    DEAD = "dead"  # disabled by an operator


@dataclass(frozen=True, slots=True)
class HealthChange:
    """What a response means for the key that was used.

    With `model`, it concerns the requested model only.
    """

    health: Health
    cooldown_seconds: float = 0.0
    model: bool = False


# Error codes of accounts without credit: waiting for minutes does not help.
_NO_CREDIT_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"}
)
_MIN_COOLDOWN = 0.5  # seconds
_HOUR = 3600.0
MAX_COOLDOWN = 24 * _HOUR  # whatever a provider says, a key is tried again the next day


def classify_response(
    status: int,
    retry_after: float | None = None,
    *,
    code: str | None = None,
    about: RefusalScope | None = None,
    cooldown: float = 30.0,
    strikes: int = 0,
) -> HealthChange:
    """Decide what a response means for the health of its key.

    `about` is the scope of the provider's refusal; without it the status decides: 429, 401 and 402
    concern the key, all others do not. `retry_after` is the provider's wait in seconds; 0 gives the
    shortest cooldown. `cooldown` is the wait in seconds when the provider names none, doubled by
    each of the `strikes` (consecutive bad responses before this one).
    """
    if about is None:
        about = _scope_of_status(status, code)
    if about is RefusalScope.ACCOUNT:
        if status != 429:
            return HealthChange(Health.QUARANTINED, _HOUR)
        return HealthChange(Health.COOLING, min(max(retry_after or 0.0, _HOUR), MAX_COOLDOWN))
    if about is RefusalScope.MODEL or (about is RefusalScope.KEY and status == 429):
        seconds = _rate_limit_cooldown(retry_after, cooldown, strikes)
        return HealthChange(Health.COOLING, seconds, model=about is RefusalScope.MODEL)
    if about is RefusalScope.KEY:
        return HealthChange(Health.QUARANTINED, min(cooldown * 2 ** min(strikes, 7), _HOUR))
    return HealthChange(Health.OK)


def _rate_limit_cooldown(retry_after: float | None, cooldown: float, strikes: int) -> float:
    """Seconds for which a key over a limit is not used: as the provider says, within bounds."""
    if retry_after is None:
        return max(cooldown * 2.0 ** min(strikes, 5), _MIN_COOLDOWN)
    if retry_after <= 0:
        return min(_MIN_COOLDOWN * 2.0 ** min(strikes, 12), _HOUR)
    return min(max(retry_after, _MIN_COOLDOWN), MAX_COOLDOWN)


def _scope_of_status(status: int, code: str | None) -> RefusalScope:
    match status:
        case 429:
            return RefusalScope.ACCOUNT if code in _NO_CREDIT_CODES else RefusalScope.KEY
        case 402:
            return RefusalScope.ACCOUNT
        case 401:
            return RefusalScope.KEY
    return RefusalScope.VENDOR
