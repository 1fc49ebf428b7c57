"""Responses that refer to earlier ones, over HTTP and over WebSockets.

`history` is pure: items of a conversation. `turn` prepares a request and remembers its response,
`records` keeps what is remembered, `capture` reads responses along, `websocket` serves WebSockets.
"""

from __future__ import annotations

from asgi_aiproxy.responses_state.records import ResponseState

__all__ = ["ResponseState"]
