"""Apps with the paths of earlier gateways, built from the public apps of this package."""

from __future__ import annotations

from asgi_aiproxy.compat.aiproxy import AIProxyRoutes

__all__ = [
    "AIProxyRoutes",
]
