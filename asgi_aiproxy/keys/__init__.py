"""API keys of providers, and pools that rotate them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._lazy import on_first_use
from asgi_aiproxy.keys.encryption import NoEncryption, Sealer, SealError
from asgi_aiproxy.keys.health import Health, HealthChange, classify_response
from asgi_aiproxy.keys.key import Key, fingerprint
from asgi_aiproxy.keys.key_state import KeyStatus
from asgi_aiproxy.keys.lease import Lease, NoKeyError
from asgi_aiproxy.keys.pool import KeyPool
from asgi_aiproxy.keys.strategies import Strategy
from asgi_aiproxy.patterns import matches_any, matches_pattern

if TYPE_CHECKING:
    from asgi_aiproxy.keys.resource_records import ResourceOwnership
    from asgi_aiproxy.keys.sources import KeySource, run_command, watch_file

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
    "ResourceOwnership",
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

_HOME = {
    "KeySource": "sources",
    "ResourceOwnership": "resource_records",
    "run_command": "sources",
    "watch_file": "sources",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)
