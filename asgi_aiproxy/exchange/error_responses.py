"""Answer a request or a WebSocket handshake with an error, for shims, the proxy and middlewares."""

from __future__ import annotations

from contextlib import suppress

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError


async def send_error(
    scope: Scope,
    receive: Receive,
    send: Send,
    face: InboundDialect,
    error: APIError,
    *,
    last: bool = False,
) -> None:
    """Send an error in the client's dialect, unless the client has disconnected.

    `last` closes an HTTP/1.x connection afterwards. So do errors while the body of the request may
    still arrive (408), and if the client waits for another protocol (426). Nothing may have been
    sent yet, and of a WebSocket nothing received.
    """
    error.request_id = request_id(scope)
    body = error.body if error.body is not None else face.encode_error(error)
    headers = _asgi.error_headers(error)
    if scope["type"] == "websocket":
        await _asgi.refuse_websocket(scope, receive, send, error.status, body, headers)
        return
    if error.status == 426 and _asgi.is_http1(scope):
        headers += _asgi.UPGRADE_TO_HTTP
    elif (last or error.status == 408) and _asgi.is_http1(scope):
        headers.append((b"connection", b"close"))
    with suppress(ClientGoneError):
        await _asgi.send_response(send, error.status, body, headers)
