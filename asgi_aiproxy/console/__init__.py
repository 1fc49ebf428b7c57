"""The console of a gateway: pages for operators and users, without a build step or another host."""

from __future__ import annotations

from asgi_aiproxy.console.app import Console
from asgi_aiproxy.console.sessions import Session, SessionStore
from asgi_aiproxy.console.site import Site

__all__ = [
    "Console",
    "Session",
    "SessionStore",
    "Site",
]
