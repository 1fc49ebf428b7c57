"""Answers that pass through in OpenAI's own format: read along, and mended where need be."""

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
_HELD = 3  # so many chunks of the end are kept as they came, but one
_NO_USAGE = b',"usage":null'  # what chunks say while usage was asked for and has not come
# What must be read along; `"usage":null` need not.
_COMPACT = (b'"usage":{', b'"error"', b'"finish_reason":"', b"[DONE]")
_READ = (*_COMPACT, b'"usage": {', b'"finish_reason": "')


class _Answer(msgspec.Struct):
    """What is read of a whole answer; everything else is skipped."""

    model: str | None = None
    usage: UsageFields | None = None
    error: Any = None
    choices: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct):
    """What is read of a choice in a chunk."""

    finish_reason: str | None = None
    delta: dict[str, Any] | None = None
    text: str | None = None
    error: Any = None
    usage: UsageFields | None = None  # Moonshot's place for it

    def says(self) -> bool:
        """Whether it holds content, or at least its end."""
        if self.finish_reason or self.text:
            return True
        delta = self.delta
        return delta is not None and any(v for name, v in delta.items() if name != "role")


class _Groq(msgspec.Struct):
    usage: UsageFields | None = None


class _Chunk(msgspec.Struct):
    """What is read of a chunk."""

    model: str | None = None
    object: str | None = None
    choices: list[_Choice] | None = None
    usage: UsageFields | None = None
    x_groq: _Groq | None = None
    error: Any = None

    def told(self) -> UsageFields | None:
        """The usage, wherever it is."""
        if self.usage is not None:
            return self.usage
        if self.x_groq is not None and self.x_groq.usage is not None:
            return self.x_groq.usage
        return next((each.usage for each in self.choices or () if each.usage is not None), None)


_chunk = msgspec.json.Decoder(_Chunk).decode
_answer = msgspec.json.Decoder(_Answer).decode
_decode_plain = schemas.plain_chunk.decode


def openai_usage(body: bytes) -> tuple[str, Usage | None]:
    """Model and usage of an answer that may be of any kind; empty if it does not tell."""
    try:
        return _told(body)[:2]
    except ValueError:
        return "", None


def _told(body: bytes) -> tuple[str, Usage | None, Any, bool]:
    """Model, usage and error of a whole answer, and whether there is any choice.

    Raises ValueError on what is no JSON object.
    """
    try:
        answer = _answer(body)
    except (ValueError, RecursionError):
        other = _parsing.parse_object(body)
        if other is None:
            raise _json.NotJSONError("it is no object") from None
        usage = decode_usage(other.get("usage"))
        model = str(other.get("model") or "")
        return model, usage, other.get("error"), bool(other.get("choices"))
    usage = to_usage(answer.usage) if answer.usage is not None else None
    return answer.model or "", usage, answer.error, _some(answer.choices)


def _some(choices: msgspec.Raw) -> bool:
    return bytes(memoryview(choices)[:5]) not in (b"", b"[]", b"null")


def _chunk_in(data: bytes) -> _Chunk | None:
    """A chunk; None for what some relays send to keep alive. Raises the error it tells of."""
    try:
        chunk = _chunk(data)
    except (ValueError, RecursionError):
        return _odd_chunk(data)
    failed = chunk.error or chunk.object == "error"
    for choice in chunk.choices or ():
        failed = failed or choice.error or choice.finish_reason in errors.FAILED
    return _odd_chunk(data) if failed else chunk


def _odd_chunk(data: bytes) -> _Chunk | None:
    """The same from what is written in another way than documented."""
    chunk = normalize.parse_chunk(data)
    if chunk is None:
        return None
    errors.raise_error(chunk)
    choices = [
        _Choice(
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
    usage = next((told for each in places if (told := read_usage(each.get("usage")))), None)
    return _Chunk(str(chunk.get("model") or ""), choices=choices, usage=usage)


class OpenAINativeStream:
    """For providers that speak the format without slips: the bytes stay as they are.

    One thing is taken out: usage, if the client did not ask for it.
    """

    def __init__(self, *, usage_wanted: bool) -> None:
        self._usage_wanted = usage_wanted
        self.usage: Usage | None = None
        self.model = ""
        self.started = False
        self._finished = False
        self.ended = False
        self._marks: tuple[bytes, ...] = _READ
        # How chunks begin and end that need not be read, once one was seen.
        self._head = self._tail = b""
        self._short = b""  # what the client gets in its place

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """These frames, up to one with usage, an error, a finish reason or the end."""
        plain = b""
        tail = self._tail
        if tail:
            if (
                data.endswith(tail)
                and data.startswith(self._head)
                and data.find(b"\n\n") == len(data) - 2
                and _CR not in data
            ):
                return (data if self._usage_wanted else data[: -len(tail)] + self._short), b""
            plain, data = self._alike(data)
            if not data:
                return plain, data
        if not self._usage_wanted:
            data = data.replace(_NO_USAGE, b"")
        more, rest = split_before(data, self._marks)
        return plain + more, rest

    def _alike(self, data: bytes) -> tuple[bytes, bytes]:
        """The frames that are all like the one that was read, and those behind the last of them.

        To search a burst for one thing that each frame has is several times faster than to search
        it for all that none has.
        """
        tail = self._tail
        end = data.rfind(tail) + len(tail)
        alike, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        if end < len(tail) or _CR in alike:  # some end in another way
            return b"", data
        head, parts = self._head, alike.split(tail)
        begun = [True for part in parts if part.startswith(head)]
        if not len(begun) == alike.count(b"\n\n") == len(parts) - 1:
            return b"", data
        return (alike if self._usage_wanted else self._short.join(parts)), rest

    def feed(self, frame: Frame) -> bytes:
        """The frame as it came, unless it is the usage nobody asked for."""
        data = frame.data
        if data.strip() == b"[DONE]":
            self.ended = True
            return frame.raw
        raw = frame.raw if self._usage_wanted else frame.raw.replace(_NO_USAGE, b"")
        chunk = _chunk_in(data)
        if chunk is None:
            return b""
        self.model = self.model or chunk.model or ""
        told = chunk.told()
        if told is not None:
            self.usage = to_usage(told)
            if not self._usage_wanted and not chunk.choices:
                return b""
        for choice in chunk.choices or ():
            self._finished |= bool(choice.finish_reason)
            self.started = self.started or choice.says()
        if not self._tail:
            self._learn(frame)
        return raw

    def _learn(self, frame: Frame) -> None:
        """See how this provider writes its chunks."""
        if frame.data.find(_CHOICES) >= 0:  # who writes so writes no spaces
            self._marks = _COMPACT
        raw = frame.raw
        begins, ends = raw.find(_CHOICES), raw.find(b'"finish_reason":null}]')
        if raw.endswith(b"}\n\n") and 0 < begins < ends and raw.find(b'"usage"', 0, begins) < 0:
            self._head, self._tail = raw[: begins + len(_CHOICES)], raw[ends:]
            self._short = self._tail.replace(_NO_USAGE, b"")

    def close(self) -> bytes:
        """Nothing, if the answer was complete. A missing `[DONE]` is made good."""
        if not self._finished and not (self.ended and self.started):
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        return b"" if self.ended else _DONE

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream; no `[DONE]` follows."""
        return encode_frame(errors.encode_error(error))

    def whole(self, body: bytes) -> bytes:
        """The body as it came."""
        try:
            self.model, self.usage, failed, answered = _told(body)
        except ValueError as error:
            raise _parsing.unparsable_response_error(200, body) from error
        if failed or not answered:
            raise errors.decode_error(200, body)
        return body


class NormalizingNativeStream:
    """For providers that nearly speak the format: every chunk is read and put right."""

    def __init__(self, *, usage_wanted: bool, new_id: str) -> None:
        self._usage_wanted = usage_wanted
        self._new_id = new_id
        self._chunks = normalize.ChunkNormalizer(new_id, usage_null=usage_wanted)
        self._held: list[bytes] = []  # chunks that wait for the end
        self._usage: Usage | None = None
        self._model = ""
        self._answered = False  # more than thoughts
        self.started = False
        self.ended = False

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return self._usage or decode_usage(self._chunks.usage)

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._model or str((self._chunks.head or {}).get("model", ""))

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """One chunk that is right; all others are read frame by frame."""
        if data.startswith(b"data: ") and data.endswith(b"\n\n"):
            right = self._as_it_is(data[6:-2])
            if right is not None:
                return right, b""
        return b"", data

    def feed(self, frame: Frame) -> bytes:
        """The chunk put right."""
        if self.started:
            right = self._as_it_is(frame.data)
            if right is not None:
                return right
        if frame.data.strip() == b"[DONE]":
            if self.started:
                self._chunks.done()
            return self.close()  # the provider may leave the connection open
        data = frame.data if self._usage_wanted else frame.data.replace(_NO_USAGE, b"")
        chunk = normalize.parse_chunk(data)
        if chunk is None or self.ended:
            return b""
        errors.raise_error(chunk)
        mended = self._chunks.chunk(chunk)
        if mended is None:
            self._held = [*self._held[-_HELD:], data]
            return b""
        self.started = self.started or any(map(_says, mended["choices"]))
        if not self._answered:
            self._answered = any(responses.answers(c["delta"]) for c in mended["choices"])
        return _written(mended, [data])

    def _as_it_is(self, data: bytes) -> bytes | None:
        """The chunk, if it holds nothing but words or thoughts and is right."""
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
        """The finish reasons, usage and `[DONE]`, if they were not told before."""
        if self.ended:
            return b""
        if self._chunks.finish(0) is None:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        if not self._answered:
            self._chunks.check()
        self.started = self.ended = True
        last = self._chunks.end(usage_wanted=self._usage_wanted)
        return b"".join([_written(chunk, self._held) for chunk in last]) + _DONE

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream; no `[DONE]` follows."""
        return encode_frame(errors.encode_error(error))

    def whole(self, body: bytes) -> bytes:
        """The body put right; as it came, if nothing was wrong."""
        answer = _parsing.parse_object(body)
        if answer is None:
            raise _parsing.unparsable_response_error(200, body)
        errors.raise_error(answer)
        for choice in _parsing.objects(answer.get("choices")):
            message = choice.get("message")
            if choice.get("index") or not isinstance(message, dict):
                continue
            if not responses.answers(message):
                errors.raise_failure(choice.get("finish_reason"))
        self._model = str(answer.get("model") or "")
        self._usage = decode_usage(answer.get("usage"))
        if "choices" in answer and normalize.normalize_response(answer, self._new_id):
            return _json.dumps(answer)
        return body


def _written(chunk: dict[str, Any], given: list[bytes]) -> bytes:
    """A chunk as it goes out: as it came, if it is still one of those given."""
    for data in given:
        if data.find(b"\n") < 0:
            told = _json.loads(data)
            if (
                told == chunk
                and type(told["created"]) is int
                and all(map(_counted, told["choices"]))
            ):
                return b"data: " + data + b"\n\n"
    return b"data: " + _json.dumps(chunk) + b"\n\n"


def _counted(choice: dict[str, Any]) -> bool:
    """Whether a choice and its calls are numbered by integers. (To Python 1.0 and true equal 1.)"""
    calls = choice["delta"].get("tool_calls") or ()
    return all(type(numbered["index"]) is int for numbered in (choice, *calls))


def _says(choice: dict[str, Any]) -> bool:
    """Whether a choice holds content, or at least its end."""
    delta = choice.get("delta")
    return bool(choice.get("finish_reason") or choice.get("text")) or (
        isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")
    )
