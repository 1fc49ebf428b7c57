"""A reverse proxy as an ASGI app: forwards a vendor's own API, or any application, unchanged."""

from __future__ import annotations

from asgi_aiproxy.passthrough.proxy import PassthroughProxy
from asgi_aiproxy.providers.base import key_in_subprotocol

__all__ = [
    "PassthroughProxy",
    "key_in_subprotocol",
]
