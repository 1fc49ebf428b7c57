"""The protocol of a store: shared state in six shapes.

- *Tables*: rows of bytes under a text key, changed by operators; compare-and-set, paging, watching.
- *Admission*: rate limits, concurrency slots and budgets, taken by requests in one atomic step.
- *Holds*: records that expire, such as the cooldown of a key.
- *Counters*: sums.
- *Logs*: records in order of arrival.
- *Entries*: values that expire, each under a name of its own.

All state under one `account` (or `table`, or `log`) is kept together, so that one step can touch
all of it; on a Redis cluster it is on one node. Times are in seconds, by the store's clock: clocks
of callers may differ.

Theory of operation: admission and settlement. A request passes through three calls.

1. `admit(holder, grants)` takes all grants or none. A rate limit is counted for good. A slot or a
   budget reservation is held for `ttl` seconds. With `one_of`, the first of several lists of grants
   that can be taken whole is taken in addition: that is how a key is chosen among several.
2. `renew` extends slots and reservations while the request runs. If the process dies, they expire:
   a slot becomes free, and a reservation is charged in full, because the provider will most likely
   send a bill for the request.
3. `settle` frees slots, replaces reservations by what was really spent, and corrects rate limits.
   It has an effect only once per holder, so it may be repeated, and it may come up to a day after
   the reservation expired: then it corrects what was charged.

A call can time out without the caller knowing whether it was carried out. For `admit`, settle
`Admitted.assumed(...)`: it is correct in both cases, and prevents a delayed `admit` from reserving
a budget afterwards. `charge`, `add` and `append` take a name, `once`, under which a repetition has
no effect for an hour. So every write can be repeated safely, and nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Final, Literal, Protocol, Self

import msgspec

from asgi_aiproxy.errors import AIProxyError, ConfigurationError


class StoreUnavailableError(AIProxyError):
    """The store did not answer in time, or answered that it cannot serve the call.

    The call may have been carried out all the same. For an admission see `Admitted.assumed`.
    """


class OutagePolicy(StrEnum):
    """What a part of the gateway does while the store is unavailable."""

    FAIL_OPEN = "fail_open"  # continue without it
    FAIL_CLOSED = "fail_closed"  # refuse
    LOCAL_ESTIMATE = "local_estimate"  # decide by what this process knows


class AnyValue(Enum):
    """The type of ANYTHING: an expectation that any row meets, and a missing row."""

    ANYTHING = "anything"


ANYTHING: Final = AnyValue.ANYTHING
Expected = bytes | None | AnyValue


class RateLimit(msgspec.Struct, frozen=True):
    """Counts `amount` against a limit of `limit` in any `window` seconds.

    The window slides in twenty parts: it never lets more than the limit pass, and may keep an
    amount for one part too long. With `limit=None` it only counts.
    """

    account: str
    name: str
    limit: int | None
    window: float = 60.0
    amount: int = 1


class ConcurrencySlot(msgspec.Struct, frozen=True):
    """One of `limit` slots that can be held at the same time; with `limit=None` it only counts."""

    account: str
    name: str
    limit: int | None


class BudgetReservation(msgspec.Struct, frozen=True):
    """Reserves `amount` of a budget of `cap` units (micro-USD) until the actual amount is settled.

    A reservation is denied if spent and reserved amounts would exceed `cap` together; with
    `cap=None` it only counts. A reservation that expires, because its process died, is charged in
    full; with `on_expiry="release"` it is released. `keep` is the number of seconds for which the
    budget is remembered after its last use; None: indefinitely.
    """

    account: str
    name: str
    amount: int
    cap: int | None
    on_expiry: Literal["charge", "release"] = "charge"
    keep: float | None = None


class NotOnHold(msgspec.Struct, frozen=True):
    """Takes nothing, but requires that `name` is not on hold."""

    account: str
    name: str


Grant = RateLimit | ConcurrencySlot | BudgetReservation | NotOnHold


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """All `grants` were admitted for `holder`.

    `left` is what remains of each (None without a limit), `choice` the index in `one_of` that was
    taken (-1: none), `at` the Unix time by the store's clock. `sure` is False if the admission is
    only assumed, after a call without a response.
    """

    holder: str
    grants: tuple[Grant, ...]
    left: tuple[int | None, ...] = ()
    choice: int = -1
    at: float = 0.0
    sure: bool = True

    @classmethod
    def assumed(cls, holder: str, grants: Sequence[Grant]) -> Self:
        """What to settle after `admit` raised StoreUnavailableError.

        The store may have carried it out or not, or still do so. In each case settling this charges
        what was really used, once: settle zero for grants that were not used, such as the choices
        of `one_of` that were not taken. Rate limits are not changed.
        """
        return cls(holder=holder, grants=tuple(grants), sure=False)


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was taken, because of `grant`, of which `left` remains.

    Another attempt is useless before `retry_after` seconds; None if that time is not known, because
    it depends on another request or an operator.
    """

    grant: Grant
    left: int
    retry_after: float | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a settlement.

    `first` is False if it had been settled before, and nothing was done. `spent` is the amount now
    spent of each budget.
    """

    first: bool
    spent: dict[BudgetReservation, int]


class UsageLevel(msgspec.Struct, frozen=True):
    """How much of a grant is used now; for a budget, `used` is spent and `held` is reserved."""

    used: int
    held: int = 0


class Hold(msgspec.Struct, frozen=True):
    """A hold: the seconds until it ends, and the value stored with it."""

    seconds: float
    value: bytes = b""


class Tables(Protocol):
    """Rows of bytes, by table and key."""

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
        """Write a row if the current value is `expected` (None: no row); returns whether it was."""
        ...

    async def put_many(
        self,
        table: str,
        rows: Mapping[str, bytes | None],
        *,
        expected: Mapping[str, bytes | None] | None = None,
    ) -> list[str]:
        """Write all rows, or none. Returns the keys whose rows are not as `expected`; empty if all
        rows were written.

        A value of None removes the row. Keys that `expected` does not contain may have any value.
        """
        ...

    async def drop(self, table: str, key: str) -> bool:
        """Remove a row; returns whether there was one."""
        ...

    async def version(self, name: str) -> int:
        """A number that grows with every change of a table, or of the holds of an account."""
        ...

    def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` in the running loop within a second of a change. Returns a function that
        stops it.

        `name` is a table, or an account whose holds are watched. Several changes may cause one
        call, and a call may come without a change. The caller's own changes are reported, too.
        """
        ...


class Admission(Protocol):
    """Limits and budgets of requests: taken before a request is sent, settled after it."""

    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        *,
        ttl: float = 60.0,
        one_of: Sequence[Sequence[Grant]] = (),
    ) -> Admitted | Denied:
        """Take all of `grants`, and the first of `one_of` that can be taken whole, or nothing.

        `holder` identifies this admission and must be unique. Slots and reservations last `ttl`
        seconds unless they are settled or renewed. A second admission of the same holder keeps its
        slots and replaces its reservations.
        """
        ...

    async def settle(
        self, admitted: Admitted, actual: Mapping[Grant, int] | None = None
    ) -> Settled:
        """Free slots, and correct rate limits and budgets to what was really used.

        Grants that `actual` does not contain used the amount that was admitted. Only the first call
        has an effect. After a reservation expired, settling still corrects what was charged for it,
        for at least a day. A rate limit is corrected while its window contains the request.
        """
        ...

    async def renew(self, admitted: Admitted, ttl: float) -> bool:
        """Extend slots and reservations to `ttl` seconds from now; False if one had expired."""
        ...

    async def charge(self, budget: BudgetReservation, *, once: str) -> int:
        """Add `budget.amount`, which may be negative, to what is spent, regardless of the cap.
        Returns the amount spent. `once` identifies this charge: repetitions within an hour have no
        effect.
        """
        ...

    async def peek(self, grants: Sequence[Grant]) -> list[UsageLevel]:
        """How much of each is used now."""
        ...


class Holds(Protocol):
    """Records that expire, such as the cooldown of a key."""

    async def hold(self, account: str, name: str, seconds: float, value: bytes = b"") -> bool:
        """Set a hold, unless one that ends later exists; returns whether it was set."""
        ...

    async def lift(self, account: str, name: str) -> bool:
        """End a hold; returns whether there was one."""
        ...

    async def holds(self, account: str) -> dict[str, Hold]:
        """All holds of an account, by name."""
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

        All sums of the account are removed `ttl` seconds after the last addition. `once` identifies
        this addition: repetitions within an hour have no effect.
        """
        ...

    async def sums(self, account: str, names: Collection[str] | None = None) -> dict[str, int]:
        """All sums, or those of `names`; sums that were never added to are missing."""
        ...


class Logs(Protocol):
    """Records in order of arrival."""

    async def append(
        self, log: str, record: bytes, *, maxlen: int | None = None, once: str = ""
    ) -> None:
        """Append a record; about the last `maxlen` are kept. `once` as for counters."""
        ...

    async def read(
        self, log: str, after: str = "", limit: int = 100, *, newest: bool = False
    ) -> list[tuple[str, bytes]]:
        """At most `limit` records with their ids, oldest first, after the id `after`.

        With `newest`, newest first, before the id `after`.
        """
        ...

    async def trim(self, log: str, until: str) -> None:
        """Remove the records up to the id `until`, that one included."""
        ...


class Entries(Protocol):
    """Values that expire, each under a name of its own and unrelated to all others.

    In a `MemoryStore` they are kept in memory only, also if it has a file.
    """

    async def set_entry(self, name: str, value: bytes, *, seconds: float) -> None:
        """Set an entry for `seconds`, replacing one of this name."""
        ...

    async def get_entry(self, name: str) -> bytes | None:
        """The value of an entry; None if there is none, or it has expired."""
        ...

    async def delete_entry(self, name: str) -> bool:
        """Remove an entry; returns whether there was one."""
        ...


class Store(Tables, Admission, Holds, Counters, Logs, Entries, Protocol):
    """All shapes together. An async context manager, usable without entering it.

    Any method may raise StoreUnavailableError; none waits longer than the time-out of the store.
    """

    async def aclose(self) -> None:
        """Close connections and files; a later call opens them again."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...


def check(
    holder: str, grants: Sequence[Grant], one_of: Sequence[Sequence[Grant]], ttl: float
) -> None:
    """Raise ConfigurationError if the arguments of an admission are invalid."""
    if not holder or not ttl > 0:
        raise ConfigurationError("An admission needs a holder, and a ttl > 0 seconds.")
    for choice in one_of or ((),):
        if len(grants) + len(choice) > 1:
            named = {(type(grant), grant.account, grant.name) for grant in (*grants, *choice)}
            if len(named) < len(grants) + len(choice):
                raise ConfigurationError("An admission cannot take the same grant twice.")
        for grant in choice or grants:
            if isinstance(grant, RateLimit | BudgetReservation) and grant.amount < 0:
                raise ConfigurationError(
                    f"{grant.name!r}: amount must be >= 0, got {grant.amount!r}."
                )


IDEMPOTENCY_SECONDS = 3600.0  # for which the names of operations done once are remembered
LATE_SETTLEMENT_SECONDS = 86400.0  # for which an expired reservation can still be settled
WINDOW_PARTS = 20  # in which a rate-limit window slides


def check_store(store: object, owner: str) -> None:
    """Raise ConfigurationError unless `store` is a store; the message names the `owner`."""
    if not callable(getattr(store, "admit", None)):
        raise ConfigurationError(
            f"{owner}: store= must be a store, as in RedisStore('redis://...') or MemoryStore(), "
            f"not {type(store).__name__}."
        )
