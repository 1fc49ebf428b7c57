"""A key and its state within a pool."""

from __future__ import annotations

from collections.abc import Callable

from asgi_aiproxy.keys.key import Key
from asgi_aiproxy.keys.verdict import Health, Verdict

_NEVER = float("-inf")
_DUST = 1e-3  # adding up fractions of a minute is not exact


class Slot:
    """A key and its state. Rate limits are leaky: `*_full` is when the bucket would be empty."""

    __slots__ = (
        "clock",
        "failures",
        "health",
        "in_flight",
        "key",
        "requests_full",
        "share",
        "strikes",
        "tokens_full",
        "until",
        "uses",
    )

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        self.key = key
        self.clock = clock
        self.health = Health.OK
        self.until = _NEVER
        self.strikes = 0
        self.share = 1.0  # how much of its weight counts; grows again after a quarantine
        self.in_flight = 0
        self.uses = 0
        self.failures = 0
        self.requests_full = _NEVER
        self.tokens_full = _NEVER

    def wait(self, now: float) -> float:
        """Seconds until this key may be used; infinity if only a release or an operator helps."""
        key = self.key
        if self.health is not Health.OK:
            if self.health is Health.DEAD:
                return float("inf")
            if self.until > now:
                return self.until - now
            if self.health is Health.QUARANTINED and self.in_flight:
                return float("inf")  # one trial at a time
        if key.concurrency is not None and self.in_flight >= key.concurrency:
            return float("inf")
        wait = 0.0
        if key.rpm is not None:
            wait = max(wait, self.requests_full + 60 / key.rpm - now - 60)
        if key.tpm is not None:
            wait = max(wait, self.tokens_full + 60 / key.tpm - now - 60)
        return wait if wait > _DUST else 0.0

    def use(self, now: float) -> None:
        """One more request, now."""
        self.in_flight += 1
        self.uses += 1
        if self.key.rpm is not None:
            self.requests_full = max(self.requests_full, now) + 60 / self.key.rpm

    def spend(self, tokens: int) -> None:
        """Count tokens, now."""
        if self.key.tpm is not None:
            now = self.clock()
            self.tokens_full = max(self.tokens_full, now) + tokens * 60 / self.key.tpm

    def resting(self) -> bool:
        """Whether an answer has put it to rest."""
        return self.until > self.clock()

    def judge(self, verdict: Verdict) -> None:
        """Heed what an answer means. Calls from before a rest neither end nor double it."""
        if self.health is Health.DEAD:
            return
        resting = self.resting()
        if verdict.health is not Health.OK:
            until = self.clock() + verdict.rest
            self.until = max(self.until, until) if resting else until
            self.strikes += not resting
            self.failures += 1
            if verdict.health is Health.QUARANTINED or not resting:
                self.health = verdict.health
            if verdict.health is Health.QUARANTINED:
                self.share = 1 / 8
        elif not resting:
            self.share = min(1.0, self.share * 2)
            self.strikes = 0
            self.health = Health.OK

    def forgive(self) -> None:
        """Nothing is held against this key any more."""
        self.health, self.until, self.strikes, self.share = Health.OK, _NEVER, 0, 1.0
