"""What an answer means for the key that was used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from asgi_aiproxy.errors import RefusalScope


class Health(StrEnum):
    """How a key is: only `dead` needs an operator to come back."""

    OK = "ok"
    COOLING = "cooling"  # over a limit: rests as long as the provider says
    QUARANTINED = "quarantined"  # refused: tried again by one request at a time
    DEAD = "dead"  # switched off by an operator


@dataclass(frozen=True, slots=True)
class HealthChange:
    """What an answer means for the key that was used; `rest` is in seconds.

    `model`: the key rests for the model that was asked for, not for others.
    """

    health: Health
    cooldown_seconds: float = 0.0
    model: bool = False


# What a provider says when a key has run out of money: minutes will not help.
_BROKE = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_SHORTEST = 0.5
_LONG = 3600.0
LONGEST = 24 * _LONG  # whatever a provider says, a key is tried again the next day


def classify_response(
    status: int,
    retry_after: float | None = None,
    *,
    code: str | None = None,
    about: RefusalScope | None = None,
    cooldown: float = 30.0,
    strikes: int = 0,
) -> HealthChange:
    """Judge a key by its answer.

    `about` is what the provider's refusal is about; without it the status decides: 429, 401 and 402
    are about the key, all others are not. `retry_after` is in seconds: 0 makes for the shortest
    rest. `strikes` counts the bad verdicts in a row before this one; each doubles a rest that the
    provider did not name.
    """
    if about is None:
        about = _usual(status, code)
    if about is RefusalScope.ACCOUNT:
        if status != 429:
            return HealthChange(Health.QUARANTINED, _LONG)
        return HealthChange(Health.COOLING, min(max(retry_after or 0.0, _LONG), LONGEST))
    if about is RefusalScope.MODEL or (about is RefusalScope.KEY and status == 429):
        rest = _rest(retry_after, cooldown, strikes)
        return HealthChange(Health.COOLING, rest, model=about is RefusalScope.MODEL)
    if about is RefusalScope.KEY:
        return HealthChange(Health.QUARANTINED, min(cooldown * 2 ** min(strikes, 7), _LONG))
    return HealthChange(Health.OK)


def _rest(retry_after: float | None, cooldown: float, strikes: int) -> float:
    """How long a key rests that is over a limit: as the provider says, within bounds."""
    if retry_after is None:
        return max(cooldown * 2.0 ** min(strikes, 5), _SHORTEST)
    if retry_after <= 0:
        return min(_SHORTEST * 2.0 ** min(strikes, 12), _LONG)
    return min(max(retry_after, _SHORTEST), LONGEST)


def _usual(status: int, code: str | None) -> RefusalScope:
    match status:
        case 429:
            return RefusalScope.ACCOUNT if code in _BROKE else RefusalScope.KEY
        case 402:
            return RefusalScope.ACCOUNT
        case 401:
            return RefusalScope.KEY
    return RefusalScope.VENDOR
