"""Read a response of the Responses API along, on its way to the client."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy.dialects.base import RESPONSES
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.framing import Frame, SSEFramer, encode_frame, split_before
from asgi_aiproxy.responses_state.turn import ResponseTurn

# Only events with this member hold the response; in text it is escaped.
_RESPONSE = b'"response":'


class ResponseCapture:
    """An ASGI `send` that shows each form of the response to a `ResponseTurn`.

    Events arrive whole. Those without the response are not parsed. A response that is not streamed
    is held until it is complete, because it may change its length.
    """

    def __init__(self, turn: ResponseTurn, send: Send, exchange: Exchange) -> None:
        self._send = send
        self._turn = turn
        self._exchange = exchange
        self._streamed = False
        self._start: Message | None = None
        self._pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            content_type = dict(message["headers"]).get(b"content-type", b"")
            self._streamed = content_type.startswith(b"text/event-stream")
            if self._streamed:
                await self._send(message)
            else:
                self._start = message
            return
        body: bytes = message.get("body", b"")
        if self._streamed:
            if _RESPONSE in body:
                message = {**message, "body": await self._events(body)}
            await self._send(message)
            return
        self._pieces.append(body)
        if not message.get("more_body", False):
            await self._whole(b"".join(self._pieces))

    async def _events(self, body: bytes) -> bytes:
        out: list[bytes] = []
        while body:
            plain, body = split_before(body, (_RESPONSE,))
            out.append(plain)
            found = next(SSEFramer().walk(body), None)
            if found is None:
                break
            frame, end = found
            out.append(await self._event(frame, body[:end]))
            body = body[end:]
        return b"".join([*out, body])

    async def _event(self, frame: Frame, raw: bytes) -> bytes:
        event = _parsed(frame.data)
        response = event.get("response")
        if not isinstance(response, dict):
            return raw
        changed = await self._show(response)
        return encode_frame(_json.dumps(event), frame.event) if changed else raw

    async def _whole(self, body: bytes) -> None:
        response = _parsed(body)
        if response and await self._show(response):
            body = _json.dumps(response)
        assert self._start is not None  # noqa: S101 (ASGI's order)
        headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _show(self, response: dict[str, Any]) -> bool:
        target = self._exchange.target
        native = target is not None and RESPONSES in target.provider.native_operations
        changed = self._turn.adjust(response, native=native)
        if await self._turn.finish(response, self._exchange):
            response["store"], changed = False, True
        return changed


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = _json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
