"""A key and its state within a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asgi_aiproxy.keys.health import Health, HealthChange
from asgi_aiproxy.keys.key import Key, fingerprint

_NEVER = float("-inf")
_SHY = 1 / 8  # of its weight, when a key was refused
_MODELS = 100  # for so many models a key may rest at once
_DUST = 1e-3  # adding up fractions of a minute is not exact


class ModelRest(NamedTuple):
    """Until when a key rests for a model, after how many bad verdicts, and after what status."""

    until: float
    strikes: int
    said: int


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How a key is right now; `rests` is the seconds until it may be used again.

    A key that rests for some models only is `cooling`, too: `models` has the seconds for each.
    """

    id: str
    health: Health
    rests: float
    in_flight: int
    uses: int
    failures: int
    models: Mapping[str, float] = field(default_factory=dict, hash=False)


class KeyState:
    """A key and its state. Rate limits are leaky: `*_full` is when the bucket would be empty.

    `tag` is the name by which other processes know the same secret; `shut` is until when, as a
    store said, its limits are used up.
    """

    __slots__ = (
        "blocked_until",
        "clock",
        "failures",
        "grants",
        "health",
        "in_flight",
        "key",
        "limited",
        "requests_full",
        "rests",
        "said",
        "slow_start_weight",
        "strikes",
        "tag",
        "tokens_full",
        "until",
        "uses",
    )

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        self.update_key(key)
        self.clock = clock
        self.health = Health.OK
        self.until = _NEVER
        self.strikes = 0
        self.slow_start_weight = (
            1.0  # how much of its weight counts; grows again after a quarantine
        )
        self.in_flight = 0
        self.uses = 0
        self.failures = 0
        self.requests_full = _NEVER
        self.tokens_full = _NEVER
        self.blocked_until = _NEVER
        self.said = 0  # the status that put it to rest
        self.rests: dict[str, ModelRest] | None = None  # by model; mostly there are none
        self.tag = f"{key.id}:{fingerprint(key.secret)}"

    def update_key(self, key: Key) -> None:
        """The same secret, said to be used in another way."""
        self.key = key
        self.grants: tuple[Any, ...] | None = (
            None  # what a use takes of a store, once that is known
        )
        self.limited = (key.rpm, key.tpm, key.concurrency) != (None, None, None)

    def wait_for(self, model: str, now: float) -> float:
        """Seconds until this key may be used for a model; see `wait`."""
        wait = self.seconds_until_usable(now)
        if self.rests is not None and (rest := self.rests.get(model)) is not None:
            return max(wait, rest.until - now)
        return wait

    def seconds_until_usable(self, now: float) -> float:
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
        wait = max(0.0, self.blocked_until - now)
        if key.rpm is not None:
            wait = max(wait, self.requests_full + 60 / key.rpm - now - 60)
        if key.tpm is not None:
            wait = max(wait, self.tokens_full + 60 / key.tpm - now - 60)
        return wait if wait > _DUST else 0.0

    def mark_used(self, now: float) -> None:
        """One more request, now."""
        self.in_flight += 1
        self.uses += 1
        if self.key.rpm is not None:
            self.requests_full = max(self.requests_full, now) + 60 / self.key.rpm

    def cancel_use(self) -> None:
        """One request less: it was not sent."""
        self.uses -= 1
        if self.key.rpm is not None:
            self.requests_full -= 60 / self.key.rpm

    def count_tokens(self, tokens: int) -> None:
        """Count tokens, now."""
        if self.key.tpm is not None:
            now = self.clock()
            self.tokens_full = max(self.tokens_full, now) + tokens * 60 / self.key.tpm

    def is_cooling(self) -> bool:
        """Whether an answer has put it to rest."""
        return self.until > self.clock()

    def apply_health(self, verdict: HealthChange) -> None:
        """Heed what an answer means. Calls from before a rest neither end nor double it."""
        if self.health is Health.DEAD:
            return
        resting = self.is_cooling()
        if verdict.health is not Health.OK:
            until = self.clock() + verdict.cooldown_seconds
            self.until = max(self.until, until) if resting else until
            self.strikes += not resting
            self.failures += 1
            if verdict.health is Health.QUARANTINED or not resting:
                self.health = verdict.health
            if verdict.health is Health.QUARANTINED:
                self.slow_start_weight = _SHY
        elif not resting:
            self.slow_start_weight = min(1.0, self.slow_start_weight * 2)
            self.strikes = 0
            self.health = Health.OK

    @property
    def unblemished(self) -> bool:
        """Whether nothing at all is held against it."""
        fine = self.health is Health.OK and not self.strikes and self.slow_start_weight >= 1.0
        return fine and self.rests is None

    def resting_models(self, now: float) -> dict[str, float]:
        """The models for which it rests, each with the seconds that are left."""
        rests = self.rests or {}
        return {model: rest.until - now for model, rest in rests.items() if rest.until > now}

    def strikes_for(self, model: str) -> int:
        """How many bad verdicts in a row there were before the rest that it may be in."""
        if not model:
            return self.strikes - self.is_cooling()
        rest = self.rests.get(model) if self.rests is not None else None
        return 0 if rest is None else rest.strikes - (rest.until > self.clock())

    def rest_for(self, model: str, until: float, strikes: int, said: int) -> None:
        """It has to rest for one model. (Models have names that callers make up: they are few.)"""
        rests = self.rests = self.rests if self.rests is not None else {}
        if model not in rests and len(rests) >= _MODELS:
            del rests[min(rests, key=lambda name: rests[name].until)]
        rests[model] = ModelRest(until, strikes, said)

    def judge_for(self, model: str, verdict: HealthChange, said: int) -> None:
        """Heed what an answer means for one model."""
        until = self.clock() + verdict.cooldown_seconds
        known = self.rests.get(model) if self.rests is not None else None
        resting = known is not None and known.until > self.clock()
        strikes = known.strikes if known is not None else 0
        if known is not None and resting:
            until = max(until, known.until)
        self.failures += 1
        self.rest_for(model, until, strikes + (not resting), said)

    def heal_for(self, model: str) -> bool:
        """Its rest for a model is over; whether there was one."""
        if self.rests is None or self.rests.pop(model, None) is None:
            return False
        self.rests = self.rests or None
        return True

    def cool_down(self, health: Health, until: float, strikes: int) -> None:
        """It has to rest, as somebody else found out."""
        self.health, self.until, self.strikes = health, until, strikes
        if health is Health.QUARANTINED:
            self.slow_start_weight = _SHY

    def recover(self) -> None:
        """It is well again, as somebody else found out; its share comes back step by step."""
        self.health, self.until, self.strikes = Health.OK, _NEVER, 0

    def reset(self) -> None:
        """Nothing is held against this key any more."""
        self.rests = None
        self.health, self.until, self.strikes, self.slow_start_weight = Health.OK, _NEVER, 0, 1.0
