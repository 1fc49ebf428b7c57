"""Read a response of the Responses API along, on its way to the client."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy.dialects.base import RESPONSES
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.framing import (
    Frame,
    SSEFramer,
    encode_frame,
    events_containing,
    last_event_containing,
)
from asgi_aiproxy.responses_state.turn import ResponseTurn

# Only events with this member hold the response; in text it is escaped.
_RESPONSE = b'"response":'
# Of these, the first ones say nothing that is remembered, unless the response runs in background.
_EARLY = (b"event: response.created\n", b"event: response.in_progress\n")


class ResponseCapture:
    """An ASGI `send` that shows each form of the response to a `ResponseTurn`, if that reads it.

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
            if self._streamed or not self._is_read():
                await self._send(message)
            else:
                self._start = message
            return
        body: bytes = message.get("body", b"")
        if self._start is not None:
            self._pieces.append(body)
            if not message.get("more_body", False):
                await self._whole(self._start, b"".join(self._pieces))
        elif self._streamed and self._is_read():
            await self._send(await self._streamed_message(message, body))
        else:
            await self._send(message)

    def _is_read(self) -> bool:
        target = self._exchange.target
        return target is None or self._turn.reads(target.provider)

    async def _streamed_message(self, message: Message, body: bytes) -> Message:
        """The message with the events of `body` as the client gets them."""
        out: list[bytes] = []
        sent = 0
        find = events_containing if self._turn.adjusts_all else last_event_containing
        for start, end in find(body, _RESPONSE):
            changed = await self._changed(body[start:end])
            if changed is not None:
                out += (body[sent:start], changed)
                sent = end
        return {**message, "body": b"".join([*out, body[sent:]])} if out else message

    async def _changed(self, raw: bytes) -> bytes | None:
        """The event for the client; None if it is the same."""
        if raw.startswith(_EARLY) and not self._turn.adjusts_all:
            return None
        frame = next(iter(SSEFramer().split(raw)), Frame(b""))
        event = _parsed(frame.data)
        response = event.get("response")
        if not isinstance(response, dict) or not await self._show(response):
            return None
        return encode_frame(_json.dumps(event), frame.event)

    async def _whole(self, start: Message, body: bytes) -> None:
        response = _parsed(body)
        if response and await self._show(response):
            body = _json.dumps(response)
        headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({**start, "headers": headers})
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
