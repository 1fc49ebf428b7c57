"""Shared state: the store protocol, and MemoryStore. RedisStore is in `stores.redis`."""

from __future__ import annotations

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
