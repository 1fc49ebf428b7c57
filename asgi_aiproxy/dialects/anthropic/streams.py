"""Streamed answers: Anthropic's frames to events, and events to frames.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _read
from asgi_aiproxy.dialects.anthropic import responses, wire
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
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
    Refusal,
    Stop,
    Text,
    ToolCall,
    Usage,
)

NAME = "anthropic"
_decode = wire.stream_event.decode


class Decoder:
    """Frames of a message stream to events."""

    def __init__(self) -> None:
        self.model = ""
        self._counts: dict[str, Any] = {}
        self._blocks: dict[int, Block] = {}
        self._extra: dict[int, dict[str, Any]] = {}
        self._citations: dict[int, list[Citation]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._end: dict[str, Any] = {}
        self._done = False

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return responses.decode_usage(self._counts) if self._counts else None

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one frame."""
        try:
            event = _decode(data)
        except ValueError:
            event = _json.typed(wire.stream_event, data)
        delta = event.delta
        if delta is not None:
            if delta.text:  # the usual case first: only a text_delta has a text
                return (BlockDelta(event.index, delta.text),)
            if delta.thinking:
                return (BlockDelta(event.index, delta.thinking),)
            if event.type == "content_block_delta":
                return self._delta(event.index, delta)
        return self._other(event, data)

    def close(self) -> Sequence[Event]:
        """Nothing, if the message was complete."""
        if not self._done:
            raise _read.broken("the stream ended without message_stop")
        return ()

    def _delta(self, index: int, delta: wire.Delta) -> Sequence[Event]:
        match delta.type:
            case "input_json_delta":
                pieces = self._arguments.setdefault(index, [])
                if delta.partial_json:
                    pieces.append(delta.partial_json)
                    if isinstance(self._blocks.get(index), ToolCall):
                        return (BlockDelta(index, delta.partial_json),)
            case "signature_delta":
                self._extra[index] = {NAME: {"signature": delta.signature}}
            case "citations_delta":
                found = responses.decode_citation(delta.citation)
                self._citations.setdefault(index, []).append(found)
        return ()

    def _other(self, event: wire.StreamEvent, data: bytes) -> Sequence[Event]:
        match event.type:
            case "content_block_start":
                return self._open(event.index, event.content_block)
            case "content_block_stop":
                return self._close(event.index)
            case "message_start":
                message = event.message
                self.model = message.get("model") or ""
                self._count(message.get("usage"))
                return (MessageStart(message.get("id") or "", self.model, self.usage),)
            case "message_delta":
                self._count(event.usage)
                delta = event.delta or wire.Delta()
                self._end = {
                    "stop_reason": delta.stop_reason,
                    "stop_sequence": delta.stop_sequence,
                    "stop_details": delta.stop_details,
                }
            case "message_stop":
                return self._stop()
            case "error":
                raise responses.read_error(event.error, 200, data)
        return ()  # ping, and what is new

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._counts.update({k: v for k, v in usage.items() if v is not None})

    def _open(self, index: int, block: dict[str, Any]) -> Sequence[Event]:
        text = ""
        opened: Block
        match block:
            case {"type": "text"}:
                opened, text = Text(), block.get("text") or ""
            case {"type": "thinking"}:
                opened, text = Reasoning(), block.get("thinking") or ""
                if block.get("signature"):
                    self._extra[index] = {NAME: {"signature": block["signature"]}}
            case {"type": "redacted_thinking", "data": data}:
                opened = Reasoning("", {NAME: {"redacted": data}})
            case {"type": "tool_use", "id": call_id, "name": name}:
                opened = ToolCall(call_id, name)
                if block.get("input"):  # some who speak Anthropic's dialect send it whole
                    text = _json.dumps(block["input"]).decode()
                    self._arguments[index] = [text]
            case _:
                opened = Opaque(NAME, block)
        self._blocks[index] = opened
        events: list[Event] = [BlockStart(index, opened)]
        if text:
            events.append(BlockDelta(index, text))
        return events

    def _close(self, index: int) -> Sequence[Event]:
        block = self._blocks.pop(index)
        extra = self._extra.pop(index, {})
        arguments = "".join(self._arguments.pop(index, ()))
        events: list[Event] = []
        if isinstance(block, ToolCall) and not arguments:
            events.append(BlockDelta(index, "{}"))
        if isinstance(block, Opaque) and arguments:
            extra = {NAME: {"input": _json.loads(arguments)}}
        events.append(BlockEnd(index, extra, tuple(self._citations.pop(index, ()))))
        return events

    def _stop(self) -> Sequence[Event]:
        self._done = True
        word = self._end.get("stop_reason") or ""
        ends = [event for index in list(self._blocks) for event in self._close(index)]
        return [
            *ends,
            MessageEnd(
                responses.STOPS.get(word, Stop.OTHER),
                self.usage,
                word,
                responses.explanation(self._end.get("stop_details")),
                responses.end_extra(self._end),
            ),
        ]


class Encoder:
    """Events to frames of a message stream.

    Anthropic's blocks come one after the other: what belongs to a block that is not the current one
    waits until the current one has ended.
    """

    def __init__(self, *, new_id: str) -> None:
        self._id = new_id
        self._current: int | None = None
        self._waiting: dict[int, list[Event]] = {}
        self._number = -1
        self._around = b"", b""
        self._called = False
        self._counted: Usage | None = None

    def feed(self, event: Event) -> bytes:
        """The frames that tell this event."""
        if type(event) is BlockDelta:
            if event.index == self._current:
                return self._around[0] + _json.quote(event.text) + self._around[1]
            self._waiting[event.index].append(event)
            return b""
        match event:
            case MessageStart():
                return self._start(event)
            case BlockStart(index=index):
                if self._current is not None:
                    self._waiting[index] = [event]
                    return b""
                return self._open(event)
            case BlockEnd(index=index):
                if index in self._waiting:
                    self._waiting[index].append(event)
                    return b""
                return self._close(event) + self._next() if index == self._current else b""
            case _:
                return self._end(event)

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream."""
        return encode_frame(responses.encode_error(error), b"error")

    def _start(self, event: MessageStart) -> bytes:
        self._counted = event.usage
        message: dict[str, Any] = {
            "id": event.id or self._id,
            "type": "message",
            "role": "assistant",
            "model": event.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": responses.encode_usage(event.usage or Usage()),
        }
        return _frame({"type": "message_start", "message": message})

    def _open(self, event: BlockStart) -> bytes:
        field = ""
        match event.block:
            case Text() | Refusal():
                block: dict[str, Any] = {"type": "text", "text": ""}
                field = "text"
            case Reasoning(_, {"anthropic": {"redacted": data}}):
                block = {"type": "redacted_thinking", "data": data}
            case Reasoning(_, extra):
                signature = extra.get(NAME, {}).get("signature", "")
                block = {"type": "thinking", "thinking": "", "signature": signature}
                field = "thinking"
            case ToolCall(call_id, name):
                self._called = True
                block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                field = "partial_json"
            case Opaque("anthropic", payload):
                block = dict(payload)
            case _:
                return b""  # it has no place here, and its deltas and its end have none either
        self._current = event.index
        self._number += 1
        kind = {"partial_json": "input_json_delta"}.get(field, f"{field}_delta")
        lead = {"type": "content_block_delta", "index": self._number}
        before = b'{"type":"%s","%s":' % (kind.encode(), field.encode())
        start = b"event: content_block_delta\ndata: " + _json.dumps(lead)[:-1]
        self._around = start + b',"delta":' + before, b"}}\n\n"
        opened = {"type": "content_block_start", "index": self._number, "content_block": block}
        return _frame(opened)

    def _close(self, event: BlockEnd) -> bytes:
        self._current = None
        out = b""
        for citation in event.citations:
            delta = {"type": "citations_delta", "citation": responses.encode_citation(citation)}
            out += self._delta(delta)
        own = event.extra.get(NAME, {})
        if own.get("signature"):
            out += self._delta({"type": "signature_delta", "signature": own["signature"]})
        if own.get("input"):  # of a hosted tool
            text = _json.dumps(own["input"]).decode()
            out += self._delta({"type": "input_json_delta", "partial_json": text})
        return out + _frame({"type": "content_block_stop", "index": self._number})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _frame({"type": "content_block_delta", "index": self._number, "delta": delta})

    def _next(self) -> bytes:
        """The blocks that waited, in order, up to one that is still open."""
        out = b""
        while self._waiting and self._current is None:
            index = next(iter(self._waiting))
            for event in self._waiting.pop(index):
                if type(event) is not BlockEnd:
                    out += self.feed(event)
                elif event.index == self._current:
                    out += self._close(event)
        return out

    def _end(self, event: MessageEnd) -> bytes:
        usage = event.usage if event.usage is not None else self._counted
        own = event.extra.get(NAME, {})
        delta = responses.encode_end(event.stop, event.word, self._called, event.refusal, own)
        counted = responses.encode_usage(usage or Usage())
        end = _frame({"type": "message_delta", "delta": delta, "usage": counted})
        return end + _frame({"type": "message_stop"})


def _frame(data: dict[str, Any]) -> bytes:
    return encode_frame(_json.dumps(data), str(data["type"]).encode())
