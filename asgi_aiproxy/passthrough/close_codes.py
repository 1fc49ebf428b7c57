"""How a WebSocket is closed: codes and reasons (RFC 6455, section 7.4)."""

from __future__ import annotations

from asgi_aiproxy._asgi import Message
from asgi_aiproxy.errors import APIError

GOING_AWAY, NOT_ALLOWED = 1001, 1008
TOO_BIG, INTERNAL_ERROR, TRY_AGAIN_LATER = 1009, 1011, 1013
_MAX_REASON = 123  # bytes (RFC 6455, 5.5)


def close_message(code: int, reason: str) -> Message:
    """Return the ASGI message that closes a WebSocket."""
    return {"type": "websocket.close", "code": code, "reason": reason}


def close_reason(error: APIError) -> str:
    """Return the message of an error, cut to the maximum length of a close reason."""
    return error.message.encode()[:_MAX_REASON].decode("utf-8", "ignore")


def sendable_code(code: int) -> int:
    """Return a close code that may be sent; 1005 means that none was received (RFC 6455, 7.4.1)."""
    if code == 1005:
        return 1000
    return code if 1000 <= code <= 1003 or 1007 <= code <= 1014 or code >= 3000 else GOING_AWAY
