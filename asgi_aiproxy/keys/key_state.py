"""The state of one key in a pool: health, cooldowns, limits counted in this process.

Theory of operation. A key has one health for all models, and may cool down for single models:

- `ok`: usable.
- `cooling`: a limit was reached (429). Not used until `until`; then usable without further ado.
- `quarantined`: refused (401, no credit). Not used until `until`; after that by one request at a
  time, until a success ends the quarantine.
- `dead`: disabled by an operator. Only `reset` ends it.

A *strike* is one bad response that began a cooldown. Consecutive strikes double cooldowns for which
the provider names no time. Responses to requests that were sent before a cooldown began must not
count twice, so while a key is cooling down

- another bad response may extend the cooldown but adds no strike,
- a success neither ends the cooldown nor clears the strikes.

After a quarantine the key gets its share of the traffic back gradually: `slow_start_weight` begins
at 1/8 and doubles with each success.

Health per model works in the same way and is kept in `model_cooldowns`, which is None for almost
all keys, so that the hot path needs one comparison.

Limits in this process are leaky buckets: `requests_full` and `tokens_full` are the times at which
the bucket would be empty; a key has room while that is less than a minute ahead. In a shared pool
the store counts as well, and `blocked_until` is the earliest time at which it may admit again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asgi_aiproxy.keys.health import Health, HealthChange
from asgi_aiproxy.keys.key import Key, fingerprint

_NEVER = float("-inf")
_SLOW_START_WEIGHT = 1 / 8  # share of a key's weight right after a quarantine
_MAX_MODEL_COOLDOWNS = 100  # per key: callers invent model names
_TOLERANCE = 1e-3  # seconds: adding up fractions of a minute is not exact


class ModelCooldown(NamedTuple):
    """A cooldown of a key for one model: its end, the strikes, and the status that caused it."""

    until: float
    strikes: int
    status: int


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The state of a key at one moment.

    `cooldown_seconds` is the time until the key may be used again. A key that cools down for some
    models only is `cooling`, too: `models` holds the seconds for each. `in_flight` is the number of
    requests that use the key now, `uses` and `failures` count since the process began.
    """

    id: str
    health: Health
    cooldown_seconds: float
    in_flight: int
    uses: int
    failures: int
    models: Mapping[str, float] = field(default_factory=dict, hash=False)


class KeyState:
    """A key and its state; see above.

    `tag` identifies id and secret in the store, the same in all processes. `grants` caches what one
    use of the key takes from the store.
    """

    __slots__ = (
        "blocked_until",
        "clock",
        "failures",
        "grants",
        "health",
        "in_flight",
        "key",
        "last_status",
        "limited",
        "model_cooldowns",
        "requests_full",
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
        self.slow_start_weight = 1.0
        self.in_flight = 0
        self.uses = 0
        self.failures = 0
        self.requests_full = _NEVER
        self.tokens_full = _NEVER
        self.blocked_until = _NEVER
        self.last_status = 0  # the HTTP status that began the last cooldown
        self.model_cooldowns: dict[str, ModelCooldown] | None = None
        self.tag = f"{key.id}:{fingerprint(key.secret)}"

    def update_key(self, key: Key) -> None:
        """Use the same secret with other limits, weight or fields."""
        self.key = key
        self.grants: tuple[Any, ...] | None = None
        self.limited = key.limited

    def health_at(self, now: float) -> Health:
        """The health at `now`: a key that cools down for some models only is `cooling`, too."""
        if self.health is Health.OK and self.model_cooldowns and self.cooling_models(now):
            return Health.COOLING
        return self.health

    def status(self, now: float) -> KeyStatus:
        """The state at `now`, for display."""
        health, seconds, models = self.health, 0.0, self.cooling_models(now)
        if health is not Health.OK:
            seconds = max(self.until - now, 0.0)
        elif models:
            health, seconds = Health.COOLING, max(models.values())
        return KeyStatus(
            self.key.id, health, seconds, self.in_flight, self.uses, self.failures, models
        )

    # use

    def wait_for(self, model: str, now: float) -> float:
        """Seconds until this key is usable for a model; see `seconds_until_usable`."""
        wait = self.seconds_until_usable(now)
        cooldowns = self.model_cooldowns
        if cooldowns is not None and (cooldown := cooldowns.get(model)) is not None:
            return max(wait, cooldown.until - now)
        return wait

    def seconds_until_usable(self, now: float) -> float:
        """Seconds until this key is usable; infinity if that depends on a release or an operator.
        Cooldowns for single models are not considered."""
        if self.health is not Health.OK:
            if self.health is Health.DEAD:
                return float("inf")
            if self.until > now:
                return self.until - now
            if self.health is Health.QUARANTINED and self.in_flight:
                return float("inf")  # one trial request at a time
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
        return wait if wait > _TOLERANCE else 0.0

    def mark_used(self, now: float) -> None:
        """Count one more request, in flight from now on."""
        self.in_flight += 1
        self.uses += 1
        if self.key.rpm is not None:
            self.requests_full = max(self.requests_full, now) + 60 / self.key.rpm

    def cancel_use(self) -> None:
        """Take back the count of a request that was not sent."""
        self.uses -= 1
        if self.key.rpm is not None:
            self.requests_full -= 60 / self.key.rpm

    def count_tokens(self, tokens: int) -> None:
        """Count tokens against the limit per minute."""
        if self.key.tpm is not None:
            now = self.clock()
            self.tokens_full = max(self.tokens_full, now) + tokens * 60 / self.key.tpm

    # health for all models

    @property
    def unblemished(self) -> bool:
        """Whether the key is healthy at full weight, without strikes and cooldowns."""
        fine = self.health is Health.OK and not self.strikes and self.slow_start_weight >= 1.0
        return fine and self.model_cooldowns is None

    def is_cooling(self) -> bool:
        """Whether a cooldown for all models has not ended yet."""
        return self.until > self.clock()

    def apply_health(self, change: HealthChange) -> None:
        """Apply what a response means for this key. Responses to requests from before a cooldown
        neither end it nor count as another strike."""
        if self.health is Health.DEAD:
            return
        cooling = self.is_cooling()
        if change.health is not Health.OK:
            until = self.clock() + change.cooldown_seconds
            self.until = max(self.until, until) if cooling else until
            self.strikes += not cooling
            self.failures += 1
            if change.health is Health.QUARANTINED or not cooling:
                self.health = change.health
            if change.health is Health.QUARANTINED:
                self.slow_start_weight = _SLOW_START_WEIGHT
        elif not cooling:
            self.slow_start_weight = min(1.0, self.slow_start_weight * 2)
            self.strikes = 0
            self.health = Health.OK

    def cool_down(self, health: Health, until: float, strikes: int) -> None:
        """Set a cooldown that is known from elsewhere: another process, or response headers."""
        self.health, self.until, self.strikes = health, until, strikes
        if health is Health.QUARANTINED:
            self.slow_start_weight = _SLOW_START_WEIGHT

    def recover(self) -> None:
        """End a cooldown because another process saw the key work; slow start stays."""
        self.health, self.until, self.strikes = Health.OK, _NEVER, 0

    def reset(self) -> None:
        """Make the key healthy at full weight, whatever happened before."""
        self.model_cooldowns = None
        self.health, self.until, self.strikes, self.slow_start_weight = Health.OK, _NEVER, 0, 1.0

    # health for single models

    def cooling_models(self, now: float) -> dict[str, float]:
        """The models for which the key cools down, each with the seconds left."""
        cooldowns = self.model_cooldowns or {}
        return {
            model: cooldown.until - now
            for model, cooldown in cooldowns.items()
            if cooldown.until > now
        }

    def strikes_for(self, model: str) -> int:
        """The strikes before the current cooldown of a model (empty: of all models)."""
        if not model:
            return self.strikes - self.is_cooling()
        cooldown = self.model_cooldowns.get(model) if self.model_cooldowns is not None else None
        if cooldown is None:
            return 0
        return cooldown.strikes - (cooldown.until > self.clock())

    def cool_down_for(self, model: str, until: float, strikes: int, status: int) -> None:
        """Set a cooldown for one model; with too many, the one that ends first is dropped."""
        if self.model_cooldowns is None:
            self.model_cooldowns = {}
        cooldowns = self.model_cooldowns
        if model not in cooldowns and len(cooldowns) >= _MAX_MODEL_COOLDOWNS:
            del cooldowns[min(cooldowns, key=lambda name: cooldowns[name].until)]
        cooldowns[model] = ModelCooldown(until, strikes, status)

    def apply_model_health(self, model: str, change: HealthChange, status: int) -> None:
        """Apply what a response means for this key and one model; see `apply_health`."""
        until = self.clock() + change.cooldown_seconds
        known = self.model_cooldowns.get(model) if self.model_cooldowns is not None else None
        cooling = known is not None and known.until > self.clock()
        strikes = known.strikes if known is not None else 0
        if known is not None and cooling:
            until = max(until, known.until)
        self.failures += 1
        self.cool_down_for(model, until, strikes + (not cooling), status)

    def end_model_cooldown(self, model: str) -> bool:
        """End the cooldown for a model; returns whether there was one."""
        if self.model_cooldowns is None or self.model_cooldowns.pop(model, None) is None:
            return False
        self.model_cooldowns = self.model_cooldowns or None
        return True
