"""Count limits in this process while the store is unavailable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from asgi_aiproxy.stores.base import Admitted, BudgetReservation, Denied, Grant
from asgi_aiproxy.stores.memory import MemoryStore

_MAX_BUDGETS = 10_000
_KEEP_SECONDS = 3600.0


class LocalLimits:
    """Count in a `store` of this process; budgets start with what the shared store said last."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.store = MemoryStore(clock=clock)
        self._left: dict[tuple[str, str], tuple[int, int]] = {}
        self._number = 0

    def record_request(self, admitted: Admitted) -> None:
        """Remember what is left of each budget: an outage starts with that."""
        for grant, left in zip(admitted.grants, admitted.left, strict=False):
            if isinstance(grant, BudgetReservation) and left is not None:
                self._number += 1
                known = (grant.account, grant.name)
                self._left.pop(known, None)
                if len(self._left) >= _MAX_BUDGETS:
                    del self._left[next(iter(self._left))]
                self._left[known] = self._number, left

    async def admit(self, holder: str, grants: Sequence[Grant]) -> Admitted | Denied | None:
        """Admit as a store does; None if the remainder of one of the budgets is unknown."""
        local_grants = []
        for grant in grants:
            local = self._local_grant(grant)
            if local is None:
                return None
            local_grants.append(local)
        return await self.store.admit(holder, local_grants, ttl=_KEEP_SECONDS)

    def _local_grant(self, grant: Grant) -> Grant | None:
        if not isinstance(grant, BudgetReservation):
            return grant
        if (grant.account, grant.name) not in self._left:
            return None
        number, left = self._left[grant.account, grant.name]
        return msgspec.structs.replace(
            grant, name=f"{grant.name}@{number}", cap=left, on_expiry="release", keep=_KEEP_SECONDS
        )
