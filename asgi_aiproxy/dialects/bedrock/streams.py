"""Reads Converse's responses, streamed and whole, as neutral events.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html

Blocks are numbered; those of text and reasoning begin with their first delta. The usage comes in
the last event, after the stop reason. Token counts leave out what was read from or written to the
cache, so these are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import Blocks, decode_run
from asgi_aiproxy.dialects.bedrock import errors
from asgi_aiproxy.messages import (
    Citation,
    Event,
    Extra,
    Media,
    MessageEnd,
    MessageStart,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

_STOPS = {
    "end_turn": StopReason.END,
    "stop_sequence": StopReason.END,
    "max_tokens": StopReason.LENGTH,
    "model_context_window_exceeded": StopReason.LENGTH,
    "tool_use": StopReason.TOOLS,
    "guardrail_intervened": StopReason.FILTER,
    "content_filtered": StopReason.FILTER,
}
_FAILURES = frozenset({"malformed_model_output", "malformed_tool_use"})


class _TextDelta(msgspec.Struct, frozen=True, gc=False):
    text: str


class _Delta(msgspec.Struct, frozen=True, gc=False):
    delta: _TextDelta


_decode_text_delta = msgspec.json.Decoder(_Delta).decode
_decode_text_deltas = msgspec.json.Decoder(list[_Delta]).decode
_TEXT = Text()
DELTA = "contentBlockDelta"  # the most frequent event, which is decoded without its name


class Decoder:
    """Converts the events of one response to neutral events."""

    model = ""  # Bedrock does not repeat it

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.ended = False
        self._blocks = Blocks()
        self._started = False
        self._reason: str | None = None
        self._extra: Extra = {}  # of the end
        self._citations: list[Citation] = []  # of the open text
        self._image: tuple[str, list[str]] | None = None  # format and data of an open image
        self._hosted: set[Any] = set()  # blocks of tools that Bedrock runs itself

    def feed(self, data: bytes) -> Sequence[Event]:
        """The neutral events of one event; raises APIError for an exception."""
        if self._started:
            try:
                text = _decode_text_delta(data).delta.text
            except ValueError:
                pass
            else:
                return self._blocks.text(_TEXT, text) if text else ()
        event = _json.loads(data)
        if "delta" in event:
            return list(self._event(DELTA, event))
        ((name, payload),) = event.items()
        return list(self._event(name, payload))

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """The block and the texts of events with nothing but text."""
        number = self._blocks.open_text
        if number is None:
            return None
        texts = [event.delta.text for event in decode_run(_decode_text_deltas, pieces)]
        return (number, texts, len(pieces)) if texts and all(texts) else None

    def whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        """The events of a whole response, before `close`."""
        message = (answer.get("output") or {}).get("message")
        if not isinstance(message, dict):
            raise errors.stream_error(_parsing.get_text(answer, "__type"), answer)
        yield from self._start()
        for number, block in enumerate(_parsing.objects(message.get("content"))):
            yield from self._block(number, block)
        self._stop(answer)
        if isinstance(usage := answer.get("usage"), dict):
            self.usage = decode_usage(usage)

    def close(self) -> Sequence[Event]:
        """The end of the message, unless already returned; raises APIError if it is incomplete."""
        if self.ended:
            return ()
        if self._reason is None:
            raise _parsing.truncated_response_error("the stream ended without a stop reason")
        if self._reason in _FAILURES and not self._blocks.answered:
            raise _parsing.failed(self._reason)
        self.ended = True
        stop = self._blocks.stop_reason(_STOPS.get(self._reason, StopReason.OTHER))
        end = MessageEnd(stop, self.usage, self._reason, extra=self._extra)
        return [*self._end_block(), *self._blocks.end(), end]

    def _event(self, name: str, payload: dict[str, Any]) -> Iterator[Event]:
        match name:
            case "messageStart":
                yield from self._start()
            case "contentBlockStart":
                yield from self._start()
                yield from self._open(payload["contentBlockIndex"], payload.get("start") or {})
            case _ if name == DELTA:
                yield from self._start()
                yield from self._delta(payload["contentBlockIndex"], payload["delta"])
            case "contentBlockStop":
                yield from self._end_block()
            case "messageStop":
                self._stop(payload)
            case "metadata":
                if isinstance(usage := payload.get("usage"), dict):
                    self.usage = decode_usage(usage)
                if self._reason is not None:
                    yield from self.close()
            case _ if name == "error" or name.endswith(("Exception", "exception")):
                raise errors.stream_error(name, payload)

    def _stop(self, payload: dict[str, Any]) -> None:
        """Read the stop reason, and which of Claude's stop sequences it was."""
        self._reason = _parsing.get_text(payload, "stopReason") or "end_turn"
        fields = payload.get("additionalModelResponseFields") or {}
        streamed = fields.get("delta") if isinstance(fields, dict) else None
        sequence = _parsing.get_text(fields, "stop_sequence")
        if sequence := sequence or _parsing.get_text(streamed, "stop_sequence"):
            self._extra = {"anthropic": {"stop_sequence": sequence}}

    def _start(self) -> Iterator[Event]:
        if not self._started:
            self._started = True
            yield MessageStart("", "")

    def _open(self, index: Any, start: dict[str, Any]) -> Iterator[Event]:
        if isinstance(call := start.get("toolUse"), dict):
            yield from self._call(index, call)
        elif isinstance(start.get("toolResult"), dict):
            self._hosted.add(index)
        elif isinstance(image := start.get("image"), dict):
            self._image = _parsing.get_text(image, "format"), []

    def _call(self, index: Any, call: dict[str, Any]) -> Iterator[Event]:
        if call.get("type") == "server_tool_use":
            self._hosted.add(index)
            return
        opening = ToolCall(_parsing.get_text(call, "toolUseId"), _parsing.get_text(call, "name"))
        yield from self._end_block()
        yield from self._blocks.call(index, opening)

    def _delta(self, index: Any, delta: dict[str, Any]) -> Iterator[Event]:
        match delta:
            case {"text": str(text)} if text:
                yield from self._blocks.text(_TEXT, text)
            case {"toolUse": {"input": str(piece)}} if piece and index not in self._hosted:
                yield from self._blocks.arguments(index, piece)
            case {"reasoningContent": dict(content)}:
                yield from self._reasoning(content)
            case {"citation": dict(citation)}:
                self._citations += _citations([citation])
            case {"image": {"source": {"bytes": str(data)}}} if self._image is not None:
                self._image[1].append(data)

    def _reasoning(self, content: dict[str, Any]) -> Iterator[Event]:
        if text := _parsing.get_text(content, "text"):
            yield from self._blocks.text(Reasoning(), text)
        if signature := _parsing.get_text(content, "signature"):
            yield from self._sign({"anthropic": {"signature": signature}})
        if data := _parsing.get_text(content, "redactedContent"):
            extra = {"anthropic": {"redacted": data}}
            yield from self._blocks.single(Reasoning("", extra), content=False)

    def _sign(self, extra: Extra) -> list[Event]:
        """End the open reasoning with its signature; without its text there is no open one."""
        if self._blocks.open:
            return self._blocks.end_text(extra)
        return self._blocks.single(Reasoning("", extra), content=False)

    def _end_block(self) -> Iterator[Event]:
        citations, self._citations = tuple(self._citations), []
        yield from self._blocks.cite(citations) if citations else self._blocks.end_text()
        image, self._image = self._image, None
        if image is not None and image[1]:
            yield from self._blocks.single(_image(image[0], "".join(image[1])))

    def _block(self, number: int, block: dict[str, Any]) -> Iterator[Event]:
        """The events of one block of a whole response."""
        match block:
            case {"text": str(text)}:
                if text:
                    yield from self._blocks.text(_TEXT, text)
            case {"toolUse": dict(call)}:
                yield from self._call(number, call)
                if number not in self._hosted and (arguments := call.get("input")):
                    text = arguments if isinstance(arguments, str) else _text(arguments)
                    yield from self._blocks.arguments(number, text)
            case {"reasoningContent": {"reasoningText": dict(content)}}:
                yield from self._reasoning(content)
            case {"reasoningContent": dict(content)}:
                yield from self._reasoning(content)
            case {"citationsContent": dict(content)}:
                for piece in _parsing.objects(content.get("content")):
                    if text := _parsing.get_text(piece, "text"):
                        yield from self._blocks.text(_TEXT, text)
                self._citations += _citations(content.get("citations"))
            case {"image": {"format": str(kind), "source": {"bytes": str(data)}}}:
                yield from self._blocks.single(_image(kind, data))
        yield from self._end_block()


def decode_usage(usage: Mapping[str, Any]) -> Usage:
    """Read `usage`. Amazon does not include cached tokens in the input: they are added."""
    read = _parsing.read_count(usage, "cacheReadInputTokens")
    written = _parsing.read_count(usage, "cacheWriteInputTokens")
    details = _parsing.objects(usage.get("cacheDetails"))
    hour = sum(_parsing.read_count(d, "inputTokens") for d in details if d.get("ttl") == "1h")
    return Usage(
        input=_parsing.read_count(usage, "inputTokens") + read + written,
        output=_parsing.read_count(usage, "outputTokens"),
        cache_read=read,
        cache_write=written,
        cache_write_1h=min(hour, written),
    )


def _text(arguments: Any) -> str:
    return _json.dumps(arguments).decode()


def _image(kind: str, data: str) -> Media:
    return Media(kind="image", media_type=f"image/{kind}", data=data)


def _citations(found: Any) -> Iterator[Citation]:
    """Read citations of pages and documents. Their `location` is in the source, not in the text."""
    for citation in _parsing.objects(found):
        page = (citation.get("location") or {}).get("web")
        source = _parsing.get_text(citation, "source")
        linked = source.startswith(("https://", "http://"))  # of search results
        url = _parsing.get_text(page, "url") or (source if linked else "")
        title = _parsing.get_text(citation, "title") or source or _parsing.get_text(page, "domain")
        if url or title:
            pieces = _parsing.objects(citation.get("sourceContent"))
            quote = "".join([_parsing.get_text(piece, "text") for piece in pieces])
            yield Citation(url=url, title=title, quote=quote)
