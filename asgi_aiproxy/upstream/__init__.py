"""Transports: send requests to providers."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgi_aiproxy._lazy import on_first_use
from asgi_aiproxy.upstream.base import (
    MAX_DECODED,
    Timeouts,
    Transport,
    UpstreamRequest,
    UpstreamResponse,
    check_timeouts,
    check_transport,
)

if TYPE_CHECKING:
    from asgi_aiproxy.upstream.httpx import HttpxTransport
    from asgi_aiproxy.upstream.reqwest import ReqwestTransport
    from asgi_aiproxy.upstream.socket_transport import SocketTransport

logger = logging.getLogger("asgi_aiproxy")

__all__ = [
    "MAX_DECODED",
    "HttpxTransport",
    "ReqwestTransport",
    "SocketTransport",
    "Timeouts",
    "Transport",
    "UpstreamRequest",
    "UpstreamResponse",
    "check_timeouts",
    "check_transport",
    "default_transport",
]

_HOME = {
    "HttpxTransport": "httpx",
    "ReqwestTransport": "reqwest",
    "SocketTransport": "socket_transport",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)


def default_transport(
    *,
    timeouts: Timeouts | None = None,
    max_connections: int = 1000,
    proxy: str | None = None,
    ca: str | Path | bytes | None = None,
    http2: bool = False,
    max_decoded: int = MAX_DECODED,
) -> Transport:
    """Return the default transport: this package's own, or with `http2` one that supports HTTP/2.

    That is pyreqwest's, or httpx's if pyreqwest is missing and h2 is installed. Raises
    ConfigurationError if neither is.
    """
    options: dict[str, Any] = {
        "timeouts": timeouts,
        "max_connections": max_connections,
        "proxy": proxy,
        "ca": ca,
        "max_decoded": max_decoded,
    }
    if not http2:
        from asgi_aiproxy.upstream.socket_transport import SocketTransport

        return SocketTransport(**options)
    from asgi_aiproxy.upstream.reqwest import ReqwestTransport

    try:
        return ReqwestTransport(**options, http2=True)
    except ImportError as error:
        return _http2_over_httpx(options, str(error))


def _http2_over_httpx(options: dict[str, Any], missing: str) -> Transport:
    import importlib.util

    from asgi_aiproxy.errors import ConfigurationError
    from asgi_aiproxy.upstream.httpx import HttpxTransport

    if importlib.util.find_spec("h2") is None:
        raise ConfigurationError(
            "http2 requires pyreqwest: pip install 'asgi-aiproxy[http2]'. If pyreqwest has no "
            "build for your platform, use httpx: pip install 'httpx[http2]'."
        )
    _warn_once(missing)
    return HttpxTransport(**options, http2=True)


@functools.cache
def _warn_once(missing: str) -> None:
    logger.warning("HTTP/2 is sent by httpx, which is slower: %s", missing)
