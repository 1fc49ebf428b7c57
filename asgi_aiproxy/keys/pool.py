"""Pools of provider keys: which one serves, how it fared, and how it heals."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Self

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.key import Key, listed, serves
from asgi_aiproxy.keys.lease import Lease, NoKeyError, Want
from asgi_aiproxy.keys.line import Line
from asgi_aiproxy.keys.slot import Slot
from asgi_aiproxy.keys.strategies import (
    STRATEGIES,
    Group,
    Strategy,
    ramped,
    sticky,
    system_random,
)
from asgi_aiproxy.keys.verdict import Health, verdict


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How a key is right now; `rests` is the seconds until it may be used again."""

    id: str
    health: Health
    rests: float
    in_flight: int
    uses: int
    failures: int


class KeyPool:
    """Keys of one provider, taken in turn.

    `strategy`: `weighted` (by weight; in turn when all weigh the same), `round_robin`, `random`,
    `least_busy`, or `fill_first` (the first key that can). `cooldown` is how many seconds a key
    rests when the provider does not say. `wait` is how many seconds a call may wait for a key;
    who waits longest goes first.

    ::

        async with pool.lease() as lease:
            response = await client.post(url, headers={"x-api-key": lease.key.secret})
            lease.settle(response.status_code)
    """

    def __init__(
        self,
        keys: str | Key | Iterable[str | Key] = (),
        *,
        name: str = "default",
        strategy: Strategy = "weighted",
        cooldown: float = 30.0,
        wait: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        random: random.Random | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise ConfigurationError(f"Unknown strategy {strategy!r}. There are: {known}.")
        if not cooldown > 0 or not wait >= 0:
            raise ConfigurationError(
                f"Pool {name!r}: cooldown must be above 0 and wait not below, in seconds."
            )
        self.name = name
        self._strategy = STRATEGIES[strategy]
        self._cooldown = cooldown
        self._wait = wait
        self._clock = clock
        self._random = random if random is not None else system_random()
        self._slots: dict[str, Slot] = {}
        self._groups: list[Group] | None = None  # made when needed
        self._shy = False  # whether any key may have to come back slowly
        self._waiting = Line(self._take)
        for key in listed(keys, name):
            made = self._made(key)
            if made.id in self._slots:
                same = self._slots[made.id].key.secret == made.secret
                what = "the same key is given twice" if same else "two keys have the same id"
                raise ConfigurationError(f"Pool {name!r}: {what}: {made.id!r}.")
            self._slots[made.id] = Slot(made, clock)

    def __repr__(self) -> str:
        counts = dict.fromkeys(Health, 0)
        for slot in self._slots.values():
            counts[slot.health] += 1
        told = ", ".join(f"{count} {health}" for health, count in counts.items() if count)
        return f"KeyPool({self.name!r}: {told or 'no keys'})"

    def __len__(self) -> int:
        return len(self._slots)

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
        want = Want(model, key_id, affinity, exclude, among)
        if not self._waiting.holds(want):
            try:
                return self._take(want)
            except NoKeyError as error:
                if not error.exists or not self._wait:
                    raise
        return await self._waiting.wait(want, self._wait)

    def take(
        self,
        *,
        model: str = "",
        key_id: str = "",
        affinity: str = "",
        exclude: Collection[str] = (),
        among: tuple[str, ...] = (),
    ) -> Lease:
        """A key now, or NoKeyError.

        `model` must be among the key's (none named: any key will do); `key_id` asks for that very
        key; calls of one `affinity` get the same key as long as it is well; `exclude` names keys
        that were tried; `among` are patterns of the ids it must be one of (none: all).
        """
        return self._take(Want(model, key_id, affinity, exclude, among))

    def _take(self, want: Want) -> Lease:
        now = self._clock()
        soonest: float | None = None
        found = False
        for slot in self._candidates(want):
            key = slot.key
            if key.id in want.exclude or (want.among and not serves(want.among, key.id)):
                continue
            if key.models and want.model and not serves(key.models, want.model):
                continue
            found = True
            wait = slot.wait(now)
            if wait <= 0:
                slot.use(now)
                return Lease(self, slot)
            if wait != float("inf"):
                soonest = wait if soonest is None else min(soonest, wait)
        if want.key_id and want.key_id not in self._slots:
            raise NoKeyError(f"There is no key {want.key_id!r}.", exists=False, unknown=True)
        if not found:
            raise NoKeyError("No key is left to try.", exists=False)
        raise NoKeyError("All keys are resting or busy.", retry_after=soonest)

    def _candidates(self, want: Want) -> Iterator[Slot]:
        if want.key_id:
            slot = self._slots.get(want.key_id)
            return iter(() if slot is None else (slot,))
        if self._groups is None:
            self._groups = _grouped(self._slots.values())
        if len(self._groups) == 1:
            return self._ordered(self._groups[0], want.affinity)
        return chain.from_iterable(self._ordered(group, want.affinity) for group in self._groups)

    def _ordered(self, group: Group, affinity: str) -> Iterator[Slot]:
        if affinity:
            return sticky(group, affinity)
        order = self._strategy(group, self._random)
        return ramped(order, self._random) if self._shy else order

    def _release(self, slot: Slot) -> None:
        slot.in_flight -= 1
        if self._waiting:
            self._waiting.serve()

    def _judge(self, slot: Slot, status: int, retry_after: float | None, code: str | None) -> None:
        judged = verdict(
            status,
            retry_after,
            code=code,
            cooldown=self._cooldown,
            strikes=slot.strikes - slot.resting(),
        )
        if judged.health is not Health.OK:
            self._shy = True
            slot.judge(judged)
        elif status < 400:
            healed = slot.health is not Health.OK
            slot.judge(judged)
            if healed and self._waiting:
                self._waiting.serve()

    # keeping keys

    async def add(self, key: str | Key) -> None:
        """Add a key, or replace the one of the same id; calls in flight keep theirs.

        What is known of a key's health and use is kept as long as its secret is the same.
        """
        made = self._made(key)
        known = self._slots.get(made.id)
        if known is not None and known.key.secret == made.secret:
            known.key = made
        else:
            self._slots[made.id] = Slot(made, self._clock)
        self._changed()

    async def remove(self, key_id: str) -> None:
        """Remove a key; calls in flight keep it to their end. Raises KeyError."""
        del self._slots[key_id]
        self._changed()

    async def disable(self, key_id: str) -> None:
        """Use this key no more until `enable`. Raises KeyError."""
        self._slots[key_id].health = Health.DEAD

    async def enable(self, key_id: str) -> None:
        """Use this key again, whatever was held against it. Raises KeyError."""
        self._slots[key_id].forgive()
        self._waiting.serve()

    async def status(self) -> list[KeyStatus]:
        """How every key is."""
        now = self._clock()
        return [
            KeyStatus(
                slot.key.id,
                slot.health,
                max(slot.until - now, 0.0) if slot.health is not Health.OK else 0.0,
                slot.in_flight,
                slot.uses,
                slot.failures,
            )
            for slot in self._slots.values()
        ]

    def _changed(self) -> None:
        self._groups = None
        self._waiting.serve()

    def _made(self, key: str | Key) -> Key:
        made = key if isinstance(key, Key) else Key(key)
        if not made.secret:
            raise ConfigurationError(f"Pool {self.name!r}: a key is empty (id {made.id!r}).")
        fit = made.secret.isascii() and made.secret.isprintable()
        if not fit or made.secret != made.secret.strip():
            raise ConfigurationError(
                f"Pool {self.name!r}: the key {made.id!r} holds what no HTTP header can carry: a "
                f"line break or a space at its end, or letters that are not ASCII."
            )
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


def _grouped(slots: Iterable[Slot]) -> list[Group]:
    ranked = sorted(slots, key=lambda slot: slot.key.priority)
    return [Group(list(same)) for _, same in groupby(ranked, lambda slot: slot.key.priority)]
