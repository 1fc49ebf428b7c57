"""The store in Redis. It needs redis-py, so that it is not imported with `asgi_aiproxy.stores`."""

from __future__ import annotations

from asgi_aiproxy.stores.redis.store import RedisStore

__all__ = [
    "RedisStore",
]
