"""Where keys with limits are asked for: in a store, so that their limits hold for all processes."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count

import msgspec

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.stores import base
from asgi_aiproxy.stores.base import (
    Admitted,
    Denied,
    Grant,
    RateLimit,
    Store,
    StoreUnavailableError,
)

logger = logging.getLogger("asgi_aiproxy")

_MOST = 10_000  # ends that may wait for the store; what is lost comes back by itself
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0  # seconds


class StoreHealth:
    """Whether a store answers: it is logged once when it stops, and once when it is back."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self.away = False

    def lost(self, error: StoreUnavailableError) -> None:
        """It did not answer."""
        if not self.away:
            self.away = True
            logger.warning("pool %s: the store is away: %s", self._pool, error)

    def found(self) -> None:
        """It answered."""
        if self.away:
            self.away = False
            logger.info("pool %s: the store is back", self._pool)


class LimitReservation(msgspec.Struct, frozen=True):
    """What the store has booked for the use of a key, as far as that is known.

    `asked` is what has to be settled, `granted` what has to be kept, if it takes that long.
    """

    asked: Admitted
    granted: tuple[Grant, ...]


class SharedLimits:
    """Takes keys with limits from the store, and gives them back.

    A key in use is kept for `ttl` seconds, and renewed until it is given back: those of a process
    that dies come back by themselves. `freed` is called when something was given back.
    """

    def __init__(
        self,
        store: Store,
        account: str,
        contact: StoreHealth,
        *,
        freed: Callable[[], None],
        ttl: float,
    ) -> None:
        self._store = store
        self._account = account
        self._contact = contact
        self._freed = freed
        self._ttl = ttl
        self._me = secrets.token_hex(8)
        self._numbers = count()
        self._unsent = 0  # ends that the store has not been told yet, but will be in this turn
        self._ending: set[asyncio.Task[None]] = set()
        self._late: deque[tuple[float, Admitted, Mapping[Grant, int]]] = deque(maxlen=_MOST)
        self._open: dict[str, tuple[Grant, ...]] = {}  # by holder
        self._work: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._renewed: set[str] = set()  # holders that were there at the last renewal
        self._pause = _FIRST_PAUSE

    def grants(self, slot: KeyState) -> tuple[Grant, ...]:
        """What one use of a key takes. Tokens are counted when they are known: at first one."""
        if slot.grants is None:
            slot.grants = tuple(self._limits(slot))
        if slot.health is Health.QUARANTINED:
            return (*slot.grants, base.ConcurrencySlot(self._account, f"{slot.tag}:trial", 1))
        return slot.grants

    def _limits(self, slot: KeyState) -> Iterator[Grant]:
        key, account, tag = slot.key, self._account, slot.tag
        if key.rpm is not None:
            yield RateLimit(account, f"{tag}:rpm", key.rpm)
        if key.tpm is not None:
            yield RateLimit(account, f"{tag}:tpm", key.tpm)
        if key.concurrency is not None:
            yield base.ConcurrencySlot(account, f"{tag}:slots", key.concurrency)

    async def reserve(self, slots: Sequence[KeyState]) -> tuple[int, LimitReservation] | Denied:
        """Take the first of some keys that can be had: which one, and its ticket.

        Raises DeskClosedError, whose ticket is to be settled, for it may have been done.
        """
        one_of = [self.grants(slot) for slot in slots]
        holder = f"{self._me}-{next(self._numbers):x}"
        try:
            if self._unsent:
                await asyncio.sleep(0)  # what was given back before goes before
            found = await self._store.admit(holder, (), ttl=self._ttl, one_of=one_of)
        except StoreUnavailableError as error:
            self._contact.lost(error)
            raise SharedLimitsUnavailableError(self._assumed(holder, one_of)) from error
        except BaseException:
            self.release(self._assumed(holder, one_of))
            raise
        self._contact.found()
        if isinstance(found, Denied):
            return found
        ticket = LimitReservation(found, found.grants)
        self._keep(ticket)
        return found.choice, ticket

    def assume_reserved(self, ticket: LimitReservation, slot: KeyState) -> LimitReservation:
        """The ticket of a key that is used though the store was away: it learns of it later."""
        ticket = LimitReservation(ticket.asked, self.grants(slot))
        self._keep(ticket)
        return ticket

    async def claim(self, name: str, seconds: float) -> bool:
        """Whether nobody else has claimed this; from now on it is claimed for so long."""
        grant = base.ConcurrencySlot(self._account, name, 1)
        holder = f"{self._me}-{next(self._numbers):x}"
        try:
            found = await self._store.admit(holder, (grant,), ttl=seconds)
        except StoreUnavailableError as error:
            self._contact.lost(error)
            return False
        return isinstance(found, Admitted)

    def release(self, ticket: LimitReservation, tokens: int = 0, *, used: bool = True) -> None:
        """Give a key back that has used so many tokens. It is done soon, and tried for a while.

        One that was not used is not counted at all.
        """
        asked = ticket.asked
        held = self._open.pop(asked.holder, None) is not None
        actual: dict[Grant, int] = {
            grant: tokens
            for grant in asked.grants
            if isinstance(grant, RateLimit) and asked.sure
            if not used or grant.name.endswith(":tpm")
        }
        if not (held or actual or not asked.sure):
            return  # what it took is counted, and forgotten in a minute
        self._unsent += 1
        task = start(self._end(asked, actual), what="giving a key back")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def settle(self, seconds: float) -> bool:
        """Wait until what was given back can be had again; whether there was anything."""
        ending = set(self._ending)
        if ending:
            await asyncio.wait(ending, timeout=seconds)
        return bool(ending)

    async def aclose(self, seconds: float) -> None:
        """Give back what has ended; wait so long at most."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in (*self._ending, self._work) if task is not None]
        tasks = [task for task in tasks if task.get_loop() is loop]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in (*tasks, self._renewal):
            if task is not None and task.get_loop() is loop:
                task.cancel()
        self._unsent = 0

    def _assumed(self, holder: str, one_of: Sequence[tuple[Grant, ...]]) -> LimitReservation:
        every = tuple(grant for grants in one_of for grant in grants)
        return LimitReservation(Admitted.assumed(holder, every), ())

    def _keep(self, ticket: LimitReservation) -> None:
        slots = tuple(grant for grant in ticket.granted if isinstance(grant, base.ConcurrencySlot))
        if slots:
            self._open[ticket.asked.holder] = slots
            self._renewal = _running(self._renewal, self._renew_all, "renewing keys in use")

    async def _end(self, asked: Admitted, actual: Mapping[Grant, int]) -> None:
        self._unsent -= 1
        if await self._settled(asked, actual):
            self._freed()
        else:
            self._late.append((asyncio.get_running_loop().time() + self._ttl, asked, actual))
            self._work = _running(self._work, self._settle_late, "giving keys back")

    async def _settle_late(self) -> bool:
        """Settle what could not be settled at once, as long as it makes a difference."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, _LAST_PAUSE)
        while self._late:
            one = self._late.popleft()
            if one[0] > loop.time() and not await self._settled(*one[1:]):
                self._late.appendleft(one)
                break
        self._freed()
        if not self._late:
            self._pause = _FIRST_PAUSE
        return bool(self._late)

    async def _settled(self, admitted: Admitted, actual: Mapping[Grant, int]) -> bool:
        try:
            await self._store.settle(admitted, actual)
        except StoreUnavailableError as error:
            self._contact.lost(error)
            return False
        except Exception:
            logger.exception("a key could not be given back; it comes back by itself")
        return True

    async def _renew_all(self) -> bool:
        await asyncio.sleep(self._ttl / 3)
        # Most have ended by now; only what was there last time needs it.
        due = {holder: slots for holder, slots in self._open.items() if holder in self._renewed}
        self._renewed = set(self._open)
        await asyncio.gather(*(self._renew(*one) for one in due.items()))
        return bool(self._open)

    async def _renew(self, holder: str, slots: tuple[Grant, ...]) -> None:
        try:
            if not await self._store.renew(Admitted(holder=holder, grants=slots), self._ttl):
                # It was lost, or taken while the store was away: it is in use all the same.
                forced = [msgspec.structs.replace(slot, limit=None) for slot in slots]
                if holder in self._open:
                    await self._store.admit(holder, forced, ttl=self._ttl)
        except StoreUnavailableError as error:
            self._contact.lost(error)
        except Exception:
            logger.exception("a key in use could not be renewed")


class SharedLimitsUnavailableError(StoreUnavailableError):
    """The store is away; `ticket` is what it may have booked before it was."""

    def __init__(self, ticket: LimitReservation) -> None:
        super().__init__("The store is away.")
        self.ticket = ticket


def _running(
    task: asyncio.Task[None] | None, step: Callable[[], Awaitable[bool]], what: str
) -> asyncio.Task[None]:
    """The task that repeats a step: the one there is, if it lives in this loop."""
    loop = asyncio.get_running_loop()
    if task is not None and not task.done() and task.get_loop() is loop:
        return task
    return start(repeat(step, what=what), what=what)
