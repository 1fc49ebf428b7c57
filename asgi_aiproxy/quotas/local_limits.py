"""Limits by what this process knows, while the store is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from asgi_aiproxy.stores.base import Admitted, BudgetReservation, Denied, Grant
from asgi_aiproxy.stores.memory import MemoryStore

_MOST = 10_000
_KEEP = 3600.0  # seconds


class LocalLimits:
    """Counts on its own, in `store`. Of a budget there is as much left as the store said last."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.store = MemoryStore(clock=clock)
        self._left: dict[tuple[str, str], tuple[int, int]] = {}
        self._number = 0

    def record_request(self, admitted: Admitted) -> None:
        """Note what is left of each budget: with that a time without the store begins anew."""
        for grant, left in zip(admitted.grants, admitted.left, strict=False):
            if isinstance(grant, BudgetReservation) and left is not None:
                self._number += 1
                known = (grant.account, grant.name)
                self._left.pop(known, None)
                if len(self._left) >= _MOST:
                    del self._left[next(iter(self._left))]
                self._left[known] = self._number, left

    async def admit(self, holder: str, grants: Sequence[Grant]) -> Admitted | Denied | None:
        """As a store does; None if nothing is known of one of the budgets."""
        mine = []
        for grant in grants:
            here = self._here(grant)
            if here is None:
                return None
            mine.append(here)
        return await self.store.admit(holder, mine, ttl=_KEEP)

    def _here(self, grant: Grant) -> Grant | None:
        if not isinstance(grant, BudgetReservation):
            return grant
        if (grant.account, grant.name) not in self._left:
            return None
        number, left = self._left[grant.account, grant.name]
        return msgspec.structs.replace(
            grant, name=f"{grant.name}@{number}", cap=left, on_expiry="release", keep=_KEEP
        )
