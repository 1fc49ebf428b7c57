"""Errors of middlewares, in the language their caller speaks."""

from __future__ import annotations

from contextlib import suppress

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, GEMINI_CONTENT, OPENAI_CHAT
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError

_FACES: tuple[InboundDialect, ...] = (OPENAI_CHAT, ANTHROPIC_MESSAGES, GEMINI_CONTENT)


def detect_dialect(scope: Scope) -> InboundDialect:
    """The language of a request, by its path wherever the app is mounted, else by its headers."""
    method, path = scope.get("method", "POST"), scope["path"]
    at = path.rfind("/v1")
    sent = {name for name, _ in scope["headers"]}
    by_headers = [face for face in _FACES if not face.client_headers.isdisjoint(sent)]
    for face in (*by_headers, *_FACES) if at >= 0 else ():
        if face.match(method, path[at:]) is not None:
            return face
    return by_headers[0] if by_headers else OPENAI_CHAT


async def send_error_for(scope: Scope, receive: Receive, send: Send, error: APIError) -> None:
    """Answer a request or a handshake with an error, if the caller is still there to take it."""
    error.request_id = request_id(scope)
    body, headers = detect_dialect(scope).encode_error(error), _asgi.error_headers(error)
    if scope["type"] == "websocket":
        await _asgi.refuse_websocket(scope, receive, send, error.status, body, headers)
        return
    with suppress(ClientGoneError):
        await _asgi.send_response(send, error.status, body, headers)
