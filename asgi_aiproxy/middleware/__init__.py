"""ASGI middlewares: each takes the app it wraps first."""

from __future__ import annotations

from asgi_aiproxy.middleware.auth import Authenticate, static_tokens

__all__ = ["Authenticate", "static_tokens"]
