"""An AI gateway to mount in a Python web service: composable ASGI apps and middlewares."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgi_aiproxy.admin import AdminApp
    from asgi_aiproxy.errors import AIProxyError, APIError, ConfigurationError, Kind
    from asgi_aiproxy.hosting import lifespan, mount
    from asgi_aiproxy.identity import Budget, Limits, Principal
    from asgi_aiproxy.inprocess import in_process
    from asgi_aiproxy.keys import Key, KeyPool
    from asgi_aiproxy.ledger import Ledger
    from asgi_aiproxy.middleware import Authenticate, Health, InjectKey, Quota
    from asgi_aiproxy.passthrough import PassthroughProxy
    from asgi_aiproxy.prices import Price, Prices, Ratios
    from asgi_aiproxy.providers import Provider, Target
    from asgi_aiproxy.request_limits import RequestLimits
    from asgi_aiproxy.router import ProviderRouter
    from asgi_aiproxy.shim import AIShim, AnthropicShim, GeminiShim, OpenAIShim, Shim
    from asgi_aiproxy.sinks import JSONLines
    from asgi_aiproxy.stores import MemoryStore
    from asgi_aiproxy.stores.redis import RedisStore
    from asgi_aiproxy.tenants import Tokens, stored_tokens
    from asgi_aiproxy.upstream import HttpxTransport, ReqwestTransport, SocketTransport, Timeouts
    from asgi_aiproxy.usage import UsageRecord, log_usage, tee

__version__ = "0.1.0"

__all__ = [
    "AIProxyError",
    "AIShim",
    "APIError",
    "AdminApp",
    "AnthropicShim",
    "Authenticate",
    "Budget",
    "ConfigurationError",
    "GeminiShim",
    "Health",
    "HttpxTransport",
    "InjectKey",
    "JSONLines",
    "Key",
    "KeyPool",
    "Kind",
    "Ledger",
    "Limits",
    "MemoryStore",
    "OpenAIShim",
    "PassthroughProxy",
    "Price",
    "Prices",
    "Principal",
    "Provider",
    "ProviderRouter",
    "Quota",
    "Ratios",
    "RedisStore",
    "RequestLimits",
    "ReqwestTransport",
    "Shim",
    "SocketTransport",
    "Target",
    "Timeouts",
    "Tokens",
    "UsageRecord",
    "in_process",
    "lifespan",
    "log_usage",
    "mount",
    "stored_tokens",
    "tee",
]

# Names are found when they are asked for, so that who uses one piece does not load them all.
_HOME = {
    "AIShim": "shim",
    "AIProxyError": "errors",
    "APIError": "errors",
    "AnthropicShim": "shim",
    "AdminApp": "admin",
    "Authenticate": "middleware",
    "Budget": "identity",
    "GeminiShim": "shim",
    "ConfigurationError": "errors",
    "HttpxTransport": "upstream",
    "Health": "middleware",
    "InjectKey": "middleware",
    "JSONLines": "sinks",
    "Key": "keys",
    "KeyPool": "keys",
    "Kind": "errors",
    "Ledger": "ledger",
    "Limits": "identity",
    "MemoryStore": "stores",
    "OpenAIShim": "shim",
    "PassthroughProxy": "passthrough",
    "Price": "prices",
    "Prices": "prices",
    "Principal": "identity",
    "Provider": "providers",
    "ProviderRouter": "router",
    "Quota": "middleware",
    "Ratios": "prices",
    "RedisStore": "stores.redis",
    "ReqwestTransport": "upstream",
    "RequestLimits": "request_limits",
    "Shim": "shim",
    "SocketTransport": "upstream",
    "Target": "providers",
    "Timeouts": "upstream",
    "Tokens": "tenants",
    "UsageRecord": "usage",
    "in_process": "inprocess",
    "lifespan": "hosting",
    "log_usage": "usage",
    "mount": "hosting",
    "stored_tokens": "tenants",
    "tee": "usage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
