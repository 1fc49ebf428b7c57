"""A store within one process, in memory or in a file."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from sys import intern
from typing import Self

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores.account_state import Account, Shortage
from asgi_aiproxy.stores.base import (
    ANYTHING,
    IDEMPOTENCY_SECONDS,
    Admitted,
    AnyValue,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    Expected,
    Grant,
    Hold,
    NotOnHold,
    RateLimit,
    Settled,
    UsageLevel,
    check,
)
from asgi_aiproxy.stores.entries import MemoryEntries
from asgi_aiproxy.stores.file import StateFile, encode_state
from asgi_aiproxy.stores.memory_log import MemoryLog
from asgi_aiproxy.stores.sorted_keys import SortedKeys

_FORMAT = 1  # of the file
_SAVED_RECORDS = 10_000  # of each log


class _Saved(msgspec.Struct):
    format: int
    tables: dict[str, dict[str, bytes]]
    versions: dict[str, int]
    accounts: dict[str, Account]
    logs: dict[str, list[tuple[int, bytes]]]


class MemoryStore(MemoryEntries):
    """A store for one process.

    With a `file` the state survives restarts: the file is read now; changes of tables are written
    before the call returns, all other changes within a second and by `aclose`. Concurrency slots do
    not survive, and of each log the last 10,000 records do. Raises ConfigurationError if the file
    cannot be used.
    """

    def __init__(
        self,
        *,
        file: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self._clock = clock
        self._tables: dict[str, dict[str, bytes]] = {}
        self._keys = SortedKeys()
        self._versions: dict[str, int] = {}
        self._accounts: dict[str, Account] = {}
        self._logs: dict[str, MemoryLog] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._to_sweep: list[str] = []
        # Rows as they were before changes that are not on disk yet: change number, table, rows.
        self._unwritten: deque[tuple[int, str, dict[str, bytes | None]]] = deque()
        self._file: StateFile | None = None
        if file is not None:
            self._file = StateFile(
                file, self._snapshot, on_failure=self._undo, on_written=self._on_written
            )
        if self._file is not None and (saved := self._file.read()) is not None:
            self._restore(saved, str(file))

    # tables

    async def get(self, table: str, key: str) -> bytes | None:
        """One row's value, or None."""
        return self._tables.get(table, {}).get(key)

    async def rows(self, table: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        """All rows, or those of `keys` that exist."""
        found = self._tables.get(table, {})
        return {key: found[key] for key in (found if keys is None else keys) if key in found}

    async def page(self, table: str, after: str = "", limit: int = 100) -> dict[str, bytes]:
        """At most `limit` rows whose keys come after `after`, in their order."""
        found = self._tables.get(table, {})
        return {key: found[key] for key in self._keys.page(table, found, after, limit)}

    async def put(
        self, table: str, key: str, value: bytes, *, expected: Expected = ANYTHING
    ) -> bool:
        """Write a row if the current value is `expected`; returns whether it was."""
        wanted = {} if isinstance(expected, AnyValue) else {key: expected}
        return not await self.put_many(table, {key: value}, expected=wanted)

    async def put_many(
        self,
        table: str,
        rows: Mapping[str, bytes | None],
        *,
        expected: Mapping[str, bytes | None] | None = None,
    ) -> list[str]:
        """Write all rows, or none; returns the keys whose rows are not as `expected`."""
        held = self._tables.setdefault(table, {})
        wrong = [key for key, value in (expected or {}).items() if held.get(key) != value]
        if not wrong:
            before = {key: held.get(key) for key in rows}
            self._set(table, rows)
            await self._wait_until_written(table, before)
        return wrong

    async def drop(self, table: str, key: str) -> bool:
        """Remove a row; returns whether there was one."""
        before = self._tables.get(table, {}).get(key)
        if before is None:
            return False
        self._set(table, {key: None})
        await self._wait_until_written(table, {key: before})
        return True

    async def version(self, name: str) -> int:
        """A number that grows with every change of a table, or of the holds of an account."""
        return self._versions.get(name, 0)

    def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` in the running loop after a change; returns a stop function."""
        loop = asyncio.get_running_loop()

        def soon() -> None:
            if not loop.is_closed():
                loop.call_soon(changed)

        watchers = self._watchers.setdefault(name, [])
        watchers.append(soon)

        def stop() -> None:
            if soon in watchers:
                watchers.remove(soon)

        return stop

    def _changed(self, name: str) -> None:
        self._versions[name] = self._versions.get(name, 0) + 1
        self._mark_changed()
        for soon in self._watchers.get(name, ()):
            soon()

    # admission

    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        *,
        ttl: float = 60.0,
        one_of: Sequence[Sequence[Grant]] = (),
    ) -> Admitted | Denied:
        """Take all of `grants`, and the first of `one_of` that can be taken whole, or nothing."""
        check(holder, grants, one_of, ttl)
        now = self._now()
        until = now + ttl * 1000
        taken = self._check(holder, grants, now)
        if isinstance(taken, Denied):
            return taken
        choice = -1
        every = tuple(grants)
        denied: Denied | None = None
        for number, choices in enumerate(one_of):
            more = self._check(holder, choices, now)
            if not isinstance(more, Denied):
                choice, every = number, (*grants, *choices)
                taken += more
                break
            denied = _sooner(denied, more)
        if choice < 0 and denied is not None:
            return denied
        for grant in every:
            if not isinstance(grant, NotOnHold):
                self._account(grant.account).take(holder, grant, now, until)
        self._sweep(now)
        self._mark_changed()
        return Admitted(
            holder=holder, grants=every, left=tuple(taken), choice=choice, at=now / 1000
        )

    def _check(self, holder: str, grants: Iterable[Grant], now: int) -> list[int | None] | Denied:
        """What would remain of each grant, or the first one that is denied; its wait is the
        longest of all denials."""
        left: list[int | None] = []
        denied: Denied | None = None
        for grant in grants:
            found = self._account(grant.account).left(holder, grant, now)
            if not isinstance(found, Shortage):
                left.append(found)
            elif denied is None:
                denied = Denied(grant=grant, left=found.left, retry_after=found.retry_after)
            elif found.retry_after is not None:
                wait = max(denied.retry_after or 0.0, found.retry_after)
                denied = Denied(grant=denied.grant, left=denied.left, retry_after=wait)
        return denied or left

    async def settle(
        self, admitted: Admitted, actual: Mapping[Grant, int] | None = None
    ) -> Settled:
        """Free slots, and correct rate limits and budgets to what was really used."""
        now = self._now()
        actual = actual or {}
        holder = admitted.holder
        done = False
        spent: dict[BudgetReservation, int] = {}
        new: dict[str, bool] = {}  # by account
        for grant in admitted.grants:
            if isinstance(grant, NotOnHold):
                continue
            account = self._account(grant.account)
            used = grant.amount if not isinstance(grant, ConcurrencySlot) else 0
            used = actual.get(grant, used)
            marked = not admitted.sure or (isinstance(grant, RateLimit) and used != grant.amount)
            if marked and grant.account not in new:
                new[grant.account] = account.first(f"settle {holder}", now, IDEMPOTENCY_SECONDS)
            first = new.get(grant.account, False)
            if isinstance(grant, RateLimit):
                window = account.windows.get(grant.name)
                if admitted.sure and marked and first and window is not None:
                    window.correct(now, admitted.at * 1000, used - grant.amount)
                    done = True
                continue
            assumed = not admitted.sure and first
            done |= account.settle(holder, grant, used, now, assumed=assumed)
            if isinstance(grant, BudgetReservation):
                spent[grant] = account.budgets[grant.name].spent
        self._mark_changed()
        return Settled(first=done, spent=spent)

    async def renew(self, admitted: Admitted, ttl: float) -> bool:
        """Extend slots and reservations to `ttl` seconds from now; False if one had expired."""
        now = self._now()
        until = now + ttl * 1000
        kept = [
            self._account(grant.account).renew(admitted.holder, grant, now, until)
            for grant in admitted.grants
        ]
        return all(kept)

    async def charge(self, budget: BudgetReservation, *, once: str) -> int:
        """Add `budget.amount` to what is spent, regardless of the cap; returns the amount spent."""
        now = self._now()
        account = self._account(budget.account)
        self._mark_changed()
        if account.first(f"charge {once}", now, IDEMPOTENCY_SECONDS):
            return account.charge(budget, now)
        return account.budgets[budget.name].spent if budget.name in account.budgets else 0

    async def peek(self, grants: Sequence[Grant]) -> list[UsageLevel]:
        """How much of each is used now."""
        now = self._now()
        return [self._level(grant, now) for grant in grants]

    def _level(self, grant: Grant, now: int) -> UsageLevel:
        account = self._accounts.get(grant.account)
        if account is None:
            return UsageLevel(0)
        match grant:
            case RateLimit():
                window = account.windows.get(grant.name)
                return UsageLevel(window.used(now, grant.window) if window is not None else 0)
            case ConcurrencySlot():
                slots = account.slots.get(grant.name)
                if slots is not None:
                    slots.expired(now)
                return UsageLevel(len(slots.until) if slots is not None else 0)
            case BudgetReservation():
                budget = account.budgets.get(grant.name)
                if budget is None:
                    return UsageLevel(0)
                budget.sweep(now)
                return UsageLevel(budget.spent, budget.held)
            case NotOnHold():
                return UsageLevel(int(account.held.get(grant.name, (0, b""))[0] > now))

    # holds

    async def hold(self, account: str, name: str, seconds: float, value: bytes = b"") -> bool:
        """Set a hold, unless one that ends later exists; returns whether it was set."""
        until = self._now() + seconds * 1000
        held = self._account(account).held
        if name in held and held[name][0] >= until:
            return False
        held[name] = (until, value)
        self._changed(account)
        return True

    async def lift(self, account: str, name: str) -> bool:
        """End a hold; returns whether there was one."""
        until, _ = self._account(account).held.pop(name, (0, b""))
        if until <= self._now():
            return False
        self._changed(account)
        return True

    async def holds(self, account: str) -> dict[str, Hold]:
        """All holds of an account, by name."""
        return self._account(account).holds(self._now())

    # counters

    async def add(
        self,
        account: str,
        amounts: Mapping[str, int],
        *,
        ttl: float | None = None,
        once: str = "",
    ) -> dict[str, int]:
        """Add to sums; returns the new ones."""
        now = self._now()
        found = self._account(account)
        self._mark_changed()
        if found.sums_until <= now:
            found.sums = {}
        if not once or found.first(f"add {once}", now, IDEMPOTENCY_SECONDS):
            found.sums_until = float("inf") if ttl is None else now + ttl * 1000
            for name, amount in amounts.items():
                name = intern(name)
                found.sums[name] = found.sums.get(name, 0) + amount
        if ttl is not None:
            self._sweep(now)
        return {name: found.sums.get(name, 0) for name in amounts}

    async def sums(self, account: str, names: Collection[str] | None = None) -> dict[str, int]:
        """All sums, or those of `names`; sums that were never added to are missing."""
        found = self._accounts.get(account)
        if found is None or found.sums_until <= self._now():
            return {}
        sums = found.sums
        if names is None:
            return dict(sums)
        return {name: sums[name] for name in names if name in sums}

    # logs

    async def append(
        self, log: str, record: bytes, *, maxlen: int | None = None, once: str = ""
    ) -> None:
        """Append a record; the last `maxlen` are kept."""
        if once and not self._account(log).first(
            f"append {once}", self._now(), IDEMPOTENCY_SECONDS
        ):
            return
        self._mark_changed()
        self._logs.setdefault(log, MemoryLog()).append(record, maxlen)

    async def read(
        self, log: str, after: str = "", limit: int = 100, *, newest: bool = False
    ) -> list[tuple[str, bytes]]:
        """Records with their ids, after (with `newest`: before) the id `after`."""
        records = self._logs.get(log)
        return records.read(after, limit, newest=newest) if records is not None else []

    async def trim(self, log: str, until: str) -> None:
        """Remove the records up to the id `until`."""
        if log in self._logs:
            self._logs[log].trim(int(until))
            self._mark_changed()

    # lifetime

    async def aclose(self) -> None:
        """Write the file, if there is one. The object keeps its state."""
        if self._file is not None:
            await self._file.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def _mark_changed(self) -> None:
        if self._file is not None:
            self._file.changed()

    def _set(self, table: str, rows: Mapping[str, bytes | None]) -> None:
        held = self._tables.setdefault(table, {})
        self._keys.follow(table, held, rows)
        for key, value in rows.items():
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value
        self._changed(table)

    async def _wait_until_written(self, table: str, before: dict[str, bytes | None]) -> None:
        """Wait until a change of a table is on disk.

        Raises StoreUnavailableError if that fails; the change was undone then.
        """
        if self._file is not None:
            self._unwritten.append((self._file.changes, table, before))
            await self._file.written()

    def _on_written(self, change: int) -> None:
        """All changes up to this one are on disk."""
        while self._unwritten and self._unwritten[0][0] <= change:
            self._unwritten.popleft()

    def _undo(self) -> None:
        """Writing failed: undo changes that were not confirmed yet, the last one first."""
        while self._unwritten:
            _, table, before = self._unwritten.pop()
            self._set(table, before)

    def _snapshot(self) -> bytes:
        logs = {name: records.last(_SAVED_RECORDS) for name, records in self._logs.items()}
        saved = _Saved(_FORMAT, self._tables, self._versions, self._accounts, logs)
        return encode_state(saved)

    def _restore(self, data: bytes, name: str) -> None:
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"{name} is not a state file of MemoryStore: {error}"
            ) from error
        if saved.format != _FORMAT:
            raise ConfigurationError(
                f"{name} was written by an incompatible version of this package."
            )
        self._tables, self._versions = saved.tables, saved.versions
        self._accounts = saved.accounts
        for account in self._accounts.values():
            account.slots.clear()  # their holders ended with the previous process
        self._logs = {log: MemoryLog(records) for log, records in saved.logs.items()}

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _account(self, name: str) -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account()
        return account

    def _sweep(self, now: int) -> None:
        """Remove what has expired in one account; each call takes the next account."""
        if not self._to_sweep:
            self._to_sweep = list(self._accounts)
            return
        name = self._to_sweep.pop()
        account = self._accounts.get(name)
        if account is not None and account.sweep(now):
            del self._accounts[name]


def _sooner(known: Denied | None, more: Denied) -> Denied:
    """Of two denials the one that ends first."""
    if known is None or known.retry_after is None:
        return more
    return more if more.retry_after is not None and more.retry_after < known.retry_after else known
