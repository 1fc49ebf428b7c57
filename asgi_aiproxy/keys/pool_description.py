"""How the keys of a pool stand that cannot be used now, in words for whoever wants one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.lease import NoKeyError

_DISABLED, _REJECTED, _LIMITED, _BUSY = "disabled", "rejected", "over a limit", "busy"


def describe_pool(slot: KeyState, model: str, now: float) -> str:
    """What keeps a key from being used for a model: a word, and the status that the provider gave
    as its reason."""
    if slot.health is Health.DEAD:
        return _DISABLED
    if slot.health is not Health.OK and (slot.until > now or slot.health is Health.QUARANTINED):
        return _because(_LIMITED if slot.health is Health.COOLING else _REJECTED, slot.said)
    rest = slot.rests.get(model) if slot.rests is not None else None
    if rest is not None and rest.until > now:
        limited = rest.said in (0, 413, 429)
        return _because(_LIMITED if limited else _REJECTED, rest.said)
    if slot.key.concurrency is not None and slot.in_flight >= slot.key.concurrency:
        return _BUSY
    return _LIMITED  # one of the pool's own


def no_key_available(conditions: Sequence[str], soonest: float | None) -> NoKeyError:
    """The error for a call, of whose keys none can be used: how they stand, and until when."""
    counts = Counter(conditions)
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    when = f"; retry in {math.ceil(soonest)} s" if soonest is not None else ""
    rejected = sum(count for what, count in counts.items() if what.startswith(_REJECTED))
    limited = sum(counts.values()) - rejected - counts[_DISABLED]
    return NoKeyError(f"{told}{when}.", retry_after=soonest, rejected=rejected, limited=limited)


def _because(what: str, status: int) -> str:
    return f"{what} ({status})" if status else what
