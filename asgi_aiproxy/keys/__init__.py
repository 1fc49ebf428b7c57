"""Provider keys and their pools."""

from __future__ import annotations

from asgi_aiproxy.keys.key import Key, fingerprint, matches, serves
from asgi_aiproxy.keys.lease import Lease, NoKeyError
from asgi_aiproxy.keys.pool import KeyPool
from asgi_aiproxy.keys.sealer import Sealer, SealError, Unsealed
from asgi_aiproxy.keys.slot import KeyStatus
from asgi_aiproxy.keys.strategies import Strategy
from asgi_aiproxy.keys.verdict import Health, Verdict, verdict

__all__ = [
    "Health",
    "Key",
    "KeyPool",
    "KeyStatus",
    "Lease",
    "NoKeyError",
    "SealError",
    "Sealer",
    "Strategy",
    "Unsealed",
    "Verdict",
    "fingerprint",
    "matches",
    "serves",
    "verdict",
]
