"""`stored_tokens`: authenticate callers by the tokens of a store; errors name the reason."""

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

_MAX_CACHED_TOKENS = 10_000  # cached valid tokens
_MAX_CACHED_INVALID_TOKENS = 1_000

T = TypeVar("T", bound=msgspec.Struct)


class _CachedVerification(msgspec.Struct, frozen=True):
    """The cached result for a token: a principal accepted until `good_until`, or the reason of the
    refusal.
    """

    principal: Principal | None
    refusal: str
    good_until: float  # Unix time
    checked_at: float  # Unix time
    version: int


class StoredTokenVerifier:
    """Authenticates callers by the tokens of a store: the `verify=` of `Authenticate`.

    Results are cached for `max_age` seconds, and discarded when a table changes: a revoked token is
    refused in all workers within a second. The expiry of a token is checked with every request.
    While the store is unavailable, cached results are used for up to `stale` seconds; for other
    tokens the response is 503.
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
        self._valid: dict[bytes, _CachedVerification] = {}
        self._invalid: dict[bytes, _CachedVerification] = {}
        self._shared_rows: dict[tuple[str, str], tuple[int, float, Any]] = {}
        self._version = 0
        self._stops: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"StoredTokens({self._store!r})"

    async def __call__(self, token: str) -> Principal | None:
        """Return the principal of a token; None if the token does not exist.

        Raises APIError if it has expired, is disabled, or could not be looked up.
        """
        if self._loop is not asyncio.get_running_loop():
            self._watch()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        known = self._valid.get(digest) or self._invalid.get(digest)
        if (
            known is None
            or known.version != self._version
            or now - known.checked_at > self._max_age
        ):
            known = await self._look_up(token, digest, known, now)
        if known.principal is not None and now < known.good_until:
            return known.principal
        if known.refusal:
            raise _refusal_error(known.refusal)
        if known.principal is not None:
            raise _refusal_error("expired")
        return None

    async def recall(self, id: str, digest: str) -> Principal | None:
        """Return the principal of a token that was verified before, by the id and the digest that
        its secret had then; None if the token no longer exists or its secret was replaced.

        For sessions, which do not keep the secret. Raises APIError like a verification.
        """
        if self._loop is not asyncio.get_running_loop():
            self._watch()
        now = self._clock()
        row = await self._tokens.table.find(id)
        valid_until = row.accepts(digest, now) if row is not None else None
        if row is None or valid_until is None:
            return None
        presented = PresentedToken(id, digest)
        found = await self._admit(row, presented, valid_until, now, self._version)
        if found.refusal:
            raise _refusal_error(found.refusal)
        return found.principal

    def _watch(self) -> None:
        """Watch the tables for changes in the running event loop; earlier results are discarded."""
        self._loop = asyncio.get_running_loop()
        self._version += 1
        for stop in self._stops:
            stop()
        tables = (TOKENS, GROUPS, ACCOUNTS)
        self._stops = [self._store.watch(table, self._changed) for table in tables]

    def _changed(self) -> None:
        self._version += 1

    async def _look_up(
        self, token: str, digest: bytes, cached: _CachedVerification | None, now: float
    ) -> _CachedVerification:
        version = self._version  # A change that arrives meanwhile makes this result outdated.
        try:
            found = await self._find(token, now, version)
        except StoreUnavailableError as error:
            if cached is not None and now - cached.checked_at <= self._stale:
                return cached
            raise APIError(
                ErrorKind.OVERLOADED,
                "Your API key cannot be checked at the moment.",
                retry_after=1.0,
            ) from error
        cache, max_size = (
            (self._valid, _MAX_CACHED_TOKENS)
            if found.principal
            else (self._invalid, _MAX_CACHED_INVALID_TOKENS)
        )
        self._valid.pop(digest, None)
        self._invalid.pop(digest, None)
        if len(cache) >= max_size:
            del cache[next(iter(cache))]
        cache[digest] = found
        return found

    async def _find(self, token: str, now: float, version: int) -> _CachedVerification:
        for presented in parse_token(token):
            row = await self._tokens.table.find(presented.id)
            valid_until = row.accepts(presented.digest, now) if row is not None else None
            if row is not None and valid_until is not None:
                return await self._admit(row, presented, valid_until, now, version)
        return _CachedVerification(None, "", 0.0, now, version)

    async def _admit(
        self, row: Token, presented: PresentedToken, valid_until: float, now: float, version: int
    ) -> _CachedVerification:
        def refuse(reason: str) -> _CachedVerification:
            return _CachedVerification(None, reason, 0.0, now, version)

        if not row.enabled:
            return refuse("disabled")
        if now >= valid_until:
            return refuse("expired")
        if presented.key_id and not row.may_choose_key:
            return refuse("pinned")
        group = await self._row(self._tokens.groups, row.group, now, version)
        account = await self._row(self._tokens.accounts, row.account, now, version)
        if (row.group and group is None) or (row.account and account is None):
            # A missing group may have had restrictions that would then not apply.
            return refuse("orphaned")
        if account is not None and not account.enabled:
            return refuse("account")
        kind, _, owner_id = row.owner.partition("/")
        if kind == "token":
            owner = await self._row(self._tokens.table, owner_id, now, version)
            if owner is None or not owner.enabled or now >= (owner.expires or float("inf")):
                return refuse("owner")
        principal = make_principal(row, group, account, key_id=presented.key_id)
        return _CachedVerification(principal, "", valid_until, now, version)

    async def principal_of(self, token_id: str) -> Principal:
        """Return the principal of the token with this id, without its secret.

        Raises APIError: that of a call with this token, if it would be refused, or 404.
        """
        row = await self._tokens.table.find(token_id)
        now = self._clock()
        if row is None:
            message = f"There is no token {token_id!r}."
            raise APIError(ErrorKind.NOT_FOUND, message, code="not_found")
        valid_until = row.expires if row.expires is not None else float("inf")
        presented = PresentedToken(token_id, "")
        found = await self._admit(row, presented, valid_until, now, self._version)
        if found.principal is None:
            raise _refusal_error(found.refusal)
        return found.principal

    async def _row(self, table: Table[T], id: str, now: float, version: int) -> T | None:
        """Return a row that many tokens share, cached like tokens."""
        if not id:
            return None
        known = self._shared_rows.get((table.name, id))
        if known is not None and known[0] == version and now - known[1] <= self._max_age:
            return known[2]  # type: ignore[no-any-return]
        found = await table.find(id)
        if len(self._shared_rows) >= _MAX_CACHED_TOKENS:
            self._shared_rows.clear()
        self._shared_rows[table.name, id] = version, now, found
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
        "The group or account of this API key no longer exists.",
        "api_key_disabled",
    ),
    "owner": (
        ErrorKind.UNAUTHORIZED,
        "The API key that created this one no longer exists, or is disabled or expired.",
        "api_key_disabled",
    ),
    "pinned": (
        ErrorKind.FORBIDDEN,
        "This API key may not choose the provider's key.",
        "key_not_allowed",
    ),
}


def _refusal_error(reason: str) -> APIError:
    kind, message, code = _REFUSALS[reason]
    return APIError(kind, message, code=code)


def make_principal(
    row: Token, group: Group | None, account: Account | None, *, key_id: str = ""
) -> Principal:
    """Return the principal of a token, with the settings of its group and its account."""
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
        tags=row.tags,
    )


def stored_tokens(
    store: Store, *, max_age: float = 60.0, stale: float = 600.0
) -> StoredTokenVerifier:
    """Return a `verify` function for the tokens of a store; see `StoredTokenVerifier`."""
    return StoredTokenVerifier(store, max_age=max_age, stale=stale)
