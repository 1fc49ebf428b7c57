"""Responses that pass through from a provider with Google's API.

Every byte is passed on unchanged. Before the first content every chunk is parsed, later ones only
if they contain a mark (an error, a finish or block reason). Google repeats `usageMetadata` in every
chunk and only the last one counts: the last unparsed frames are kept and parsed when usage is read.
The format has no final frame, so a finish reason shows that the response is complete.
"""

from __future__ import annotations

import re
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

_CONTENT_MARKS = (b'"functionCall"', b'"inlineData"', b'"fileData"', b'"executableCode"')
_USAGE = b'"usageMetadata"'
_has_usage = re.compile(_USAGE + rb"\s*:").search
_MARKS = (b'"error"', b'"finishReason"', b'"blockReason"')


class GeminiNativeStream:
    """Observes a stream of chunks without changing it."""

    ended = False

    def __init__(self) -> None:
        self.model = ""
        self.started = False
        self._usage: Usage | None = None
        self._done = self._answered = False
        self._unparsed = b""  # the last unparsed frames with usage

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far. Every chunk has usage; the last one counts."""
        for data in reversed(SSEFramer().feed(self._unparsed)):
            chunk = _parsing.parse_object(data) or {}
            usage = responses.decode_usage(chunk.get("usageMetadata"))
            if usage is not None:
                self._usage = usage
                break
        self._unparsed = b""
        return self._usage

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on frames up to one with an error or the end."""
        out, rest = split_before(data, _MARKS)
        if not self._answered:  # `thought` marks the texts that are reasoning
            has_text = out.count(b'"text"') > out.count(b'"thought"')
            self._answered = has_text or any(out.find(kind) >= 0 for kind in _CONTENT_MARKS)
        found = out.rfind(_USAGE)
        # (The word may also be all of a text; a member has a colon, rarely after white space.)
        if found >= 0 and (out.startswith(b":", found + len(_USAGE)) or _has_usage(out)):
            self._unparsed = out
        return out, rest

    def feed(self, frame: Frame) -> bytes:
        """The frame unchanged."""
        if not frame.data.lstrip().startswith(b"{"):
            return b""  # keep-alive data of some servers
        self._read(_json.loads(frame.data))
        return frame.raw

    def close(self) -> bytes:
        """Nothing if the response was complete; otherwise raises APIError."""
        if not self._done:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        return b""

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream."""
        return encode_frame(errors.encode_error(error))

    def whole(self, body: bytes) -> bytes:
        """The body unchanged."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        self._read(answer)
        if not self._done:
            raise _parsing.truncated_response_error("it has no candidate with a finish reason")
        return body

    def _read(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise errors.read_error(chunk["error"], 200)
        self.model = chunk.get("modelVersion") or self.model
        usage = responses.decode_usage(chunk.get("usageMetadata"))
        if usage is not None:
            self._usage, self._unparsed = usage, b""
        for candidate in chunk.get("candidates") or ():
            parts = (candidate.get("content") or {}).get("parts") or ()
            self._answered = self._answered or any(map(_is_content, parts))
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


def _is_content(part: dict[str, Any]) -> bool:
    """Whether a part is content, not reasoning or an empty text with a signature."""
    return not part.get("thought") and part.get("text") != ""
