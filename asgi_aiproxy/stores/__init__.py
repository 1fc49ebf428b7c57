"""Shared state: the store protocol, and MemoryStore. RedisStore is in `stores.redis`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._lazy import on_first_use
from asgi_aiproxy.stores.base import (
    ANYTHING,
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    Grant,
    Hold,
    NotOnHold,
    OutagePolicy,
    RateLimit,
    Settled,
    Store,
    StoreUnavailableError,
    UsageLevel,
)

if TYPE_CHECKING:
    from asgi_aiproxy.stores.memory import MemoryStore

__all__ = [
    "ANYTHING",
    "Admitted",
    "BudgetReservation",
    "ConcurrencySlot",
    "Denied",
    "Grant",
    "Hold",
    "MemoryStore",
    "NotOnHold",
    "OutagePolicy",
    "RateLimit",
    "Settled",
    "Store",
    "StoreUnavailableError",
    "UsageLevel",
]

_HOME = {
    "MemoryStore": "memory",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)
