"""Anthropic's API as Google's Vertex AI and Amazon Bedrock host it: other errors, other streams.

Requests and responses are Anthropic's own; the platforms differ in paths, which are the providers'
business, and in two ways that are a dialect's:

- A request that the platform itself refuses gets an error in the platform's format.
- Bedrock streams binary events (`InvokeModelWithResponseStream`), each of which holds one of
  Anthropic's events as base64. `ChunkFramer` unwraps them; `ChunkReframer` writes them as
  Anthropic's event stream, for clients of Anthropic's API.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import decode_run
from asgi_aiproxy.dialects._event_stream import MEDIA_TYPE, EventStreamFramer
from asgi_aiproxy.dialects.anthropic import Anthropic
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.framing import Framer, encode_frame

_MODEL_FAILED = 424
# How the most frequent event begins, whose type is not read, and what is written before it.
_DELTA = b'{"type":"content_block_delta",'
_DELTA_START = b"event: content_block_delta\ndata: "
_BETWEEN_DELTAS = b"\n\n" + _DELTA_START
# Amazon's exceptions within a stream, as types of Anthropic's errors.
_TYPES = {
    "throttlingException": "rate_limit_error",
    "serviceUnavailableException": "overloaded_error",
    "modelTimeoutException": "timeout_error",
    "validationException": "invalid_request_error",
}


class _Chunk(msgspec.Struct, gc=False):
    """A binary event with one of Anthropic's; others are read untyped."""

    data: bytes = msgspec.field(name="bytes")  # decoded from base64


class _AnthropicEvent(msgspec.Struct, gc=False):
    type: str = ""


_decode_chunks = msgspec.json.Decoder(list[_Chunk]).decode
_anthropic_event = msgspec.json.Decoder(_AnthropicEvent)


class HostedAnthropic(Anthropic):
    """Anthropic's dialect at a platform that hosts its models."""

    native_errors: ClassVar[bool] = False

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response of Anthropic or of the platform."""
        answer = _error_object(body)
        if answer is None or answer.get("type") == "error":
            return super().decode_error(status, body)
        found = answer.get("error")
        error: dict[str, Any] = found if isinstance(found, dict) else answer
        message = _parsing.get_text(error, "message") or _parsing.get_text(error, "Message")
        name = _parsing.get_text(answer, "__type").rpartition("#")[2]
        if not message and not name:
            return super().decode_error(status, body)
        failed = status == _MODEL_FAILED
        kind = ErrorKind.UPSTREAM if failed else error_kind_for_status(status)
        reasons = (_parsing.get_text(d, "reason") for d in _parsing.objects(error.get("details")))
        return APIError(
            kind,
            message or name,
            status=_parsing.client_status(status, kind),
            param="model" if kind is ErrorKind.NOT_FOUND else None,
            upstream_status=status,
            words=_parsing.words(name, *reasons, error.get("status"), error.get("type")),
        )

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read a platform's list of models."""
        answer = _parsing.parse_object(body) or {}
        if "publisherModels" in answer:
            names = _parsing.names(body, "publisherModels", "name")
            return tuple(name.rpartition("/")[2] for name in names)
        if "modelSummaries" in answer:
            return _parsing.names(body, "modelSummaries", "modelId")
        return super().decode_models(body)

    def framer(self, media_type: str) -> Framer:
        """Bedrock's binary events, or an event stream."""
        return ChunkFramer() if media_type == MEDIA_TYPE else super().framer(media_type)

    def reframer(self, media_type: str) -> ChunkReframer | None:
        """Bedrock's binary events as an event stream."""
        return ChunkReframer() if media_type == MEDIA_TYPE else None


class ChunkFramer:
    """Cuts Bedrock's binary event stream into Anthropic's events."""

    def __init__(self) -> None:
        self._framer = EventStreamFramer(bare="chunk")

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes. Raises APIError for a damaged stream."""
        pieces = self._framer.feed(data)
        chunks = decode_run(_decode_chunks, pieces)
        if chunks:
            return [chunk.data for chunk in chunks]
        return [event for event in map(_unwrapped, pieces) if event is not None]

    def close(self) -> bytes | None:
        """Nothing is left at the end. Raises APIError for an event cut short."""
        return self._framer.close()


class ChunkReframer:
    """Writes Bedrock's binary event stream as Anthropic's event stream."""

    def __init__(self) -> None:
        self._framer = ChunkFramer()

    def feed(self, data: bytes) -> bytes:
        """The event stream of the events that `data` completes. Raises APIError."""
        events = self._framer.feed(data)
        joined = b"".join(events)
        # JSON may have line ends between its members.
        if joined.find(b"\n") >= 0 or joined.find(b"\r") >= 0:
            return b"".join(map(_frame, events))
        others = [at for at, event in enumerate(events) if not event.startswith(_DELTA)]
        out, start = [], 0
        for at in (*others, len(events)):
            if at > start:  # a run of deltas
                out += [_DELTA_START, _BETWEEN_DELTAS.join(events[start:at]), b"\n\n"]
            out += map(_frame, events[at : at + 1])
            start = at + 1
        return b"".join(out)

    def close(self) -> bytes:
        """Nothing is left at the end. Raises APIError for an event cut short."""
        self._framer.close()
        return b""


def _frame(event: bytes) -> bytes:
    return encode_frame(event, _type(event))


def _type(event: bytes) -> bytes:
    """The type of one of Anthropic's events; empty if it has none."""
    try:
        return _json.typed(_anthropic_event, event).type.encode()
    except msgspec.ValidationError:
        return b""


def _unwrapped(piece: bytes) -> bytes | None:
    """Anthropic's event in one of Bedrock's; None if it has no meaning. Raises APIError."""
    event = _json.loads(piece)
    name, payload = next(iter(event.items()), ("", None))
    if len(event) == 1 and isinstance(payload, dict):
        return _error_event(name, payload)
    try:
        return base64.b64decode(event["bytes"], validate=True)
    except (binascii.Error, KeyError, TypeError) as error:
        raise _parsing.truncated_response_error("an event has no valid content") from error


def _error_event(name: str, payload: dict[str, Any]) -> bytes | None:
    """An event that is not a chunk as one of Anthropic's; None if it is not an error."""
    if name != "error" and not name.endswith("Exception"):
        return None
    message = _parsing.get_text(payload, "message") or f"The provider reported {name}."
    details = {"type": _TYPES.get(name, "api_error"), "message": message}
    return _json.dumps({"type": "error", "error": details})


def _error_object(body: bytes) -> dict[str, Any] | None:
    """The object in an error body; Google sends a list of one for a stream."""
    try:
        found = _json.loads(body)
    except _json.NotJSONError:
        return None
    if isinstance(found, list) and found:
        found = found[0]
    return found if isinstance(found, dict) else None


HOSTED_ANTHROPIC: HostedAnthropic = HostedAnthropic()
