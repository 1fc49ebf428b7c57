"""Answers that pass through in Google's own format."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _read
from asgi_aiproxy.dialects.gemini import responses
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Frame, encode_frame
from asgi_aiproxy.messages import Usage


class Echo:
    """Reads along; every byte stays as it is."""

    def __init__(self) -> None:
        self.model = ""
        self.usage: Usage | None = None
        self.started = False
        self._done = False

    def plain(self, data: bytes) -> bool:
        """Never: Google tells usage in every chunk."""
        return False

    def feed(self, frame: Frame) -> bytes:
        """The frame as it came."""
        self._read(_json.loads(frame.data))
        return frame.raw

    def close(self) -> bytes:
        """Nothing, if the answer was complete."""
        if not self._done:
            raise _read.broken("the stream ended without a finish reason")
        return b""

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream."""
        return encode_frame(responses.encode_error(error))

    def whole(self, body: bytes) -> bytes:
        """The body as it came."""
        answer = _read.object_in(body)
        if answer is None:
            raise _read.unreadable(200, body)
        self._read(answer)
        return body

    def _read(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise responses.read_error(chunk["error"], 200)
        self.model = chunk.get("modelVersion") or self.model
        self.usage = responses.decode_usage(chunk.get("usageMetadata")) or self.usage
        for candidate in chunk.get("candidates") or ():
            self.started = self.started or bool((candidate.get("content") or {}).get("parts"))
            self._done = self._done or bool(candidate.get("finishReason"))
        if (chunk.get("promptFeedback") or {}).get("blockReason"):
            self._done = True
        self.started = self.started or self._done
