"""How requests reach providers."""

from __future__ import annotations

import functools
import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgi_aiproxy.upstream.base import Incoming, Outgoing, Timeouts, Transport, check_transport

if TYPE_CHECKING:
    from asgi_aiproxy.upstream.httpx import HttpxTransport
    from asgi_aiproxy.upstream.reqwest import ReqwestTransport
    from asgi_aiproxy.upstream.sockets import SocketTransport

logger = logging.getLogger("asgi_aiproxy")

__all__ = [
    "HttpxTransport",
    "Incoming",
    "Outgoing",
    "ReqwestTransport",
    "SocketTransport",
    "Timeouts",
    "Transport",
    "check_transport",
    "default_transport",
]

_LAZY = {
    "HttpxTransport": "asgi_aiproxy.upstream.httpx",
    "ReqwestTransport": "asgi_aiproxy.upstream.reqwest",
    "SocketTransport": "asgi_aiproxy.upstream.sockets",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def default_transport(
    *,
    timeouts: Timeouts | None = None,
    max_connections: int = 1000,
    proxy: str | None = None,
    ca: str | Path | bytes | None = None,
    http2: bool = False,
) -> Transport:
    """The transport to take where nothing else is known: this package's own.

    HTTP/2 is pyreqwest's, or httpx's where pyreqwest has no build for this platform.
    """
    options: dict[str, Any] = {
        "timeouts": timeouts,
        "max_connections": max_connections,
        "proxy": proxy,
        "ca": ca,
    }
    if not http2:
        from asgi_aiproxy.upstream.sockets import SocketTransport

        return SocketTransport(**options)
    try:
        from asgi_aiproxy.upstream.reqwest import ReqwestTransport
    except ImportError as error:
        from asgi_aiproxy.upstream.httpx import HttpxTransport

        _warn_once(str(error))
        return HttpxTransport(**options, http2=True)
    return ReqwestTransport(**options, http2=True)


@functools.cache
def _warn_once(why: str) -> None:
    logger.warning("pyreqwest can not be imported (%s): httpx speaks HTTP/2, more slowly", why)
