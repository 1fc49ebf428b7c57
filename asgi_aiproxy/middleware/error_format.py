"""Errors of middlewares, in the dialect of the caller."""

from __future__ import annotations

from asgi_aiproxy import operations
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, GEMINI_CONTENT, NEUTRAL, OPENAI_CHAT, neutral
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.exchange.error_responses import send_error

# The paths of an operation that belongs to none of these dialects.
_RERANK_PATHS = ("/v1/rerank", "/v2/rerank")
_FACES: tuple[InboundDialect, ...] = (OPENAI_CHAT, ANTHROPIC_MESSAGES, GEMINI_CONTENT)


def detect_dialect(scope: Scope) -> InboundDialect:
    """Return the dialect of a request: by its path, wherever the app is mounted, else by its
    headers.
    """
    if neutral.SCOPE_KEY in scope:
        return NEUTRAL
    method, path = scope.get("method", "POST"), scope["path"]
    if path.endswith(_RERANK_PATHS):
        return operations.RERANK
    at = path.rfind("/v1")
    sent = {name for name, _ in scope["headers"]}
    by_headers = [face for face in _FACES if not face.client_headers.isdisjoint(sent)]
    for face in (*by_headers, *_FACES) if at >= 0 else ():
        if face.match(method, path[at:]) is not None:
            return face
    return by_headers[0] if by_headers else OPENAI_CHAT


async def send_error_for(scope: Scope, receive: Receive, send: Send, error: APIError) -> None:
    """Answer a request or a WebSocket handshake with an error, unless the caller is gone."""
    await send_error(scope, receive, send, detect_dialect(scope), error)
