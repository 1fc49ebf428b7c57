"""Writes streamed responses: neutral events to those of the Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.openai_responses import responses
from asgi_aiproxy.dialects.openai_responses.reasoning import encode_carrier
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.dialects.openai_responses.tools import declared
from asgi_aiproxy.errors import APIError
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
    Request,
    Text,
    ToolCall,
    merge,
)

_EMPTY_SUMMARY = b'{"type":"summary_text","text":""}'


class _Part:
    """An open block: its position, and the text of its deltas.

    `index` is that of its item, `where` its position as members of events. `before` and `after` are
    what a delta's frame has around its number and text; empty if the block's text is sent whole.
    """

    __slots__ = ("after", "before", "block", "content_index", "extra", "index", "pieces", "where")

    def __init__(
        self, block: Block, item_id: str, index: int, content_index: int | None = None
    ) -> None:
        self.block = block
        self.index = index
        self.content_index = content_index
        self.where = b'"item_id":%b,"output_index":%d' % (_json.quote(item_id), index)
        if content_index is not None:
            self.where += b',"content_index":%d' % content_index
        self.pieces: list[str] = []
        self.extra: Extra = {} if isinstance(block, Refusal | Opaque) else block.extra
        self.before = self.after = b""

    def frame_deltas(self, name: bytes, after: bytes = b"") -> None:
        """Prepare the frame of deltas, which are events of this name."""
        self.before = b'event: %b\ndata: {"type":"%b",%b,"sequence_number":' % (
            name,
            name,
            self.where,
        )
        self.after = after + b"}\n\n"


class Encoder:
    """Converts events to those of the Responses API."""

    def __init__(self, request: Request, *, created: int, token: str) -> None:
        self._request = request
        self._created = created
        self._ids = responses.Ids(token)
        self._tools = declared(request.tools)
        self._number = 0  # sequence number of the next event
        self._output: list[dict[str, Any]] = []
        self._open: dict[int, _Part] = {}
        self._message: int | None = None  # the index of the open message item
        self._position = 0  # characters of text in blocks that have ended
        self._answer = responses.envelope(request, self._ids.response, request.model, created)

    def feed(self, event: Event) -> bytes:
        """The frames for one event."""
        if type(event) is BlockDelta:
            part = self._open[event.index]
            part.pieces.append(event.text)
            first = b""
            if not part.before:
                if not isinstance(part.block, Reasoning):
                    return b""  # input of a custom tool or tool search: sent when it is whole
                first = self._begin_summary(part)
            number, self._number = self._number, self._number + 1
            text = _json.quote(event.text)
            return b'%b%b%d,"delta":%b%b' % (first, part.before, number, text, part.after)
        match event:
            case MessageStart():
                return self._start(event)
            case BlockStart():
                return self._begin(event)
            case BlockEnd():
                return self._finish(event)
            case _:
                return self._end(event)

    def run(self, index: int, texts: list[str]) -> bytes:
        """The frames for more text of one block."""
        part = self._open[index]
        if not part.before or not texts:
            return b"".join([self.feed(BlockDelta(index, text)) for text in texts])
        part.pieces += texts
        number, self._number = self._number, self._number + len(texts)
        # One join of fragments, without a Python instruction for each delta.
        out = [part.before, b"", b',"delta":', b"", part.after] * len(texts)
        out[1::5] = _json.encode_each([*range(number, self._number)])
        out[3::5] = _json.encode_each(texts)
        return b"".join(out)

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream, with two events like OpenAI."""
        out = self._event(b"error", _json.dumps(responses.error_event(error))[1:-1])
        self._answer["status"] = "failed"
        self._answer["error"] = responses.failure(error)
        return out + self._event(b"response.failed", self._response())

    def _event(self, name: bytes, members: bytes) -> bytes:
        """The frame of an event; its own `members` are JSON without line breaks."""
        number, self._number = self._number, self._number + 1
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (
            name,
            name,
            number,
            members,
        )

    def _item_event(self, name: bytes, index: int) -> bytes:
        return self._event(
            name, b'"output_index":%d,"item":%b' % (index, _json.dumps(self._output[index]))
        )

    def _response(self) -> bytes:
        return b'"response":' + _json.dumps(self._answer)

    def _start(self, event: MessageStart) -> bytes:
        self._answer["model"] = event.model or self._request.model
        self._answer["id"] = responses.own_id(event.id) or self._answer["id"]
        encoded = self._response()
        created = self._event(b"response.created", encoded)
        return created + self._event(b"response.in_progress", encoded)

    def _begin(self, event: BlockStart) -> bytes:
        block = event.block
        match block:
            case Text() | Refusal():
                return self._begin_text(event.index, block)
            case Reasoning():
                out = self._end_message()
                known = block.extra.get(NAME, {}).get("id")
                item = responses.reasoning_item(known or self._ids.item("rs"), "", "")
                index, added = self._add(item)
                self._open[event.index] = _Part(block, item["id"], index)
                return out + added
            case ToolCall():
                out = self._end_message()
                id = self._ids.item(responses.call_prefix(block, self._tools))
                opening = ToolCall(block.id, block.name, extra=block.extra)
                item = responses.call_item(opening, id, self._tools, "in_progress")
                index, added = self._add(item)
                part = self._open[event.index] = _Part(block, id, index)
                if item["type"] == "function_call":
                    part.frame_deltas(b"response.function_call_arguments.delta")
                return out + added
            case Media(url=url) if url:
                begun = self._begin_text(event.index, Text())
                return begun + self.feed(BlockDelta(event.index, responses.image_link(block).text))
            case Media(kind="image", data=data) if data:
                return self._end_message() + self._whole_item(
                    responses.image_item(block, self._ids.item("ig"))
                )
            case Opaque(dialect=dialect, payload=payload) if dialect == NAME:
                return self._end_message() + self._whole_item(dict(payload))
            case Opaque() if carrier := encode_carrier(block, {}):
                return self._end_message() + self._carrier_item(carrier)
        return b""

    def _add(self, item: dict[str, Any]) -> tuple[int, bytes]:
        """Start an item; returns its index and the event for it."""
        index = len(self._output)
        self._output.append(item)
        return index, self._item_event(b"response.output_item.added", index)

    def _whole_item(self, item: dict[str, Any]) -> bytes:
        index, out = self._add(item)
        return out + self._item_event(b"response.output_item.done", index)

    def _carrier_item(self, carrier: str) -> bytes:
        return self._whole_item(responses.carrier_item(self._ids.item("rs"), carrier))

    def _begin_text(self, index: int, block: Text | Refusal) -> bytes:
        out = b""
        if self._message is None:
            item = responses.message_item(self._ids.item("msg"), [], "in_progress")
            self._message, out = self._add(item)
        item = self._output[self._message]
        part = _Part(block, item["id"], self._message, len(item["content"]))
        self._open[index] = part
        if isinstance(block, Refusal):
            part.frame_deltas(b"response.refusal.delta")
        else:
            part.frame_deltas(b"response.output_text.delta", b',"logprobs":[]')
        empty = responses.encode_part(type(block)())
        item["content"].append(empty)
        return out + self._part_event(b"response.content_part.added", part, _json.dumps(empty))

    def _part_event(self, name: bytes, part: _Part, encoded: bytes) -> bytes:
        return self._event(name, b'%b,"part":%b' % (part.where, encoded))

    def _finish(self, event: BlockEnd) -> bytes:
        part = self._open.pop(event.index, None)
        if part is None:
            return b""
        text = "".join(part.pieces)
        extra = merge(part.extra, event.extra)
        match part.block:
            case Text() | Refusal():
                return self._finish_text(part, text, event.citations, extra)
            case Reasoning():
                return self._finish_reasoning(part, text, extra)
            case ToolCall():
                return self._finish_call(part, text, extra)
        return b""

    def _finish_text(
        self, part: _Part, text: str, citations: tuple[Citation, ...], extra: Extra
    ) -> bytes:
        refused = isinstance(part.block, Refusal)
        said: Text | Refusal = Refusal(text) if refused else Text(text, citations)
        whole = responses.encode_part(said, self._position)
        self._position += 0 if refused else len(text)
        self._output[part.index]["content"][part.content_index] = whole
        out, quoted = b"", _json.quote(text)
        for at, annotation in enumerate(whole.get("annotations", ())):
            out += self._event(
                b"response.output_text.annotation.added",
                b'%b,"annotation_index":%d,"annotation":%b'
                % (part.where, at, _json.dumps(annotation)),
            )
        if refused:
            out += self._event(b"response.refusal.done", b'%b,"refusal":%b' % (part.where, quoted))
        else:
            out += self._event(
                b"response.output_text.done", b'%b,"text":%b,"logprobs":[]' % (part.where, quoted)
            )
        out += self._part_event(b"response.content_part.done", part, _json.dumps(whole))
        if part.index != self._message and not self._has_open_parts(part.index):
            out += self._message_done(part.index)
        carrier = encode_carrier(part.block, extra)
        return out + self._end_message() + self._carrier_item(carrier) if carrier else out

    def _begin_summary(self, part: _Part) -> bytes:
        """Start the only part of a reasoning item's summary."""
        part.where += b',"summary_index":0'
        part.frame_deltas(b"response.reasoning_summary_text.delta")
        return self._part_event(b"response.reasoning_summary_part.added", part, _EMPTY_SUMMARY)

    def _finish_reasoning(self, part: _Part, text: str, extra: Extra) -> bytes:
        id = self._output[part.index]["id"]
        item = responses.reasoning_item(id, text, encode_carrier(part.block, extra))
        self._output[part.index] = item
        out = b""
        if text:
            out = self._event(
                b"response.reasoning_summary_text.done",
                b'%b,"text":%b' % (part.where, _json.quote(text)),
            )
            summary = _json.dumps(item["summary"][0])
            out += self._part_event(b"response.reasoning_summary_part.done", part, summary)
        return out + self._item_event(b"response.output_item.done", part.index)

    def _finish_call(self, part: _Part, text: str, extra: Extra) -> bytes:
        block = part.block
        assert isinstance(block, ToolCall)  # noqa: S101 (for the type checker)
        call = ToolCall(block.id, block.name, text, block.extra)
        id = self._output[part.index]["id"]
        item = responses.call_item(call, id, self._tools, "completed")
        self._output[part.index] = item
        out = b""  # the item of a tool search has its arguments
        if item["type"] == "custom_tool_call":
            given = part.where, _json.quote(item["input"])
            out = self._event(b"response.custom_tool_call_input.delta", b'%b,"delta":%b' % given)
            out += self._event(b"response.custom_tool_call_input.done", b'%b,"input":%b' % given)
        elif item["type"] == "function_call":
            out = self._event(
                b"response.function_call_arguments.done",
                b'%b,"name":%b,"arguments":%b'
                % (part.where, _json.quote(item["name"]), _json.quote(text)),
            )
        out += self._item_event(b"response.output_item.done", part.index)
        carrier = encode_carrier(part.block, extra)
        return out + self._carrier_item(carrier) if carrier else out

    def _end_message(self, status: str = "completed") -> bytes:
        """Another item begins, or the answer ends. The message ends with its last open part."""
        index, self._message = self._message, None
        if index is None or self._has_open_parts(index):
            return b""
        return self._message_done(index, status)

    def _has_open_parts(self, index: int) -> bool:
        return any(part.index == index for part in self._open.values())

    def _message_done(self, index: int, status: str = "completed") -> bytes:
        self._output[index]["status"] = status
        return self._item_event(b"response.output_item.done", index)

    def _end(self, event: MessageEnd) -> bytes:
        out = b""
        if event.refusal:
            number = -1
            out += self._begin_text(number, Refusal())
            out += self.feed(BlockDelta(number, event.refusal))
            out += self._finish(BlockEnd(number))
        responses.finish(self._answer, self._output, event.stop, event.usage)
        if event.conversation:
            self._answer["conversation"] = {"id": event.conversation}
        status = self._answer["status"]
        out += self._end_message(status)
        return out + self._event(b"response." + status.encode(), self._response())
