"""`stored_tokens`: callers with a token of the store are let in, all others get the reason."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from asgi_aiproxy.accounts.groups import Account, Group
from asgi_aiproxy.accounts.table import Table
from asgi_aiproxy.accounts.token import PresentedToken, Token, parse_token
from asgi_aiproxy.accounts.tokens import ACCOUNTS, GROUPS, TOKENS, Tokens
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.stores.base import Store, StoreUnavailableError

_MOST = 10_000  # callers that are remembered
_MOST_WRONG = 1_000

T = TypeVar("T", bound=msgspec.Struct)


class _CachedVerification(msgspec.Struct, frozen=True):
    """What a token was found to be: a principal good until `good_until`, or why not."""

    principal: Principal | None
    refusal: str
    good_until: float  # Unix time
    seen: float
    version: int


class StoredTokenVerifier:
    """Knows the callers by the tokens of a store: the `verify=` of `Authenticate`.

    What was read is kept for `max_age` seconds, and forgotten as soon as a table changes: a revoked
    token is dead in all workers within a second. When a token ends is checked at every use. While
    the store is away, what was read stays good for `stale` seconds; callers who were not seen
    before get a 503.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_age: float = 60.0,
        stale: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = Tokens(store, clock=clock)
        self._store = store
        self._max_age = max_age
        self._stale = stale
        self._clock = clock
        self._known: dict[bytes, _CachedVerification] = {}
        self._wrong: dict[bytes, _CachedVerification] = {}
        self._common: dict[tuple[str, str], tuple[int, float, Any]] = {}
        self._version = 0
        self._stops: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"StoredTokens({self._store!r})"

    async def __call__(self, token: str) -> Principal | None:
        """Who shows this token; None if there is none like it.

        Raises APIError if it has expired, is disabled, or could not be looked up.
        """
        if self._loop is not asyncio.get_running_loop():
            self._watch()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        known = self._known.get(digest) or self._wrong.get(digest)
        if known is None or known.version != self._version or now - known.seen > self._max_age:
            known = await self._look_up(token, digest, known, now)
        if known.principal is not None and now < known.good_until:
            return known.principal
        if known.refusal:
            raise _refused(known.refusal)
        if known.principal is not None:
            raise _refused("expired")
        return None

    def _watch(self) -> None:
        """Begin to hear of changes, which needs a running loop; what was known before is old."""
        self._loop = asyncio.get_running_loop()
        self._version += 1
        for stop in self._stops:
            stop()
        tables = (TOKENS, GROUPS, ACCOUNTS)
        self._stops = [self._store.watch(table, self._changed) for table in tables]

    def _changed(self) -> None:
        self._version += 1

    async def _look_up(
        self, token: str, digest: bytes, before: _CachedVerification | None, now: float
    ) -> _CachedVerification:
        version = self._version  # a change that comes while we read is for the next to see
        try:
            found = await self._find(token, now, version)
        except StoreUnavailableError as error:
            if before is not None and now - before.seen <= self._stale:
                return before
            raise APIError(
                ErrorKind.OVERLOADED,
                "Your API key cannot be checked at the moment.",
                retry_after=1.0,
            ) from error
        book, most = (self._known, _MOST) if found.principal else (self._wrong, _MOST_WRONG)
        self._known.pop(digest, None)
        self._wrong.pop(digest, None)
        if len(book) >= most:
            del book[next(iter(book))]
        book[digest] = found
        return found

    async def _find(self, token: str, now: float, version: int) -> _CachedVerification:
        for shown in parse_token(token):
            row = await self._tokens.table.find(shown.id)
            until = row.accepts(shown.digest, now) if row is not None else None
            if row is not None and until is not None:
                return await self._admit(row, shown, until, now, version)
        return _CachedVerification(None, "", 0.0, now, version)

    async def _admit(
        self, row: Token, shown: PresentedToken, until: float, now: float, version: int
    ) -> _CachedVerification:
        def no(why: str) -> _CachedVerification:
            return _CachedVerification(None, why, 0.0, now, version)

        if not row.enabled:
            return no("disabled")
        if now >= until:
            return no("expired")
        if shown.key_id and not row.may_choose_key:
            return no("pinned")
        group = await self._row(self._tokens.groups, row.group, now, version)
        account = await self._row(self._tokens.accounts, row.account, now, version)
        if (row.group and group is None) or (row.account and account is None):
            return no("orphaned")  # without what the group forbids, it would be let in too far
        if account is not None and not account.enabled:
            return no("account")
        principal = make_principal(row, group, account, key_id=shown.key_id)
        return _CachedVerification(principal, "", until, now, version)

    async def _row(self, table: Table[T], id: str, now: float, version: int) -> T | None:
        """A row that many tokens have in common."""
        if not id:
            return None
        known = self._common.get((table.name, id))
        if known is not None and known[0] == version and now - known[1] <= self._max_age:
            return known[2]  # type: ignore[no-any-return]
        found = await table.find(id)
        if len(self._common) >= _MOST:
            self._common.clear()
        self._common[table.name, id] = version, now, found
        return found


_REFUSALS = {
    "disabled": (ErrorKind.UNAUTHORIZED, "This API key is disabled.", "api_key_disabled"),
    "expired": (ErrorKind.UNAUTHORIZED, "This API key has expired.", "api_key_expired"),
    "account": (
        ErrorKind.UNAUTHORIZED,
        "The account of this API key is disabled.",
        "account_disabled",
    ),
    "orphaned": (
        ErrorKind.UNAUTHORIZED,
        "The group or account of this API key does not exist any more.",
        "api_key_disabled",
    ),
    "pinned": (
        ErrorKind.FORBIDDEN,
        "This API key may not choose the key that serves it.",
        "key_not_allowed",
    ),
}


def _refused(why: str) -> APIError:
    kind, message, code = _REFUSALS[why]
    return APIError(kind, message, code=code)


def make_principal(
    row: Token, group: Group | None, account: Account | None, *, key_id: str = ""
) -> Principal:
    """The caller that a token makes, with what its group and its account say."""
    limits = row.limits
    if account is not None and account.budgets:
        limits = msgspec.structs.replace(limits, budgets=(*limits.budgets, *account.budgets))
    return Principal(
        row.id,
        row.name,
        row.models,
        limits=limits,
        account=row.account,
        group=row.group,
        price_ratio=group.ratio if group is not None else 1.0,
        providers=group.providers if group is not None else (),
        keys=group.keys if group is not None else (),
        networks=row.networks,
        key_id=key_id,
        may_choose_key=row.may_choose_key,
        scopes=row.scopes,
    )


def stored_tokens(
    store: Store, *, max_age: float = 60.0, stale: float = 600.0
) -> StoredTokenVerifier:
    """A `verify` over the tokens of a store; see `StoredTokenVerifier`."""
    return StoredTokenVerifier(store, max_age=max_age, stale=stale)
