"""Shared state: the protocol, and the store within one process. Redis is in `stores.redis`."""

from __future__ import annotations

from asgi_aiproxy.stores.base import (
    ANYTHING,
    Admitted,
    Away,
    Clear,
    Count,
    Grant,
    Hold,
    Level,
    Refused,
    Reserve,
    Settled,
    Slot,
    Store,
    StoreUnavailableError,
)
from asgi_aiproxy.stores.memory import MemoryStore

__all__ = [
    "ANYTHING",
    "Admitted",
    "Away",
    "Clear",
    "Count",
    "Grant",
    "Hold",
    "Level",
    "MemoryStore",
    "Refused",
    "Reserve",
    "Settled",
    "Slot",
    "Store",
    "StoreUnavailableError",
]
