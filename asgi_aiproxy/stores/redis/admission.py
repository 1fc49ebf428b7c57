"""Encode admissions as arguments of the Lua scripts, and decode their results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from asgi_aiproxy.stores.base import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    Grant,
    NotOnHold,
    RateLimit,
    Settled,
    UsageLevel,
)
from asgi_aiproxy.stores.redis.client import RedisClient
from asgi_aiproxy.stores.redis.keyspace import Keyspace, milliseconds
from asgi_aiproxy.stores.redis.pipeline import Argument
from asgi_aiproxy.stores.redis.scripts import ADMIT, CHARGE, PEEK, RENEW, SETTLE


class Admissions:
    """Admission in one script: on one server, or within one account of a cluster."""

    def __init__(self, client: RedisClient, names: Keyspace) -> None:
        self._client = client
        self._names = names

    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        ttl: float,
        one_of: Sequence[Sequence[Grant]],
    ) -> Admitted | Denied:
        """Take all of `grants`, and the first of `one_of` that can be taken whole, or nothing."""
        every = [*grants, *(grant for choice in one_of for grant in choice)]
        keys: list[str] = []
        arguments: list[Argument] = [holder, milliseconds(ttl), len(grants)]
        for grant in grants:
            self._encode(holder, grant, keys, arguments)
        arguments.append(len(one_of))
        for choice in one_of:
            arguments.append(len(choice))
            for grant in choice:
                self._encode(holder, grant, keys, arguments)
        tag = self._tag(every)
        given, choice_or_grant, *rest = await self._client.run(tag, ADMIT, keys, *arguments)
        if not given:
            left, wait = rest
            return Denied(
                grant=every[choice_or_grant],
                left=left,
                retry_after=wait / 1000 if wait >= 0 else None,
            )
        chosen = one_of[choice_or_grant] if choice_or_grant >= 0 else ()
        return Admitted(
            holder=holder,
            grants=(*grants, *chosen),
            left=tuple(left if left >= 0 else None for left in rest[1:]),
            choice=choice_or_grant,
            at=rest[0] / 1000,
        )

    def _encode(
        self, holder: str, grant: Grant, keys: list[str], arguments: list[Argument]
    ) -> None:
        keys += self._names.of(grant)
        match grant:
            case RateLimit(limit=limit, window=window, amount=amount):
                arguments += ("count", _limit_or_minus_one(limit), milliseconds(window), amount)
            case ConcurrencySlot(limit=limit):
                arguments += ("slot", _limit_or_minus_one(limit))
            case BudgetReservation(cap=cap, amount=amount, on_expiry=on_expiry):
                keys.append(self._names.once(grant.account, "settle", holder))
                arguments += (
                    on_expiry,
                    _limit_or_minus_one(cap),
                    amount,
                    _keep_milliseconds(grant),
                )
            case NotOnHold(name=name):
                arguments += ("clear", name)

    async def settle(self, admitted: Admitted, actual: Mapping[Grant, int]) -> Settled:
        """Free slots, and correct rate limits and budgets to what was really used."""
        keys: list[str] = []
        holder = admitted.holder
        arguments: list[Argument] = [holder, int(admitted.sure), round(admitted.at * 1000)]
        budgets: list[BudgetReservation] = []
        for grant in admitted.grants:
            if isinstance(grant, NotOnHold):
                continue
            if isinstance(grant, ConcurrencySlot):
                keys += self._names.of(grant)
                arguments.append("slot")
                continue
            used = actual.get(grant, grant.amount)
            if isinstance(grant, BudgetReservation):
                budgets.append(grant)
                arguments += ("budget", used, _keep_milliseconds(grant))
            elif used != grant.amount and admitted.sure:
                arguments += ("count", milliseconds(grant.window), used - grant.amount)
            else:
                continue
            keys += self._names.of(grant)
            keys.append(self._names.once(grant.account, "settle", holder))
        if not keys:
            return Settled(first=False, spent={})
        tag = self._tag(admitted.grants)
        done, *spent = await self._client.run(tag, SETTLE, keys, *arguments)
        return Settled(first=bool(done), spent=dict(zip(budgets, spent, strict=True)))

    async def renew(self, admitted: Admitted, ttl: float) -> bool:
        """Extend slots and reservations to `ttl` seconds from now; False if one had expired."""
        keys: list[str] = []
        arguments: list[Argument] = [admitted.holder, milliseconds(ttl)]
        for grant in admitted.grants:
            if isinstance(grant, ConcurrencySlot | BudgetReservation):
                keys += self._names.of(grant)
                arguments.append("slot" if isinstance(grant, ConcurrencySlot) else "budget")
        if not keys:
            return True
        return bool(await self._client.run(self._tag(admitted.grants), RENEW, keys, *arguments))

    async def charge(self, budget: BudgetReservation, once: str) -> int:
        """Add to what is spent, once; returns the amount spent."""
        keys = [*self._names.of(budget), self._names.once(budget.account, "charge", once)]
        spent: int = await self._client.run(
            self._tag([budget]), CHARGE, keys, budget.amount, _keep_milliseconds(budget)
        )
        return spent

    async def peek(self, grants: Sequence[Grant]) -> list[UsageLevel]:
        """How much of each is used now."""
        keys: list[str] = []
        arguments: list[Argument] = []
        for grant in grants:
            keys += self._names.of(grant)
            match grant:
                case RateLimit(window=window):
                    arguments += ("count", milliseconds(window))
                case ConcurrencySlot():
                    arguments.append("slot")
                case BudgetReservation():
                    arguments.append("budget")
                case NotOnHold(name=name):
                    arguments += ("clear", name)
        flat = await self._client.run(self._tag(grants), PEEK, keys, *arguments)
        return [UsageLevel(used, held) for used, held in zip(flat[::2], flat[1::2], strict=True)]

    def _tag(self, grants: Sequence[Grant]) -> str:
        return self._names.tag(grants[0].account) if grants else ""


class ClusterAdmissions(Admissions):
    """Admission on a cluster, where a script can use the keys of one account only.

    Grants of several accounts are admitted in each account at the same time, and released if one
    account denies. No limit is ever exceeded, but for a moment other requests may find it used up.
    """

    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        ttl: float,
        one_of: Sequence[Sequence[Grant]],
    ) -> Admitted | Denied:
        """Take all of `grants`, and the first of `one_of` that can be taken whole, or nothing."""
        where = {grant.account for choice in one_of for grant in choice}
        if len(where) <= 1:
            return await self._admit(holder, grants, ttl, one_of)
        base = await self._admit(holder, grants, ttl, ())
        if isinstance(base, Denied):
            return base
        denied: Denied | None = None
        try:
            for number, choice in enumerate(one_of):
                found = await self._admit(holder, choice, ttl, ())
                if isinstance(found, Admitted):
                    return joined([base, found], (*grants, *choice), number)
                denied = sooner(denied, found)
        except BaseException:
            await self._release_unused([base])
            raise
        await self._release_unused([base])
        return denied if denied is not None else base

    async def _admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        ttl: float,
        one_of: Sequence[Sequence[Grant]],
    ) -> Admitted | Denied:
        parts = _by_account(grants)
        where = next((grant.account for choice in one_of for grant in choice), None)
        if where is not None:
            parts.setdefault(where, [])
        if len(parts) <= 1:
            return await super().admit(holder, grants, ttl, one_of)
        results = await asyncio.gather(
            *(
                super(ClusterAdmissions, self).admit(
                    holder, part, ttl, one_of if account == where else ()
                )
                for account, part in parts.items()
            ),
            return_exceptions=True,
        )
        given = [result for result in results if isinstance(result, Admitted)]
        if len(given) == len(results):
            choice = max(result.choice for result in given)
            chosen = one_of[choice] if choice >= 0 else ()
            return joined(given, (*grants, *chosen), choice)
        await self._release_unused(given)
        denied: Denied | None = None
        for result in results:
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, Denied):
                denied = both(denied, result)
        assert denied is not None  # noqa: S101 (otherwise all were admitted)
        return denied

    async def _release_unused(self, given: Sequence[Admitted]) -> None:
        """Release admissions that were not used. What cannot be released now expires by itself."""
        await asyncio.gather(
            *(self.settle(each, dict.fromkeys(each.grants, 0)) for each in given),
            return_exceptions=True,
        )

    async def settle(self, admitted: Admitted, actual: Mapping[Grant, int]) -> Settled:
        """Free slots, and correct rate limits and budgets to what was really used."""
        results = await asyncio.gather(
            *(super(ClusterAdmissions, self).settle(part, actual) for part in _parts(admitted))
        )
        spent = {grant: sum_ for result in results for grant, sum_ in result.spent.items()}
        return Settled(first=any(result.first for result in results), spent=spent)

    async def renew(self, admitted: Admitted, ttl: float) -> bool:
        """Extend slots and reservations to `ttl` seconds from now; False if one had expired."""
        results = await asyncio.gather(
            *(super(ClusterAdmissions, self).renew(part, ttl) for part in _parts(admitted))
        )
        return all(results)

    async def peek(self, grants: Sequence[Grant]) -> list[UsageLevel]:
        """How much of each is used now."""
        parts = _by_account(grants)
        results = await asyncio.gather(
            *(super(ClusterAdmissions, self).peek(part) for part in parts.values())
        )
        levels = [
            (grant, level)
            for part, found in zip(parts.values(), results, strict=True)
            for grant, level in zip(part, found, strict=True)
        ]
        known = dict(levels)
        return [known[grant] for grant in grants]


def joined(parts: Sequence[Admitted], grants: tuple[Grant, ...], choice: int) -> Admitted:
    """Combine the admissions of several accounts."""
    left = {
        grant: rest for part in parts for grant, rest in zip(part.grants, part.left, strict=True)
    }
    return Admitted(
        holder=parts[0].holder,
        grants=grants,
        left=tuple(left[grant] for grant in grants),
        choice=choice,
        at=parts[0].at,
    )


def both(known: Denied | None, more: Denied) -> Denied:
    """Combine two denials that must both end: the first, with the longer wait."""
    if known is None:
        return more
    waits = [wait for wait in (known.retry_after, more.retry_after) if wait is not None]
    return Denied(grant=known.grant, left=known.left, retry_after=max(waits, default=None))


def sooner(known: Denied | None, more: Denied) -> Denied:
    """Of two denials the one that ends first."""
    if known is None or known.retry_after is None:
        return more
    return more if more.retry_after is not None and more.retry_after < known.retry_after else known


def _by_account(grants: Sequence[Grant]) -> dict[str, list[Grant]]:
    parts: dict[str, list[Grant]] = {}
    for grant in grants:
        parts.setdefault(grant.account, []).append(grant)
    return parts


def _parts(admitted: Admitted) -> list[Admitted]:
    return [
        Admitted(holder=admitted.holder, grants=tuple(part), at=admitted.at, sure=admitted.sure)
        for part in _by_account(admitted.grants).values()
    ]


def _limit_or_minus_one(limit: int | None) -> int:
    return -1 if limit is None else limit


def _keep_milliseconds(budget: BudgetReservation) -> int:
    return 0 if budget.keep is None else milliseconds(budget.keep)
