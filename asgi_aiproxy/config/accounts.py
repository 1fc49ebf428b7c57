"""The users that settings describe."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from asgi_aiproxy.principal import Budget
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.users import UserService
from asgi_aiproxy.stores import Store

if TYPE_CHECKING:
    from asgi_aiproxy.config.settings import Settings


def make_users(settings: Settings, store: Store, audit: AuditLog) -> UserService:
    """Return the service that manages users."""
    given = settings.accounts.credit or ["0"]
    credit = tuple(Budget.parse(text, shared=True) for text in given)
    return UserService(store, credit=credit, audit=audit)


def link_url(settings: Settings, page: str, secret: str) -> str:
    """Return the URL of a page of the console with the secret of a one-time link."""
    base = settings.accounts.url.rstrip("/") or "/console"
    return f"{base}/{page}?{urlencode({'link': secret})}"
