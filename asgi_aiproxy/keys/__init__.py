"""API keys of providers, and pools that rotate them."""

from __future__ import annotations

from asgi_aiproxy.keys.encryption import NoEncryption, Sealer, SealError
from asgi_aiproxy.keys.health import Health, HealthChange, classify_response
from asgi_aiproxy.keys.key import Key, fingerprint
from asgi_aiproxy.keys.key_state import KeyStatus
from asgi_aiproxy.keys.lease import Lease, NoKeyError
from asgi_aiproxy.keys.pool import KeyPool
from asgi_aiproxy.keys.sources import KeySource, run_command, watch_file
from asgi_aiproxy.keys.strategies import Strategy
from asgi_aiproxy.patterns import matches_any, matches_pattern

__all__ = [
    "Health",
    "HealthChange",
    "Key",
    "KeyPool",
    "KeySource",
    "KeyStatus",
    "Lease",
    "NoEncryption",
    "NoKeyError",
    "SealError",
    "Sealer",
    "Strategy",
    "classify_response",
    "fingerprint",
    "matches_any",
    "matches_pattern",
    "run_command",
    "watch_file",
]
