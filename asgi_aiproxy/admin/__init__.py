"""Looking after a gateway: its tokens, keys, budgets and books."""

from __future__ import annotations

from asgi_aiproxy.admin.app import AdminApp
from asgi_aiproxy.admin.billing import Billing

__all__ = [
    "AdminApp",
    "Billing",
]
