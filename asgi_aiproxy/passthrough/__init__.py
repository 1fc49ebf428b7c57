"""A reverse proxy as an ASGI app: a vendor's own API, or any application, passed on as it is."""

from __future__ import annotations

from asgi_aiproxy.passthrough.proxy import PassthroughProxy
from asgi_aiproxy.providers.base import key_in_subprotocol

__all__ = [
    "PassthroughProxy",
    "key_in_subprotocol",
]
