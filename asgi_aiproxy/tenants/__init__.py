"""Who may spend what: tokens, groups, accounts, budgets and vouchers, kept in a store."""

from __future__ import annotations

from asgi_aiproxy.tenants.door import StoredTokens, stored_tokens
from asgi_aiproxy.tenants.group import Account, Group
from asgi_aiproxy.tenants.table import NoSuchRowError, RowExistsError
from asgi_aiproxy.tenants.token import Token
from asgi_aiproxy.tenants.tokens import Tokens
from asgi_aiproxy.tenants.vouchers import Voucher, VoucherError, Vouchers

__all__ = [
    "Account",
    "Group",
    "NoSuchRowError",
    "RowExistsError",
    "StoredTokens",
    "Token",
    "Tokens",
    "Voucher",
    "VoucherError",
    "Vouchers",
    "stored_tokens",
]
