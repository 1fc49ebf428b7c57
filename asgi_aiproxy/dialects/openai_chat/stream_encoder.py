"""Writes streamed chat completions: events to OpenAI's chunks.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._open_blocks import OpenBlock
from asgi_aiproxy.dialects.openai_chat import (
    errors,
    order,
    reasoning,
    responses,
)
from asgi_aiproxy.dialects.openai_chat.usage import encode_usage
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
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

DONE = b"data: [DONE]\n\n"


class Encoder:
    """Converts events to the chunks of a chat completion."""

    def __init__(self, *, usage_wanted: bool, created: int, new_id: str, model: str) -> None:
        self._model = model  # as requested
        self._usage_wanted = usage_wanted
        self._created = created
        self._id = new_id
        self._head = b""
        self._open: dict[int, OpenBlock] = {}
        self._calls = 0
        self._position = 0  # characters of visible text in blocks that have ended
        self._order = order.BlockOrder()
        # Number of members of each list so far: the SDK joins the lists of a stream by `index`.
        self._list_lengths: dict[str, int] = {}

    def feed(self, event: Event) -> bytes:
        """The chunks for one event."""
        if type(event) is BlockDelta:
            return self._open[event.index].delta(event.text)
        match event:
            case MessageStart():
                return self._start(event)
            case BlockStart():
                return self._start_block(event)
            case BlockEnd():
                return self._end_block(event)
            case _:
                return self._end(event)

    def run(self, index: int, texts: list[str]) -> bytes:
        """The chunks for more text of one block."""
        return self._open[index].run(texts)

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream; without `[DONE]` the response counts as incomplete."""
        return encode_frame(errors.encode_error(error))

    def _start(self, event: MessageStart) -> bytes:
        head = {
            "id": event.id or self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": event.model or self._model,
        }
        self._head = b"data: " + _json.dumps(head)[:-1]
        return self._chunk(b'{"role":"assistant","content":""}')

    def _chunk(self, delta: bytes, finish: bytes = b"null") -> bytes:
        before, after = self._frame()
        return before + delta + after.replace(b"null", finish)

    def _frame(self) -> tuple[bytes, bytes]:
        return self._head + b',"choices":[{"index":0,"delta":', b',"finish_reason":null}]}\n\n'

    def _start_block(self, event: BlockStart) -> bytes:
        self._order.begin(event.index, event.block)
        match event.block:
            case Text():
                self._open_block(event, b'{"content":', b"}")
            case Reasoning(text):
                self._open_block(event, b'{"reasoning_content":', b"}", text)
            case Refusal():
                self._open_block(event, b'{"refusal":', b"}")
            case ToolCall() as call:
                number = self._calls
                self._calls += 1
                lead = b'{"tool_calls":[{"index":%d,"function":{"arguments":' % number
                self._open_block(event, lead, b"}}]}")
                opening = {"index": number, **responses.tool_call(call)}
                return self._chunk(_json.dumps({"tool_calls": [opening]}))
            case Media(kind="image") as media:
                self._open[event.index] = OpenBlock(media)
                images = self._numbered("images", [responses.image(media)])
                return self._chunk(_json.dumps({"images": images}))
            case other:
                self._open[event.index] = OpenBlock(other)
        return b""

    def _open_block(self, event: BlockStart, before: bytes, after: bytes, text: str = "") -> None:
        head, tail = self._frame()
        opened = OpenBlock(event.block, head + before, after + tail, text=text)
        self._open[event.index] = opened

    def _end_block(self, event: BlockEnd) -> bytes:
        open_block = self._open.pop(event.index)
        block = open_block.block
        text = whole = open_block.text
        delta: dict[str, Any] = {}
        if isinstance(block, Text):
            start, self._position = self._position, self._position + len(text)
            if event.citations:
                cited = [
                    responses.encode_citation(c, start, self._position) for c in event.citations
                ]
                delta["annotations"] = self._numbered("annotations", cited)
            text = ""
        own = block.extra if isinstance(block, Text | Reasoning) else {}
        extra = merge(own, event.extra)
        details = reasoning.reasoning_details(text, extra) if extra else []
        if isinstance(block, Opaque):
            details = reasoning.signature_details(block)
        if details:
            delta["reasoning_details"] = self._numbered("reasoning_details", details)
        self._order.end(event.index, block, whole, details)
        return self._chunk(_json.dumps(delta)) if delta else b""

    def _numbered(self, name: str, members: list[dict[str, Any]]) -> list[dict[str, Any]]:
        start = self._list_lengths.get(name, 0)
        self._list_lengths[name] = start + len(members)
        return [{"index": start + n, **member} for n, member in enumerate(members)]

    def _end(self, event: MessageEnd) -> bytes:
        finish = responses.finish_reason(event.stop, self._calls > 0)
        delta: dict[str, Any] = {"refusal": event.refusal} if event.refusal else {}
        details = self._order.details()
        if details:
            delta["reasoning_details"] = self._numbered("reasoning_details", details)
        out = self._chunk(_json.dumps(delta), b'"' + finish.encode() + b'"')
        if own := responses.extensions(event):
            out = out.removesuffix(b"}\n\n") + b"," + _json.dumps(own)[1:] + b"\n\n"
        if self._usage_wanted and event.usage is not None:
            usage = _json.dumps(encode_usage(event.usage))
            out += self._head + b',"choices":[],"usage":' + usage + b"}\n\n"
        return out + DONE
