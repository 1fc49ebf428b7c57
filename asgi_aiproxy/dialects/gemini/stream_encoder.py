"""Writes streamed responses: events to Google's chunks, as an event stream (`alt=sse`).

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._open_blocks import OpenBlock
from asgi_aiproxy.dialects.gemini import (
    errors,
    responses,
)
from asgi_aiproxy.dialects.gemini.carriers import CarriedThoughts, encode_carrier
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    Extra,
    Media,
    MessageEnd,
    MessageStart,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    merge,
)

NAME = "gemini"
# Google's own SDKs search for exactly these characters before the JSON.
_DATA = b"data: "
_BEFORE = _DATA + b'{"candidates":[{"content":{"parts":[{"text":'


class Encoder:
    """Converts events to the chunks of a streamGenerateContent response, as an event stream."""

    def __init__(self, *, new_id: str, model: str, conversation: bool = False) -> None:
        self._returns_conversation = conversation
        self._id = new_id
        self._model = model  # as requested, until the provider names it
        self._open: dict[int, OpenBlock] = {}
        self._text = ""  # of text blocks that have ended
        self._carried = CarriedThoughts()
        self._cited: list[tuple[Citation, int, int]] = []
        self._after = b""  # the bytes after the text of a chunk

    def feed(self, event: Event) -> bytes:
        """The chunks for one event."""
        if type(event) is BlockDelta:
            return self._open[event.index].delta(event.text)
        match event:
            case MessageStart():
                self._id = event.id or self._id
                self._model = event.model or self._model
                names = _json.dumps({"modelVersion": self._model, "responseId": self._id})
                self._after = b'}],"role":"model"},"index":0}],' + names[1:] + b"\n\n"
            case BlockStart(index, block):
                self._open[index] = OpenBlock(block, *self._frame(block))
                if isinstance(block, Media | Opaque):
                    return self._chunk(list(responses.write(block)))
            case BlockEnd(index, extra, citations):
                return self._close(index, extra, citations)
            case _:
                return self._end(event)
        return b""

    def run(self, index: int, texts: list[str]) -> bytes:
        """The chunks for more text of one block."""
        return self._open[index].run(texts)

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream."""
        return encode_frame(errors.encode_error(error))

    def _frame(self, block: Block) -> tuple[bytes, ...]:
        """What surrounds a piece of a block's text. Google sends calls and signed parts whole."""
        match block:
            case ToolCall() | Text(extra={"gemini": _}) | Reasoning(extra={"gemini": _}):
                return ()
            case Reasoning():
                return _BEFORE, b',"thought":true' + self._after
        return _BEFORE, self._after

    def _close(self, index: int, extra: Extra, citations: tuple[Citation, ...]) -> bytes:
        open_block = self._open.pop(index)
        block, text = open_block.block, open_block.text
        if isinstance(block, Media | Opaque):  # sent when they started
            return b""
        if isinstance(block, Text):
            begins, self._text = len(self._text), self._text + text
            self._cited += [(citation, begins, len(self._text)) for citation in citations]
        extra = merge({} if isinstance(block, Refusal) else block.extra, extra)
        if isinstance(block, ToolCall):
            whole = ToolCall(block.id, block.name, text, extra)
            return self._chunk(list(responses.write(whole, self._carried.take())))
        self._carried.add(block, text, extra)
        if isinstance(block, Text | Reasoning) and NAME in block.extra:
            return self._chunk(list(responses.write(type(block)(text, extra=extra))))
        signature = extra.get(NAME, {}).get("signature")
        if isinstance(block, Reasoning):
            signature = signature or encode_carrier(block, extra)
        if signature:
            thought = {"thought": True} if isinstance(block, Reasoning) else {}
            return self._chunk([{"text": "", **thought, "thoughtSignature": signature}])
        return b""

    def _end(self, event: MessageEnd) -> bytes:
        reason = responses.finish_reason(event.stop, event.word)
        more: dict[str, Any] = {"finishReason": reason}
        if event.refusal:
            more["finishMessage"] = event.refusal
        more |= responses.encode_citations(self._cited, self._text)
        kept = event.conversation if self._returns_conversation else ""
        return self._chunk([], more, event.usage, kept)

    def _chunk(
        self,
        parts: list[dict[str, Any]],
        more: dict[str, Any] | None = None,
        usage: Any = None,
        conversation: str = "",
    ) -> bytes:
        candidate = {"content": {"parts": parts, "role": "model"}, **(more or {}), "index": 0}
        chunk: dict[str, Any] = {"candidates": [candidate]}
        if usage is not None:
            chunk["usageMetadata"] = responses.encode_usage(usage)
        chunk["modelVersion"] = self._model
        chunk["responseId"] = self._id
        if conversation:
            chunk["conversation"] = conversation
        return _DATA + _json.dumps(chunk) + b"\n\n"
