"""The accounts of callers: tokens, groups, accounts, budgets and vouchers, kept in a store."""

from __future__ import annotations

from asgi_aiproxy.accounts.groups import Account, Group
from asgi_aiproxy.accounts.table import NoSuchRowError, RowExistsError
from asgi_aiproxy.accounts.token import Token
from asgi_aiproxy.accounts.token_verifier import StoredTokenVerifier, stored_tokens
from asgi_aiproxy.accounts.tokens import Tokens
from asgi_aiproxy.accounts.vouchers import Voucher, VoucherError, Vouchers

__all__ = [
    "Account",
    "Group",
    "NoSuchRowError",
    "RowExistsError",
    "StoredTokenVerifier",
    "Token",
    "Tokens",
    "Voucher",
    "VoucherError",
    "Vouchers",
    "stored_tokens",
]
