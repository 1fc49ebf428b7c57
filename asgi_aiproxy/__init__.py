"""An AI gateway to mount in a Python web service: composable ASGI apps and middlewares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._lazy import on_first_use

if TYPE_CHECKING:
    from asgi_aiproxy.accounts import Tokens, stored_tokens
    from asgi_aiproxy.admin import AdminApp
    from asgi_aiproxy.errors import AIProxyError, APIError, ConfigurationError, ErrorKind
    from asgi_aiproxy.hosting import Dispatcher, lifespan
    from asgi_aiproxy.inprocess import InProcessTransport
    from asgi_aiproxy.keys import Key, KeyPool, ResourceOwnership
    from asgi_aiproxy.middleware import Authenticate, Health, InjectKey, Quota
    from asgi_aiproxy.passthrough import PassthroughProxy
    from asgi_aiproxy.prices import Price, Prices, Ratios
    from asgi_aiproxy.principal import Budget, Limits, Principal
    from asgi_aiproxy.providers import Provider, Target
    from asgi_aiproxy.request_limits import RequestLimits
    from asgi_aiproxy.responses_state import ResponseState
    from asgi_aiproxy.router import ProviderRouter
    from asgi_aiproxy.shim import AIShim, AnthropicShim, GeminiShim, OpenAIShim, Shim
    from asgi_aiproxy.stores import MemoryStore
    from asgi_aiproxy.stores.redis import RedisStore
    from asgi_aiproxy.typed_calls import InProcess
    from asgi_aiproxy.upstream import HttpxTransport, ReqwestTransport, SocketTransport, Timeouts
    from asgi_aiproxy.usage.ledger import Ledger
    from asgi_aiproxy.usage.log import log_usage
    from asgi_aiproxy.usage.record import UsageRecord
    from asgi_aiproxy.usage.recorder import tee
    from asgi_aiproxy.usage.sinks import JSONLinesSink

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
    "Dispatcher",
    "ErrorKind",
    "GeminiShim",
    "Health",
    "HttpxTransport",
    "InProcess",
    "InProcessTransport",
    "InjectKey",
    "JSONLinesSink",
    "Key",
    "KeyPool",
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
    "ResourceOwnership",
    "ResponseState",
    "Shim",
    "SocketTransport",
    "Target",
    "Timeouts",
    "Tokens",
    "UsageRecord",
    "lifespan",
    "log_usage",
    "stored_tokens",
    "tee",
]

_HOME = {
    "AIProxyError": "errors",
    "AIShim": "shim",
    "APIError": "errors",
    "AdminApp": "admin",
    "AnthropicShim": "shim",
    "Authenticate": "middleware",
    "Budget": "principal",
    "ConfigurationError": "errors",
    "ErrorKind": "errors",
    "GeminiShim": "shim",
    "Health": "middleware",
    "HttpxTransport": "upstream",
    "InProcess": "typed_calls",
    "InProcessTransport": "inprocess",
    "InjectKey": "middleware",
    "JSONLinesSink": "usage.sinks",
    "Key": "keys",
    "KeyPool": "keys",
    "ResourceOwnership": "keys",
    "Ledger": "usage.ledger",
    "Limits": "principal",
    "MemoryStore": "stores",
    "Dispatcher": "hosting",
    "OpenAIShim": "shim",
    "PassthroughProxy": "passthrough",
    "Price": "prices",
    "Prices": "prices",
    "Principal": "principal",
    "Provider": "providers",
    "ProviderRouter": "router",
    "Quota": "middleware",
    "Ratios": "prices",
    "RedisStore": "stores.redis",
    "RequestLimits": "request_limits",
    "ResponseState": "responses_state",
    "ReqwestTransport": "upstream",
    "Shim": "shim",
    "SocketTransport": "upstream",
    "Target": "providers",
    "Timeouts": "upstream",
    "Tokens": "accounts",
    "UsageRecord": "usage.record",
    "lifespan": "hosting",
    "log_usage": "usage.log",
    "stored_tokens": "accounts",
    "tee": "usage.recorder",
}

__getattr__, __dir__ = on_first_use(__name__, _HOME)
