"""Reads streamed responses: Google's chunks to events.

A whole response has the shape of a chunk, so one decoder reads both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import MIN_RUN, Blocks, decode_run
from asgi_aiproxy.dialects.base import NewId
from asgi_aiproxy.dialects.gemini import (
    errors,
    responses,
    schemas,
)
from asgi_aiproxy.dialects.gemini.partial_arguments import PartialArguments
from asgi_aiproxy.messages import (
    Event,
    Extra,
    MessageEnd,
    MessageStart,
    Opaque,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

NAME = "gemini"
_decode_plain = schemas.plain_chunk.decode
_decode_names = schemas.chunk_names.decode
_decode_plains = schemas.plain_chunks.decode
_TEXT, _REASONING = Text(), Reasoning()


class Decoder:
    """Converts the chunks of a generateContent response to events. Only the first candidate is
    read.
    """

    ended = False

    def __init__(self, new_id: NewId) -> None:
        self.model = ""
        self._usage: Usage | None = None
        self._counts: msgspec.Raw | dict[str, Any] | None = None  # the latest, not read yet
        self._new_id = new_id
        self._blocks = Blocks()
        self._started = False
        self._finish_reason = ""
        self._message = ""
        self._text: list[str] = []
        self._latest_sources: dict[str, Any] = {}  # the latest members with sources
        self._partial: PartialArguments | None = None
        self._calls = 0

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far. Every chunk has usage; the last one counts."""
        counts, self._counts = self._counts, None
        if isinstance(counts, msgspec.Raw):
            counts = _json.loads(bytes(counts))
        if counts is not None:
            self._usage = responses.decode_usage(counts) or self._usage
        return self._usage

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one chunk."""
        try:
            chunk = _decode_plain(data)
            names = None if self._started else _decode_names(data)
        except ValueError:
            pass
        else:
            events = self._plain(chunk)
            if names is None:
                return events
            return [self._start(names.response_id, names.model_version), *events]
        if not data.lstrip().startswith(b"{"):
            return ()  # keep-alive data of some servers
        return self.chunk(_json.loads(data))

    def _plain(self, chunk: schemas.PlainChunk) -> Sequence[Event]:
        if chunk.usage_metadata:
            self._counts = chunk.usage_metadata
        (candidate,) = chunk.candidates
        (part,) = candidate.content.parts
        self._finish_reason = candidate.finish_reason or self._finish_reason
        if not part.text:
            return ()
        if part.thought:
            return self._blocks.text(_REASONING, part.text)
        self._text.append(part.text)
        return self._blocks.text(_TEXT, part.text)

    def chunk(self, chunk: dict[str, Any]) -> list[Event]:
        """The events of one parsed chunk."""
        if chunk.get("error"):
            raise errors.read_error(chunk["error"], 200)
        events: list[Event] = []
        if not self._started:
            response_id = _parsing.get_text(chunk, "responseId")
            events.append(self._start(response_id, _parsing.get_text(chunk, "modelVersion")))
        if responses.has_counts(chunk.get("usageMetadata")):
            self._counts = chunk["usageMetadata"]
        blocked = _parsing.get_text(chunk.get("promptFeedback"), "blockReason")
        if blocked:
            self._finish_reason = "SAFETY"
            self._message = f"The prompt was blocked by Google ({blocked})."
        for candidate in _parsing.objects(chunk.get("candidates")):
            if not candidate.get("index"):
                events += self._candidate(candidate)
        return events

    def _start(self, response_id: str, model: str) -> MessageStart:
        self._started, self.model = True, model
        return MessageStart(response_id, model)

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """Return the block, the texts and the number of the chunks that contain nothing but
        text.
        """
        number = self._blocks.open_text
        used = len(pieces)
        while used and pieces[used - 1].find(b'"finishReason"') >= 0:
            used -= 1
        if number is None or used < MIN_RUN:
            return None
        chunks = decode_run(_decode_plains, pieces[:used])
        texts = [
            part.text
            for chunk in chunks
            if (part := (candidate := chunk.candidates[0]).content.parts[0]).text
            and not part.thought
            and candidate.finish_reason is None
        ]
        if len(texts) != used:
            return None
        self._text += texts
        counts = next((c.usage_metadata for c in reversed(chunks) if c.usage_metadata), None)
        self._counts = counts or self._counts
        return number, texts, used

    def close(self) -> Sequence[Event]:
        """The end of the message; raises APIError if no finish reason was received."""
        if not self._finish_reason:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        if not self._blocks.answered:
            error = responses.failed(self._finish_reason, self._message)
            if error is not None:
                raise error
        events = self._close_partial()
        citations = responses.decode_citations(self._latest_sources, "".join(self._text))
        if citations:
            # Citations arrive at the end: their block may have ended before.
            events += self._blocks.cite(citations)
        stop = responses.stop_reason(self._finish_reason, self._blocks.called)
        # Google's explanation of a failure is not the model's refusal.
        said = self._message if stop is StopReason.FILTER else ""
        return [
            *events,
            *self._blocks.end(),
            MessageEnd(stop, self.usage, self._finish_reason, said),
        ]

    def _candidate(self, candidate: dict[str, Any]) -> Iterator[Event]:
        content = candidate.get("content")
        for part in _parsing.objects(content.get("parts") if isinstance(content, dict) else None):
            yield from self._part(part)
        for name in ("groundingMetadata", "citationMetadata"):
            if candidate.get(name):
                self._latest_sources[name] = candidate[name]
        word = _parsing.get_text(candidate, "finishReason")
        if word:
            self._finish_reason = word
            self._message = _parsing.get_text(candidate, "finishMessage")

    def _part(self, part: dict[str, Any]) -> Iterator[Event]:
        signature = part.get("thoughtSignature")
        extra: Extra = {NAME: {"signature": signature}} if signature else {}
        match part:
            case {"functionCall": dict(call)}:
                yield from self._call(call, extra)
            case {"text": str(text)}:
                yield from self._add_text(part, text, extra)
            case {"inlineData": dict(blob)} | {"fileData": dict(blob)} if not part.get("thought"):
                yield from self._blocks.single(responses.decode_media(blob, extra))
            case {"thoughtSignature": str()} if part.keys() <= {"thoughtSignature", "thought"}:
                yield from self._add_text({"text": "", **part}, "", extra)
            case {"inlineData": _} | {"executableCode": _} | {"codeExecutionResult": _}:
                yield from self._blocks.single(Opaque(NAME, part))

    def _add_text(self, part: dict[str, Any], text: str, extra: Extra) -> Iterator[Event]:
        # A signed part is a block of its own. If it is empty, only Google uses it.
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
