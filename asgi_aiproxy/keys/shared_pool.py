"""What makes a pool one with the pools of the same name in other processes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.encryption import SecretCipher
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key import Key, check_new
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.key_store import KeyStore, StoredKey
from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError
from asgi_aiproxy.keys.shared_limits import (
    LimitReservation,
    SharedLimits,
    SharedLimitsUnavailableError,
    StoreHealth,
)
from asgi_aiproxy.keys.shared_wait_queue import SharedWaitQueue
from asgi_aiproxy.keys.store_sync import SEPARATOR, StoreSync
from asgi_aiproxy.patterns import matches_any
from asgi_aiproxy.stores.base import Denied, OutagePolicy, Store, StoreUnavailableError

if TYPE_CHECKING:
    from asgi_aiproxy.keys.pool import KeyPool

_FEW, _MANY = 2, 16  # keys that the store is asked for at once: while all is well, and if not
_TTL = 60.0  # seconds after which what a dead process held comes back
_AGAIN = 1.0  # seconds, when nobody can tell
_PATIENCE = 2.0  # seconds for which the first call waits for the keys to be read
_FAREWELL = 2.0  # seconds for what is still to be told to the store


class SharedLease(Lease):
    """A key in use that the store knows of."""

    __slots__ = ("_desk", "_ticket", "_tokens")

    def __init__(
        self,
        pool: KeyPool,
        slot: KeyState,
        model: str,
        desk: SharedLimits,
        ticket: LimitReservation,
    ) -> None:
        super().__init__(pool, slot, model)
        self._desk = desk
        self._ticket: LimitReservation | None = ticket
        self._tokens = 0

    def spend(self, tokens: int) -> None:
        """Count tokens against the key's limit."""
        super().count_tokens(tokens)
        self._tokens += tokens

    def release(self) -> None:
        """End the use."""
        super().release()
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._desk.release(ticket, self._tokens)

    def forgo(self) -> None:
        """End a use that has not begun: nothing is counted."""
        ticket, self._ticket = self._ticket, None
        super().cancel()
        if ticket is not None:
            self._desk.release(ticket, used=False)


class SharedPoolBackend:
    """A pool's part in a store: its keys and their health are copied here, their limits are there.

    A key without limits costs no call of the store, one with limits one call.
    """

    def __init__(
        self,
        pool: KeyPool,
        store: Store,
        sealer: SecretCipher | None,
        away: str,
        random: random.Random,
    ) -> None:
        if away not in (OutagePolicy.FAIL_OPEN, OutagePolicy.FAIL_CLOSED):
            raise ConfigurationError(
                f"Pool {pool.name!r}: while the store is away, keys are used by what this process "
                f"knows (fail_open), or those with limits are not (fail_closed); not {away!r}."
            )
        self._pool = pool
        self._away = OutagePolicy(away)
        self._contact = StoreHealth(pool.name)
        self.table = KeyStore(store, pool.name, sealer)
        self.account = f"pool:{pool.name}"
        self.queue = SharedWaitQueue(self._draw, random)
        self._replica = StoreSync(self.table, self.account, self, self._contact, pool._clock)
        self._desk = SharedLimits(
            store, self.account, self._contact, freed=self.queue.notify, ttl=_TTL
        )
        self._breadth = _FEW
        self._given = {slot.key.id: slot.key for slot in pool._slots.values()}

    async def start(self) -> None:
        """Read what the store has. Raises ConfigurationError if it has keys, and none is of use."""
        await self._replica.start()
        errors = self._replica.errors
        if errors and not self._pool._slots:
            raise ConfigurationError(next(iter(errors.values())))

    async def aclose(self) -> None:
        """Tell the store what is still to be told, and let go."""
        await self._desk.aclose(_FAREWELL)
        await self._replica.aclose(_FAREWELL)

    # using keys

    async def acquire(self, want: KeyRequest, wait: float) -> Lease:
        """A key, waited for if need be. Raises NoKeyError."""
        if not self._replica.ready():
            await self._replica.start(_PATIENCE)
        if not self.queue.has_waiter(want):
            try:
                return await self._draw(want)
            except NoKeyError as error:
                if not error.exists or not wait:
                    raise
        return await self.queue.wait(want, wait)

    async def _draw(self, want: KeyRequest) -> Lease:
        """A key now, or NoKeyError: keys with limits are asked for, up to the first that has none
        and so can be had."""
        seen = set(want.exclude)
        found = again = places = False
        soonest: float | None = None
        while True:
            most = self._breadth
            choices, free, fits, wait = self._choices(want, seen, most)
            found, soonest = found or fits, _sooner(soonest, wait)
            if choices:
                try:
                    answer = await self._desk.reserve(choices)
                except SharedLimitsUnavailableError as error:
                    return self._without_store(choices, free, want.model, error.ticket)
                if not isinstance(answer, Denied):
                    number, ticket = answer
                    self._breadth = _FEW if number == 0 else _MANY
                    if self._fits(choices[number], want.model):
                        return self._lent(choices[number], want.model, ticket)
                    self._desk.release(ticket)  # it has come to rest, or is gone, meanwhile
                    seen = set(want.exclude)
                    continue
                self._breadth = _MANY
                places = places or any(_has_places(slot) for slot in choices)
                self._note(choices, answer)
                soonest = _sooner(soonest, answer.retry_after)
            if free is not None and self._fits(free, want.model):
                return self._lent(free, want.model, None)
            if len(choices) == most:
                continue
            if not again and places and await self._desk.settle(_AGAIN):
                again, seen = True, set(want.exclude)
                continue
            raise self._failure(want, found, soonest)

    def _choices(
        self, want: KeyRequest, seen: set[str], most: int
    ) -> tuple[list[KeyState], KeyState | None, bool, float | None]:
        """At most `most` keys that the store is to be asked for, the key after them that needs no
        asking, whether there is any for this call, and the seconds until the first is back."""
        now = self._pool._clock()
        soonest: float | None = None
        choices: list[KeyState] = []
        found = False
        for slot in self._pool._candidates(want):
            key = slot.key
            if key.id in seen or (want.among and not matches_any(want.among, key.id)):
                continue
            seen.add(key.id)
            if key.models and want.model and not matches_any(key.models, want.model):
                continue
            found = True
            wait = slot.wait_for(want.model, now)
            if wait > 0:
                soonest = _sooner(soonest, wait if wait != float("inf") else None)
            elif not slot.limited and slot.health is not Health.QUARANTINED:
                return choices, slot, True, soonest
            else:
                choices.append(slot)
                if len(choices) == most:
                    break
        return choices, None, found, soonest

    def _failure(self, want: KeyRequest, found: bool, soonest: float | None) -> NoKeyError:
        if not found and self._replica.never_loaded:
            return NoKeyError("The keys can not be read: the store is away.", retry_after=_AGAIN)
        return self._pool._no_key(want, found, soonest)

    def _fits(self, slot: KeyState, model: str) -> bool:
        """Whether a key can still be used, now that the store has answered."""
        pool = self._pool
        return pool._slots.get(slot.key.id) is slot and slot.wait_for(model, pool._clock()) <= 0

    def _lent(self, slot: KeyState, model: str, ticket: LimitReservation | None) -> Lease:
        pool = self._pool
        slot.mark_used(pool._clock())
        if ticket is None:
            return Lease(pool, slot, model)
        return SharedLease(pool, slot, model, self._desk, ticket)

    def _note(self, choices: list[KeyState], refused: Denied) -> None:
        """None of these can be had before; but a place may become free at any time."""
        if refused.retry_after is not None:
            until = self._pool._clock() + refused.retry_after
            for slot in choices:
                if not _has_places(slot):
                    slot.blocked_until = until

    def _without_store(
        self, choices: list[KeyState], free: KeyState | None, model: str, ticket: LimitReservation
    ) -> Lease:
        first = next((slot for slot in choices if self._fits(slot, model)), None)
        if self._away is OutagePolicy.FAIL_OPEN and first is not None:
            return self._lent(first, model, self._desk.assume_reserved(ticket, first))
        self._desk.release(ticket)
        if free is not None and self._fits(free, model):
            return self._lent(free, model, None)
        raise NoKeyError(
            "The limits of the keys can not be checked: the store is away.", retry_after=_AGAIN
        )

    # health

    def publish(self, slot: KeyState, model: str = "") -> None:
        """A verdict has changed this key, all of it or for a model."""
        self._replica.publish(slot, model)

    async def claim(self, seconds: float) -> bool:
        """Whether this process is the one to test keys now."""
        return await self._desk.claim("probe", seconds)

    # keeping keys

    async def put(self, keys: Iterable[Key], *, others: bool) -> None:
        """Write keys; `others`: also in place of keys with other secrets.

        Raises KeyExistsError.
        """
        keys = list(keys)
        if not others:
            check_new(keys, self._given, self._pool.name)
        await self.table.put(*keys, others=others)
        await self._read_again()

    async def replace(self, keys: Iterable[Key]) -> None:
        """Make these the keys of the store."""
        await self.table.replace(keys)
        await self._read_again()

    async def _read_again(self) -> None:
        """Read the keys now that they have been changed. Should that fail, the change was made all
        the same: it is read as soon as the store answers."""
        try:
            await self.refresh()
        except StoreUnavailableError:
            self._replica.read_later()

    async def remove(self, key_id: str) -> None:
        """Remove a key. Raises KeyError, and ConfigurationError for one given in code."""
        if await self.table.drop(key_id):
            await self._read_again()
        elif key_id in self._given:
            raise ConfigurationError(
                f"Pool {self._pool.name!r}: the key {key_id!r} is given in code, where other "
                f"processes have it, too: it can be disabled, not removed."
            )
        else:
            raise KeyError(key_id)

    async def set_enabled(self, key_id: str, *, enabled: bool) -> None:
        """Enable or disable a key everywhere. Raises KeyError."""
        await self.refresh()
        slot = self._pool._slots[key_id]
        await self.table.set_enabled(key_id, enabled=enabled)
        await self._read_again()
        if enabled:
            slot.reset()
            self.queue.notify()
            self.publish(slot)  # others learn of it as soon as the store answers
            with suppress(StoreUnavailableError):
                for tag in {slot.tag, *await self.table.store.holds(self.account)}:
                    if tag.partition(SEPARATOR)[0] == slot.tag:
                        await self.table.store.lift(self.account, tag)

    async def refresh(self) -> None:
        """Read the keys now. Raises StoreUnavailableError."""
        await self._replica.start(_PATIENCE)
        await self._replica.read_rows()

    # what the replica asks of its home

    def slots(self) -> Iterable[KeyState]:
        """The keys there are."""
        return self._pool._slots.values()

    def adopt(self, rows: Mapping[str, StoredKey]) -> None:
        """Have these keys, beside those given in code, in the same order everywhere."""
        pool = self._pool
        wanted = {id: (key, True) for id, key in self._given.items()}
        for id in sorted(rows):
            key, enabled, error = rows[id]
            known = pool._slots.get(id)
            if error and known is not None:
                wanted[id] = known.key, known.health is not Health.DEAD
            elif error:
                wanted.pop(id, None)
            elif key is not None:
                wanted[id] = key, enabled
            elif id in self._given:
                wanted[id] = self._given[id], enabled
        pool._adopt(wanted)

    def changed(self) -> None:
        """The health of keys is another than before."""
        self._pool._shy = True
        self.queue.notify()


def _has_places(slot: KeyState) -> bool:
    """Whether it may be had as soon as somebody gives it back."""
    return slot.key.concurrency is not None or slot.health is Health.QUARANTINED


def _sooner(known: float | None, more: float | None) -> float | None:
    return more if known is None else known if more is None else min(known, more)
