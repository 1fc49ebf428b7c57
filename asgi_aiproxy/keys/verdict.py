"""What an answer means for the key that was used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How a key is: only `dead` needs an operator to come back."""

    OK = "ok"
    COOLING = "cooling"  # over a limit: rests as long as the provider says
    QUARANTINED = "quarantined"  # refused: tried again by one request at a time
    DEAD = "dead"  # switched off by an operator


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means for the key that was used; `rest` is in seconds."""

    health: Health
    rest: float = 0.0


# What a provider says when a key has run out of money: minutes will not help.
_BROKE = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_SHORTEST = 0.5
_LONG = 3600.0
LONGEST = 24 * _LONG  # whatever a provider says, a key is tried again the next day


def verdict(
    status: int,
    retry_after: float | None = None,
    *,
    code: str | None = None,
    cooldown: float = 30.0,
    strikes: int = 0,
) -> Verdict:
    """Judge a key by its answer.

    `strikes` counts the bad verdicts in a row before this one; each doubles a rest that the
    provider did not name. 403 is about the request, 5xx about the provider: neither is the key's.
    """
    if status == 429:
        if code in _BROKE:
            return Verdict(Health.COOLING, _LONG)
        if retry_after is not None and retry_after > 0:
            return Verdict(Health.COOLING, min(max(retry_after, _SHORTEST), LONGEST))
        return Verdict(Health.COOLING, max(cooldown * 2 ** min(strikes, 5), _SHORTEST))
    if status in (401, 402):
        rest = _LONG if status == 402 else min(cooldown * 2 ** min(strikes, 7), _LONG)
        return Verdict(Health.QUARANTINED, rest)
    return Verdict(Health.OK)
