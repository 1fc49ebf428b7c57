"""Keep the keys and the health of a pool in step with the store, in the background.

Theory of operation. The store holds a table of keys, and one *hold* (a record that expires by
itself) for each key that cools down, or each key and model; its tag is that of the key, with the
model after a line feed. A version number of each changes with every write, and `Store.watch`
reports that within a second.

One background task does all the work. It is woken by an event and finds out what to do from three
members: `_unwritten` (states that changed here), `_stale_rows` and `_stale_holds` (changes there).
It writes first and reads afterwards, so that nothing is read that is older than what was written;
states that are still unwritten are skipped when holds are read.

Conflicts: a hold that is set for longer wins (`Store.hold` refuses a shorter one, and the state is
then read back). A quarantine is kept for a week after its cooldown, because it ends with a
successful request and not with time. Lifting a hold is what a recovery looks like to others. Times
are relative to the store's clock; two processes may differ by `_TIME_TOLERANCE`.

When the store is unavailable, nothing is lost: the task tries again with a growing pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any, Literal, Protocol

import msgspec

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.key_store import KeyStore, StoredKey
from asgi_aiproxy.keys.shared_limits import StoreHealth
from asgi_aiproxy.stores.base import Hold, StoreUnavailableError

logger = logging.getLogger("asgi_aiproxy")

_QUARANTINE_KEPT = 7 * 86400.0  # seconds after the cooldown for which a quarantine is remembered
_SEPARATOR = "\n"  # between key and model in the tag of a hold
_TIME_TOLERANCE = 0.5  # seconds by which the end of a cooldown may differ between processes
_MIN_PAUSE, _MAX_PAUSE = 0.1, 2.0  # seconds between attempts during an outage


class HealthRecord(msgspec.Struct, frozen=True):
    """The value of a hold: the health of a key that cools down."""

    health: Literal["cooling", "quarantined"]
    strikes: int = 0
    status: int = 0


class SyncTarget(Protocol):
    """The pool, as `StoreSync` uses it."""

    def states(self) -> Iterable[KeyState]:
        """The keys of the pool."""
        ...

    def set_rows(self, rows: Mapping[str, StoredKey]) -> None:
        """Use these keys of the store, in addition to those given in code."""
        ...

    def health_changed(self) -> None:
        """The health of keys was changed by another process."""
        ...


class StoreSync:
    """Reads keys and health from the store, at the start and after changes, and writes the health
    changes of this process. `errors` holds, by key id, why rows cannot be read.
    """

    def __init__(
        self,
        table: KeyStore,
        account: str,
        pool: SyncTarget,
        store_health: StoreHealth,
        clock: Callable[[], float],
    ) -> None:
        self._store = table.store
        self._table = table
        self._account = account
        self._pool = pool
        self._store_health = store_health
        self._clock = clock
        self._read_numbers = count(1)
        self._rows_read = 0  # the number of the latest read that was applied
        self._stale_rows = self._stale_holds = False
        self._unwritten: dict[str, tuple[KeyState, str]] = {}  # key and model, by tag
        self._held: dict[str, Health] = {}  # last read or written, by tag
        self.errors: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_watching: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._first_read: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._ready = False
        self._pause = _MIN_PAUSE

    @property
    def never_loaded(self) -> bool:
        """Whether the keys were never read."""
        return not self._rows_read

    def ready(self) -> bool:
        """Whether `start` was called in this event loop."""
        return self._ready and self._loop is asyncio.get_running_loop()

    async def start(self, seconds: float | None = None) -> None:
        """Read keys and health, and watch for changes from now on. Waits at most `seconds`; reading
        continues in the background if it takes longer, or the store is unavailable."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._ready = loop, False
            self._wake = asyncio.Event()
            what = f"keeping pool {self._table.pool} in step with the store"
            self._first_read = start(self._read_first(), what=what)
            self._task = start(repeat(self._work, what=what), what=what)
        if self._first_read is not None:
            await asyncio.wait((self._first_read,), timeout=seconds)
        self._ready = True

    async def _read_first(self) -> None:
        for stop in self._stop_watching:
            stop()
        self._stop_watching = [
            self._store.watch(self._table.name, self._rows_changed),
            self._store.watch(self._account, self._holds_changed),
        ]
        try:
            await self.read_rows()
            await self._read_holds()
        except StoreUnavailableError as error:
            self._store_health.lost(error)
            self._rows_changed()
        except Exception:
            logger.exception("the keys of pool %s could not be read", self._table.pool)
            self._rows_changed()

    async def aclose(self, seconds: float) -> None:
        """Write what is still to be written, for at most `seconds`, and stop."""
        if self._loop is not asyncio.get_running_loop():
            return
        for stop in self._stop_watching:
            stop()
        tasks = [task for task in (self._task, self._first_read) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._stop_watching, self._task, self._first_read, self._loop = [], None, None, None
        try:
            async with asyncio.timeout(seconds):
                await self._write()
        except (StoreUnavailableError, TimeoutError):
            pass  # other processes learn it from their own requests

    def publish(self, state: KeyState, model: str = "") -> None:
        """Write the health of a key, as a whole or for one model, in the background."""
        self._unwritten[_tag(state, model)] = state, model
        self._wake.set()

    async def read_rows(self) -> None:
        """Read all keys. Raises StoreUnavailableError."""
        number = next(self._read_numbers)
        rows = await self._table.keys()
        if number < self._rows_read:
            return  # a later read has been applied already
        self._rows_read = number
        self._log_errors(rows)
        self._pool.set_rows(rows)
        self._stale_holds = True  # new keys may be cooling down
        self._wake.set()

    def read_later(self) -> None:
        """Read all keys as soon as the store answers."""
        self._rows_changed()

    def _rows_changed(self) -> None:
        self._stale_rows = True
        self._wake.set()

    def _holds_changed(self) -> None:
        self._stale_holds = True
        self._wake.set()

    async def _work(self) -> None:
        await self._wake.wait()
        self._wake.clear()
        if not (self._unwritten or self._stale_rows or self._stale_holds):
            return
        try:
            await self._step()
        except StoreUnavailableError as error:
            self._store_health.lost(error)
            self._wake.set()
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, _MAX_PAUSE)
        except Exception:
            self._wake.set()
            raise
        else:
            self._store_health.found()
            self._pause = _MIN_PAUSE

    async def _step(self) -> None:
        """Write what changed here, then read what changed there."""
        await self._write()
        if self._stale_rows:
            self._stale_rows = False
            try:
                await self.read_rows()
            except BaseException:
                self._stale_rows = True
                raise
        if self._stale_holds:
            self._stale_holds = False
            try:
                await self._read_holds()
            except BaseException:
                self._stale_holds = True
                raise

    # health

    async def _write(self) -> None:
        while self._unwritten:
            tag, (state, model) = next(iter(self._unwritten.items()))
            before = _snapshot(state, model)
            await (self._write_key(state) if not model else self._write_model(state, model))
            if _snapshot(state, model) == before:
                self._unwritten.pop(tag, None)

    async def _write_model(self, state: KeyState, model: str) -> None:
        store, account, tag = self._store, self._account, _tag(state, model)
        cooldown = state.model_cooldowns.get(model) if state.model_cooldowns is not None else None
        left = cooldown.until - self._clock() if cooldown is not None else 0.0
        if cooldown is None:
            if self._held.pop(tag, None) is not None:
                await store.lift(account, tag)
        elif left > 0:
            record = msgspec.json.encode(HealthRecord("cooling", cooldown.strikes, cooldown.status))
            self._held[tag] = Health.COOLING
            if not await store.hold(account, tag, left, record):
                self._stale_holds = True

    async def _write_key(self, state: KeyState) -> None:
        store, account, tag = self._store, self._account, state.tag
        health, seconds = state.health, state.until - self._clock()
        known = self._held.get(tag)
        if health is Health.DEAD or (health is Health.COOLING and seconds <= 0):
            return
        if health is Health.OK:
            if known is not None:
                del self._held[tag]
                await store.lift(account, tag)
            return
        name: Any = health.value
        record = msgspec.json.encode(HealthRecord(name, state.strikes, state.last_status))
        if health is Health.QUARANTINED:
            seconds = max(seconds, 0.0) + _QUARANTINE_KEPT
        elif known is Health.QUARANTINED:
            await store.lift(account, tag)  # its trial was answered with a 429
        self._held[tag] = health
        if not await store.hold(account, tag, seconds, record):
            self._stale_holds = True  # another process has set a longer one

    async def _read_holds(self) -> None:
        holds = await self._store.holds(self._account)
        now = self._clock()
        records = {tag: found for tag, hold in holds.items() if (found := _parse(hold, now))}
        before, self._held = self._held, {}
        changed = self._read_models(records, before, now)
        for state in self._pool.states():
            if state.tag in self._unwritten or state.health is Health.DEAD:
                if state.tag in before:
                    self._held[state.tag] = before[state.tag]
                continue
            found = records.get(state.tag)
            if found is None:
                over = state.health is Health.COOLING and state.until - now <= _TIME_TOLERANCE
                if state.health is not Health.OK and not over:
                    state.recover()
                    changed = True
                continue
            record, until = found
            health = self._held[state.tag] = Health(record.health)
            state.last_status = record.status or state.last_status
            if state.health is not health or abs(state.until - until) > _TIME_TOLERANCE:
                state.cool_down(health, until, record.strikes)
                changed = True
        if changed:
            self._pool.health_changed()

    def _read_models(
        self,
        records: Mapping[str, tuple[HealthRecord, float]],
        before: Mapping[str, Health],
        now: float,
    ) -> bool:
        """Apply the records about single models; returns whether anything changed."""
        states = {state.tag: state for state in self._pool.states()}
        changed = False
        for tag, (record, until) in records.items():
            owner, separator, model = tag.partition(_SEPARATOR)
            state = states.get(owner)
            if not separator or state is None or tag in self._unwritten:
                continue
            self._held[tag] = Health.COOLING
            known = state.model_cooldowns.get(model) if state.model_cooldowns is not None else None
            if known is None or abs(known.until - until) > _TIME_TOLERANCE:
                state.cool_down_for(model, until, record.strikes, record.status)
                changed = True
        for state in states.values():
            for model, cooldown in list((state.model_cooldowns or {}).items()):
                tag = _tag(state, model)
                if tag in self._unwritten:
                    if tag in before:
                        self._held[tag] = before[tag]
                elif tag not in records and cooldown.until - now > _TIME_TOLERANCE:
                    state.end_model_cooldown(model)
                    changed = True
        return changed

    def _log_errors(self, rows: Mapping[str, StoredKey]) -> None:
        """Log rows that cannot be read, once each."""
        errors = {id: stored.error for id, stored in rows.items() if stored.error}
        for id, error in errors.items():
            if self.errors.get(id) != error:
                logger.error("pool %s: a key is not used: %s", self._table.pool, error)
        self.errors = errors


def tag_of_key(tag: str) -> str:
    """The tag of the key that a hold is about."""
    return tag.partition(_SEPARATOR)[0]


def _tag(state: KeyState, model: str) -> str:
    """The name of a hold: of a key, or of a key and a model."""
    return f"{state.tag}{_SEPARATOR}{model}" if model else state.tag


def _snapshot(state: KeyState, model: str) -> object:
    if not model:
        return state.health, state.until
    return state.model_cooldowns.get(model) if state.model_cooldowns is not None else None


def _parse(hold: Hold, now: float) -> tuple[HealthRecord, float] | None:
    """The record of a hold, and when the cooldown ends; None if it cannot be read."""
    try:
        record = msgspec.json.decode(hold.value, type=HealthRecord)
    except msgspec.MsgspecError:
        return None
    remembered = _QUARANTINE_KEPT if record.health == "quarantined" else 0.0
    return record, now + hold.seconds - remembered
