"""KeyPool: the API keys of one provider, and the public operations on them."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.explain import KeyReport, explain_keys
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key import Key, as_list, check_new, validate_key
from asgi_aiproxy.keys.key_set import KeySet
from asgi_aiproxy.keys.key_state import KeyStatus
from asgi_aiproxy.keys.lease import KeyRequest, Lease, NoKeyError
from asgi_aiproxy.keys.strategies import STRATEGIES, Strategy, system_random
from asgi_aiproxy.stores.base import check_store

if TYPE_CHECKING:
    from asgi_aiproxy.keys.encryption import SecretCipher
    from asgi_aiproxy.keys.health_check import HealthChecker, Test
    from asgi_aiproxy.keys.key_store import KeyStore
    from asgi_aiproxy.keys.resource_records import ResourceRecords
    from asgi_aiproxy.keys.shared_pool import SharedPoolBackend
    from asgi_aiproxy.keys.sources import KeyFollower, KeySource
    from asgi_aiproxy.stores.base import OutagePolicy, Store


class KeyPool:
    """The API keys of one provider, used in rotation.

    `strategy` is `weighted` (by weight; in rotation when all weights are equal), `round_robin`,
    `random`, `least_busy` or `fill_first` (the first usable key). `cooldown` is the number of
    seconds a rate-limited key is not used when the provider names no time. `max_wait_seconds` is
    how long a request may wait for a key; the longest waiting request is served first.

    With a `store`, pools of the same `name` in all processes act as one: keys in the table of the
    store are added to those given here, and health and limits are shared. `sealer` encrypts the
    secrets in the store. `on_store_outage` says what happens while the store is unreachable: keys
    are used by what this process knows (`fail_open`), or keys with limits are not used
    (`fail_closed`). Entering the pool, `async with pool`, reads the keys of the store beforehand.

    Raises ConfigurationError if an argument is invalid, a key occurs twice, or a pool with a store
    has no name.

    ::

        async with pool.lease() as lease:
            response = await client.post(url, headers={"x-api-key": lease.key.secret})
            lease.report(response.status_code)
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
            raise ConfigurationError(
                "KeyPool(store=...) needs a name: pools of the same name share their keys."
            )
        name = name or "default"
        if strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise ConfigurationError(f"Unknown strategy {strategy!r}. Use one of: {known}.")
        if not cooldown > 0 or not max_wait_seconds >= 0:
            raise ConfigurationError(
                f"Pool {name!r}: cooldown must be > 0 and max_wait_seconds >= 0 (seconds), got "
                f"{cooldown!r} and {max_wait_seconds!r}."
            )
        self.name = name
        self._max_wait = max_wait_seconds
        # For the other parts of the package, and tests; not for users.
        self.key_set = KeySet(
            name,
            strategy=strategy,
            cooldown=cooldown,
            clock=clock,
            random=random if random is not None else system_random(),
        )
        self.shared: SharedPoolBackend | None = None
        self._health_checker: HealthChecker | None = None
        self._follower: KeyFollower | None = None
        configured: dict[str, Key] = {}
        for given in as_list(keys, name):
            key = self._validated(given)
            if key.id in configured:
                same = configured[key.id].secret == key.secret
                problem = "the same key is given twice" if same else "two keys have the same id"
                raise ConfigurationError(f"Pool {name!r}: {problem}: {key.id!r}.")
            configured[key.id] = key
        self._configured = configured
        self.key_set.add_keys(configured.values())
        if store is not None:
            from asgi_aiproxy.keys.shared_pool import SharedPoolBackend

            self.shared = SharedPoolBackend(self.key_set, store, sealer, on_store_outage)

    def __repr__(self) -> str:
        counts = dict.fromkeys(Health, 0)
        for state in self.key_set.states.values():
            counts[state.health] += 1
        shown = ", ".join(f"{count} {health}" for health, count in counts.items() if count)
        return f"KeyPool({self.name!r}: {shown or 'no keys'})"

    def __len__(self) -> int:
        return len(self.key_set.states)

    @cached_property
    def resource_records(self) -> ResourceRecords:
        """The records of what was created with its keys, for all apps that use the pool."""
        from asgi_aiproxy.keys.resource_records import ResourceRecords

        return ResourceRecords(
            self.name, lambda: table.store if (table := self.table) is not None else None
        )

    @property
    def max_wait_seconds(self) -> float:
        """How long `acquire` waits for a key."""
        return self._max_wait

    @property
    def table(self) -> KeyStore | None:
        """The keys in the store; None without a store."""
        return self.shared.table if self.shared is not None else None

    @property
    def needs_store(self) -> bool:
        """Whether acquiring a key may call the store: the pool is shared and a key has limits."""
        return self.shared is not None and self.key_set.has_limits

    @property
    def keys(self) -> dict[str, Key]:
        """The keys by id; in a shared pool as last read from the store."""
        return self.key_set.keys

    # using keys

    @asynccontextmanager
    async def lease(
        self, *, model: str = "", key_id: str = "", affinity: str = ""
    ) -> AsyncIterator[Lease]:
        """Lend a key for the length of a block; see `acquire`. Raises NoKeyError."""
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
        caller: str = "",
    ) -> Lease:
        """Lend a key, waiting up to `max_wait_seconds` for one. The caller must release the lease.

        `model` restricts to keys that serve it (empty: any key); `key_id` requests one certain
        key; requests with the same `affinity` get the same key while it is usable; `exclude` holds
        ids that were tried already; `among` holds patterns that the id must match (empty: all).
        Waiting requests of several `caller`s are served in turn.

        Raises NoKeyError.
        """
        return await self.lend(KeyRequest(model, key_id, affinity, exclude, among, caller))

    async def lend(self, request: KeyRequest) -> Lease:
        """Lend a key for a request, whose fields are the arguments of `acquire`."""
        if self.shared is not None:
            return await self.shared.acquire(request, self._max_wait)
        waiting = self.key_set.waiting
        if not (waiting.waiters and waiting.has_waiter(request)):
            try:
                return self.key_set.take(request)
            except NoKeyError as error:
                if not error.exists or not self._max_wait:
                    raise
        return await waiting.wait(request, self._max_wait)

    def acquire_nowait(
        self,
        *,
        model: str = "",
        key_id: str = "",
        affinity: str = "",
        exclude: Collection[str] = (),
        among: tuple[str, ...] = (),
    ) -> Lease:
        """Lend a key that is usable now; for the arguments see `acquire`.

        Raises NoKeyError, and ConfigurationError for a pool with a store.
        """
        if self.shared is not None:
            raise ConfigurationError(
                "KeyPool.acquire_nowait does not work with a store, which must be called to check "
                "the limits: use `await pool.acquire(...)`."
            )
        return self.key_set.take(KeyRequest(model, key_id, affinity, exclude, among))

    def soonest(self, *, model: str = "", key_id: str = "", among: tuple[str, ...] = ()) -> float:
        """Seconds until a key for `model` is usable, as far as this process knows: 0 if one is
        usable now, infinity if that depends on a release or an operator. `among` holds patterns
        of ids.
        """
        return self.key_set.soonest(KeyRequest(model, key_id, "", (), among))

    def explain(
        self, *, model: str = "", key_id: str = "", among: tuple[str, ...] = ()
    ) -> tuple[list[KeyReport], Sequence[str], NoKeyError | None]:
        """Explain which keys may serve a request and which would be lent now; see `explain_keys`.

        For the arguments see `acquire`.
        """
        return explain_keys(self.key_set, KeyRequest(model, key_id, "", (), among))

    # changing keys

    async def add(self, *keys: str | Key) -> None:
        """Add keys, all or none. A key that exists (same id and secret) gets the limits, weight
        and other fields given now and keeps its health; requests in flight are not affected.

        Raises ConfigurationError if a key with the same id and another secret exists. In a shared
        pool this and all following operations take effect in all processes within a second, and
        may raise StoreUnavailableError.
        """
        await self._put([self._validated(key) for key in keys], overwrite=False)

    async def update(self, key: Key) -> None:
        """Replace the key with the same id, also if its secret differs. Raises KeyError if the id
        is unknown.
        """
        if self.shared is not None:
            await self.shared.refresh()
        if key.id not in self.key_set.states:
            raise KeyError(key.id)
        await self._put([self._validated(key)], overwrite=True)

    async def _put(self, keys: list[Key], *, overwrite: bool) -> None:
        """Write keys; `overwrite` allows to replace keys with other secrets."""
        if self.shared is not None:
            await self.shared.put(keys, overwrite=overwrite)
            return
        check_new(keys, {} if overwrite else self.keys, self.name)
        self.key_set.add_keys(keys)

    def is_added(self, key_id: str) -> bool:
        """Whether a key, or the address that it is sent to, was not given to the constructor but
        added later."""
        configured, state = self._configured.get(key_id), self.key_set.states.get(key_id)
        if configured is None or state is None:
            return True
        return (configured.base_url, configured.proxy) != (state.key.base_url, state.key.proxy)

    async def replace(self, keys: Iterable[str | Key]) -> None:
        """Replace all keys by these, in one step. In a shared pool, keys given to the constructor
        stay."""
        validated = [self._validated(key) for key in as_list(keys, self.name)]
        if self.shared is not None:
            await self.shared.replace(validated)
        else:
            self.key_set.set_keys({key.id: (key, None) for key in validated})

    async def rotate(self, key_id: str, secret: str) -> None:
        """Give a key a new secret; requests in flight keep the old one. Raises KeyError."""
        if self.shared is not None:
            await self.shared.refresh()
        await self.update(replace(self.key_set.states[key_id].key, secret=secret))

    async def remove(self, key_id: str) -> None:
        """Remove a key; requests in flight keep it until they end. Raises KeyError."""
        if self.shared is not None:
            await self.shared.remove(key_id)
        else:
            self.key_set.remove_key(key_id)

    async def disable(self, key_id: str) -> None:
        """Stop using a key until `enable`. Raises KeyError."""
        if self.shared is not None:
            await self.shared.set_enabled(key_id, enabled=False)
        else:
            self.key_set.states[key_id].health = Health.DEAD

    async def enable(self, key_id: str) -> None:
        """Use a key again and end all its cooldowns. Raises KeyError."""
        if self.shared is not None:
            await self.shared.set_enabled(key_id, enabled=True)
        else:
            self.key_set.states[key_id].reset()
            self.key_set.waiting.serve()

    @property
    def in_flight(self) -> int:
        """The number of requests of this process that use a key now."""
        return sum(state.in_flight for state in self.key_set.states.values())

    def count_by_health(self) -> dict[str, int]:
        """The number of keys by their health."""
        now = self.key_set.clock()
        counts: dict[str, int] = {}
        for state in self.key_set.states.values():
            health = state.health_at(now)
            counts[health] = counts.get(health, 0) + 1
        return counts

    async def status(self, ids: Iterable[str] | None = None) -> list[KeyStatus]:
        """The current state of each key, or of those of `ids` that exist."""
        now, states = self.key_set.clock(), self.key_set.states
        wanted = states if ids is None else (id for id in ids if id in states)
        return [states[id].status(now) for id in wanted]

    def _validated(self, key: str | Key) -> Key:
        return validate_key(key if isinstance(key, Key) else Key(key), self.name)

    def start_health_checks(
        self,
        check: Test,
        *,
        interval: float = 60.0,
        include_healthy: bool = False,
        timeout: float = 30.0,
    ) -> None:
        """Test quarantined keys in the background while the pool is entered (`async with pool`).

        `check` receives a key, sends a request with it and returns the status of the response; it
        is cancelled after `timeout` seconds. All quarantined keys whose cooldown has ended are
        tested about every `interval` seconds, in a shared pool by one process.
        `include_healthy` tests healthy keys as well.
        """
        from asgi_aiproxy.keys.health_check import HealthChecker

        self._health_checker = HealthChecker(
            self.key_set,
            check,
            acquire=self._acquire_without_waiting,
            interval=interval,
            include_healthy=include_healthy,
            timeout=timeout,
            claim=self.shared.claim if self.shared is not None else None,
        )

    def follow(self, source: KeySource, *, start_timeout: float = 10.0) -> None:
        """Replace the keys by each list of a source, while the pool is entered (`async with pool`).

        `source` returns an async iterator of lists of keys, see `asgi_aiproxy.keys.sources`. Until
        its first list has arrived, but at most `start_timeout` seconds, entering the pool waits. In
        a shared pool, keys given to the constructor stay.
        """
        if not callable(source):
            raise ConfigurationError(
                "KeyPool.follow takes a function that returns an async iterator of lists of keys."
            )
        from asgi_aiproxy.keys.sources import KeyFollower

        self._follower = KeyFollower(source, self.replace, self.name, start_timeout)

    async def _acquire_without_waiting(self, key_id: str) -> Lease:
        request = KeyRequest("", key_id, "", ())
        if self.shared is not None:
            return await self.shared.acquire(request, 0.0)
        return self.key_set.take(request)

    async def __aenter__(self) -> Self:
        if self.shared is not None:
            await self.shared.start()
        if self._follower is not None:
            await self._follower.start()
        if self._health_checker is not None:
            self._health_checker.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._follower is not None:
            await self._follower.stop()
        if self._health_checker is not None:
            await self._health_checker.stop()
        if self.shared is not None:
            await self.shared.aclose()
