"""Responses that pass through in the Responses API's own format."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.openai_chat.errors import read_error
from asgi_aiproxy.dialects.openai_responses import responses
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Frame, encode_frame, split_before
from asgi_aiproxy.messages import Usage

# Frames with one of these marks are parsed: the head, the end, errors.
_PARSED_MARKS = (b'"response":', b'"error"', b"event: error", b"event:error")
_ADDED_MARK = b'"response.output_item.added"'  # where a message may lack its content
_QUIET = ("message", "reasoning")  # items that start without content
_ENDS = ("response.completed", "response.incomplete")


class OpenAIResponsesNativeStream:
    """Observes a stream of response events without changing it.

    With `strict_format=False`, what strict clients require and compatible servers leave out is
    added: an empty `content` of a message that starts, and the details of `usage`.
    """

    def __init__(self, *, strict_format: bool = True) -> None:
        self._marks = _PARSED_MARKS if strict_format else (*_PARSED_MARKS, _ADDED_MARK)
        self._strict_format = strict_format
        self.model = ""
        self.started = False
        self.ended = False
        self.usage: Usage | None = None
        self._answer: dict[str, Any] = {}
        self._number = 0

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on frames up to one with the whole response or an error."""
        return split_before(data, self._marks)

    def feed(self, frame: Frame) -> bytes:
        """The frame unchanged. Raises APIError if it reports a failure."""
        if not frame.data.lstrip().startswith(b"{"):
            return frame.raw if self._strict_format or frame.data != b"[DONE]" else b""
        event = _json.loads(frame.data)
        kind = _parsing.get_text(event, "type")
        number = event.get("sequence_number")
        self._number = number + 1 if isinstance(number, int) else 0
        answer = event.get("response")
        if isinstance(answer, dict):
            self._read_response(answer)
        if kind == "error" or (not kind and event.get("error")):
            raise read_error(
                event if isinstance(event.get("error"), dict) else {"error": event}, 200
            )
        if kind == "response.failed":
            responses.raise_error({"status": "failed", **self._answer})
        if kind in _ENDS:
            self.started = self.ended = True
        elif kind.endswith(".delta"):
            self.started = True
        elif kind == "response.output_item.added":
            item = event.get("item")
            self.started = self.started or _parsing.get_text(item, "type") not in _QUIET
        if not self._strict_format and _complete(event.get("item"), answer):
            return encode_frame(_json.dumps(event), frame.event or kind.encode())
        return frame.raw

    def _read_response(self, answer: dict[str, Any]) -> None:
        self._answer = answer
        self.model = str(answer.get("model") or self.model)
        usage = responses.decode_usage(answer.get("usage"))
        if usage is not None:
            self.usage = usage

    def close(self) -> bytes:
        """Nothing if the response was complete; otherwise raises APIError."""
        if not self.ended:
            raise _parsing.truncated_response_error("the stream ended without response.completed")
        return b""

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream."""
        event = {"type": "error", "sequence_number": self._number, **responses.error_event(error)}
        out = encode_frame(_json.dumps(event), b"error")
        if not self._answer:
            return out
        answer = {**self._answer, "status": "failed", "error": responses.failure(error)}
        failed = {"type": "response.failed", "sequence_number": self._number + 1}
        return out + encode_frame(_json.dumps({**failed, "response": answer}), b"response.failed")

    def whole(self, body: bytes) -> bytes:
        """The body unchanged. Raises APIError if it reports a failure."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        responses.raise_error(answer)
        responses.require_output(answer, body)
        self._read_response(answer)
        if not self._strict_format and _complete(None, answer):
            return _json.dumps(answer)
        return body


def _complete(item: Any, response: Any) -> bool:
    """Add what clients require to an item that starts and to a response, in place.

    True if anything was missing.
    """
    changed = False
    if _parsing.get_text(item, "type") == "message" and item.get("content") is None:
        item["content"] = []
        changed = True
    usage = response.get("usage") if isinstance(response, dict) else None
    if isinstance(usage, dict):
        counts = {
            "input_tokens_details": "cached_tokens",
            "output_tokens_details": "reasoning_tokens",
        }
        for name, count in counts.items():
            details = usage.get(name)
            if not isinstance(details, dict) or details.get(count) is None:
                usage[name] = {**(details if isinstance(details, dict) else {}), count: 0}
                changed = True
    return changed
