"""A streamed response as a JSON array, as Google sends it where `alt=sse` is not requested.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

from asgi_aiproxy._asgi import Message, Scope, Send
from asgi_aiproxy.framing import SSEFramer


class JSONArraySend:
    """An ASGI `send` that writes the events of an event stream as the members of an array.

    Responses of other media types are passed on as they are.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._framer: SSEFramer | None = None
        self._separator = b"["

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            message = self._start(message)
        elif self._framer is not None:
            last = not message.get("more_body", False)
            message = {**message, "body": self._body(message.get("body", b""), last=last)}
        await self._send(message)

    def _start(self, message: Message) -> Message:
        headers = dict(message["headers"])
        if not headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            return message
        self._framer = SSEFramer()
        headers[b"content-type"] = b"application/json; charset=UTF-8"
        return {**message, "headers": list(headers.items())}

    def _body(self, data: bytes, *, last: bool) -> bytes:
        assert self._framer is not None  # noqa: S101 (for the type checker)
        out = b""
        for event in self._framer.feed(data):
            out += self._separator + event
            self._separator = b",\r\n"
        if last:
            out += b"[]" if self._separator == b"[" else b"]"
        return out


def wants_sse(scope: Scope) -> bool:
    """Return whether a client of Google's API requests an event stream instead of a JSON array."""
    return b"alt=sse" in scope.get("query_string", b"").lower().split(b"&")
