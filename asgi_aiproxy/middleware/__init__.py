"""ASGI middlewares: each takes the app it wraps first."""

from __future__ import annotations

from asgi_aiproxy.accounts.token_verifier import stored_tokens
from asgi_aiproxy.middleware.auth import Authenticate, first_of, static_tokens
from asgi_aiproxy.middleware.health import Health
from asgi_aiproxy.middleware.inject import InjectKey
from asgi_aiproxy.middleware.jwt import JWTClaims, JWTGroup, jwt_tokens
from asgi_aiproxy.middleware.load_shedder import LoadShedder, priority_by_name
from asgi_aiproxy.middleware.quota import Quota

__all__ = [
    "Authenticate",
    "Health",
    "InjectKey",
    "JWTClaims",
    "JWTGroup",
    "LoadShedder",
    "Quota",
    "first_of",
    "jwt_tokens",
    "priority_by_name",
    "static_tokens",
    "stored_tokens",
]
