"""ASGI middlewares: each takes the app it wraps first."""

from __future__ import annotations

from asgi_aiproxy.middleware.auth import Authenticate, static_tokens
from asgi_aiproxy.middleware.inject import InjectKey

__all__ = ["Authenticate", "InjectKey", "static_tokens"]
