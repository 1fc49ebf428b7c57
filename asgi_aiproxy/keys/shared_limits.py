"""Reserve rate-limit and concurrency capacity of keys in the shared store.

Theory of operation. Keys with `rpm`, `tpm` or `concurrency` need an *admission* of the store before
each use, so that their limits hold for all processes together:

- Reserve: `reserve` sends several candidate keys in one call, in the order of preference. The store
  admits the first key whose limits all have room, atomically. One round trip, whatever the outcome.
- What one use takes: one request of `rpm`; one token of `tpm`, because the number is not known yet;
  one concurrency slot. A quarantined key takes a slot of its own with a limit of 1, so that one
  request in all processes tries it.
- Renew: slots expire after `ttl` seconds. Uses that last longer are renewed by one background task
  every ttl / 3. The slots of a process that died expire by themselves.
- Release: `release` starts a task that settles the admission: it frees the slot and corrects `tpm`
  to the tokens used. Without slot and tokens there is nothing to settle, and no call is made.
- Outage: an admission that timed out may or may not have been made. It becomes an *assumed*
  reservation that contains all candidates, and settling it is correct in both cases. Settlements
  that fail are retried with a growing pause until `ttl` has passed: then the store has expired them
  anyway.

Releases are started before the next `reserve` of the same event loop turn, so that a single slot
that was just released can be reserved again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

import msgspec

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.stores.base import (
    Admitted,
    ConcurrencySlot,
    Denied,
    Grant,
    RateLimit,
    Store,
    StoreUnavailableError,
)

logger = logging.getLogger("asgi_aiproxy")

_MAX_RETRIES_WAITING = 10_000  # settlements; those that are dropped expire in the store
_MIN_PAUSE, _MAX_PAUSE = 0.1, 2.0  # seconds between attempts to settle


class StoreHealth:
    """Whether the store answers. Logs once when it stops, and once when it is back."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self.away = False

    def lost(self, error: StoreUnavailableError) -> None:
        """A call failed."""
        if not self.away:
            self.away = True
            logger.warning("pool %s: the store is unavailable: %s", self._pool, error)

    def found(self) -> None:
        """A call succeeded."""
        if self.away:
            self.away = False
            logger.info("pool %s: the store is available again", self._pool)


class LimitReservation(msgspec.Struct, frozen=True):
    """Capacity of a key that is reserved in the store, as far as that is known.

    `admitted` has to be settled at the end; `granted` has to be renewed until then.
    """

    admitted: Admitted
    granted: tuple[Grant, ...]


class SharedLimitsUnavailableError(StoreUnavailableError):
    """The store is unavailable. `reservation` is what it may have reserved all the same: release
    it, or pass it to `assume_reserved`."""

    def __init__(self, reservation: LimitReservation) -> None:
        super().__init__("The store is unavailable.")
        self.reservation = reservation


class _Settlement(NamedTuple):
    """A settlement to retry until `deadline` (loop time)."""

    deadline: float
    admitted: Admitted
    actual: Mapping[Grant, int]


class SharedLimits:
    """Reserves, renews and releases the limits of keys in the store; see above.

    `ttl` is in seconds. `released` is called when capacity was released.
    """

    def __init__(
        self,
        store: Store,
        account: str,
        store_health: StoreHealth,
        *,
        released: Callable[[], None],
        ttl: float,
    ) -> None:
        self._store = store
        self._account = account
        self._store_health = store_health
        self._released = released
        self._ttl = ttl
        self._holder_prefix = secrets.token_hex(8)
        self._numbers = count()
        self._unsent = 0  # settlements whose task has not called the store yet
        self._settling: set[asyncio.Task[None]] = set()
        self._retries: deque[_Settlement] = deque(maxlen=_MAX_RETRIES_WAITING)
        self._open: dict[str, tuple[ConcurrencySlot, ...]] = {}  # by holder
        self._retry_task: asyncio.Task[None] | None = None
        self._renew_task: asyncio.Task[None] | None = None
        self._open_at_last_renewal: set[str] = set()  # holders
        self._pause = _MIN_PAUSE

    def grants(self, state: KeyState) -> tuple[Grant, ...]:
        """What one use of a key takes from the store."""
        if state.grants is None:
            state.grants = tuple(self._limits(state))
        if state.health is Health.QUARANTINED:
            return (*state.grants, ConcurrencySlot(self._account, f"{state.tag}:trial", 1))
        return state.grants

    def _limits(self, state: KeyState) -> Iterator[Grant]:
        key, account, tag = state.key, self._account, state.tag
        if key.rpm is not None:
            yield RateLimit(account, f"{tag}:rpm", key.rpm)
        if key.tpm is not None:
            yield RateLimit(account, f"{tag}:tpm", key.tpm)
        if key.concurrency is not None:
            yield ConcurrencySlot(account, f"{tag}:slots", key.concurrency)

    async def reserve(self, states: Sequence[KeyState]) -> tuple[int, LimitReservation] | Denied:
        """Reserve the first key that has room; returns its index and the reservation.

        Raises SharedLimitsUnavailableError.
        """
        one_of = [self.grants(state) for state in states]
        holder = f"{self._holder_prefix}-{next(self._numbers):x}"
        try:
            if self._unsent:
                await asyncio.sleep(0)  # let settlements that were started leave first
            result = await self._store.admit(holder, (), ttl=self._ttl, one_of=one_of)
        except StoreUnavailableError as error:
            self._store_health.lost(error)
            raise SharedLimitsUnavailableError(_assumed(holder, one_of)) from error
        except BaseException:
            self.release(_assumed(holder, one_of))
            raise
        self._store_health.found()
        if isinstance(result, Denied):
            return result
        reservation = LimitReservation(result, result.grants)
        self._keep_renewed(reservation)
        return result.choice, reservation

    def assume_reserved(self, reservation: LimitReservation, state: KeyState) -> LimitReservation:
        """The reservation of a key that is used although the store is unavailable. Its slot is
        reserved when the store is back, if it is still in use then."""
        reservation = LimitReservation(reservation.admitted, self.grants(state))
        self._keep_renewed(reservation)
        return reservation

    async def claim(self, name: str, seconds: float) -> bool:
        """Claim a task for this process for `seconds`; False if another process has claimed it, or
        the store is unavailable."""
        slot = ConcurrencySlot(self._account, name, 1)
        holder = f"{self._holder_prefix}-{next(self._numbers):x}"
        try:
            result = await self._store.admit(holder, (slot,), ttl=seconds)
        except StoreUnavailableError as error:
            self._store_health.lost(error)
            return False
        return isinstance(result, Admitted)

    def release(self, reservation: LimitReservation, tokens: int = 0, *, used: bool = True) -> None:
        """Release a key that has used `tokens`, in the background. With `used=False` the request
        is not counted either."""
        admitted = reservation.admitted
        held = self._open.pop(admitted.holder, None) is not None
        actual: dict[Grant, int] = {
            grant: tokens
            for grant in admitted.grants
            if isinstance(grant, RateLimit) and admitted.sure
            if not used or grant.name.endswith(":tpm")
        }
        if not (held or actual or not admitted.sure):
            return  # only requests were counted, and they are final
        self._unsent += 1
        task = start(self._settle(admitted, actual), what="releasing a key in the store")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def wait_for_releases(self, seconds: float) -> bool:
        """Wait until the releases under way are done; returns whether there were any."""
        settling = set(self._settling)
        if settling:
            await asyncio.wait(settling, timeout=seconds)
        return bool(settling)

    async def aclose(self, seconds: float) -> None:
        """Finish the releases under way, for at most `seconds`, and stop."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in (*self._settling, self._retry_task) if task is not None]
        tasks = [task for task in tasks if task.get_loop() is loop]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        self.stop_renewal()
        self._unsent = 0

    def stop_renewal(self) -> None:
        """Stop renewing slots in use: they expire unless they are released."""
        task = self._renew_task
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()

    # settlement

    async def _settle(self, admitted: Admitted, actual: Mapping[Grant, int]) -> None:
        self._unsent -= 1
        if await self._try_to_settle(admitted, actual):
            self._released()
        else:
            deadline = asyncio.get_running_loop().time() + self._ttl
            self._retries.append(_Settlement(deadline, admitted, actual))
            self._retry_task = _ensure_running(
                self._retry_task, self._retry_settlements, "releasing keys in the store"
            )

    async def _retry_settlements(self) -> bool:
        """Settle what failed before, as long as it makes a difference; False when all is done."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, _MAX_PAUSE)
        while self._retries:
            item = self._retries.popleft()
            if item.deadline <= loop.time():
                continue  # the store has expired it
            if not await self._try_to_settle(item.admitted, item.actual):
                self._retries.appendleft(item)
                break
        self._released()
        if not self._retries:
            self._pause = _MIN_PAUSE
        return bool(self._retries)

    async def _try_to_settle(self, admitted: Admitted, actual: Mapping[Grant, int]) -> bool:
        """Settle; returns False if the store is unavailable."""
        try:
            await self._store.settle(admitted, actual)
        except StoreUnavailableError as error:
            self._store_health.lost(error)
            return False
        except Exception:
            logger.exception("a key could not be released in the store; its reservation expires")
        return True

    # renewal

    def _keep_renewed(self, reservation: LimitReservation) -> None:
        slots = tuple(grant for grant in reservation.granted if isinstance(grant, ConcurrencySlot))
        if slots:
            self._open[reservation.admitted.holder] = slots
            self._renew_task = _ensure_running(
                self._renew_task, self._renew_all, "renewing keys in use"
            )

    async def _renew_all(self) -> bool:
        await asyncio.sleep(self._ttl / 3)
        # Most uses have ended by now: only those that were open at the last renewal need one.
        due = {
            holder: slots
            for holder, slots in self._open.items()
            if holder in self._open_at_last_renewal
        }
        self._open_at_last_renewal = set(self._open)
        await asyncio.gather(*(self._renew(holder, slots) for holder, slots in due.items()))
        return bool(self._open)

    async def _renew(self, holder: str, slots: tuple[ConcurrencySlot, ...]) -> None:
        try:
            if not await self._store.renew(Admitted(holder=holder, grants=slots), self._ttl):
                # It expired, or was used during an outage: it is in use all the same.
                unlimited = [msgspec.structs.replace(slot, limit=None) for slot in slots]
                if holder in self._open:
                    await self._store.admit(holder, unlimited, ttl=self._ttl)
        except StoreUnavailableError as error:
            self._store_health.lost(error)
        except Exception:
            logger.exception("a key in use could not be renewed in the store")


def _assumed(holder: str, one_of: Sequence[tuple[Grant, ...]]) -> LimitReservation:
    every = tuple(grant for grants in one_of for grant in grants)
    return LimitReservation(Admitted.assumed(holder, every), ())


def _ensure_running(
    task: asyncio.Task[None] | None, step: Callable[[], Awaitable[bool]], what: str
) -> asyncio.Task[None]:
    """The task that repeats a step: the given one if it runs in this loop, else a new one."""
    loop = asyncio.get_running_loop()
    if task is not None and not task.done() and task.get_loop() is loop:
        return task
    return start(repeat(step, what=what), what=what)
