"""Open a WebSocket to the upstream."""

from __future__ import annotations

import functools
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.upstream.connect import tls

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_CLOSE_TIMEOUT = 5.0  # seconds for the upstream to answer a close frame
_MAX_QUEUED_MESSAGES = 4  # messages of the upstream that may wait for a slow client
_PROTOCOLS = "sec-websocket-protocol"


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """The maximum message size in bytes, the time to connect in seconds, and an additional CA."""

    max_message: int
    connect: float
    ca: str | Path | bytes | None = None


async def open_websocket(
    request: ProxyRequest, key: Key | None, limits: WebSocketLimits
) -> ClientConnection:
    """Connect to the upstream with a key. Raises an exception of `websockets`, or OSError."""
    from websockets.asyncio.client import connect

    out = request.outgoing(key, keep_host=False)
    offered = list(request.subprotocols)
    headers = []
    for name, value in out.headers:
        if name == _PROTOCOLS:
            offered.append(value)
        elif name != "accept-encoding":
            headers.append((name, value))
    url = "ws" + out.url.removeprefix("http")
    options: dict[str, Any] = {}
    if url.startswith("wss:"):
        options["ssl"] = _ssl_context(limits.ca)
    connecting = connect(
        url,
        additional_headers=headers,
        subprotocols=offered or None,  # type: ignore[arg-type]
        compression=None,  # it needs more memory than all the rest of an idle session
        user_agent_header=None,
        proxy=out.proxy,
        open_timeout=limits.connect,
        close_timeout=_CLOSE_TIMEOUT,
        max_size=limits.max_message,
        max_queue=_MAX_QUEUED_MESSAGES,
        logger=_silent_logger(),
        **options,
    )
    # A redirect is followed by the client, if at all: the gateway's key must not be sent
    # elsewhere.
    connecting.process_redirect = lambda error: error  # type: ignore[method-assign, assignment]
    return await connecting


@functools.cache
def _ssl_context(ca: str | Path | bytes | None) -> ssl.SSLContext:
    return tls(ca)


@functools.cache
def _silent_logger() -> logging.Logger:
    """Return a logger that drops the library's messages about each connection."""
    quiet = logging.getLogger("asgi_aiproxy.websockets")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    return quiet


def installed() -> bool:
    """Whether the library for WebSockets is installed."""
    try:
        import websockets.asyncio.client  # noqa: F401
    except ImportError:
        return False
    return True
