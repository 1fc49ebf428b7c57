"""Describe why the keys of a pool cannot be used, for error messages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.lease import NoKeyError

_DISABLED, _REJECTED, _LIMITED, _BUSY = "disabled", "rejected", "over a limit", "busy"
_LIMIT_STATUSES = frozenset({0, 413, 429})


def describe_key(state: KeyState, model: str, now: float) -> str:
    """Why a key cannot be used for a model now: a word, with the status that the provider gave."""
    if state.health is Health.DEAD:
        return _DISABLED
    if state.health is not Health.OK and (state.until > now or state.health is Health.QUARANTINED):
        reason = _LIMITED if state.health is Health.COOLING else _REJECTED
        return _with_status(reason, state.last_status)
    cooldown = state.model_cooldowns.get(model) if state.model_cooldowns is not None else None
    if cooldown is not None and cooldown.until > now:
        reason = _LIMITED if cooldown.status in _LIMIT_STATUSES else _REJECTED
        return _with_status(reason, cooldown.status)
    if state.key.concurrency is not None and state.in_flight >= state.key.concurrency:
        return _BUSY
    return _LIMITED  # a limit configured for the key


def no_key_available(reasons: Sequence[str], soonest: float | None) -> NoKeyError:
    """The error for a request whose matching keys all cannot be used; `reasons` has one each,
    `soonest` is the seconds until the first is usable, None if unknown."""
    counts = Counter(reasons)
    shown = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    when = f"; retry in {math.ceil(soonest)} s" if soonest is not None else ""
    rejected = sum(count for reason, count in counts.items() if reason.startswith(_REJECTED))
    limited = sum(counts.values()) - rejected - counts[_DISABLED]
    return NoKeyError(f"{shown}{when}.", retry_after=soonest, rejected=rejected, limited=limited)


def _with_status(reason: str, status: int) -> str:
    return f"{reason} ({status})" if status else reason
