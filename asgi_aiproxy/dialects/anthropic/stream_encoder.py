"""Writes streamed messages: events to Anthropic's frames.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._carriers import encode_carrier
from asgi_aiproxy.dialects.anthropic import (
    errors,
    responses,
)
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    Extra,
    MessageEnd,
    MessageStart,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    merge,
)

NAME = "anthropic"


class Encoder:
    """Converts events to the frames of a message stream.

    Anthropic's blocks are sequential: events of other blocks wait until the current one has ended.
    """

    def __init__(self, *, new_id: str, model: str) -> None:
        self._id = new_id
        self._model = model  # as requested
        self._current: int | None = None
        self._waiting: dict[int, list[Event]] = {}
        self._number = -1
        self._around = b"", b""
        self._block: Block = Text()  # the current one as it began
        self._carried = False  # whether the carrier of its signature came before it
        self._called = False
        self._refused = False
        self._start_usage: Usage | None = None

    def feed(self, event: Event) -> bytes:
        """The frames for one event."""
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
                return self._close(event) + self._flush_waiting() if index == self._current else b""
            case _:
                return self._end(event)

    def run(self, index: int, texts: list[str]) -> bytes:
        """The frames for more text of one block."""
        if index == self._current:
            return _json.quote_each(texts, *self._around)
        return b"".join([self.feed(BlockDelta(index, text)) for text in texts])

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream."""
        return encode_frame(errors.encode_error(error), b"error")

    def _start(self, event: MessageStart) -> bytes:
        self._start_usage = event.usage
        message: dict[str, Any] = {
            "id": event.id or self._id,
            "type": "message",
            "role": "assistant",
            "model": event.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": responses.encode_usage(event.usage or Usage()),
        }
        return _frame({"type": "message_start", "message": message})

    def _open(self, event: BlockStart) -> bytes:
        field = ""
        before = b""
        carried = event.block if isinstance(event.block, ToolCall | Opaque) else None
        if carried is not None:
            before = self._carrier(encode_carrier(NAME, carried, _extra(carried)))
        match event.block:
            case Text() | Refusal() as text:
                self._refused = self._refused or isinstance(text, Refusal)
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
                return before  # not supported in this format, nor are its deltas and its end
        self._current = event.index
        self._block, self._carried = event.block, bool(before)
        self._number += 1
        kind = {"partial_json": "input_json_delta"}.get(field, f"{field}_delta")
        lead = {"type": "content_block_delta", "index": self._number}
        member = b'{"type":"%s","%s":' % (kind.encode(), field.encode())
        start = b"event: content_block_delta\ndata: " + _json.dumps(lead)[:-1]
        self._around = start + b',"delta":' + member, b"}}\n\n"
        opened = {"type": "content_block_start", "index": self._number, "content_block": block}
        return before + _frame(opened)

    def _carrier(self, signature: str) -> bytes:
        """A thinking block of its own that carries another vendor's signature."""
        if not signature:
            return b""
        self._number += 1
        block = {"type": "thinking", "thinking": "", "signature": ""}
        opened = {"type": "content_block_start", "index": self._number, "content_block": block}
        signed = self._delta({"type": "signature_delta", "signature": signature})
        closed = {"type": "content_block_stop", "index": self._number}
        return _frame(opened) + signed + _frame(closed)

    def _close(self, event: BlockEnd) -> bytes:
        self._current = None
        out = b""
        for citation in event.citations:
            delta = {"type": "citations_delta", "citation": responses.encode_citation(citation)}
            out += self._delta(delta)
        own = event.extra.get(NAME, {})
        carrier = "" if self._carried else self._foreign(event)
        inside = isinstance(self._block, Reasoning)
        if signature := own.get("signature") or (inside and carrier):
            out += self._delta({"type": "signature_delta", "signature": signature})
        if own.get("input"):  # of a hosted tool
            text = _json.dumps(own["input"]).decode()
            out += self._delta({"type": "input_json_delta", "partial_json": text})
        out += _frame({"type": "content_block_stop", "index": self._number})
        return out if inside else out + self._carrier(carrier)

    def _foreign(self, event: BlockEnd) -> str:
        """The carrier of what another vendor signed of the current block."""
        block = self._block
        if isinstance(block, Opaque) or not (event.extra or _extra(block)):
            return ""
        return encode_carrier(NAME, block, merge(_extra(block), event.extra))

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _frame({"type": "content_block_delta", "index": self._number, "delta": delta})

    def _flush_waiting(self) -> bytes:
        """The frames of waiting blocks, in order, up to one that is still open."""
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
        usage = event.usage if event.usage is not None else self._start_usage
        own = event.extra.get(NAME, {})
        delta = responses.encode_end(event, self._called, self._refused, own)
        counted = responses.encode_usage(usage or Usage())
        last = {"type": "message_delta", "delta": delta, "usage": counted}
        if event.conversation:
            last["conversation"] = event.conversation
        end = _frame(last)
        return end + _frame({"type": "message_stop"})


def _extra(block: Block) -> Extra:
    return {} if isinstance(block, Refusal | Opaque) else block.extra


def _frame(data: dict[str, Any]) -> bytes:
    return encode_frame(_json.dumps(data), str(data["type"]).encode())
