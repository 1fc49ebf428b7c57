"""Messages that pass through from a provider with Anthropic's API.

Every byte is passed on unchanged. Frames are only parsed if they contain one of three marks (usage,
an error, the end), or before the first content: `message_start` names model and input tokens, and
a content block starts the response, after which the call cannot be retried elsewhere.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.anthropic import (
    errors,
    responses,
)
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Frame, encode_frame, split_before
from asgi_aiproxy.messages import Usage

_MARKS = (b'"usage"', b'"error"', b'"message_stop"')


class AnthropicNativeStream:
    """Observes a message stream without changing it."""

    def __init__(self) -> None:
        self.model = ""
        self.started = False
        self._counts: dict[str, Any] = {}
        self.ended = False

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return responses.decode_usage(self._counts) if self._counts else None

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on frames up to one with usage, an error or the end."""
        return split_before(data, _MARKS)

    def feed(self, frame: Frame) -> bytes:
        """The frame unchanged."""
        if not frame.data.lstrip().startswith(b"{"):
            return b""  # keep-alive data of some servers
        event = _json.loads(frame.data)
        match event.get("type"):
            case "message_start":
                message = event.get("message") or {}
                self.model = str(message.get("model") or "")
                self._count(message.get("usage"))
            case "message_delta":
                self._count(event.get("usage"))
            case "message_stop":
                self.started = self.ended = True
            case "content_block_delta":
                self.started = True
            case "content_block_start":
                block = event.get("content_block") or {}
                self.started = self.started or block.get("type") not in ("text", "thinking")
            case kind if kind == "error" or (kind is None and event.get("error")):
                raise errors.read_error(event.get("error"), 200, frame.data)
        return frame.raw

    def close(self) -> bytes:
        """Nothing if the message was complete; otherwise raises APIError."""
        if not self.ended:
            raise _parsing.truncated_response_error("the stream ended without message_stop")
        return b""

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream."""
        return encode_frame(errors.encode_error(error), b"error")

    def whole(self, body: bytes) -> bytes:
        """The body unchanged."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        errors.raise_error(answer, body)
        self.model = answer.get("model") or ""
        self._count(answer.get("usage"))
        return body

    def _count(self, usage: Any) -> None:
        responses.add_counts(self._counts, usage)
