"""What a shim has of the Responses API beyond single requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy._request_id import named
from asgi_aiproxy.dialects.base import RESPONSES, InboundDialect, Operation
from asgi_aiproxy.dialects.openai_responses import paths
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.exchange.session_requests import has_step
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.responses_state.capture import ResponseCapture
from asgi_aiproxy.responses_state.conversations import Conversations
from asgi_aiproxy.responses_state.memory import ConnectionMemory
from asgi_aiproxy.responses_state.records import ResponseState
from asgi_aiproxy.responses_state.resources import (
    ForgetDeleted,
    answer_from_record,
    find_resource,
)
from asgi_aiproxy.responses_state.turn import begin_turn
from asgi_aiproxy.responses_state.warmup import acknowledge
from asgi_aiproxy.responses_state.websocket import RequestRelay, ResponsesWebSocket

# Wraps the `send` of an exchange.
Capture = Callable[[Send, Exchange], Send]


class ResponsesService:
    """State and WebSockets of one shim.

    - `state`: what is remembered of responses.
    - `max_body`: the largest expanded request, and the longest message of a WebSocket, in bytes.
    - `idle`: the seconds after which a WebSocket without messages is closed.
    """

    def __init__(self, state: ResponseState | None, *, max_body: int, idle: float) -> None:
        self.state = state if state is not None else ResponseState()
        self._conversations = Conversations(self.state)
        self._max_body = max_body
        self._idle = idle

    def serves(self, operation: Operation) -> bool:
        """Whether an operation is available: conversations need the stash."""
        return self.state.stash or operation.name not in paths.CONVERSATIONS

    async def prepare(
        self,
        scope: Scope,
        send: Send,
        call: GatewayRequest,
        router: Router,
        memory: ConnectionMemory | None,
        *,
        generate: bool = True,
    ) -> tuple[GatewayRequest, Capture | None] | None:
        """Prepare a request that refers to responses, or makes one.

        Returns the request to send, and what reads its response along; None if the request was
        answered. Raises APIError.
        """
        if call.operation.resource:
            return await self._resource(scope, send, call, router)
        turn = await begin_turn(
            call, router, self.state, self._conversations, memory, limit=self._max_body
        )
        if turn is None:
            return call, None
        if not generate:
            await acknowledge(turn, router, send)
            return None
        if call.operation.name != RESPONSES:
            return turn.call, None
        return turn.call, partial(ResponseCapture, turn)

    async def _resource(
        self, scope: Scope, send: Send, call: GatewayRequest, router: Router
    ) -> tuple[GatewayRequest, Capture | None] | None:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        head = scope["method"] == "HEAD"
        if call.operation.name in paths.CONVERSATIONS:
            if call.gate is not None:
                await call.gate.admit(call.operation.name, ())
            body = await self._conversations.answer(call, query)
            await _asgi.send_response(send, 200, body, [named(call.request_id)], head=head)
            return None
        found = await find_resource(call, query, router, self.state)
        if isinstance(found, GatewayRequest):
            deletes = call.operation.name == paths.DELETE
            return found, partial(ForgetDeleted, self.state, found) if deletes else None
        if call.gate is not None:
            await call.gate.admit(call.operation.name, ())
        body, media_type = await answer_from_record(call, found, query, self.state)
        named_call = [named(call.request_id)]
        await _asgi.send_response(send, 200, body, named_call, media_type, head=head)
        return None

    async def serve_websocket(
        self, scope: Scope, receive: Receive, send: Send, face: InboundDialect, answer: RequestRelay
    ) -> None:
        """Serve a WebSocket whose requests `answer` answers."""
        if scope.get(GATE_KEY) is not None and not has_step(scope, "admission"):
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
