"""A key and its state within a pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgi_aiproxy.keys.key import Key, fingerprint
from asgi_aiproxy.keys.verdict import Health, Verdict

_NEVER = float("-inf")
_SHY = 1 / 8  # of its weight, when a key was refused
_DUST = 1e-3  # adding up fractions of a minute is not exact


class Slot:
    """A key and its state. Rate limits are leaky: `*_full` is when the bucket would be empty.

    `tag` is the name by which other processes know the same secret; `shut` is until when, as a
    store said, its limits are used up.
    """

    __slots__ = (
        "clock",
        "failures",
        "grants",
        "health",
        "in_flight",
        "key",
        "limited",
        "requests_full",
        "share",
        "shut",
        "strikes",
        "tag",
        "tokens_full",
        "until",
        "uses",
    )

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        self.rekey(key)
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
        self.shut = _NEVER
        self.tag = f"{key.id}:{fingerprint(key.secret)}"

    def rekey(self, key: Key) -> None:
        """The same secret, said to be used in another way."""
        self.key = key
        self.grants: tuple[Any, ...] | None = (
            None  # what a use takes of a store, once that is known
        )
        self.limited = (key.rpm, key.tpm, key.concurrency) != (None, None, None)

    def wait(self, now: float) -> float:
        """Seconds until this key may be used; infinity if only a release or an operator helps."""
        if self.health is not Health.OK:
            if self.health is Health.DEAD:
                return float("inf")
            if self.until > now:
                return self.until - now
            if self.health is Health.QUARANTINED and self.in_flight:
                return float("inf")  # one trial at a time
        if not self.limited:
            return 0.0
        key = self.key
        if key.concurrency is not None and self.in_flight >= key.concurrency:
            return float("inf")
        wait = max(0.0, self.shut - now)
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

    def forgo(self) -> None:
        """One request less: it was not sent."""
        self.uses -= 1
        if self.key.rpm is not None:
            self.requests_full -= 60 / self.key.rpm

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
                self.share = _SHY
        elif not resting:
            self.share = min(1.0, self.share * 2)
            self.strikes = 0
            self.health = Health.OK

    def rest(self, health: Health, until: float, strikes: int) -> None:
        """It has to rest, as somebody else found out."""
        self.health, self.until, self.strikes = health, until, strikes
        if health is Health.QUARANTINED:
            self.share = _SHY

    def heal(self) -> None:
        """It is well again, as somebody else found out; its share comes back step by step."""
        self.health, self.until, self.strikes = Health.OK, _NEVER, 0

    def forgive(self) -> None:
        """Nothing is held against this key any more."""
        self.health, self.until, self.strikes, self.share = Health.OK, _NEVER, 0, 1.0
