"""Self-service: callers manage tokens of their own within what the operator allows.

Theory of operation. A caller is a token of the store, or a user of the host. What it creates gets
it as `owner`, and its group, account and networks. The ids of its tokens are in one row of the
table `owners`, which is changed by compare-and-set: so the number of tokens is limited also for
concurrent requests, and an owner's tokens are found without reading those of others. An id in that
row without a token (removed by an operator, or the process died in between) stops to count an hour
after it was added.

Nothing may be gained by it:

- a token gets no model, budget or lifetime beyond the allowance, and no model that its owner lacks;
- it has no scopes and may not select API keys;
- a caller with limits of its own (not those of its account) cannot create any: they would not apply
  to the new ones;
- a token that was created so manages only itself;
- when its owner, a token, is removed, disabled or expired, it is refused, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec
from msgspec import UNSET, UnsetType

from asgi_aiproxy.accounts import NoSuchRowError, RowExistsError, Token
from asgi_aiproxy.accounts.groups import TokenOwner
from asgi_aiproxy.accounts.token import new_secret, parse_token
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.patterns import matches_any
from asgi_aiproxy.principal import Budget, Principal
from asgi_aiproxy.services.base import ROOT, Actor, Ok, Page
from asgi_aiproxy.services.budgets import BudgetIn, to_budgets
from asgi_aiproxy.services.tokens import (
    Issued,
    Name,
    Patterns,
    Rotation,
    TokenEdit,
    TokenNew,
    TokenOut,
    TokenService,
)

_DAY = 86400.0
_CLAIM_SECONDS = 3600.0  # for which an id counts although there is no such token
_WILDCARDS = frozenset("*?")


class TokenAllowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may create for itself.

    `tokens` is how many tokens (0: none). `models` are patterns of the models that they may request
    (empty: those of the caller). Each token gets these `budgets`, or lower ones; empty: no budget
    of its own. `days` is the longest lifetime of a token; None: unlimited.
    """

    tokens: int = 0
    models: tuple[str, ...] = ()
    budgets: tuple[Budget, ...] = ()
    days: float | None = None


class OwnTokenNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to create for oneself. `expires` is Unix time; members that are omitted are what the
    operator allows.
    """

    name: Name
    expires: float | None = None
    models: Patterns = ()
    budgets: tuple[BudgetIn | str, ...] = ()


class OwnTokenEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change of one's own token; omitted fields stay unchanged."""

    name: Name | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    expires: float | UnsetType | None = UNSET
    models: Patterns | UnsetType | None = UNSET
    budgets: tuple[BudgetIn | str, ...] | UnsetType | None = UNSET


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller may create: how many more tokens (0 and the `reason`, if none), of which
    models, with which budgets, and for how many days.
    """

    tokens: int
    models: tuple[str, ...]
    budgets: tuple[str, ...]
    days: float | None
    reason: str = ""


class OwnTokenService:
    """Manages the tokens of callers, each its own. Raises the same errors as `TokenService`."""

    def __init__(
        self,
        tokens: TokenService,
        allowance: TokenAllowance,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = tokens
        self._tokens = tokens.tokens
        self._allowance = allowance
        self._clock = clock

    async def page(self, caller: Principal) -> Page[TokenOut]:
        """Return the caller's tokens: itself, if it is one, and those that it has created."""
        return Page(await self._service.many(await self.ids(caller)))

    async def ids(self, caller: Principal) -> list[str]:
        """Return the ids of the caller's tokens."""
        own = await self._tokens.table.find(caller.id) if _is_known(caller) else None
        found = [caller.id] if own is not None else []
        row = await self._tokens.owners.find(_owner(caller, own)) if _is_known(caller) else None
        return found + list(row.tokens if row is not None else {})

    async def allowed(self, caller: Principal) -> Allowed:
        """Return what the caller may create."""
        allowance = self._allowance
        reason = ""
        left = 0
        models: tuple[str, ...] = ()
        try:
            own = await self._check_may_create(caller)
            models = _allowed_models((), caller.models, allowance.models)
            row = await self._tokens.owners.find(_owner(caller, own))
            left = max(0, allowance.tokens - len(row.tokens if row is not None else {}))
            reason = "" if left else self._too_many()
        except APIError as error:
            reason = error.message
        return Allowed(
            tokens=left,
            models=models,
            budgets=tuple(map(_written, allowance.budgets)),
            days=allowance.days,
            reason=reason,
        )

    async def get(self, id: str, caller: Principal) -> TokenOut:
        """Return one of the caller's tokens."""
        await self._check_is_own(id, caller)
        return await self._service.get(id)

    async def issue(self, new: OwnTokenNew, by: Actor) -> Issued:
        """Create a token for the caller."""
        caller = by.principal
        own = await self._check_may_create(caller)
        owner = _owner(caller, own)
        secret = new_secret()
        id = parse_token(secret)[0].id
        wanted = TokenNew(
            name=new.name,
            secret=secret,
            models=_allowed_models(new.models, caller.models, self._allowance.models),
            budgets=self._allowed_budgets(new.budgets),
            expires=self._allowed_expiry(new.expires),
            networks=caller.networks,
            account=caller.account,
            group=caller.group,
        )
        await self._claim(owner, id)
        try:
            return await self._service.issue(wanted, by, owner=owner)
        except BaseException:
            await self._release(owner, id)
            raise

    async def edit(self, id: str, change: OwnTokenEdit, by: Actor) -> TokenOut:
        """Change one of the tokens that the caller has created."""
        caller = by.principal
        await self._check_created(id, caller)
        fields = {
            name: value
            for name, value in msgspec.structs.asdict(change).items()
            if value is not UNSET
        }
        if "models" in fields:
            models = fields["models"] or ()
            fields["models"] = _allowed_models(models, caller.models, self._allowance.models)
        if "budgets" in fields:
            fields["budgets"] = self._allowed_budgets(fields["budgets"] or ())
        if "expires" in fields:
            fields["expires"] = self._allowed_expiry(fields["expires"])
        return await self._service.edit(id, TokenEdit(**fields), by)

    async def rotate(self, id: str, rotation: Rotation, by: Actor) -> Issued:
        """Replace the secret of one of the caller's tokens."""
        await self._check_is_own(id, by.principal)
        allowed = replace(by.principal, scopes=ROOT.scopes)  # the token may have scopes
        return await self._service.rotate(
            id, rotation, msgspec.structs.replace(by, principal=allowed)
        )

    async def revoke(self, id: str, by: Actor) -> Ok:
        """Remove one of the tokens that the caller has created."""
        owner = await self._check_created(id, by.principal)
        await self._service.revoke(id, by)
        await self._release(owner, id)
        return Ok()

    # checks

    async def _check_may_create(self, caller: Principal) -> Token | None:
        """Return the caller's own row, if it is a token. Raises APIError (403)."""
        own = await self._tokens.table.find(caller.id) if _is_known(caller) else None
        message = ""
        if not _is_known(caller):
            message = "The administrator's token is not a user: create tokens for others instead."
        elif not self._allowance.tokens:
            message = "The operator has not enabled that callers create tokens."
        elif own is not None and own.owner:
            message = "This token was created by its user: it manages only itself."
        elif _has_own_limits(caller):
            message = "You have limits of your own, which would not apply to another token."
        elif own is None and _is_restricted(caller) and not await self._has_group(caller):
            message = "You are restricted in a way that would not apply to another token."
        if message:
            raise APIError(ErrorKind.FORBIDDEN, message, code="self_service")
        return own

    async def _has_group(self, caller: Principal) -> bool:
        """Return whether the store has the caller's group, with the same restrictions."""
        group = await self._tokens.groups.find(caller.group) if caller.group else None
        return group is not None and (group.providers, group.keys, group.ratio) == (
            caller.providers,
            caller.keys,
            caller.price_ratio,
        )

    async def _check_is_own(self, id: str, caller: Principal) -> None:
        if not _is_known(caller) or id not in await self.ids(caller):
            raise NoSuchRowError(f"There is no row {id!r} in tokens.")

    async def _check_created(self, id: str, caller: Principal) -> str:
        """Return the owner of a token that the caller has created. Raises NoSuchRowError."""
        await self._check_is_own(id, caller)
        if id == caller.id:
            message = "A token that the operator has issued can only be changed by the operator."
            raise APIError(ErrorKind.FORBIDDEN, message, code="self_service")
        return _owner(caller, await self._tokens.table.find(caller.id))

    def _allowed_budgets(self, given: Sequence[BudgetIn | str]) -> tuple[str, ...]:
        wanted = {(budget.unit, budget.per): budget for budget in to_budgets(given)}
        for most in self._allowance.budgets:
            budget = wanted.setdefault((most.unit, most.per), most)
            if budget.limit > most.limit:
                message = f"budgets: {_written(budget)} is more than {_written(most)}."
                raise invalid(message, "budgets")
        return tuple(map(_written, wanted.values()))

    def _allowed_expiry(self, expires: float | None) -> float | None:
        if self._allowance.days is None:
            return expires
        latest = self._clock() + self._allowance.days * _DAY
        if expires is not None and expires > latest:
            message = f"expires: a token may be valid for {self._allowance.days:g} days at most."
            raise invalid(message, "expires")
        return latest if expires is None else expires

    def _too_many(self) -> str:
        return (
            f"You have {self._allowance.tokens} tokens, and may not have more: remove one that is "
            "not used."
        )

    # the list of an owner's tokens

    async def _claim(self, owner: str, id: str) -> None:
        """Add an id to the owner's list. Raises APIError (403) if there are too many."""
        owners = self._tokens.owners
        with suppress(RowExistsError):
            await owners.create(owner, TokenOwner())
        row = await owners.get(owner)
        existing = await self._tokens.store.rows(self._tokens.table.name, list(row.tokens))
        now = self._clock()

        def add(row: TokenOwner) -> TokenOwner:
            kept = {
                known: at
                for known, at in row.tokens.items()
                if known in existing or now - at < _CLAIM_SECONDS
            }
            if len(kept) >= self._allowance.tokens:
                raise APIError(ErrorKind.FORBIDDEN, self._too_many(), code="self_service")
            return TokenOwner({**kept, id: now})

        await owners.edit(owner, add)

    async def _release(self, owner: str, id: str) -> None:
        with suppress(NoSuchRowError):
            await self._tokens.owners.edit(
                owner,
                lambda row: TokenOwner({k: at for k, at in row.tokens.items() if k != id}),
            )


def _is_known(caller: Principal) -> bool:
    return bool(caller.id) and caller != ROOT


def _owner(caller: Principal, own: Token | None) -> str:
    return f"token/{caller.id}" if own is not None else f"user/{caller.id}"


def _has_own_limits(caller: Principal) -> bool:
    limits = caller.limits
    rates = (limits.rpm, limits.tpm, limits.concurrency)
    return any(rates) or any(not budget.shared for budget in limits.budgets)


def _is_restricted(caller: Principal) -> bool:
    return bool(caller.providers or caller.keys or caller.price_ratio != 1.0)


def _allowed_models(
    wanted: Sequence[str], callers: Sequence[str], allowed: Sequence[str]
) -> tuple[str, ...]:
    """Return the patterns of a new token. Raises APIError if one exceeds what is allowed."""
    limits = [patterns for patterns in (callers, allowed) if patterns]
    if not limits:
        return tuple(wanted)
    if not wanted:
        candidates = dict.fromkeys(pattern for patterns in limits for pattern in patterns)
        found = tuple(each for each in candidates if _covered(each, limits))
        if not found:
            raise invalid("models: you may use no model that new tokens may use.", "models")
        return found
    for pattern in wanted:
        if not _covered(pattern, limits):
            known = ", ".join(dict.fromkeys(each for patterns in limits for each in patterns))
            raise invalid(f"models: {pattern!r} is not allowed; allowed are: {known}.", "models")
    return tuple(wanted)


def _covered(pattern: str, limits: Sequence[Sequence[str]]) -> bool:
    plain = _WILDCARDS.isdisjoint(pattern)
    return all(
        pattern in patterns or (plain and matches_any(tuple(patterns), pattern))
        for patterns in limits
    )


def _written(budget: Budget) -> str:
    """Return a budget as it is written in settings."""
    amount = f"{budget.limit} units"
    if budget.unit == "usd":
        amount = f"{budget.limit / 1_000_000:.6f}".rstrip("0").rstrip(".")
    return amount if budget.per == "total" else f"{amount}/{budget.per}"
