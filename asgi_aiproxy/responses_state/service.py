"""What a shim has of the Responses API beyond single requests."""

from __future__ import annotations

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.responses_state.memory import ConnectionMemory
from asgi_aiproxy.responses_state.records import ResponseState
from asgi_aiproxy.responses_state.turn import ResponseTurn, begin_turn
from asgi_aiproxy.responses_state.websocket import RequestRelay, ResponsesWebSocket


class ResponsesService:
    """State and WebSockets of one shim.

    - `state`: what is remembered of responses.
    - `max_body`: the largest expanded request, and the longest message of a WebSocket, in bytes.
    - `websockets`: whether `/v1/responses` can be opened as a WebSocket.
    - `idle`: the seconds after which a WebSocket without messages is closed.
    """

    def __init__(
        self, state: ResponseState | None, *, max_body: int, websockets: bool, idle: float
    ) -> None:
        if not idle > 0:
            raise ConfigurationError(f"websocket_idle must be > 0 seconds, got {idle!r}.")
        self.state = state if state is not None else ResponseState()
        self.websockets = websockets
        self._max_body = max_body
        self._idle = idle

    async def begin(
        self, call: GatewayRequest, router: Router, memory: ConnectionMemory | None
    ) -> ResponseTurn | None:
        """Prepare a request, see `begin_turn`. Raises APIError."""
        return await begin_turn(call, router, self.state, memory, limit=self._max_body)

    async def serve_websocket(
        self, scope: Scope, receive: Receive, send: Send, face: InboundDialect, answer: RequestRelay
    ) -> None:
        """Serve a WebSocket whose requests `answer` answers."""
        gate = scope.get(GATE_KEY)
        if gate is not None and not hasattr(gate, "for_next_call"):
            # Its limits would hold for the first request only.
            await send_error(scope, receive, send, face, _asgi.no_websocket())
            return
        await ResponsesWebSocket(
            scope,
            receive,
            send,
            face=face,
            answer=answer,
            max_message=self._max_body,
            idle=self._idle,
        ).run()
