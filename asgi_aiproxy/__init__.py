"""An AI gateway to mount in a Python web service: composable ASGI apps and middlewares."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgi_aiproxy.errors import AIProxyError, APIError, ConfigurationError, Kind
    from asgi_aiproxy.hosting import lifespan, mount
    from asgi_aiproxy.identity import Principal
    from asgi_aiproxy.inprocess import in_process
    from asgi_aiproxy.keys import Key, KeyPool
    from asgi_aiproxy.middleware import Authenticate, InjectKey
    from asgi_aiproxy.passthrough import PassthroughProxy
    from asgi_aiproxy.providers import Provider, Target
    from asgi_aiproxy.router import ProviderRouter
    from asgi_aiproxy.shim import OpenAIShim, Shim
    from asgi_aiproxy.upstream import HttpxTransport, ReqwestTransport, Timeouts
    from asgi_aiproxy.usage import UsageRecord, log_usage, tee

__version__ = "0.1.0"

__all__ = [
    "AIProxyError",
    "APIError",
    "Authenticate",
    "ConfigurationError",
    "HttpxTransport",
    "InjectKey",
    "Key",
    "KeyPool",
    "Kind",
    "OpenAIShim",
    "PassthroughProxy",
    "Principal",
    "Provider",
    "ProviderRouter",
    "ReqwestTransport",
    "Shim",
    "Target",
    "Timeouts",
    "UsageRecord",
    "in_process",
    "lifespan",
    "log_usage",
    "mount",
    "tee",
]

# Names are found when they are asked for, so that who uses one piece does not load them all.
_HOME = {
    "AIProxyError": "errors",
    "APIError": "errors",
    "Authenticate": "middleware",
    "ConfigurationError": "errors",
    "HttpxTransport": "upstream",
    "InjectKey": "middleware",
    "Key": "keys",
    "KeyPool": "keys",
    "Kind": "errors",
    "OpenAIShim": "shim",
    "PassthroughProxy": "passthrough",
    "Principal": "identity",
    "Provider": "providers",
    "ProviderRouter": "router",
    "ReqwestTransport": "upstream",
    "Shim": "shim",
    "Target": "providers",
    "Timeouts": "upstream",
    "UsageRecord": "usage",
    "in_process": "inprocess",
    "lifespan": "hosting",
    "log_usage": "usage",
    "mount": "hosting",
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
