"""Pools of provider keys: which one serves, how it fared, and how it heals."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Literal, Self

from asgi_aiproxy.errors import ConfigurationError, RefusalScope
from asgi_aiproxy.keys.health import LONGEST, Health, classify_response
from asgi_aiproxy.keys.health_check import HealthChecker, Test
from asgi_aiproxy.keys.key import Key, as_list, check_new, validate_key
from asgi_aiproxy.keys.key_state import KeyState, KeyStatus
from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError
from asgi_aiproxy.keys.pool_description import describe_pool, no_key_available
from asgi_aiproxy.keys.strategies import (
    STRATEGIES,
    PriorityGroup,
    Strategy,
    grouped,
    slow_start,
    sticky,
    system_random,
)
from asgi_aiproxy.keys.wait_queue import FairQueue
from asgi_aiproxy.patterns import matches_any
from asgi_aiproxy.stores.base import check_store

if TYPE_CHECKING:
    from asgi_aiproxy.keys.encryption import SecretCipher
    from asgi_aiproxy.keys.key_store import KeyStore
    from asgi_aiproxy.keys.shared_pool import SharedPoolBackend
    from asgi_aiproxy.stores.base import OutagePolicy, Store


class KeyPool:
    """Keys of one provider, taken in turn.

    `strategy`: `weighted` (by weight; in turn when all weigh the same), `round_robin`, `random`,
    `least_busy`, or `fill_first` (the first key that can). `cooldown` is how many seconds a key
    rests when the provider does not say. `wait` is how many seconds a call may wait for a key;
    who waits longest goes first.

    With a `store`, pools of the same `name` in all processes are one: keys in the store's table
    join those given here, and health and limits are shared. `sealer` seals the secrets there.
    While the store is `away`, keys are used by what this process knows, or (`fail_closed`) those
    with limits are not used. It can be entered, `async with`, to have read the keys beforehand.

    ::

        async with pool.lease() as lease:
            response = await client.post(url, headers={"x-api-key": lease.key.secret})
            lease.settle(response.status_code)
    """

    def __init__(
        self,
        keys: str | Key | Iterable[str | Key] = (),
        *,
        name: str = "",
        strategy: Strategy = "weighted",
        cooldown: float = 30.0,
        max_wait_seconds: float = 0.0,
        store: Store | None = None,
        sealer: SecretCipher | None = None,
        on_store_outage: OutagePolicy | Literal["fail_open", "fail_closed"] = "fail_open",
        clock: Callable[[], float] = time.monotonic,
        random: random.Random | None = None,
    ) -> None:
        if store is not None:
            check_store(store, "KeyPool")
        if store is not None and not name:
            raise ConfigurationError("A pool in a store needs a name: those of one name are one.")
        name = name or "default"
        if strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise ConfigurationError(f"Unknown strategy {strategy!r}. There are: {known}.")
        if not cooldown > 0 or not max_wait_seconds >= 0:
            raise ConfigurationError(
                f"Pool {name!r}: cooldown must be above 0 and wait not below, in seconds."
            )
        self.name = name
        self._strategy = STRATEGIES[strategy]
        self._cooldown = cooldown
        self._wait = max_wait_seconds
        self._clock = clock
        self._random = random if random is not None else system_random()
        self._slots: dict[str, KeyState] = {}
        self._groups: list[PriorityGroup] | None = None  # made when needed
        self._shy = False  # whether any key may have to come back slowly
        self._waiting = FairQueue(self._take)
        self._shared: SharedPoolBackend | None = None
        self._asks = False
        self._prober: HealthChecker | None = None
        for key in as_list(keys, name):
            made = self._made(key)
            if made.id in self._slots:
                same = self._slots[made.id].key.secret == made.secret
                what = "the same key is given twice" if same else "two keys have the same id"
                raise ConfigurationError(f"Pool {name!r}: {what}: {made.id!r}.")
            self._slots[made.id] = KeyState(made, clock)
        self._given = self.keys
        if store is not None:
            from asgi_aiproxy.keys.shared_pool import SharedPoolBackend

            self._shared = SharedPoolBackend(self, store, sealer, on_store_outage, self._random)
            self._changed()

    def __repr__(self) -> str:
        counts = dict.fromkeys(Health, 0)
        for slot in self._slots.values():
            counts[slot.health] += 1
        told = ", ".join(f"{count} {health}" for health, count in counts.items() if count)
        return f"KeyPool({self.name!r}: {told or 'no keys'})"

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def table(self) -> KeyStore | None:
        """The keys in the store, if there is one."""
        return self._shared.table if self._shared is not None else None

    @property
    def needs_store(self) -> bool:
        """Whether a key may have to be asked for in the store: some have limits there."""
        return self._asks

    @property
    def keys(self) -> dict[str, Key]:
        """The keys by their ids, in a shared pool as they were last read."""
        return {id: slot.key for id, slot in self._slots.items()}

    # using keys

    @asynccontextmanager
    async def lease(
        self, *, model: str = "", key_id: str = "", affinity: str = ""
    ) -> AsyncIterator[Lease]:
        """A key for the length of a block. Raises NoKeyError."""
        with await self.acquire(model=model, key_id=key_id, affinity=affinity) as lease:
            yield lease

    async def acquire(
        self,
        *,
        model: str = "",
        key_id: str = "",
        affinity: str = "",
        exclude: Collection[str] = (),
        among: tuple[str, ...] = (),
    ) -> Lease:
        """A key, waited for if need be; the caller releases it. Raises NoKeyError."""
        want = KeyRequest(model, key_id, affinity, exclude, among)
        if self._shared is not None:
            return await self._shared.acquire(want, self._wait)
        if not (self._waiting and self._waiting.has_waiter(want)):
            try:
                return self._take(want)
            except NoKeyError as error:
                if not error.exists or not self._wait:
                    raise
        return await self._waiting.wait(want, self._wait)

    def acquire_nowait(
        self,
        *,
        model: str = "",
        key_id: str = "",
        affinity: str = "",
        exclude: Collection[str] = (),
        among: tuple[str, ...] = (),
    ) -> Lease:
        """A key now, or NoKeyError. Not for shared pools: raises ConfigurationError.

        `model` must be among the key's (none named: any key will do); `key_id` asks for that very
        key; calls of one `affinity` get the same key as long as it is well; `exclude` names keys
        that were tried; `among` are patterns of the ids it must be one of (none: all).
        """
        if self._shared is not None:
            raise ConfigurationError(
                "KeyPool.take: the limits of this pool are shared through its store, which has to "
                "be asked: use `await pool.acquire(...)`."
            )
        return self._take(KeyRequest(model, key_id, affinity, exclude, among))

    async def _now(self, key_id: str) -> Lease:
        """A certain key, without waiting. Raises NoKeyError."""
        want = KeyRequest("", key_id, "", ())
        return self._take(want) if self._shared is None else await self._shared.acquire(want, 0.0)

    def _take(self, want: KeyRequest) -> Lease:
        now = self._clock()
        soonest: float | None = None
        found = False
        for slot in self._candidates(want):
            if not _serves(slot, want):
                continue
            found = True
            wait = (
                slot.seconds_until_usable(now)
                if slot.rests is None
                else slot.wait_for(want.model, now)
            )
            if wait <= 0:
                slot.mark_used(now)
                return Lease(self, slot, want.model)
            if wait != float("inf"):
                soonest = wait if soonest is None else min(soonest, wait)
        raise self._no_key(want, found, soonest)

    def _no_key(self, want: KeyRequest, found: bool, soonest: float | None) -> NoKeyError:
        if want.key_id and want.key_id not in self._slots:
            return NoKeyError(f"There is no key {want.key_id!r}.", exists=False, unknown=True)
        if not self._slots:
            return NoKeyError("The pool has no keys.", exists=False, empty=True)
        if not found:
            return NoKeyError("No key is left to try.", exists=False)
        now, model = self._clock(), want.model
        slots = [slot for slot in self._wanted(want.key_id) if _serves(slot, want)]
        return no_key_available([describe_pool(slot, model, now) for slot in slots], soonest)

    def soonest(self, *, model: str = "", key_id: str = "", among: tuple[str, ...] = ()) -> float:
        """Seconds until a key may be used for `model`, by what this process knows: 0 if one may be
        now, infinity if only a release or an operator helps. `among` are patterns of ids.
        """
        want, now = KeyRequest(model, key_id, "", (), among), self._clock()
        slots = self._wanted(key_id)
        waits = (slot.wait_for(model, now) for slot in slots if _serves(slot, want))
        return max(0.0, min(waits, default=float("inf")))

    def _wanted(self, key_id: str) -> Iterable[KeyState]:
        """All keys, or the one of this id."""
        slots = self._slots
        return [slots[key_id]] if key_id in slots else () if key_id else slots.values()

    def _candidates(self, want: KeyRequest) -> Iterator[KeyState]:
        if want.key_id:
            slot = self._slots.get(want.key_id)
            return iter(() if slot is None else (slot,))
        if self._groups is None:
            self._groups = grouped(self._slots.values())
        if len(self._groups) == 1:
            return self._ordered(self._groups[0], want.affinity)
        return chain.from_iterable(self._ordered(group, want.affinity) for group in self._groups)

    def _ordered(self, group: PriorityGroup, affinity: str) -> Iterator[KeyState]:
        if affinity:
            return sticky(group, affinity)
        order = self._strategy(group, self._random)
        return slow_start(order, self._random) if self._shy else order

    def _release(self, slot: KeyState) -> None:
        slot.in_flight -= 1
        if self._waiting:
            self._waiting.serve()

    def _judge(
        self,
        slot: KeyState,
        model: str,
        status: int,
        retry_after: float | None,
        code: str | None,
        about: RefusalScope | None,
    ) -> None:
        if status < 400 and slot.unblemished:
            return
        judged = classify_response(
            status,
            retry_after,
            code=code,
            about=about,
            cooldown=self._cooldown,
            strikes=slot.strikes_for(model if about is RefusalScope.MODEL else ""),
        )
        if status < 400 and slot.rests is not None and slot.heal_for(model):
            self._publish(slot, model)
        if judged.model:
            if model:
                slot.judge_for(model, judged, status)
                self._publish(slot, model)
        elif judged.health is not Health.OK:
            self._shy = True
            slot.apply_health(judged)
            slot.said = status
            self._publish(slot)
        elif status < 400 and slot.health is not Health.OK:
            slot.apply_health(judged)
            self._healed(slot)
        elif status < 400:
            slot.apply_health(judged)

    def _pause(self, slot: KeyState, model: str, seconds: float) -> None:
        """Its limit is used up, though nothing was refused yet."""
        until = self._clock() + min(seconds, LONGEST)
        if model:
            slot.rest_for(model, until, slot.strikes_for(model), 429)
            self._publish(slot, model)
        elif slot.health is Health.OK:
            slot.cool_down(Health.COOLING, until, slot.strikes)
            slot.said = 429
            self._publish(slot)

    def _publish(self, slot: KeyState, model: str = "") -> None:
        if self._shared is not None:
            self._shared.publish(slot, model)

    def _healed(self, slot: KeyState) -> None:
        if self._shared is not None:
            self._shared.publish(slot)
            self._shared.queue.notify()
        self._waiting.serve()

    # keeping keys

    async def add(self, *keys: str | Key) -> None:
        """Add keys, all or none. One that is there already gets the limits, weight and all else
        that is given now, and keeps its health; calls in flight keep what they have.

        Raises ConfigurationError if there is another key, with another secret, of the same id. In a
        shared pool this, as all that follows, is so everywhere within a second, and may raise
        StoreUnavailableError.
        """
        await self._put([self._made(key) for key in keys], others=False)

    async def update(self, key: Key) -> None:
        """Have this key in place of the one with its id. Raises KeyError if there is none."""
        if self._shared is not None:
            await self._shared.refresh()
        if key.id not in self._slots:
            raise KeyError(key.id)
        await self._put([self._made(key)], others=True)

    async def _put(self, keys: list[Key], *, others: bool) -> None:
        """Have these keys; `others`: also in place of keys with other secrets."""
        if self._shared is not None:
            await self._shared.put(keys, others=others)
            return
        check_new(keys, {} if others else self.keys, self.name)
        for key in keys:
            self._slots[key.id] = self._slot(key)
        self._changed()

    def is_added(self, key_id: str) -> bool:
        """Whether a key, or where it leads, was not given in code but added later."""
        given, slot = self._given.get(key_id), self._slots.get(key_id)
        if given is None or slot is None:
            return True
        return (given.base_url, given.proxy) != (slot.key.base_url, slot.key.proxy)

    async def replace(self, keys: Iterable[str | Key]) -> None:
        """Have these keys in place of all others, in one step; those given in code stay in a
        shared pool."""
        made = [self._made(key) for key in as_list(keys, self.name)]
        if self._shared is not None:
            await self._shared.replace(made)
        else:
            self._adopt({key.id: (key, None) for key in made})

    async def rotate(self, key_id: str, secret: str) -> None:
        """Give a key a new secret; calls in flight keep the old one. Raises KeyError."""
        if self._shared is not None:
            await self._shared.refresh()
        await self.update(replace(self._slots[key_id].key, secret=secret))

    async def remove(self, key_id: str) -> None:
        """Remove a key; calls in flight keep it to their end. Raises KeyError."""
        if self._shared is not None:
            await self._shared.remove(key_id)
            return
        del self._slots[key_id]
        self._changed()

    async def disable(self, key_id: str) -> None:
        """Use this key no more until `enable`. Raises KeyError."""
        if self._shared is not None:
            await self._shared.set_enabled(key_id, enabled=False)
        else:
            self._slots[key_id].health = Health.DEAD

    async def enable(self, key_id: str) -> None:
        """Use this key again, whatever was held against it. Raises KeyError."""
        if self._shared is not None:
            await self._shared.set_enabled(key_id, enabled=True)
        else:
            self._slots[key_id].reset()
            self._waiting.serve()

    async def status(self) -> list[KeyStatus]:
        """How every key is."""
        now = self._clock()
        return [_status(slot, now) for slot in self._slots.values()]

    def _slot(self, key: Key) -> KeyState:
        """A key's slot: the one there is, if it is of the same secret."""
        known = self._slots.get(key.id)
        if known is None or known.key.secret != key.secret:
            return KeyState(key, self._clock)
        if known.key is not key:
            known.update_key(key)
        return known

    def _adopt(self, wanted: Mapping[str, tuple[Key, bool | None]]) -> None:
        """Have these keys, in this order; each is enabled, disabled, or (None) as it was."""
        slots: dict[str, KeyState] = {}
        for id, (key, enabled) in wanted.items():
            slot = slots[id] = self._slot(key)
            if enabled is False:
                slot.health = Health.DEAD
            elif enabled and slot.health is Health.DEAD:
                slot.reset()
        self._slots = slots
        self._changed()

    def _changed(self) -> None:
        self._groups = None
        self._asks = self._shared is not None and any(
            slot.key.limited for slot in self._slots.values()
        )
        self._waiting.serve()
        if self._shared is not None:
            self._shared.queue.notify()

    def _made(self, key: str | Key) -> Key:
        return validate_key(key if isinstance(key, Key) else Key(key), self.name)

    def start_health_checks(
        self,
        check: Test,
        *,
        interval: float = 60.0,
        include_healthy: bool = False,
        timeout: float = 30.0,
    ) -> None:
        """From when the pool is entered, test keys that were refused, once they have rested.

        `test` gets a key, asks the provider with it, and returns the answer's status; it may take
        `limit` seconds. It is done about `every` so many seconds, in a shared pool by one process.
        With `well`, keys that are well are tested, too.
        """
        self._prober = HealthChecker(
            self,
            check,
            every=interval,
            well=include_healthy,
            limit=timeout,
            claim=self._shared.claim if self._shared is not None else None,
            random=self._random,
        )

    async def __aenter__(self) -> Self:
        if self._shared is not None:
            await self._shared.start()
        if self._prober is not None:
            self._prober.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._prober is not None:
            await self._prober.stop()
        if self._shared is not None:
            await self._shared.aclose()


def _serves(slot: KeyState, want: KeyRequest) -> bool:
    """Whether a key is one that a call may have, once it is free."""
    key = slot.key
    if key.id in want.exclude or (want.among and not matches_any(want.among, key.id)):
        return False
    return not (key.models and want.model) or matches_any(key.models, want.model)


def _status(slot: KeyState, now: float) -> KeyStatus:
    health, rests, models = slot.health, 0.0, slot.resting_models(now)
    if health is not Health.OK:
        rests = max(slot.until - now, 0.0)
    elif models:
        health, rests = Health.COOLING, max(models.values())
    return KeyStatus(slot.key.id, health, rests, slot.in_flight, slot.uses, slot.failures, models)
