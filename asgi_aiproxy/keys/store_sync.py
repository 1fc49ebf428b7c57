"""What a store has of a pool, its keys and their health, kept in step with the pool's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Literal, Protocol

import msgspec

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.key_store import KeyStore, StoredKey
from asgi_aiproxy.keys.shared_limits import StoreHealth
from asgi_aiproxy.stores.base import Hold, StoreUnavailableError

logger = logging.getLogger("asgi_aiproxy")

# A key that was refused stays known as such for so long after its rest, until it is tried.
_REMEMBERED = 7 * 86400.0
SEPARATOR = "\n"  # between a key and a model
_SLACK = 0.5  # seconds by which what two processes know of the end of a rest may differ
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0  # seconds


class HealthRecord(msgspec.Struct, frozen=True):
    """What is on record about a key that rests."""

    health: Literal["cooling", "quarantined"]
    strikes: int = 0
    status: int = 0


class SyncTarget(Protocol):
    """The pool, as a replica sees it."""

    def slots(self) -> Iterable[KeyState]:
        """The keys there are."""
        ...

    def adopt(self, rows: Mapping[str, StoredKey]) -> None:
        """Have these keys, beside those given in code."""
        ...

    def changed(self) -> None:
        """The health of keys is another than before."""
        ...


class StoreSync:
    """Reads the keys and the health of a pool from a store, and again whenever they change there;
    writes there what this process finds out. All of it in the background, but for the beginning.
    """

    def __init__(
        self,
        table: KeyStore,
        account: str,
        home: SyncTarget,
        contact: StoreHealth,
        clock: Callable[[], float],
    ) -> None:
        self._store = table.store
        self._table = table
        self._account = account
        self._home = home
        self._contact = contact
        self._clock = clock
        self._numbers = count(1)
        self._rows_read = 0
        self._stale_rows = self._stale_holds = False
        self._unwritten: dict[str, tuple[KeyState, str]] = {}  # with the model it is about, by tag
        self._held: dict[str, Health] = {}  # what was read or written last, by tag
        self.errors: dict[str, str] = {}  # why rows can not be read, by key
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._ready = False
        self._pause = _FIRST_PAUSE

    @property
    def never_loaded(self) -> bool:
        """Whether the keys have never been read yet."""
        return not self._rows_read

    def ready(self) -> bool:
        """Whether the keys have been read, or at least been asked for, in this event loop."""
        return self._ready and self._loop is asyncio.get_running_loop()

    async def start(self, seconds: float | None = None) -> None:
        """Read all, and hear of changes from now on. What takes longer is read later, and so it is
        when the store is away."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._ready = loop, False
            self._more = asyncio.Event()
            what = f"keeping pool {self._table.pool} in step with the store"
            self._first = start(self._begin(), what=what)
            self._task = start(repeat(self._work, what=what), what=what)
        if self._first is not None:
            await asyncio.wait((self._first,), timeout=seconds)
        self._ready = True

    async def _begin(self) -> None:
        for stop in self._stops:
            stop()
        self._stops = [
            self._store.watch(self._table.name, self._rows_changed),
            self._store.watch(self._account, self._holds_changed),
        ]
        try:
            await self.read_rows()
            await self._read_holds()
        except StoreUnavailableError as error:
            self._contact.lost(error)
            self._rows_changed()
        except Exception:
            logger.exception("the keys of pool %s could not be read", self._table.pool)
            self._rows_changed()

    async def aclose(self, seconds: float) -> None:
        """Write what is still to be written, for so long at most, and stop."""
        if self._loop is not asyncio.get_running_loop():
            return
        for stop in self._stops:
            stop()
        tasks = [task for task in (self._task, self._first) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._stops, self._task, self._first, self._loop = [], None, None, None
        try:
            async with asyncio.timeout(seconds):
                await self._write()
        except (StoreUnavailableError, TimeoutError):
            pass  # others find out by themselves

    def publish(self, slot: KeyState, model: str = "") -> None:
        """Tell the store what has become of a key, all of it or for a model."""
        self._unwritten[_tag(slot, model)] = slot, model
        self._more.set()

    async def read_rows(self) -> None:
        """Read all keys. Raises StoreUnavailableError."""
        number = next(self._numbers)
        rows = await self._table.keys()
        if number < self._rows_read:
            return  # what was asked for later has come first
        self._rows_read = number
        self._complain(rows)
        self._home.adopt(rows)
        self._stale_holds = True  # new keys may be at rest
        self._more.set()

    def read_later(self) -> None:
        """Read all keys as soon as the store answers."""
        self._rows_changed()

    def _rows_changed(self) -> None:
        self._stale_rows = True
        self._more.set()

    def _holds_changed(self) -> None:
        self._stale_holds = True
        self._more.set()

    async def _work(self) -> None:
        await self._more.wait()
        self._more.clear()
        if not (self._unwritten or self._stale_rows or self._stale_holds):
            return
        try:
            await self._step()
        except StoreUnavailableError as error:
            self._contact.lost(error)
            self._more.set()
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, _LAST_PAUSE)
        except Exception:
            self._more.set()
            raise
        else:
            self._contact.found()
            self._pause = _FIRST_PAUSE

    async def _step(self) -> None:
        """Write what is new here, then read what is new there: so nothing is read that is older
        than what was written."""
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
            tag, (slot, model) = next(iter(self._unwritten.items()))
            before = _state(slot, model)
            await (self._write_one(slot) if not model else self._write_model(slot, model))
            if _state(slot, model) == before:
                self._unwritten.pop(tag, None)

    async def _write_model(self, slot: KeyState, model: str) -> None:
        store, account, tag = self._store, self._account, _tag(slot, model)
        rest = slot.rests.get(model) if slot.rests is not None else None
        left = rest.until - self._clock() if rest is not None else 0.0
        if rest is None:
            if self._held.pop(tag, None) is not None:
                await store.lift(account, tag)
        elif left > 0:
            note = msgspec.json.encode(HealthRecord("cooling", rest.strikes, rest.said))
            self._held[tag] = Health.COOLING
            if not await store.hold(account, tag, left, note):
                self._stale_holds = True

    async def _write_one(self, slot: KeyState) -> None:
        store, account, tag = self._store, self._account, slot.tag
        health, rest = slot.health, slot.until - self._clock()
        known = self._held.get(tag)
        if health is Health.DEAD or (health is Health.COOLING and rest <= 0):
            return
        if health is Health.OK:
            if known is not None:
                del self._held[tag]
                await store.lift(account, tag)
            return
        note = msgspec.json.encode(HealthRecord(health.value, slot.strikes, slot.said))  # type: ignore[arg-type]
        if health is Health.QUARANTINED:
            rest = max(rest, 0.0) + _REMEMBERED
        elif known is Health.QUARANTINED:
            await store.lift(account, tag)  # it was let in, and is over a limit
        self._held[tag] = health
        if not await store.hold(account, tag, rest, note):
            self._stale_holds = True  # somebody knows better

    async def _read_holds(self) -> None:
        holds = await self._store.holds(self._account)
        now = self._clock()
        notes = {tag: found for tag, hold in holds.items() if (found := _read(hold, now))}
        before, self._held = self._held, {}
        changed = self._read_models(notes, before, now)
        for slot in self._home.slots():
            if slot.tag in self._unwritten or slot.health is Health.DEAD:
                if slot.tag in before:
                    self._held[slot.tag] = before[slot.tag]
                continue
            found = notes.get(slot.tag)
            if found is None:
                over = slot.health is Health.COOLING and slot.until - now <= _SLACK
                if slot.health is not Health.OK and not over:
                    slot.recover()
                    changed = True
                continue
            note, until = found
            health = self._held[slot.tag] = Health(note.health)
            slot.said = note.status or slot.said
            if slot.health is not health or abs(slot.until - until) > _SLACK:
                slot.cool_down(health, until, note.strikes)
                changed = True
        if changed:
            self._home.changed()

    def _read_models(
        self,
        notes: Mapping[str, tuple[HealthRecord, float]],
        before: Mapping[str, Health],
        now: float,
    ) -> bool:
        """What is on record about keys and single models; whether that is new."""
        slots = {slot.tag: slot for slot in self._home.slots()}
        changed = False
        for tag, (note, until) in notes.items():
            owner, separator, model = tag.partition(SEPARATOR)
            slot = slots.get(owner)
            if not separator or slot is None or tag in self._unwritten:
                continue
            self._held[tag] = Health.COOLING
            known = slot.rests.get(model) if slot.rests is not None else None
            if known is None or abs(known.until - until) > _SLACK:
                slot.rest_for(model, until, note.strikes, note.status)
                changed = True
        for slot in slots.values():
            for model, rest in list((slot.rests or {}).items()):
                tag = _tag(slot, model)
                if tag in self._unwritten:
                    if tag in before:
                        self._held[tag] = before[tag]
                elif tag not in notes and rest.until - now > _SLACK:
                    slot.heal_for(model)
                    changed = True
        return changed

    def _complain(self, rows: Mapping[str, StoredKey]) -> None:
        """Log what can not be read, once."""
        errors = {id: stored.error for id, stored in rows.items() if stored.error}
        for id, error in errors.items():
            if self.errors.get(id) != error:
                logger.error("pool %s: a key is left out: %s", self._table.pool, error)
        self.errors = errors


def _tag(slot: KeyState, model: str) -> str:
    """The name of a rest in the store: of a key, or of a key and a model."""
    return f"{slot.tag}{SEPARATOR}{model}" if model else slot.tag


def _state(slot: KeyState, model: str) -> object:
    if not model:
        return slot.health, slot.until
    return slot.rests.get(model) if slot.rests is not None else None


def _read(hold: Hold, now: float) -> tuple[HealthRecord, float] | None:
    """What is on record, and until when the key rests."""
    try:
        note = msgspec.json.decode(hold.value, type=HealthRecord)
    except msgspec.MsgspecError:
        return None
    remembered = _REMEMBERED if note.health == "quarantined" else 0.0
    return note, now + hold.seconds - remembered
