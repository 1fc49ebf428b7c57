"""The state of one account in MemoryStore: rate limits, slots, budgets, holds, sums.

Pure. `now` and `until` are in milliseconds of Unix time, other times in seconds.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from asgi_aiproxy.stores.base import (
    LATE_SETTLEMENT_SECONDS,
    WINDOW_PARTS,
    BudgetReservation,
    ConcurrencySlot,
    Grant,
    Hold,
    NotOnHold,
    RateLimit,
)

_NEVER = float("inf")


class ExpiringSet(msgspec.Struct):
    """Names that expire, each at its own time."""

    until: dict[str, float] = {}
    # A heap; it may contain removed names, and names twice. ("line" is its name in state files.)
    queue: list[tuple[float, str]] = msgspec.field(default_factory=list, name="line")

    def put(self, name: str, until: float) -> None:
        """Keep a name until `until`, in place of an earlier time."""
        self.until[name] = until
        heappush(self.queue, (until, name))

    def expired(self, now: int) -> list[str]:
        """Remove and return the names that have expired."""
        gone = []
        while self.queue and self.queue[0][0] <= now:
            until, name = heappop(self.queue)
            if self.until.get(name) == until:
                del self.until[name]
                gone.append(name)
        return gone


class Window(msgspec.Struct):
    """Amounts by the part of time in which they were counted; see RateLimit."""

    part_width: float = msgspec.field(default=1.0, name="width")  # milliseconds
    parts: dict[int, int] = msgspec.field(default_factory=dict, name="pieces")

    def used(self, now: int, window: float) -> int:
        """The amount within the last `window` seconds, or a part more."""
        self.part_width = window * 1000 / WINDOW_PARTS
        oldest = int(now // self.part_width) - WINDOW_PARTS
        if self.parts and min(self.parts) < oldest:
            self.parts = {part: n for part, n in self.parts.items() if part >= oldest}
        return sum(self.parts.values())

    def add(self, now: float, amount: int) -> None:
        """Count an amount now."""
        part = int(now // self.part_width)
        self.parts[part] = self.parts.get(part, 0) + amount

    def correct(self, now: int, at: float, amount: int) -> None:
        """Count more now, or less in the part `at` which it was counted, if that is still known."""
        if amount > 0:
            self.add(now, amount)
        elif (part := int(at // self.part_width)) in self.parts:
            self.parts[part] = max(self.parts[part] + amount, 0)

    def wait(self, now: int, excess: int) -> float | None:
        """Seconds until `excess` of the amount has left the window; None: never."""
        for part in sorted(self.parts):
            excess -= self.parts[part]
            if excess <= 0:
                return max((part + 1 + WINDOW_PARTS) * self.part_width - now, 1.0) / 1000
        return None


class Reservation(msgspec.Struct):
    """An amount reserved for a holder."""

    amount: int
    charged: bool  # when it expires


class Budget(msgspec.Struct):
    """The amount spent, and the reservations by holder."""

    spent: int = 0
    held: int = 0
    reserved: dict[str, Reservation] = {}
    leases: ExpiringSet = msgspec.field(default_factory=ExpiringSet)
    late: dict[str, int] = {}  # charged for reservations that expired, by holder
    late_leases: ExpiringSet = msgspec.field(default_factory=ExpiringSet)
    until: float = _NEVER

    def sweep(self, now: int) -> None:
        """End the reservations that have expired."""
        for holder in self.leases.expired(now):
            gone = self.reserved.pop(holder)
            self.held -= gone.amount
            self.late[holder] = gone.amount if gone.charged else 0
            self.spent += self.late[holder]
            self.late_leases.put(holder, now + LATE_SETTLEMENT_SECONDS * 1000)
        for holder in self.late_leases.expired(now):
            del self.late[holder]
        if self.until <= now and not self.reserved:
            self.spent, self.until = 0, _NEVER
            self.late.clear()
            self.late_leases.until.clear()

    def reserve(self, holder: str, grant: BudgetReservation, until: float) -> None:
        """Reserve an amount, in place of an earlier reservation of the same holder."""
        before = self.reserved.get(holder)
        self.held += grant.amount - (before.amount if before else 0)
        self.reserved[holder] = Reservation(grant.amount, grant.on_expiry == "charge")
        self.leases.put(holder, until)

    def settle(self, holder: str, amount: int) -> bool:
        """Replace a reservation, or what was charged for it, by the amount used. Returns whether
        there was one."""
        reserved = self.reserved.pop(holder, None)
        if reserved is not None:
            del self.leases.until[holder]
            self.held -= reserved.amount
            self.spent += amount
        elif holder in self.late:
            del self.late_leases.until[holder]
            self.spent += amount - self.late.pop(holder)
        else:
            return False
        return True


class Shortage(NamedTuple):
    """Why a grant is denied."""

    left: int
    retry_after: float | None


class Account(msgspec.Struct):
    """All state of one account."""

    windows: dict[str, Window] = {}
    slots: dict[str, ExpiringSet] = {}
    budgets: dict[str, Budget] = {}
    held: dict[str, tuple[float, bytes]] = {}
    once: ExpiringSet = msgspec.field(default_factory=ExpiringSet)
    sums: dict[str, int] = {}
    sums_until: float = _NEVER

    def left(self, holder: str, grant: Grant, now: int) -> int | Shortage | None:
        """What would remain after a grant (None: no limit), or why it is denied."""
        match grant:
            case RateLimit(limit=limit):
                window = self.windows.get(grant.name)
                used = window.used(now, grant.window) if window is not None else 0
                if limit is None:
                    return None
                left = limit - used - grant.amount
                if left >= 0:
                    return left
                wait = window.wait(now, -left) if window is not None else None
                return Shortage(max(limit - used, 0), wait if grant.amount <= limit else None)
            case ConcurrencySlot(limit=limit):
                slots = self.slots.get(grant.name)
                used = 0
                if slots is not None:
                    slots.expired(now)
                    used = len(slots.until) - (holder in slots.until)
                if limit is None:
                    return None
                return limit - used - 1 if used < limit else Shortage(0, None)
            case BudgetReservation(cap=cap):
                return self._left_of_budget(holder, grant, cap, now)
            case NotOnHold():
                until, _ = self.held.get(grant.name, (0, b""))
                return None if until <= now else Shortage(0, (until - now) / 1000)

    def _left_of_budget(
        self, holder: str, grant: BudgetReservation, cap: int | None, now: int
    ) -> int | Shortage | None:
        if f"settle {holder}" in self.once.until:
            return Shortage(0, None)  # settled before its admission arrived
        budget = self.budgets.get(grant.name)
        used = 0
        if budget is not None:
            budget.sweep(now)
            used = budget.spent + budget.held
            if holder in budget.reserved:
                used -= budget.reserved[holder].amount
        if cap is None:
            return None
        left = cap - used - grant.amount
        return left if left >= 0 else Shortage(max(cap - used, 0), None)

    def take(self, holder: str, grant: Grant, now: int, until: float) -> None:
        """Take a grant that `left` has not denied."""
        match grant:
            case RateLimit():
                window = self.windows.setdefault(grant.name, Window())
                window.part_width = grant.window * 1000 / WINDOW_PARTS
                window.add(now, grant.amount)
            case ConcurrencySlot():
                self.slots.setdefault(grant.name, ExpiringSet()).put(holder, until)
            case BudgetReservation():
                budget = self.budgets.setdefault(grant.name, Budget())
                budget.reserve(holder, grant, until)
                self._keep(budget, grant, now)

    def settle(self, holder: str, grant: Grant, amount: int, now: int, *, assumed: bool) -> bool:
        """End a slot or a reservation; returns whether there was one."""
        match grant:
            case ConcurrencySlot():
                slots = self.slots.get(grant.name)
                return slots is not None and slots.until.pop(holder, None) is not None
            case BudgetReservation():
                budget = self.budgets.setdefault(grant.name, Budget())
                done = budget.settle(holder, amount)
                if not done and assumed:
                    budget.spent += amount
                self._keep(budget, grant, now)
                return done or assumed
        return False

    def renew(self, holder: str, grant: Grant, now: int, until: float) -> bool:
        """Extend a slot or a reservation; False if it has expired."""
        match grant:
            case ConcurrencySlot():
                leases = self.slots.get(grant.name)
            case BudgetReservation():
                budget = self.budgets.get(grant.name)
                if budget is not None:
                    budget.sweep(now)
                leases = budget.leases if budget is not None else None
            case _:
                return True
        if leases is None:
            return False
        if isinstance(grant, ConcurrencySlot):
            leases.expired(now)
        if holder not in leases.until:
            return False
        leases.put(holder, until)
        return True

    def charge(self, grant: BudgetReservation, now: int) -> int:
        """Add to what is spent, regardless of the cap."""
        budget = self.budgets.setdefault(grant.name, Budget())
        budget.sweep(now)
        budget.spent += grant.amount
        self._keep(budget, grant, now)
        return budget.spent

    def first(self, once: str, now: int, seconds: float) -> bool:
        """Whether the operation `once` is done for the first time within `seconds`."""
        self.once.expired(now)
        if once in self.once.until:
            return False
        self.once.put(once, now + seconds * 1000)
        return True

    def holds(self, now: int) -> dict[str, Hold]:
        """The current holds."""
        self.held = {name: hold for name, hold in self.held.items() if hold[0] > now}
        return {
            name: Hold((until - now) / 1000, value) for name, (until, value) in self.held.items()
        }

    def sweep(self, now: int) -> bool:
        """Remove what has expired; returns whether nothing is left."""
        for name, window in list(self.windows.items()):
            if not window.used(now, window.part_width * WINDOW_PARTS / 1000):
                del self.windows[name]
        for name, slots in list(self.slots.items()):
            slots.expired(now)
            if not slots.until:
                del self.slots[name]
        for name, budget in list(self.budgets.items()):
            budget.sweep(now)
            if not (budget.spent or budget.reserved or budget.late):
                del self.budgets[name]
        if self.sums_until <= now:
            self.sums, self.sums_until = {}, _NEVER
        self.once.expired(now)
        self.holds(now)
        return not (
            self.windows or self.slots or self.budgets or self.once.until or self.held or self.sums
        )

    @staticmethod
    def _keep(budget: Budget, grant: BudgetReservation, now: int) -> None:
        budget.until = _NEVER if grant.keep is None else now + grant.keep * 1000
