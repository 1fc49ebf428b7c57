"""Edits the JSON of an app's answers on their way to the client: whole bodies and stream events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy.framing import SSEFramer, encode_frame

# Takes the parsed JSON of an answer or of one event, and the response headers; returns the new one.
Edit = Callable[[dict[str, Any], dict[bytes, bytes]], dict[str, Any]]


class EditingSend:
    """A `send` that passes each JSON object of a successful answer through `edit`.

    Whole bodies are held until they are complete, events are passed on one by one; comments and
    `[DONE]` are unchanged. Answers that are not JSON, and errors, are unchanged.
    """

    def __init__(self, send: Send, edit: Edit) -> None:
        self._send = send
        self._edit = edit
        self._start: Message | None = None
        self._headers: dict[bytes, bytes] = {}
        self._framer: SSEFramer | None = None
        self._pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._framer is not None:
            await self._stream(self._framer, message)
        elif self._start is not None:
            self._pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._finish(self._start, b"".join(self._pieces))
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        self._headers = dict(message.get("headers", ()))
        media = self._headers.get(b"content-type", b"").lower()
        if message["status"] != 200 or b"content-encoding" in self._headers:
            await self._send(message)
        elif media.startswith(b"text/event-stream"):
            self._framer = SSEFramer()
            await self._send({**message, "headers": _without_length(message)})
        elif media.startswith(b"application/json"):
            self._start = message
        else:
            await self._send(message)

    async def _stream(self, framer: SSEFramer, message: Message) -> None:
        data = message.get("body", b"")
        more = message.get("more_body", False)
        if data.startswith(b":"):
            out = data  # a keep-alive comment
        else:
            out = b"".join(self._event(frame.data) for frame in framer.frames(data))
        if not more and (rest := framer.close()):
            out += self._event(rest)
        if out or not more:
            await self._send({**message, "body": out})

    def _event(self, data: bytes) -> bytes:
        if not data.startswith(b"{"):
            return encode_frame(data)
        event = _json.loads(data)
        if "error" in event:
            return encode_frame(data)
        return encode_frame(_json.dumps(self._edit(event, self._headers)))

    async def _finish(self, start: Message, body: bytes) -> None:
        if body.lstrip().startswith(b"{"):
            body = _json.dumps(self._edit(_json.loads(body), self._headers))
        headers = [*_without_length(start), (b"content-length", b"%d" % len(body))]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _without_length(message: Message) -> list[tuple[bytes, bytes]]:
    return [pair for pair in message.get("headers", ()) if pair[0] != b"content-length"]


def without_headers(send: Send, names: frozenset[bytes]) -> Send:
    """Return a `send` that leaves these response headers out."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0] not in names]
            message = {**message, "headers": kept}
        await send(message)

    return sending
