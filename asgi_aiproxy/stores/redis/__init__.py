"""The store in Redis. The only part that needs redis-py, so it is not imported with the others."""

from __future__ import annotations

from asgi_aiproxy.stores.redis.store import RedisStore

__all__ = [
    "RedisStore",
]
