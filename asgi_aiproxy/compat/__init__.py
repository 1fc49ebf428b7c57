"""Apps with the paths of earlier gateways, built from the public apps of this package."""

from __future__ import annotations

from asgi_aiproxy.compat.adapter_images import AdapterImages
from asgi_aiproxy.compat.aiproxy import AIProxyRoutes
from asgi_aiproxy.compat.chatgpt_adapter import ChatGPTAdapterRoutes
from asgi_aiproxy.compat.chatgpt_to_api import ChatGPTToAPIRoutes
from asgi_aiproxy.compat.oneapi import OneAPIRoutes
from asgi_aiproxy.compat.outbound_proxies import parse_proxies

__all__ = [
    "AIProxyRoutes",
    "AdapterImages",
    "ChatGPTAdapterRoutes",
    "ChatGPTToAPIRoutes",
    "OneAPIRoutes",
    "parse_proxies",
]
