"""Reads streamed messages: Anthropic's frames to events.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import CallIds, decode_run
from asgi_aiproxy.dialects.anthropic import (
    errors,
    responses,
    schemas,
)
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    MessageEnd,
    MessageStart,
    Opaque,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

NAME = "anthropic"
_decode_delta = schemas.content_block_delta.decode
_decode_deltas = schemas.content_block_deltas.decode
_InputDelta = schemas.InputDelta


class Decoder:
    """Converts the frames of a message stream to events.

    Blocks get new numbers, as some compatible servers reuse indexes.
    """

    def __init__(self) -> None:
        self.model = ""
        self._counts: dict[str, Any] = {}
        self._usage: Usage | None = None  # computed from the counts when requested
        self._started = self.ended = False
        self._numbers: dict[Any, int] = {}  # of the open blocks, by Anthropic's index
        self._blocks: list[Block] = []
        self._extra: dict[int, dict[str, Any]] = {}
        self._citations: dict[int, list[Citation]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._ids = CallIds()
        self._input: dict[int, str] = {}  # sent whole at the start of its block
        self._end: dict[str, Any] = {}

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        if self._usage is None and self._counts:
            self._usage = responses.decode_usage(self._counts)
        return self._usage

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one frame."""
        if not self._numbers:
            return self._other_event(data)
        try:
            event = _decode_delta(data)
            number = self._numbers[event.index]
        except (ValueError, KeyError):
            return self._other_event(data)
        delta = event.delta
        text = delta.text
        if type(delta) is _InputDelta:
            return self._add_input(number, text)
        return (BlockDelta(number, text),) if text else ()

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """The block and the texts of pieces that are text or thinking deltas of one block."""
        events = decode_run(_decode_deltas, pieces)
        if not events:
            return None
        index, kind = events[0].index, type(events[0].delta)
        texts = [event.delta.text for event in events if event.index == index]
        kinds = {type(event.delta) for event in events}
        number = self._numbers.get(index)
        if number is None or kind is _InputDelta or len(kinds) > 1 or len(texts) != len(pieces):
            return None
        return number, texts if all(texts) else [text for text in texts if text], len(pieces)

    def close(self) -> Sequence[Event]:
        """Nothing if the message was complete; otherwise raises APIError."""
        if not self.ended:
            raise _parsing.truncated_response_error("the stream ended without message_stop")
        return ()

    def _other_event(self, data: bytes) -> Sequence[Event]:
        if self.ended or not data.lstrip().startswith(b"{"):
            return ()  # keep-alive data of some servers
        event = _json.loads(data)
        index = event.get("index")
        found: Sequence[Event] = ()
        match event.get("type"):
            case "message_start":
                return self._start(_object(event.get("message")))
            case "content_block_start":
                found = self._open(index, _object(event.get("content_block")))
            case "content_block_delta":
                found = self._delta(index, _object(event.get("delta")))
            case "content_block_stop":
                found = self._close(index)
            case "message_delta":
                self._count(event.get("usage"))
                self._end |= _non_null(event.get("delta"))
                return ()
            case "message_stop":
                found = self._stop()
            case kind if kind == "error" or event.get("error"):
                raise errors.read_error(event.get("error"), 200, data)
            case _:
                return ()  # ping, and unknown events
        return found if self._started else [*self._start({}), *found]

    def _start(self, message: dict[str, Any]) -> Sequence[Event]:
        self._count(message.get("usage"))
        if self._started:
            return ()
        self._started = True
        self.model = str(message.get("model") or "")
        return (MessageStart(str(message.get("id") or ""), self.model, self.usage),)

    def _count(self, usage: Any) -> None:
        responses.add_counts(self._counts, usage)
        self._usage = None

    def _open(self, index: Any, block: dict[str, Any]) -> Sequence[Event]:
        number = len(self._blocks)
        text = ""
        opened: Block
        match block:
            case {"type": "text"}:
                opened, text = Text(), block.get("text") or ""
                if block.get("citations"):
                    self._citations[number] = list(responses.decode_citations(block))
            case {"type": "thinking"}:
                opened, text = Reasoning(), block.get("thinking") or ""
                if block.get("signature"):
                    self._extra[number] = {NAME: {"signature": block["signature"]}}
            case {"type": "redacted_thinking", "data": data}:
                opened = Reasoning("", {NAME: {"redacted": data}})
            case {"type": "tool_use", "name": str(name)}:
                opened = self._ids.unique(ToolCall(block.get("id") or f"toolu_{number}", name))
                if block.get("input"):  # some compatible servers send it whole
                    self._input[number] = responses.arguments_text(block["input"])
            case _:
                opened = Opaque(NAME, block)
        events = list(self._close(index))
        self._numbers[index] = number
        self._blocks.append(opened)
        events.append(BlockStart(number, opened))
        if text:
            events.append(BlockDelta(number, text))
        return events

    def _delta(self, index: Any, delta: dict[str, Any]) -> Sequence[Event]:
        events: list[Event] = []
        kind = delta.get("type")
        if index not in self._numbers and kind in ("text_delta", "thinking_delta"):
            events += self._open(index, {"type": kind.removesuffix("_delta")})
        number = self._numbers.get(index)
        match delta:
            case _ if number is None:
                pass
            case {"type": "text_delta", "text": str(text)} | {
                "type": "thinking_delta",
                "thinking": str(text),
            } if text:
                events.append(BlockDelta(number, text))
            case {"type": "input_json_delta", "partial_json": str(text)}:
                events += self._add_input(number, text)
            case {"type": "signature_delta", "signature": str(signature)} if signature:
                self._extra[number] = {NAME: {"signature": signature}}
            case {"type": "citations_delta", "citation": dict(citation)}:
                found = responses.decode_citation(citation)
                self._citations.setdefault(number, []).append(found)
        return events

    def _add_input(self, number: int, text: str) -> Sequence[Event]:
        """Add input to a tool call. Input of a hosted tool is returned with its end."""
        pieces = self._arguments.get(number)
        if pieces is None:
            pieces = self._arguments[number] = []
        if not text:
            return ()
        pieces.append(text)
        return (BlockDelta(number, text),) if type(self._blocks[number]) is ToolCall else ()

    def _close(self, index: Any) -> Sequence[Event]:
        number = self._numbers.pop(index, None)
        if number is None:
            return ()
        block = self._blocks[number]
        extra = self._extra.pop(number, {})
        arguments = "".join(self._arguments.pop(number, ()))
        events: list[Event] = []
        if isinstance(block, ToolCall) and not arguments:
            events.append(BlockDelta(number, self._input.pop(number, "{}")))
        if isinstance(block, Opaque) and arguments:
            extra = {NAME: {"input": _parsing.arguments(arguments, [])}}
        events.append(BlockEnd(number, extra, tuple(self._citations.pop(number, ()))))
        return events

    def _stop(self) -> Sequence[Event]:
        self.ended = True
        word = _parsing.get_text(self._end, "stop_reason")
        ends = [event for index in list(self._numbers) for event in self._close(index)]
        return [
            *ends,
            MessageEnd(
                responses.STOPS.get(word, StopReason.OTHER),
                self.usage,
                word,
                responses.refusal_explanation(self._end.get("stop_details")),
                responses.end_extra(self._end),
            ),
        ]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _non_null(value: Any) -> dict[str, Any]:
    """The members of an object that are not null."""
    return {name: member for name, member in _object(value).items() if member is not None}
