"""The backend that joins a pool with the pools of the same name in other processes.

Theory of operation. A pool in a store has three kinds of shared state, and each takes another way:

- *Keys* are rows of a table (`KeyStore`), with encrypted secrets. Each process keeps a copy, which
  `StoreSync` reads again when the version of the table changes. The keys given to the constructor
  are added to them in every process; a row with the same id replaces or disables such a key.
- *Health* is written to the store as holds with an expiry (`StoreSync`), in the background, and
  copied by every process. So a key without limits costs no call of the store: its health is known.
- *Limits* are counted in the store (`SharedLimits`): one call per request for a key with limits.

`_take` selects a key. It walks through the candidates of the pool and collects keys that need the
store (with limits, or quarantined: one trial at a time), up to the first usable key that does not.
The collected keys are offered to the store in one call; a denial falls back on the key without
limits. As long as the first candidate is admitted, few are offered; after a denial, many, so that a
pool whose keys are mostly used up still costs few round trips. While the call was under way a key
may have begun to cool down or may have been removed, so the result is checked again.

While the store is unavailable the policy decides: `fail_open` uses keys by what this process knows,
`fail_closed` uses keys without limits only. Nothing waits for the store longer than its time-out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.encryption import SecretCipher
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key import Key, check_new
from asgi_aiproxy.keys.key_set import KeySet
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.key_store import KeyStore, StoredKey
from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError
from asgi_aiproxy.keys.shared_limits import (
    LimitReservation,
    SharedLimits,
    SharedLimitsUnavailableError,
    StoreHealth,
)
from asgi_aiproxy.keys.store_sync import StoreSync, tag_of_key
from asgi_aiproxy.keys.wait_queue import SharedWaitQueue
from asgi_aiproxy.patterns import matches_any
from asgi_aiproxy.stores.base import Denied, OutagePolicy, Store, StoreUnavailableError

# How many keys are offered to the store in one call: normally, and after a denial.
_FEW_CANDIDATES, _MANY_CANDIDATES = 2, 16
_RESERVATION_TTL = 60.0  # seconds after which the reservations of a dead process expire
_RETRY_AFTER = 1.0  # seconds, when the store is unavailable
_START_TIMEOUT = 2.0  # seconds for which the first request waits for the keys to be read
_CLOSE_TIMEOUT = 2.0  # seconds for what is still to be written


class SharedLease(Lease):
    """A key in use whose limits are counted in the store."""

    __slots__ = ("_limits", "_reservation", "_tokens")

    def __init__(
        self,
        keys: KeySet,
        state: KeyState,
        model: str,
        limits: SharedLimits,
        reservation: LimitReservation,
    ) -> None:
        super().__init__(keys, state, model)
        self._limits = limits
        self._reservation: LimitReservation | None = reservation
        self._tokens = 0

    def count_tokens(self, tokens: int) -> None:
        """Count tokens against the limit of the key."""
        super().count_tokens(tokens)
        self._tokens += tokens

    def release(self) -> None:
        """End the use of the key."""
        super().release()
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self._limits.release(reservation, self._tokens)

    def cancel(self) -> None:
        """End a use for which no request was sent: it does not count against limits."""
        reservation, self._reservation = self._reservation, None
        super().cancel()
        if reservation is not None:
            self._limits.release(reservation, used=False)


class _Candidates(NamedTuple):
    """Usable keys for a request, best first."""

    with_limits: list[KeyState]  # to be offered to the store
    without_limits: KeyState | None  # the first key after them that needs no call
    found: bool  # whether any key matches, usable or not
    soonest: float | None  # seconds until the first key that cools down is usable


class SharedPoolBackend:
    """Shares the keys, health and limits of a pool through a store; see above.

    Raises ConfigurationError if `on_outage` is neither `fail_open` nor `fail_closed`.
    """

    def __init__(
        self, keys: KeySet, store: Store, cipher: SecretCipher | None, on_outage: str
    ) -> None:
        if on_outage not in (OutagePolicy.FAIL_OPEN, OutagePolicy.FAIL_CLOSED):
            raise ConfigurationError(
                f"Pool {keys.name!r}: on_store_outage must be 'fail_open' (use keys by what this "
                f"process knows) or 'fail_closed' (do not use keys with limits), not {on_outage!r}."
            )
        self._keys = keys
        self._on_outage = OutagePolicy(on_outage)
        store_health = StoreHealth(keys.name)
        self.table = KeyStore(store, keys.name, cipher)
        self.account = f"pool:{keys.name}"
        self.queue = SharedWaitQueue(self._take, keys.random)
        self.limits = SharedLimits(
            store, self.account, store_health, released=self.queue.notify, ttl=_RESERVATION_TTL
        )
        self._sync = StoreSync(self.table, self.account, self, store_health, keys.clock)
        self._max_candidates = _FEW_CANDIDATES
        self._configured = keys.keys
        keys.observer = self

    async def start(self) -> None:
        """Read keys and health. Raises ConfigurationError if the store has keys and none of them
        can be decrypted."""
        await self._sync.start()
        errors = self._sync.errors
        if errors and not self._keys.states:
            raise ConfigurationError(next(iter(errors.values())))

    async def aclose(self) -> None:
        """Write what is still to be written, for a bounded time, and stop."""
        await self.limits.aclose(_CLOSE_TIMEOUT)
        await self._sync.aclose(_CLOSE_TIMEOUT)

    # using keys

    async def acquire(self, request: KeyRequest, max_wait: float) -> Lease:
        """Lend a key, waiting at most `max_wait` seconds. Raises NoKeyError."""
        if not self._sync.ready():
            await self._sync.start(_START_TIMEOUT)
        if not self.queue.has_waiter(request):
            try:
                return await self._take(request)
            except NoKeyError as error:
                if not error.exists or not max_wait:
                    raise
        return await self.queue.wait(request, max_wait)

    async def _take(self, request: KeyRequest) -> Lease:
        """Lend a key that is usable now. Raises NoKeyError."""
        seen = set(request.exclude)
        found = waited_for_releases = has_slots = False
        soonest: float | None = None
        while True:
            limit = self._max_candidates
            candidates = self._candidates(request, seen, limit)
            with_limits, without_limits = candidates.with_limits, candidates.without_limits
            found = found or candidates.found
            soonest = _sooner(soonest, candidates.soonest)
            if with_limits:
                try:
                    result = await self.limits.reserve(with_limits)
                except SharedLimitsUnavailableError as error:
                    return self._take_without_store(candidates, request.model, error.reservation)
                if not isinstance(result, Denied):
                    index, reservation = result
                    self._max_candidates = _FEW_CANDIDATES if index == 0 else _MANY_CANDIDATES
                    if self._still_usable(with_limits[index], request.model):
                        return self._lend(with_limits[index], request.model, reservation)
                    self.limits.release(reservation)  # it began to cool down, or was removed
                    seen = set(request.exclude)
                    continue
                self._max_candidates = _MANY_CANDIDATES
                has_slots = has_slots or any(_has_slots(state) for state in with_limits)
                self._note_denial(with_limits, result)
                soonest = _sooner(soonest, result.retry_after)
            if without_limits is not None and self._still_usable(without_limits, request.model):
                return self._lend(without_limits, request.model, None)
            if len(with_limits) == limit:
                continue  # there may be further candidates
            if (
                has_slots
                and not waited_for_releases
                and await self.limits.wait_for_releases(_RETRY_AFTER)
            ):
                waited_for_releases, seen = True, set(request.exclude)
                continue
            raise self._no_key_error(request, found, soonest)

    def _candidates(self, request: KeyRequest, seen: set[str], limit: int) -> _Candidates:
        """Up to `limit` usable keys that need the store, and the first one after them that does
        not. Keys in `seen` are skipped; those looked at are added to it."""
        now = self._keys.clock()
        soonest: float | None = None
        with_limits: list[KeyState] = []
        found = False
        for state in self._keys.candidates(request):
            key = state.key
            if key.id in seen or (request.among and not matches_any(request.among, key.id)):
                continue
            seen.add(key.id)
            if key.models and request.model and not matches_any(key.models, request.model):
                continue
            found = True
            wait = state.wait_for(request.model, now)
            if wait > 0:
                soonest = _sooner(soonest, wait if wait != float("inf") else None)
            elif not state.limited and state.health is not Health.QUARANTINED:
                return _Candidates(with_limits, state, True, soonest)
            else:
                with_limits.append(state)
                if len(with_limits) == limit:
                    break
        return _Candidates(with_limits, None, found, soonest)

    def _no_key_error(self, request: KeyRequest, found: bool, soonest: float | None) -> NoKeyError:
        if not found and self._sync.never_loaded:
            return NoKeyError(
                "The keys cannot be read: the store is unavailable.", retry_after=_RETRY_AFTER
            )
        return self._keys.no_key_error(request, found, soonest)

    def _still_usable(self, state: KeyState, model: str) -> bool:
        """Whether a key is in the pool and usable, after the store has answered."""
        keys = self._keys
        return keys.states.get(state.key.id) is state and state.wait_for(model, keys.clock()) <= 0

    def _lend(self, state: KeyState, model: str, reservation: LimitReservation | None) -> Lease:
        state.mark_used(self._keys.clock())
        if reservation is None:
            return Lease(self._keys, state, model)
        return SharedLease(self._keys, state, model, self.limits, reservation)

    def _note_denial(self, states: list[KeyState], denied: Denied) -> None:
        """Do not offer these keys again before the store may admit one. A concurrency slot may
        become free at any time, so keys with slots are not blocked."""
        if denied.retry_after is not None:
            until = self._keys.clock() + denied.retry_after
            for state in states:
                if not _has_slots(state):
                    state.blocked_until = until

    def _take_without_store(
        self, candidates: _Candidates, model: str, reservation: LimitReservation
    ) -> Lease:
        """Lend a key during an outage, as the policy says. Raises NoKeyError."""
        usable = (state for state in candidates.with_limits if self._still_usable(state, model))
        first = next(usable, None)
        if self._on_outage is OutagePolicy.FAIL_OPEN and first is not None:
            return self._lend(first, model, self.limits.assume_reserved(reservation, first))
        self.limits.release(reservation)
        unlimited = candidates.without_limits
        if unlimited is not None and self._still_usable(unlimited, model):
            return self._lend(unlimited, model, None)
        raise NoKeyError(
            "The limits of the keys cannot be checked: the store is unavailable.",
            retry_after=_RETRY_AFTER,
        )

    async def claim(self, seconds: float) -> bool:
        """Claim the next round of health checks for this process."""
        return await self.limits.claim("probe", seconds)

    # notifications of the key set

    def publish(self, state: KeyState, model: str = "") -> None:
        """Write the health of a key, as a whole or for one model, in the background."""
        self._sync.publish(state, model)

    def wake_waiting(self) -> None:
        """Wake waiting requests: a key may have become usable."""
        self.queue.notify()

    # changing keys

    async def put(self, keys: Iterable[Key], *, overwrite: bool) -> None:
        """Write keys; `overwrite` allows to replace keys with other secrets.

        Raises KeyExistsError, StoreUnavailableError.
        """
        keys = list(keys)
        if not overwrite:
            check_new(keys, self._configured, self._keys.name)
        await self.table.put(*keys, overwrite=overwrite)
        await self._read_again()

    async def replace(self, keys: Iterable[Key]) -> None:
        """Make these the keys of the store. Raises StoreUnavailableError."""
        await self.table.replace(keys)
        await self._read_again()

    async def _read_again(self) -> None:
        """Read the keys after a change. The change was made: if reading fails, it is repeated in
        the background until the store answers."""
        try:
            await self.refresh()
        except StoreUnavailableError:
            self._sync.read_later()

    async def remove(self, key_id: str) -> None:
        """Remove a key. Raises KeyError, and ConfigurationError for a key given in code."""
        if await self.table.drop(key_id):
            await self._read_again()
        elif key_id in self._configured:
            raise ConfigurationError(
                f"Pool {self._keys.name!r}: the key {key_id!r} is given in code, also in other "
                f"processes: it can be disabled, but not removed."
            )
        else:
            raise KeyError(key_id)

    async def set_enabled(self, key_id: str, *, enabled: bool) -> None:
        """Enable or disable a key in all processes. Raises KeyError, StoreUnavailableError."""
        await self.refresh()
        state = self._keys.states[key_id]
        await self.table.set_enabled(key_id, enabled=enabled)
        await self._read_again()
        if enabled:
            state.reset()
            self.queue.notify()
            self.publish(state)  # retried in the background if the store is unavailable now
            with suppress(StoreUnavailableError):
                for tag in {state.tag, *await self.table.store.holds(self.account)}:
                    if tag_of_key(tag) == state.tag:
                        await self.table.store.lift(self.account, tag)

    async def refresh(self) -> None:
        """Read the keys now. Raises StoreUnavailableError."""
        await self._sync.start(_START_TIMEOUT)
        await self._sync.read_rows()

    # what StoreSync calls

    def states(self) -> Iterable[KeyState]:
        """The keys of the pool."""
        return self._keys.states.values()

    def set_rows(self, rows: Mapping[str, StoredKey]) -> None:
        """Use the keys of the store and those given in code, in the same order in all processes.
        A row that cannot be read leaves a key as it was."""
        wanted = {id: (key, True) for id, key in self._configured.items()}
        for id in sorted(rows):
            key, enabled, error = rows[id]
            known = self._keys.states.get(id)
            if error and known is not None:
                wanted[id] = known.key, known.health is not Health.DEAD
            elif error:
                wanted.pop(id, None)
            elif key is not None:
                wanted[id] = key, enabled
            elif id in self._configured:
                wanted[id] = self._configured[id], enabled
        self._keys.set_keys(wanted)

    def health_changed(self) -> None:
        """The health of keys was changed by another process."""
        self._keys.health_changed()
        self.queue.notify()


def _has_slots(state: KeyState) -> bool:
    """Whether a key becomes usable as soon as another request releases it."""
    return state.key.concurrency is not None or state.health is Health.QUARANTINED


def _sooner(known: float | None, other: float | None) -> float | None:
    return other if known is None else known if other is None else min(known, other)
