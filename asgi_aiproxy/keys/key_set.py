"""The keys of one pool in this process: select one, lend it, and apply what its responses say.

How a key is chosen:

1. The strategy of the pool yields candidates, group by group in the order of `priority`, best
   candidate first. With an affinity, a hash of it replaces the strategy.
2. The first candidate that serves the model, is not excluded and is usable now is lent (`take`).
   The cost is that of finding it; the other keys are not looked at.
3. If none is usable, `NoKeyError` carries the reason for each key and the time until the first one
   is usable again. A caller that may wait joins the fair queue, which is served whenever a key is
   released, recovers or is changed, and when the first cooldown ends.

How a response changes a key: `apply_response` classifies the status (`health.classify_response`)
and moves the state of the key (`key_state`). An observer, in a shared pool the backend that writes
to the store, is notified of each change. A success of a healthy key changes nothing.

`KeyPool` is the public interface; `Lease`, `HealthChecker` and `SharedPoolBackend` use this class.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Protocol

from asgi_aiproxy.errors import RefusalScope
from asgi_aiproxy.keys.health import MAX_COOLDOWN, Health, classify_response
from asgi_aiproxy.keys.key import Key
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError
from asgi_aiproxy.keys.pool_description import describe_key, no_key_available
from asgi_aiproxy.keys.strategies import (
    PriorityGroup,
    Strategy,
    grouped,
    slow_start,
    sticky,
)
from asgi_aiproxy.keys.wait_queue import FairQueue
from asgi_aiproxy.patterns import matches_any


class KeySetObserver(Protocol):
    """Is notified when keys change."""

    def publish(self, state: KeyState, model: str = "") -> None:
        """A response changed the health of a key, as a whole or for one model."""
        ...

    def wake_waiting(self) -> None:
        """A key may have become usable."""
        ...


class KeySet:
    """The keys of a pool, by id, with their health in this process.

    `states` must be changed through `set_keys`, `add_keys` and `remove_key` only.
    """

    def __init__(
        self,
        name: str,
        *,
        strategy: Strategy,
        cooldown: float,
        clock: Callable[[], float],
        random: random.Random,
    ) -> None:
        self.name = name
        self.clock = clock
        self.random = random
        self.states: dict[str, KeyState] = {}
        self.waiting = FairQueue(self.take)
        self.observer: KeySetObserver | None = None
        self.has_limits = False
        self._strategy = strategy
        self._cooldown = cooldown
        self._groups: list[PriorityGroup] | None = None  # built when first needed
        self._slow_start = False  # whether any key may be in slow start

    @property
    def keys(self) -> dict[str, Key]:
        """The keys by id."""
        return {id: state.key for id, state in self.states.items()}

    # selecting

    def take(self, request: KeyRequest) -> Lease:
        """Lend the first usable candidate. Raises NoKeyError."""
        now = self.clock()
        restricted = bool(request.exclude or request.among)
        soonest: float | None = None
        found = False
        for state in self.candidates(request):
            if (restricted or state.key.models) and not serves(state, request):
                continue
            found = True
            wait = (
                state.seconds_until_usable(now)
                if state.model_cooldowns is None
                else state.wait_for(request.model, now)
            )
            if wait <= 0:
                state.mark_used(now)
                return Lease(self, state, request.model)
            if wait != float("inf"):
                soonest = wait if soonest is None else min(soonest, wait)
        raise self.no_key_error(request, found, soonest)

    def candidates(self, request: KeyRequest) -> Iterator[KeyState]:
        """The keys in the order in which to try them; a key may come twice."""
        if request.key_id:
            state = self.states.get(request.key_id)
            return iter(() if state is None else (state,))
        groups, random = self._groups, self.random
        if groups is None:
            groups = self._groups = grouped(self.states.values(), self._strategy)
        if len(groups) == 1 and not request.affinity and not self._slow_start:  # the usual case
            return groups[0].order(groups[0], random)
        if request.affinity:
            orders = [sticky(group, request.affinity) for group in groups]
        else:
            orders = [group.order(group, random) for group in groups]
            if self._slow_start:
                orders = [slow_start(order, random) for order in orders]
        return chain.from_iterable(orders)

    def no_key_error(self, request: KeyRequest, found: bool, soonest: float | None) -> NoKeyError:
        """The error for a request that gets no key.

        `found` is whether a key matches the request at all, `soonest` the seconds until the first
        matching key is usable again, None if unknown.
        """
        if request.key_id and request.key_id not in self.states:
            return NoKeyError(f"There is no key {request.key_id!r}.", exists=False, unknown=True)
        if not self.states:
            return NoKeyError("The pool has no keys.", exists=False, empty=True)
        if not found:
            return NoKeyError("No key is left to try.", exists=False)
        now, model = self.clock(), request.model
        states = [state for state in self._named(request.key_id) if serves(state, request)]
        return no_key_available([describe_key(state, model, now) for state in states], soonest)

    def soonest(self, request: KeyRequest) -> float:
        """Seconds until a key that matches is usable: 0 if one is now, infinity if that is not
        known in advance."""
        now = self.clock()
        states = [state for state in self._named(request.key_id) if serves(state, request)]
        waits = (state.wait_for(request.model, now) for state in states)
        return max(0.0, min(waits, default=float("inf")))

    def release(self, state: KeyState) -> None:
        """End one use of a key."""
        state.in_flight -= 1
        if self.waiting.waiters:
            self.waiting.serve()

    def _named(self, key_id: str) -> Iterable[KeyState]:
        """All keys, or the one with this id."""
        states = self.states
        return [states[key_id]] if key_id in states else () if key_id else states.values()

    # health

    def apply_response(
        self,
        state: KeyState,
        model: str,
        status: int,
        retry_after: float | None,
        code: str | None,
        scope: RefusalScope | None,
    ) -> None:
        """Change the health of a key by the status of a response to a request for `model`."""
        change = classify_response(
            status,
            retry_after,
            code=code,
            about=scope,
            cooldown=self._cooldown,
            strikes=state.strikes_for(model if scope is RefusalScope.MODEL else ""),
        )
        if status < 400 and state.model_cooldowns is not None and state.end_model_cooldown(model):
            self._publish(state, model)
        if change.model:
            if model:
                state.apply_model_health(model, change, status)
                self._publish(state, model)
        elif change.health is not Health.OK:
            self._slow_start = True
            state.apply_health(change)
            state.last_status = status
            self._publish(state)
        elif status < 400 and state.health is not Health.OK:
            state.apply_health(change)
            self._recovered(state)
        elif status < 400:
            state.apply_health(change)

    def pause(self, state: KeyState, model: str, seconds: float) -> None:
        """Cool a key down because its limit is used up, though no request was refused yet."""
        until = self.clock() + min(seconds, MAX_COOLDOWN)
        if model:
            state.cool_down_for(model, until, state.strikes_for(model), 429)
            self._publish(state, model)
        elif state.health is Health.OK:
            state.cool_down(Health.COOLING, until, state.strikes)
            state.last_status = 429
            self._publish(state)

    def health_changed(self) -> None:
        """The health of some keys was changed from outside, such as by another process."""
        self._slow_start = True

    def _publish(self, state: KeyState, model: str = "") -> None:
        if self.observer is not None:
            self.observer.publish(state, model)

    def _recovered(self, state: KeyState) -> None:
        if self.observer is not None:
            self.observer.publish(state)
            self.observer.wake_waiting()
        self.waiting.serve()

    # changing the keys

    def add_keys(self, keys: Iterable[Key]) -> None:
        """Add keys; one with an id that exists replaces it, and keeps its health if the secret is
        the same."""
        for key in keys:
            self.states[key.id] = self._state_for(key)
        self._keys_changed()

    def remove_key(self, key_id: str) -> None:
        """Remove a key. Raises KeyError."""
        del self.states[key_id]
        self._keys_changed()

    def set_keys(self, wanted: Mapping[str, tuple[Key, bool | None]]) -> None:
        """Make these all the keys, in this order: enabled, disabled, or (None) as they were."""
        states: dict[str, KeyState] = {}
        for id, (key, enabled) in wanted.items():
            state = states[id] = self._state_for(key)
            if enabled is False:
                state.health = Health.DEAD
            elif enabled and state.health is Health.DEAD:
                state.reset()
        self.states = states
        self._keys_changed()

    def _state_for(self, key: Key) -> KeyState:
        """The state of a key: the existing one if the secret is the same."""
        known = self.states.get(key.id)
        if known is None or known.key.secret != key.secret:
            return KeyState(key, self.clock)
        if known.key is not key:
            known.update_key(key)
        return known

    def _keys_changed(self) -> None:
        self._groups = None
        self.has_limits = any(state.key.limited for state in self.states.values())
        self.waiting.serve()
        if self.observer is not None:
            self.observer.wake_waiting()


def serves(state: KeyState, request: KeyRequest) -> bool:
    """Whether a key may serve a request once it is usable."""
    key = state.key
    if key.id in request.exclude or (request.among and not matches_any(request.among, key.id)):
        return False
    return not (key.models and request.model) or matches_any(key.models, request.model)
