"""The admin API of a gateway: manage its tokens, keys and budgets, and read its usage records."""

from __future__ import annotations

from asgi_aiproxy.admin.app import AdminApp
from asgi_aiproxy.admin.billing import Billing
from asgi_aiproxy.services.own_tokens import TokenAllowance

__all__ = [
    "AdminApp",
    "Billing",
    "TokenAllowance",
]
