"""What one account holds within a process: windows, slots, budgets. Pure; times in milliseconds."""

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
    """Names that expire, each at its time."""

    until: dict[str, float] = {}
    line: list[tuple[float, str]] = []  # a heap; a name may have left, or stand in it twice

    def put(self, name: str, until: float) -> None:
        """Keep a name until then."""
        self.until[name] = until
        heappush(self.line, (until, name))

    def expired(self, now: int) -> list[str]:
        """The names whose time has come; they are gone after this."""
        gone = []
        while self.line and self.line[0][0] <= now:
            until, name = heappop(self.line)
            if self.until.get(name) == until:
                del self.until[name]
                gone.append(name)
        return gone


class Window(msgspec.Struct):
    """Amounts by the piece of time they fell into."""

    width: float = 1.0
    pieces: dict[int, int] = {}

    def used(self, now: int, window: float) -> int:
        """How much there was in the last `window` seconds, or a piece more."""
        self.width = window * 1000 / WINDOW_PARTS
        oldest = int(now // self.width) - WINDOW_PARTS
        if self.pieces and min(self.pieces) < oldest:
            self.pieces = {at: n for at, n in self.pieces.items() if at >= oldest}
        return sum(self.pieces.values())

    def add(self, now: float, amount: int) -> None:
        """Count now."""
        piece = int(now // self.width)
        self.pieces[piece] = self.pieces.get(piece, 0) + amount

    def correct(self, now: int, at: float, amount: int) -> None:
        """Count more now, or less at the time it was counted, if that is still known."""
        if amount > 0:
            self.add(now, amount)
        elif (piece := int(at // self.width)) in self.pieces:
            self.pieces[piece] = max(self.pieces[piece] + amount, 0)

    def wait(self, now: int, excess: int) -> float | None:
        """Seconds until `excess` of it is forgotten."""
        for piece in sorted(self.pieces):
            excess -= self.pieces[piece]
            if excess <= 0:
                return max((piece + 1 + WINDOW_PARTS) * self.width - now, 1.0) / 1000
        return None


class Reservation(msgspec.Struct):
    """What is set aside for a holder."""

    amount: int
    charged: bool  # what becomes of it when it expires


class Budget(msgspec.Struct):
    """What was spent, and what is set aside for whom."""

    spent: int = 0
    held: int = 0
    reserved: dict[str, Reservation] = {}
    leases: ExpiringSet = msgspec.field(default_factory=ExpiringSet)
    late: dict[str, int] = {}  # what was charged for reservations that expired
    late_leases: ExpiringSet = msgspec.field(default_factory=ExpiringSet)
    until: float = _NEVER

    def sweep(self, now: int) -> None:
        """End what has expired."""
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
        """Set aside, in place of what was set aside for the same holder."""
        before = self.reserved.get(holder)
        self.held += grant.amount - (before.amount if before else 0)
        self.reserved[holder] = Reservation(grant.amount, grant.on_expiry == "charge")
        self.leases.put(holder, until)

    def settle(self, holder: str, amount: int) -> bool:
        """Replace what was set aside, or charged in its place, by what was used."""
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
    """Why a grant can not be given."""

    left: int
    retry_after: float | None


class Account(msgspec.Struct):
    """All that goes by one account."""

    windows: dict[str, Window] = {}
    slots: dict[str, ExpiringSet] = {}
    budgets: dict[str, Budget] = {}
    held: dict[str, tuple[float, bytes]] = {}
    once: ExpiringSet = msgspec.field(default_factory=ExpiringSet)
    sums: dict[str, int] = {}
    sums_until: float = _NEVER

    def left(self, holder: str, grant: Grant, now: int) -> int | Shortage | None:
        """What would remain after a grant (None: no limit), or why it can not be given."""
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
                return self._left_of(holder, grant, cap, now)
            case NotOnHold():
                until, _ = self.held.get(grant.name, (0, b""))
                return None if until <= now else Shortage(0, (until - now) / 1000)

    def _left_of(
        self, holder: str, grant: BudgetReservation, cap: int | None, now: int
    ) -> int | Shortage | None:
        if f"settle {holder}" in self.once.until:
            return Shortage(0, None)  # it was settled before it was asked for
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
        """Give a grant of which `left` said that it can be had."""
        match grant:
            case RateLimit():
                window = self.windows.setdefault(grant.name, Window())
                window.width = grant.window * 1000 / WINDOW_PARTS
                window.add(now, grant.amount)
            case ConcurrencySlot():
                self.slots.setdefault(grant.name, ExpiringSet()).put(holder, until)
            case BudgetReservation():
                budget = self.budgets.setdefault(grant.name, Budget())
                budget.reserve(holder, grant, until)
                self._keep(budget, grant, now)

    def settle(self, holder: str, grant: Grant, amount: int, now: int, *, assumed: bool) -> bool:
        """End what `take` gave, other than counts; whether there was something to end."""
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
        """Keep a slot or a reservation until then; False if it is gone."""
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
        """Spend without asking."""
        budget = self.budgets.setdefault(grant.name, Budget())
        budget.sweep(now)
        budget.spent += grant.amount
        self._keep(budget, grant, now)
        return budget.spent

    def first(self, once: str, now: int, seconds: float) -> bool:
        """Whether this is the first time; it is remembered for so many seconds."""
        self.once.expired(now)
        if once in self.once.until:
            return False
        self.once.put(once, now + seconds * 1000)
        return True

    def holds(self, now: int) -> dict[str, Hold]:
        """What is on hold now."""
        self.held = {name: hold for name, hold in self.held.items() if hold[0] > now}
        return {
            name: Hold((until - now) / 1000, value) for name, (until, value) in self.held.items()
        }

    def sweep(self, now: int) -> bool:
        """End what has expired; whether nothing is left."""
        for name, window in list(self.windows.items()):
            if not window.used(now, window.width * WINDOW_PARTS / 1000):
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
