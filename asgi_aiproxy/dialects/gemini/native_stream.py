"""Answers that pass through in Google's own format."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.gemini import (
    errors,
    responses,
)
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Frame, SSEFramer, encode_frame, split_before
from asgi_aiproxy.messages import Usage

_CONTENT = (b'"functionCall"', b'"inlineData"', b'"executableCode"')
_READ = (b'"error"', b'"finishReason"', b'"blockReason"')


class GeminiNativeStream:
    """Reads along; every byte stays as it is."""

    ended = False

    def __init__(self) -> None:
        self.model = ""
        self.started = False
        self._usage: Usage | None = None
        self._done = self._answered = False
        self._skimmed = b""  # the last frames that were not read, but tell usage

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far. Google tells them in every chunk; the last counts."""
        for data in SSEFramer().feed(self._skimmed):
            chunk = _parsing.parse_object(data) or {}
            self._usage = responses.decode_usage(chunk.get("usageMetadata")) or self._usage
        self._skimmed = b""
        return self._usage

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """These frames, up to one with an error or the end."""
        out, rest = split_before(data, _READ)
        if not self._answered:  # a part has a text, and a thought says that it is one
            words = out.count(b'"text"') > out.count(b'"thought"')
            self._answered = words or any(out.find(kind) >= 0 for kind in _CONTENT)
        if out.find(b'"usageMetadata"') >= 0:
            self._skimmed = out
        return out, rest

    def feed(self, frame: Frame) -> bytes:
        """The frame as it came."""
        if not frame.data.lstrip().startswith(b"{"):
            return b""  # some send what is no event to keep the connection alive
        self._read(_json.loads(frame.data))
        return frame.raw

    def close(self) -> bytes:
        """Nothing, if the answer was complete."""
        if not self._done:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        return b""

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream."""
        return encode_frame(errors.encode_error(error))

    def whole(self, body: bytes) -> bytes:
        """The body as it came."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        self._read(answer)
        return body

    def _read(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise errors.read_error(chunk["error"], 200)
        self.model = chunk.get("modelVersion") or self.model
        usage = responses.decode_usage(chunk.get("usageMetadata"))
        if usage is not None:
            self._usage, self._skimmed = usage, b""
        for candidate in chunk.get("candidates") or ():
            parts = (candidate.get("content") or {}).get("parts") or ()
            self._answered = self._answered or any(map(_says, parts))
            word = candidate.get("finishReason")
            if word and not self._answered and not candidate.get("index"):
                error = responses.failed(word, _parsing.get_text(candidate, "finishMessage"))
                if error is not None:
                    raise error
            self.started = self.started or bool(parts)
            self._done = self._done or bool(word)
        if (chunk.get("promptFeedback") or {}).get("blockReason"):
            self._done = True
        self.started = self.started or self._done


def _says(part: dict[str, Any]) -> bool:
    """Whether a part is content: no thought, nor an empty text that only carries a signature."""
    return not part.get("thought") and part.get("text") != ""
