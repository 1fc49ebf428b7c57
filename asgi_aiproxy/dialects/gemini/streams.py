"""Answers in pieces: Google's chunks to events, and events to chunks.

A whole answer has the shape of a chunk, so both are read by one decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import Blocks
from asgi_aiproxy.dialects.base import NewId
from asgi_aiproxy.dialects.gemini import responses, schemas
from asgi_aiproxy.dialects.gemini.partial_arguments import PartialArguments
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    Extra,
    Media,
    MessageEnd,
    MessageStart,
    Opaque,
    Reasoning,
    Refusal,
    StopReason,
    Text,
    ToolCall,
    Usage,
    merge,
)

NAME = "gemini"
_decode_plain = schemas.plain_chunk.decode
_TEXT, _REASONING = Text(), Reasoning()


class Decoder:
    """Chunks of a generateContent answer to events. Only the first candidate is read."""

    ended = False

    def __init__(self, new_id: NewId) -> None:
        self.model = ""
        self._usage: Usage | None = None
        self._counted = msgspec.Raw()  # the usage told last, still encoded
        self._new_id = new_id
        self._blocks = Blocks()
        self._started = False
        self._word = ""
        self._message = ""
        self._text: list[str] = []
        self._last: dict[str, Any] = {}  # the candidate that last named sources
        self._partial: PartialArguments | None = None
        self._calls = 0

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far. Google tells them in every chunk; the last counts."""
        if self._counted:
            self._usage = responses.decode_usage(_json.loads(bytes(self._counted))) or self._usage
            self._counted = msgspec.Raw()
        return self._usage

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one chunk."""
        if self._started:
            try:
                chunk = _decode_plain(data)
            except ValueError:
                pass
            else:
                return self._plain(chunk)
        if not data.lstrip().startswith(b"{"):
            return ()  # some send what is no event to keep the connection alive
        return self.chunk(_json.loads(data))

    def _plain(self, chunk: schemas.PlainChunk) -> Sequence[Event]:
        if chunk.usage_metadata:
            self._counted = chunk.usage_metadata
        (candidate,) = chunk.candidates
        (part,) = candidate.content.parts
        if candidate.index != 0 or not part.text:
            return ()
        if part.thought:
            return self._blocks.text(_REASONING, part.text)
        self._text.append(part.text)
        return self._blocks.text(_TEXT, part.text)

    def chunk(self, chunk: dict[str, Any]) -> list[Event]:
        """The events of one parsed chunk."""
        if chunk.get("error"):
            raise responses.read_error(chunk["error"], 200)
        events: list[Event] = []
        if not self._started:
            self._started = True
            self.model = _parsing.get_text(chunk, "modelVersion")
            events.append(MessageStart(_parsing.get_text(chunk, "responseId"), self.model))
        usage = responses.decode_usage(chunk.get("usageMetadata"))
        if usage is not None:
            self._usage, self._counted = usage, msgspec.Raw()
        blocked = _parsing.get_text(chunk.get("promptFeedback"), "blockReason")
        if blocked:
            self._word = "SAFETY"
            self._message = f"The prompt was blocked by Google ({blocked})."
        for candidate in _parsing.objects(chunk.get("candidates")):
            if not candidate.get("index"):
                events += self._candidate(candidate)
        return events

    def run(self, pieces: list[bytes]) -> tuple[int, list[str]] | None:
        """Not known: what a piece means depends on those before it."""
        return None

    def close(self) -> Sequence[Event]:
        """The end of the message; a finish reason must have come."""
        if not self._word:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        if not self._blocks.answered:
            error = responses.failed(self._word, self._message)
            if error is not None:
                raise error
        events = self._close_partial()
        citations = responses.decode_citations(self._last, "".join(self._text))
        if citations:
            # They come with the end: the text they are about may be a block that has ended.
            events += self._blocks.cite(citations)
        stop = responses.stop_reason(self._word, self._blocks.called)
        # What Google says of a failure is not the model's refusal.
        said = self._message if stop is StopReason.FILTER else ""
        return [*events, *self._blocks.end(), MessageEnd(stop, self.usage, self._word, said)]

    def _candidate(self, candidate: dict[str, Any]) -> Iterator[Event]:
        content = candidate.get("content")
        for part in _parsing.objects(content.get("parts") if isinstance(content, dict) else None):
            yield from self._part(part)
        if candidate.get("groundingMetadata"):
            self._last = candidate
        word = _parsing.get_text(candidate, "finishReason")
        if word:
            self._word = word
            self._message = _parsing.get_text(candidate, "finishMessage")

    def _part(self, part: dict[str, Any]) -> Iterator[Event]:
        signature = part.get("thoughtSignature")
        extra: Extra = {NAME: {"signature": signature}} if signature else {}
        match part:
            case {"functionCall": dict(call)}:
                yield from self._call(call, extra)
            case {"text": str(text)}:
                yield from self._words(part, text, extra)
            case {"inlineData": dict(blob)} if not part.get("thought"):
                yield from self._blocks.single(responses.decode_media(blob, extra))
            case {"thoughtSignature": str()} if part.keys() <= {"thoughtSignature", "thought"}:
                yield from self._words({"text": "", **part}, "", extra)
            case {"inlineData": _} | {"executableCode": _} | {"codeExecutionResult": _}:
                yield from self._blocks.single(Opaque(NAME, part))

    def _words(self, part: dict[str, Any], text: str, extra: Extra) -> Iterator[Event]:
        # A signature belongs to its own part: that is a block by itself. If it is empty it means
        # something to Google alone.
        kind: Text | Reasoning = Reasoning() if part.get("thought") else Text()
        if not text:
            if extra:
                yield from self._blocks.single(Opaque(NAME, part), content=False)
            return
        if isinstance(kind, Text):
            self._text.append(text)
        if not extra:
            yield from self._blocks.text(kind, text)
            return
        yield from self._blocks.end_text()
        yield from self._blocks.text(type(kind)("", extra=extra), text)
        yield from self._blocks.end_text()

    def _call(self, call: dict[str, Any], extra: Extra) -> Iterator[Event]:
        if call.get("name"):
            yield from self._close_partial()
            self._calls += 1
            call_id = call.get("id") or self._new_id()
            yield from self._blocks.call(self._calls, ToolCall(call_id, call["name"], extra=extra))
            if "partialArgs" in call or call.get("willContinue"):
                self._partial = PartialArguments()
            elif args := call.get("args"):
                arguments = args if isinstance(args, str) else _json.dumps(args).decode()
                yield from self._blocks.arguments(self._calls, arguments)
        if self._partial is not None:
            self._partial.add(call.get("partialArgs") or ())
            if not call.get("willContinue"):
                yield from self._close_partial()

    def _close_partial(self) -> list[Event]:
        if self._partial is None:
            return []
        value, self._partial = self._partial.value, None
        if not value:
            return []
        return self._blocks.arguments(self._calls, _json.dumps(value).decode())


# Google's own SDKs look for these very characters before the JSON.
_DATA = b"data: "
_BEFORE = _DATA + b'{"candidates":[{"content":{"parts":[{"text":'


class Encoder:
    """Events to chunks of a streamGenerateContent answer, as an event stream."""

    def __init__(self, *, new_id: str) -> None:
        self._id = new_id
        self._model = ""
        self._open: dict[int, Block] = {}
        self._arguments: dict[int, list[str]] = {}
        self._after = b""  # what stands behind the text of a chunk

    def feed(self, event: Event) -> bytes:
        """The chunks that tell this event."""
        match event:
            case BlockDelta(index, text):
                return self._delta(index, text)
            case MessageStart():
                self._id = event.id or self._id
                self._model = event.model
                names = _json.dumps({"modelVersion": self._model, "responseId": self._id})
                self._after = b'}],"role":"model"},"index":0}],' + names[1:] + b"\n\n"
            case BlockStart(index, block):
                self._open[index] = block
                self._arguments[index] = []
                if isinstance(block, Media | Opaque):
                    return self._chunk(list(responses.write(block)))
            case BlockEnd(index, extra):
                return self._close(index, extra)
            case _:
                return self._end(event)
        return b""

    def run(self, index: int, texts: list[str]) -> bytes:
        """The chunks that tell more of one block."""
        return b"".join([self.feed(BlockDelta(index, text)) for text in texts])

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream."""
        return encode_frame(responses.encode_error(error))

    def _delta(self, index: int, text: str) -> bytes:
        match self._open[index]:
            case ToolCall() | Text(extra={"gemini": _}) | Reasoning(extra={"gemini": _}):
                self._arguments[index].append(text)  # Google's calls and signed parts come whole
                return b""
            case Reasoning():
                return _BEFORE + _json.quote(text) + b',"thought":true' + self._after
        return _BEFORE + _json.quote(text) + self._after

    def _close(self, index: int, extra: Extra) -> bytes:
        block = self._open.pop(index)
        text = "".join(self._arguments.pop(index))
        if isinstance(block, Media | Opaque):  # told when they began
            return b""
        extra = merge({} if isinstance(block, Refusal) else block.extra, extra)
        if isinstance(block, ToolCall):
            whole = ToolCall(block.id, block.name, text, extra)
            return self._chunk(list(responses.write(whole)))
        if isinstance(block, Text | Reasoning) and NAME in block.extra:
            return self._chunk(list(responses.write(type(block)(text, extra=extra))))
        signature = extra.get(NAME, {}).get("signature")
        if signature:
            thought = {"thought": True} if isinstance(block, Reasoning) else {}
            return self._chunk([{"text": "", **thought, "thoughtSignature": signature}])
        return b""

    def _end(self, event: MessageEnd) -> bytes:
        reason = responses.finish_reason(event.stop, event.word)
        more: dict[str, Any] = {"finishReason": reason}
        if event.refusal:
            more["finishMessage"] = event.refusal
        return self._chunk([], more, event.usage)

    def _chunk(
        self, parts: list[dict[str, Any]], more: dict[str, Any] | None = None, usage: Any = None
    ) -> bytes:
        candidate = {"content": {"parts": parts, "role": "model"}, **(more or {}), "index": 0}
        chunk: dict[str, Any] = {"candidates": [candidate]}
        if usage is not None:
            chunk["usageMetadata"] = responses.encode_usage(usage)
        chunk["modelVersion"] = self._model
        chunk["responseId"] = self._id
        return _DATA + _json.dumps(chunk) + b"\n\n"
