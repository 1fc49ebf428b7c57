"""Chat completions that pass through from a provider with the same API.

The client uses OpenAI's format and so does the provider: no conversion is needed. Three things
still are: usage must be extracted for the usage record (and removed if the client did not
request it), errors in mid-stream must be detected, and the relay must know when content starts
(until then the call can be retried elsewhere) and whether the response is complete.

There are two implementations of `asgi_aiproxy.dialects.base.NativeStream`:

- `OpenAINativeStream`, for providers that follow the format exactly. Bytes are passed on unchanged.
  Frames are only parsed if they contain one of a few marks (usage, an error, a finish reason, the
  end). To find these faster, the layout of the first chunk is remembered: later chunks that start
  and end with the same bytes differ in their delta only, and need no search at all.
- `NormalizingNativeStream`, for all others. Every chunk is parsed. A chunk of plain text that is
  valid is passed on unchanged; any other goes through `normalize.ChunkNormalizer`, which holds back
  finish reasons and usage until the end. If a normalized chunk equals a received one, the received
  bytes are sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.openai_chat import (
    errors,
    normalize,
    responses,
    schemas,
)
from asgi_aiproxy.dialects.openai_chat.usage import UsageFields, decode_usage, read_usage, to_usage
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Frame, encode_frame, split_before
from asgi_aiproxy.messages import Usage

_CR = ord("\r")
_CHOICES = b'"choices":['
_DONE = b"data: [DONE]\n\n"
_MAX_HELD_CHUNKS = 3  # received last chunks that are kept besides the current one
_NO_USAGE = b',"usage":null'  # in chunks before the one with usage
# Frames with one of these marks must be parsed; those with `"usage":null` need not.
_COMPACT_MARKS = (b'"usage":{', b'"error"', b'"finish_reason":"', b"[DONE]", b"event: error")
_MARKS = (*_COMPACT_MARKS, b'"usage": {', b'"finish_reason": "')


class _ResponseFields(msgspec.Struct):
    """The members of a whole response that are read."""

    model: str | None = None
    usage: UsageFields | None = None
    error: Any = None
    choices: list[msgspec.Raw] | None = None


class _ChoiceFields(msgspec.Struct):
    """The members of a choice in a chunk that are read."""

    finish_reason: str | None = None
    delta: dict[str, Any] | None = None
    text: str | None = None
    error: Any = None
    usage: UsageFields | None = None  # here at Moonshot

    def has_content(self) -> bool:
        """Whether it has content or a finish reason."""
        if self.finish_reason or self.text:
            return True
        delta = self.delta
        return delta is not None and any(v for name, v in delta.items() if name != "role")


class _GroqFields(msgspec.Struct):
    usage: UsageFields | None = None


class _ChunkFields(msgspec.Struct):
    """The members of a chunk that are read."""

    model: str | None = None
    object: str | None = None
    choices: list[_ChoiceFields] | None = None
    usage: UsageFields | None = None
    x_groq: _GroqFields | None = None
    error: Any = None

    def usage_fields(self) -> UsageFields | None:
        """The usage, wherever the vendor puts it."""
        if self.usage is not None:
            return self.usage
        if self.x_groq is not None and self.x_groq.usage is not None:
            return self.x_groq.usage
        return next(
            (choice.usage for choice in self.choices or () if choice.usage is not None), None
        )


_decode_chunk = msgspec.json.Decoder(_ChunkFields).decode
_decode_response = msgspec.json.Decoder(_ResponseFields).decode
_decode_plain = schemas.plain_chunk.decode


def openai_usage(body: bytes) -> tuple[str, Usage | None]:
    """Model and usage of a whole response of any operation; empty and None if not given."""
    try:
        model, fields, _, _ = _read_response(body)
    except ValueError:
        return "", None
    return model, to_usage(fields) if fields is not None else None


def _read_response(body: bytes) -> tuple[str, UsageFields | None, Any, bool]:
    """Model, usage and error of a whole response, and whether it has choices.

    Raises ValueError if it is not a JSON object.
    """
    try:
        answer = _decode_response(body)
    except (ValueError, RecursionError):
        other = _parsing.parse_object(body)
        if other is None:
            raise _json.NotJSONError("it is not an object") from None
        usage = read_usage(other.get("usage"))
        model = str(other.get("model") or "")
        return model, usage, other.get("error"), bool(other.get("choices"))
    return answer.model or "", answer.usage, answer.error, bool(answer.choices)


def _parse_chunk(data: bytes) -> _ChunkFields | None:
    """A chunk; None for keep-alive data of relays. Raises the error that the chunk reports."""
    try:
        chunk = _decode_chunk(data)
    except (ValueError, RecursionError):
        return _parse_unusual_chunk(data)
    failed = chunk.error or chunk.object == "error" or chunk.choices is None
    for choice in chunk.choices or ():
        failed = failed or choice.error or choice.finish_reason in errors.FAILED
    return _parse_unusual_chunk(data) if failed else chunk


def _parse_unusual_chunk(data: bytes) -> _ChunkFields | None:
    """The same for a chunk that is not written as documented."""
    chunk = normalize.parse_chunk(data)
    if chunk is None:
        return None
    errors.raise_error(chunk)
    choices = [
        _ChoiceFields(
            str(choice.get("finish_reason") or ""),
            delta if isinstance(delta := choice.get("delta"), dict) else None,
            str(choice.get("text") or ""),
        )
        for choice in _parsing.objects(chunk.get("choices"))
    ]
    groq = chunk.get("x_groq")
    places = (
        chunk,
        groq if isinstance(groq, dict) else {},
        *_parsing.objects(chunk.get("choices")),
    )
    found = (read_usage(place.get("usage")) for place in places)
    usage = next((fields for fields in found if fields), None)
    return _ChunkFields(str(chunk.get("model") or ""), choices=choices, usage=usage)


class OpenAINativeStream(msgspec.Struct, eq=False, kw_only=True):
    """For providers that follow the format exactly: bytes are passed on unchanged.

    Only usage is removed, if the client did not request it.
    """

    usage_wanted: bool
    model: str = ""
    started: bool = False
    ended: bool = False
    _usage: UsageFields | None = None
    _finished: bool = False
    _marks: tuple[bytes, ...] = _MARKS
    # First and last bytes of chunks that need not be parsed; set from the first such chunk.
    _head: bytes = b""
    _tail: bytes = b""
    _tail_without_usage: bytes = b""  # sent instead, if the client did not request usage

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far; only converted if they are recorded or counted."""
        return to_usage(self._usage) if self._usage is not None else None

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on frames up to one with usage, an error, a finish reason or the end."""
        plain = b""
        tail = self._tail
        if tail:
            if (
                data.endswith(tail)
                and data.startswith(self._head)
                and data.find(b"\n\n") == len(data) - 2
                and _CR not in data
            ):
                return (
                    data if self.usage_wanted else data[: -len(tail)] + self._tail_without_usage
                ), b""
            plain, data = self._split_similar(data)
            if not data:
                return plain, data
        if not self.usage_wanted:
            data = data.replace(_NO_USAGE, b"")
        more, rest = split_before(data, self._marks)
        return plain + more, rest

    def _split_similar(self, data: bytes) -> tuple[bytes, bytes]:
        """The leading frames with the remembered layout, and the rest.

        Splitting many frames at one substring that each of them contains is several times faster
        than searching them for several marks that none contains.
        """
        tail = self._tail
        end = data.rfind(tail) + len(tail)
        similar, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        if end < len(tail) or _CR in similar:  # another layout, or other line ends
            return b"", data
        head, parts = self._head, similar.split(tail)
        begun = [True for part in parts if part.startswith(head)]
        if len(begun) != len(parts) - 1 or b"".join(parts).find(b"\n") >= 0:
            return b"", data
        return (similar if self.usage_wanted else self._tail_without_usage.join(parts)), rest

    def feed(self, frame: Frame) -> bytes:
        """The frame unchanged, unless it is usage that the client did not request."""
        data = frame.data
        if data.strip() == b"[DONE]":
            self.ended = True
            return frame.raw
        raw = frame.raw if self.usage_wanted else frame.raw.replace(_NO_USAGE, b"")
        chunk = _parse_chunk(data)
        if chunk is None:
            return b""
        self.model = self.model or chunk.model or ""
        fields = chunk.usage_fields()
        if fields is not None:
            self._usage = fields
            if not self.usage_wanted and not chunk.choices:
                return b""
        for choice in chunk.choices or ():
            self._finished |= bool(choice.finish_reason)
            self.started = self.started or choice.has_content()
        if not self._tail:
            self._remember_layout(frame)
        return raw

    def _remember_layout(self, frame: Frame) -> None:
        """Remember how this provider writes its chunks."""
        if frame.data.find(_CHOICES) >= 0:  # this provider writes JSON without spaces
            self._marks = _COMPACT_MARKS
        raw = frame.raw
        start, end = raw.find(_CHOICES), raw.find(b'"finish_reason":null}]')
        if raw.endswith(b"}\n\n") and 0 < start < end and raw.find(b'"usage"', 0, start) < 0:
            self._head, self._tail = raw[: start + len(_CHOICES)], raw[end:]
            self._tail_without_usage = self._tail.replace(_NO_USAGE, b"")

    def close(self) -> bytes:
        """Nothing if the response was complete, or a missing `[DONE]`."""
        if not self._finished and not (self.ended and self.started):
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        return b"" if self.ended else _DONE

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream; no `[DONE]` follows."""
        return encode_frame(errors.encode_error(error))

    def whole(self, body: bytes) -> bytes:
        """The body unchanged."""
        try:
            self.model, self._usage, failed, has_choices = _read_response(body)
        except ValueError as error:
            raise _parsing.unparsable_response_error(200, body) from error
        if failed or not has_choices:
            raise errors.decode_error(200, body)
        return body


class NormalizingNativeStream:
    """For other providers: every chunk is parsed and normalized."""

    def __init__(self, *, usage_wanted: bool, new_id: str) -> None:
        self._usage_wanted = usage_wanted
        self._new_id = new_id
        self._chunks = normalize.ChunkNormalizer(new_id, usage_null=usage_wanted)
        self._held: list[bytes] = []  # received chunks that are sent at the end
        self._usage: Usage | None = None
        self._model = ""
        self._answered = False  # content besides reasoning was received
        self.started = False
        self.ended = False

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return self._usage or decode_usage(self._chunks.usage)

    @property
    def model(self) -> str:
        """The model named in the response; empty until known."""
        return self._model or str((self._chunks.head or {}).get("model", ""))

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on a single valid chunk; all others are parsed frame by frame."""
        if data.startswith(b"data: ") and data.endswith(b"\n\n"):
            unchanged = self._if_valid(data[6:-2])
            if unchanged is not None:
                return unchanged, b""
        return b"", data

    def feed(self, frame: Frame) -> bytes:
        """The normalized chunk."""
        if self.started:
            unchanged = self._if_valid(frame.data)
            if unchanged is not None:
                return unchanged
        if frame.data.strip() == b"[DONE]":
            if self.started:
                self._chunks.done()
            return self.close()  # the provider may leave the connection open
        data = frame.data if self._usage_wanted else frame.data.replace(_NO_USAGE, b"")
        chunk = normalize.parse_chunk(data)
        if chunk is None or self.ended:
            return b""
        errors.raise_error(chunk)
        normalized = self._chunks.chunk(chunk)
        if normalized is None:
            self._held = [*self._held[-_MAX_HELD_CHUNKS:], data]
            return b""
        self.started = self.started or any(map(_has_content, normalized["choices"]))
        if not self._answered:
            self._answered = any(responses.answers(c["delta"]) for c in normalized["choices"])
        return _encode_chunk(normalized, [data])

    def _if_valid(self, data: bytes) -> bytes | None:
        """The frame of a valid chunk that contains only text or reasoning; else None."""
        if self.ended:
            return None
        try:
            chunk = _decode_plain(data)
        except ValueError:
            return None
        (choice,) = chunk.choices
        if choice.finish_reason is not None or choice.delta.role is not None:
            return None
        if not self._chunks.fits(chunk.id, chunk.object, chunk.created, chunk.model, choice.index):
            return None
        bare = data.replace(_NO_USAGE, b"")
        if bare.find(b'"usage"') >= 0 or bare.find(b"\n") >= 0:
            return None
        if not self._answered:
            self._answered = bool(choice.delta.content)
        return b"data: " + (data if self._usage_wanted else bare) + b"\n\n"

    def close(self) -> bytes:
        """The finish reasons, usage and `[DONE]`, unless already sent."""
        if self.ended:
            return b""
        if self._chunks.finish(0) is None:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        if not self._answered:
            self._chunks.check()
        self.started = self.ended = True
        last = self._chunks.end(usage_wanted=self._usage_wanted)
        return b"".join([_encode_chunk(chunk, self._held) for chunk in last]) + _DONE

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream; no `[DONE]` follows."""
        return encode_frame(errors.encode_error(error))

    def whole(self, body: bytes) -> bytes:
        """The normalized body; unchanged if it was valid."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        errors.raise_error(answer)
        if not answer.get("choices"):
            raise errors.decode_error(200, body)
        for choice in _parsing.objects(answer["choices"]):
            message = choice.get("message")
            if choice.get("index") or not isinstance(message, dict):
                continue
            if not responses.answers(message):
                errors.raise_failure(choice.get("finish_reason"))
        self._model = str(answer.get("model") or "")
        self._usage = decode_usage(answer.get("usage"))
        if normalize.normalize_response(answer, self._new_id):
            return _json.dumps(answer)
        return body


def _encode_chunk(chunk: dict[str, Any], received: list[bytes]) -> bytes:
    """The frame of a chunk; the received bytes if it equals one of the received chunks."""
    for data in received:
        if data.find(b"\n") < 0:
            original = _json.loads(data)
            if (
                original == chunk
                and type(original["created"]) is int
                and all(map(_has_integer_indexes, original["choices"]))
            ):
                return b"data: " + data + b"\n\n"
    return b"data: " + _json.dumps(chunk) + b"\n\n"


def _has_integer_indexes(choice: dict[str, Any]) -> bool:
    """Whether the indexes of a choice and its calls are integers. (1.0 and True equal 1.)"""
    calls = choice["delta"].get("tool_calls") or ()
    return all(type(item["index"]) is int for item in (choice, *calls))


def _has_content(choice: dict[str, Any]) -> bool:
    """Whether a choice has content or a finish reason."""
    delta = choice.get("delta")
    return bool(choice.get("finish_reason") or choice.get("text")) or (
        isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")
    )
