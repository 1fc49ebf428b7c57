"""Shared state, in four shapes: what every store promises.

- *Tables* are edited by people: rows of bytes under a text key, compared and set, watched.
- *Admission* is what traffic asks for: counts, slots, budgets, all or nothing in one step.
- *Counters* are sums that traffic moves.
- *Logs* are records in the order they came.

Everything named by one `account` (or `table`) lies together, so that one step can touch all of it.
Times are in seconds, and it is the store's clock that counts, not that of who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Final, Literal, Protocol, Self

import msgspec

from asgi_aiproxy.errors import AIProxyError, ConfigurationError


class StoreUnavailableError(AIProxyError):
    """The store did not answer in time, or said that it can not.

    What was asked may have been done all the same. `Admitted.assumed` tells how to go on from an
    admission that ended so.
    """


class OutagePolicy(StrEnum):
    """What a part of the gateway does while the store is away."""

    FAIL_OPEN = "fail_open"  # go on without it
    FAIL_CLOSED = "fail_closed"  # refuse
    LOCAL_ESTIMATE = "local_estimate"  # go by what this process knows


class AnyValue(Enum):
    """The type of ANYTHING: whatever was there before, or nothing."""

    ANYTHING = "anything"


ANYTHING: Final = AnyValue.ANYTHING
Expected = bytes | None | AnyValue


class RateLimit(msgspec.Struct, frozen=True):
    """`amount` more of something of which there are at most `limit` in any `window` seconds.

    A sliding window: it is exact in that it never lets more pass, and forgets a twentieth of a
    window late. Without a limit it only counts.
    """

    account: str
    name: str
    limit: int | None
    window: float = 60.0
    amount: int = 1


class ConcurrencySlot(msgspec.Struct, frozen=True):
    """One of `limit` places that can be held at the same time; without a limit it only counts."""

    account: str
    name: str
    limit: int | None


class BudgetReservation(msgspec.Struct, frozen=True):
    """`amount` of a budget of `cap` units (micro-USD), set aside until it is known what was used.

    What is settled and what is set aside never exceed `cap` together when something is set aside;
    without a cap it only counts. A reservation that expires, because its worker died, is charged
    in full: most likely the provider was asked and will send its bill, and a budget is a promise
    not to spend more. With `on_expiry="release"` it is given back. `keep` is how many seconds the
    budget is remembered after its last use, for ever by default.
    """

    account: str
    name: str
    amount: int
    cap: int | None
    on_expiry: Literal["charge", "release"] = "charge"
    keep: float | None = None


class NotOnHold(msgspec.Struct, frozen=True):
    """Nothing to take: but `name` must not be on hold."""

    account: str
    name: str


Grant = RateLimit | ConcurrencySlot | BudgetReservation | NotOnHold


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """All grants were given to `holder`.

    `left` is what remains of each (None where there is no limit), `choice` says which of `one_of`
    it was, `at` is the store's Unix time. It is not `sure` if it was assumed.
    """

    holder: str
    grants: tuple[Grant, ...]
    left: tuple[int | None, ...] = ()
    choice: int = -1
    at: float = 0.0
    sure: bool = True

    @classmethod
    def assumed(cls, holder: str, grants: Sequence[Grant]) -> Self:
        """What to settle when `admit` raised StoreUnavailableError.

        The store may or may not have done it, or still do it. Settling this books what was really
        used, once, in either case: settle zeros for what did not go out, such as the choices of
        `one_of` that were not taken. Counts stay as they are.
        """
        return cls(holder=holder, grants=tuple(grants), sure=False)


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was given, because of `grant`, of which `left` remains.

    Before `retry_after` seconds there is no use in asking again; None if nobody can tell, for it
    is somebody else's end, or an operator, that is waited for.
    """

    grant: Grant
    left: int
    retry_after: float | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """`first` is False if it had been settled before, and so nothing was done.

    `spent` is what each budget's spending is now.
    """

    first: bool
    spent: dict[BudgetReservation, int]


class UsageLevel(msgspec.Struct, frozen=True):
    """How much of something is used now; for budgets `used` is spent and `held` set aside."""

    used: int
    held: int = 0


class Hold(msgspec.Struct, frozen=True):
    """Something on hold for so many seconds more, and what was noted about it."""

    seconds: float
    value: bytes = b""


class Tables(Protocol):
    """Rows that people edit."""

    async def get(self, table: str, key: str) -> bytes | None:
        """One row's value, or None."""
        ...

    async def rows(self, table: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        """All rows, or those of `keys` that exist."""
        ...

    async def page(self, table: str, after: str = "", limit: int = 100) -> dict[str, bytes]:
        """At most `limit` rows whose keys come after `after`, in the order of the keys' UTF-8."""
        ...

    async def put(
        self, table: str, key: str, value: bytes, *, expected: Expected = ANYTHING
    ) -> bool:
        """Write a row if there is what is `expected` (None: no such row); whether it was so."""
        ...

    async def put_many(
        self,
        table: str,
        rows: Mapping[str, bytes | None],
        *,
        expected: Mapping[str, bytes | None] | None = None,
    ) -> list[str]:
        """Write all rows, or none: the keys whose rows are not as `expected`.

        A row of None is dropped. Keys that `expected` does not name may hold anything.
        """
        ...

    async def drop(self, table: str, key: str) -> bool:
        """Remove a row; whether there was one."""
        ...

    async def version(self, name: str) -> int:
        """A number that rises with every change of a table, or of what is on hold."""
        ...

    def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` in the running loop within a second of a change; returns how to stop.

        `name` is a table, or an account for what is on hold there. Several changes may be told as
        one, and it may be told though nothing changed. Own changes are told too.
        """
        ...


class Admission(Protocol):
    """What traffic asks for before it goes on, and tells when it has ended."""

    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        *,
        ttl: float = 60.0,
        one_of: Sequence[Sequence[Grant]] = (),
    ) -> Admitted | Denied:
        """Take all of `grants`, and the first of `one_of` that can be had whole, or nothing.

        `holder` names this admission, and must be its own. Slots and reservations last `ttl`
        seconds unless they are settled or renewed. Who holds a slot already keeps it, who has a
        reservation exchanges it.
        """
        ...

    async def settle(
        self, admitted: Admitted, actual: Mapping[Grant, int] | None = None
    ) -> Settled:
        """Give slots back, and correct counts and budgets to what was really used.

        Grants that `actual` does not name are taken to have used what was asked for. It counts
        once, however often it is called. After a reservation expired, settling still
        corrects what was charged for it, for a day at least; when that is forgotten, it does
        nothing. A count is corrected as long as its window remembers it.
        """
        ...

    async def renew(self, admitted: Admitted, ttl: float) -> bool:
        """Keep slots and reservations for `ttl` seconds from now; False if one had expired."""
        ...

    async def charge(self, budget: BudgetReservation, *, once: str) -> int:
        """Add `budget.amount` to what is spent, cap or not; returns the spending.

        It may be negative. `once` names this charge: in an hour it is booked only once.
        """
        ...

    async def peek(self, grants: Sequence[Grant]) -> list[UsageLevel]:
        """How much of each is used now."""
        ...


class Holds(Protocol):
    """What must rest for a while, such as a key that a provider refused."""

    async def hold(self, account: str, name: str, seconds: float, value: bytes = b"") -> bool:
        """Put on hold, unless it is for longer already; whether it was done."""
        ...

    async def lift(self, account: str, name: str) -> bool:
        """End a hold; whether there was one."""
        ...

    async def holds(self, account: str) -> dict[str, Hold]:
        """All that is on hold now."""
        ...


class Counters(Protocol):
    """Sums, by name within an account."""

    async def add(
        self,
        account: str,
        amounts: Mapping[str, int],
        *,
        ttl: float | None = None,
        once: str = "",
    ) -> dict[str, int]:
        """Add to sums; returns the new ones.

        All sums of the account are forgotten `ttl` seconds after they were last added to. `once`
        names this addition: in an hour it is done only once.
        """
        ...

    async def sums(self, account: str, names: Collection[str] | None = None) -> dict[str, int]:
        """All sums, or those of `names`; what was never added to is missing."""
        ...


class Logs(Protocol):
    """Records in the order they came."""

    async def append(
        self, log: str, record: bytes, *, maxlen: int | None = None, once: str = ""
    ) -> None:
        """Add a record; about `maxlen` are kept. `once` as for counters."""
        ...

    async def read(
        self, log: str, after: str = "", limit: int = 100, *, newest: bool = False
    ) -> list[tuple[str, bytes]]:
        """Records with their ids, oldest first, after the id `after`.

        With `newest` they come newest first, and `after` is the id to go back from.
        """
        ...


class Store(Tables, Admission, Holds, Counters, Logs, Protocol):
    """All shapes together. An async context manager; usable without entering it.

    Any method may raise StoreUnavailableError, none waits for long.
    """

    async def aclose(self) -> None:
        """Let go of everything; a later use opens again."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...


def check(
    holder: str, grants: Sequence[Grant], one_of: Sequence[Sequence[Grant]], ttl: float
) -> None:
    """Raise ConfigurationError if what is asked for makes no sense."""
    if not holder or not ttl > 0:
        raise ConfigurationError("An admission needs a holder, and a ttl above 0 seconds.")
    for choice in one_of or ((),):
        if len(grants) + len(choice) > 1:
            named = {(type(grant), grant.account, grant.name) for grant in (*grants, *choice)}
            if len(named) < len(grants) + len(choice):
                raise ConfigurationError("An admission can not take the same thing twice.")
        for grant in choice or grants:
            if isinstance(grant, RateLimit | BudgetReservation) and grant.amount < 0:
                raise ConfigurationError(f"{grant.name!r}: an amount can not be negative.")


IDEMPOTENCY_SECONDS = 3600.0  # seconds for which what is done once is remembered
LATE_SETTLEMENT_SECONDS = 86400.0  # seconds for which an expired reservation can still be settled
WINDOW_PARTS = 20  # the pieces in which a window slides


def check_store(store: object, whose: str) -> None:
    """Raise ConfigurationError unless `store` is a store; `whose` is named in the message."""
    if not callable(getattr(store, "admit", None)):
        raise ConfigurationError(
            f"{whose}: store= must be a store, as in RedisStore('redis://...') or MemoryStore(), "
            f"not {type(store).__name__}."
        )
