"""Reads Cohere's responses, streamed and whole, as neutral events.

https://docs.cohere.com/reference/chat-stream and https://docs.cohere.com/docs/streaming

A tool plan is the model's text before it calls tools: it becomes text for the client, which
`request_encoder` sends back as a plan. Usage is counted twice: `tokens` includes Cohere's own
prompt, `billed_units` is the charged amount; the latter is used, because budgets depend on it.
Positions of citations count characters of the text; citations arrive while it is streamed or after
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import Blocks, decode_run
from asgi_aiproxy.dialects.base import NewId
from asgi_aiproxy.dialects.cohere import errors
from asgi_aiproxy.messages import (
    Citation,
    Event,
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
    "COMPLETE": StopReason.END,
    "STOP_SEQUENCE": StopReason.END,
    "MAX_TOKENS": StopReason.LENGTH,
    "TOOL_CALL": StopReason.TOOLS,
    "ERROR_TOXIC": StopReason.FILTER,
    "CONTENT_FILTERED": StopReason.FILTER,
}
# Generation failed, and what there is of the answer is incomplete.
_FAILURES = frozenset({"ERROR", "TIMEOUT", "ERROR_LIMIT", "USER_CANCEL"})


class _Text(msgspec.Struct, frozen=True, gc=False):
    text: str
    thinking: None = None


class _Message(msgspec.Struct, frozen=True, gc=False):
    content: _Text


class _Delta(msgspec.Struct, frozen=True, gc=False):
    message: _Message


class _TextEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with text, the most frequent one."""

    delta: _Delta


_decode_text_event = msgspec.json.Decoder(_TextEvent).decode
_decode_text_events = msgspec.json.Decoder(list[_TextEvent]).decode
_TEXT = Text()


class Decoder:
    """Converts the events of one response to neutral events."""

    model = ""  # Cohere does not repeat it

    def __init__(self, new_id: NewId) -> None:
        self.usage: Usage | None = None
        self.ended = False
        self._new_id = new_id
        self._blocks = Blocks()
        self._started = False
        self._reason: str | None = None
        self._plan_length = 0  # characters before the text that citations count
        self._citations: list[Citation] = []  # of the open text

    def feed(self, data: bytes) -> Sequence[Event]:
        """The neutral events of one event; raises APIError for an error."""
        if self._started and not self._citations:
            try:
                text = _decode_text_event(data).delta.message.content.text
            except ValueError:
                pass
            else:
                return self._blocks.text(_TEXT, text) if text else ()
        if data.strip() == b"[DONE]":
            return ()
        return list(self._event(_json.loads(data)))

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """The block and the texts of events with nothing but text."""
        number = self._blocks.open_text
        if number is None or self._citations:
            return None
        events = decode_run(_decode_text_events, pieces)
        texts = [event.delta.message.content.text for event in events]
        return (number, texts, len(pieces)) if texts and all(texts) else None

    def whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        """The events of a whole response, before `close`."""
        message = answer.get("message")
        if not isinstance(message, dict):
            raise errors.stream_error(answer)
        yield from self._start(answer)
        planned = False
        for content in _parsing.objects(message.get("content")):
            if not planned and "thinking" not in content:  # thoughts come before the plan
                yield from self._plan(message)
                planned = True
            yield from self._content(content)
        if not planned:
            yield from self._plan(message)
        self._cite(message.get("citations"))
        for number, call in enumerate(_parsing.objects(message.get("tool_calls"))):
            yield from self._call(number, call)
        self._finish(answer)

    def close(self) -> Sequence[Event]:
        """The end of the message; raises APIError if the response is incomplete."""
        if self._reason is None:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        if self._reason in _FAILURES and self._blocks.answered:
            raise _parsing.truncated_response_error(f"generation ended with {self._reason}")
        if self._reason in _FAILURES:
            raise _parsing.failed(self._reason)
        stop = self._blocks.stop_reason(_STOPS.get(self._reason, StopReason.OTHER))
        self.ended = True
        return [
            *self._take_citations(),
            *self._blocks.end(),
            MessageEnd(stop, self.usage, self._reason),
        ]

    def _event(self, event: dict[str, Any]) -> Iterator[Event]:
        delta = event.get("delta") or {}
        message = delta.get("message") or {}
        match event.get("type"):
            case "message-start":
                yield from self._start(event)
            case "content-start" | "content-delta":
                yield from self._start(event)
                yield from self._content(message.get("content") or {})
            case "tool-plan-delta":
                yield from self._start(event)
                yield from self._plan(message)
            case "tool-call-start":
                yield from self._start(event)
                yield from self._call(event.get("index"), message.get("tool_calls") or {})
            case "tool-call-delta":
                function = (message.get("tool_calls") or {}).get("function") or {}
                if piece := _parsing.get_text(function, "arguments"):
                    yield from self._blocks.arguments(event.get("index"), piece)
            case "citation-start":
                self._cite(message.get("citations"))
            case "message-end":
                self._finish(delta)
                if error := _parsing.get_text(delta, "error"):
                    raise errors.stream_error({"message": error})
            case None:
                raise errors.stream_error(event)
            case "error":
                raise errors.stream_error(event)

    def _start(self, event: Mapping[str, Any]) -> Iterator[Event]:
        if not self._started:
            self._started = True
            yield MessageStart(_parsing.get_text(event, "id"), "")

    def _content(self, content: dict[str, Any]) -> Iterator[Event]:
        yield from self._take_citations()
        if thought := _parsing.get_text(content, "thinking"):
            yield from self._blocks.text(Reasoning(), thought)
        if text := _parsing.get_text(content, "text"):
            yield from self._blocks.text(_TEXT, text)
        if url := _parsing.get_text(content.get("image_url"), "url"):
            yield from self._blocks.single(Media(kind="image", url=url))

    def _plan(self, message: Mapping[str, Any]) -> Iterator[Event]:
        if plan := _parsing.get_text(message, "tool_plan"):
            self._plan_length += len(plan)
            yield from self._blocks.text(Text(), plan)

    def _call(self, key: Any, call: dict[str, Any]) -> Iterator[Event]:
        yield from self._take_citations()
        function = call.get("function") or {}
        call_id = _parsing.get_text(call, "id") or self._new_id()
        opening = ToolCall(call_id, _parsing.get_text(function, "name"))
        yield from self._blocks.call(key, opening)
        if arguments := _parsing.get_text(function, "arguments"):
            yield from self._blocks.arguments(key, arguments)

    def _cite(self, citations: Any) -> None:
        """Keep the citations of the text until the text continues or ends; each arrives in an event
        of its own.
        """
        given = [citations] if isinstance(citations, dict) else citations
        for citation in _parsing.objects(given):
            kind = citation.get("type")
            if kind != "THINKING_CONTENT":  # reasoning has no citations in other APIs
                begins = 0 if kind == "PLAN" else self._plan_length
                self._citations += self._read_citation(citation, begins)

    def _take_citations(self) -> Sequence[Event]:
        found, self._citations = tuple(self._citations), []
        return self._blocks.cite(found) if found else ()

    def _read_citation(self, citation: dict[str, Any], begins: int) -> Iterator[Citation]:
        """One citation for each source; its text begins after `begins` characters."""
        start, end = citation.get("start"), citation.get("end")
        for source in _parsing.objects(citation.get("sources")):
            found = source.get("document") or source.get("tool_output") or {}
            yield Citation(
                url=_parsing.get_text(found, "url"),
                title=_parsing.get_text(found, "title") or _parsing.get_text(source, "id"),
                quote=_parsing.get_text(citation, "text"),
                start=begins + start if isinstance(start, int) else None,
                end=begins + end if isinstance(end, int) else None,
            )

    def _finish(self, end: Mapping[str, Any]) -> None:
        self._reason = _parsing.get_text(end, "finish_reason") or "COMPLETE"
        usage = end.get("usage")
        if isinstance(usage, dict):
            self.usage = decode_usage(usage)


def decode_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Read `usage`: the charged tokens, or else all tokens, with those read from the cache."""
    for name in ("billed_units", "tokens"):
        found = usage.get(name)
        if isinstance(found, dict) and ("input_tokens" in found or "output_tokens" in found):
            whole = name == "tokens"
            return Usage(
                input=_parsing.read_count(found, "input_tokens"),
                output=_parsing.read_count(found, "output_tokens"),
                cache_read=_parsing.read_count(usage, "cached_tokens") if whole else 0,
            )
    return None
