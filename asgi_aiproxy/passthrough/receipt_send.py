"""Add what an exchange cost to a response that is passed through.

The cost is known when the upstream's response has been read. So the head of a response that is not
an event stream is held until then, together with up to 256 KiB of its body; a longer one is passed
on as it arrives, without the header. An event stream is never held: it ends with a comment, if that
is switched on, unless it is compressed.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.usage.record import UsageRecord

_MAX_HELD = 256 * 1024  # bytes


class ReceiptSend:
    """An ASGI `send` that adds the cost, for one exchange.

    `written` returns its usage record, once it is written; `face` is the API of the client.
    """

    def __init__(
        self,
        send: Send,
        receipts: Receipts,
        written: Callable[[], UsageRecord | None],
        face: InboundDialect,
    ) -> None:
        self._send = send
        self._receipts = receipts
        self._written = written
        self._face = face
        self._held: list[Message] = []
        self._size = 0
        self._stream = False

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message, or hold it."""
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            streamed = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            self._stream = streamed and b"content-encoding" not in headers
            if self._receipts.header and not streamed:
                self._held.append(message)
                return
        elif self._held:
            self._held.append(message)
            self._size += len(message.get("body", b""))
            if last or self._size > _MAX_HELD:
                await self._release(last=last)
            return
        elif last and self._stream:
            comment = self._receipts.end_of_stream(self._written(), self._face)
            message = {**message, "body": message.get("body", b"") + comment}
        await self._send(message)

    async def _release(self, *, last: bool) -> None:
        held, self._held = self._held, []
        if last:
            start = held[0]
            more = self._receipts.headers(self._written())
            held[0] = {**start, "headers": [*start["headers"], *more]}
        for message in held:
            await self._send(message)
