"""Writes streamed responses: neutral events to those of the Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec

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


class _Part:
    """An open block: its position, and the text of its deltas."""

    __slots__ = ("after", "before", "block", "extra", "index", "item_id", "pieces", "place")

    def __init__(self, block: Block, item_id: str, index: int, place: dict[str, int]) -> None:
        self.block = block
        self.item_id = item_id
        self.index = index  # index of the item
        self.place = place  # content_index or summary_index
        self.pieces: list[str] = []
        self.extra: Extra = {}
        self.before = self.after = b""


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
        self._message: dict[str, Any] | None = None  # the open message item
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
        out = self._event("error", **responses.error_event(error))
        self._answer["status"] = "failed"
        self._answer["error"] = responses.failure(error)
        return out + self._event("response.failed", response=self._answer)

    def _event(self, kind: str, **members: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        name = kind.encode()
        data = _json.dumps(members)[1:]  # JSON without line breaks, so that one line holds it
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b\n\n' % (
            name,
            name,
            number,
            data,
        )

    def _start(self, event: MessageStart) -> bytes:
        self._answer["model"] = event.model or self._request.model
        self._answer["id"] = responses.own_id(event.id) or self._answer["id"]
        encoded = msgspec.Raw(_json.dumps(self._answer))
        return self._event("response.created", response=encoded) + self._event(
            "response.in_progress", response=encoded
        )

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
                part = self._open[event.index] = _Part(block, item["id"], index, {})
                part.extra = block.extra
                return out + added
            case ToolCall():
                out = self._end_message()
                id = self._ids.item(responses.call_prefix(block, self._tools))
                opening = ToolCall(block.id, block.name, extra=block.extra)
                item = responses.call_item(opening, id, self._tools, "in_progress")
                index, added = self._add(item)
                part = self._open[event.index] = _Part(block, id, index, {})
                part.extra = block.extra
                if item["type"] == "function_call":
                    _frame_deltas(part, "function_call_arguments")
                return out + added
            case Media(kind="image", data=data) if data:
                return self._end_message() + self._whole_item(
                    responses.image_item(block, self._ids.item("ig"))
                )
            case Opaque(dialect=dialect, payload=payload) if dialect == NAME:
                return self._end_message() + self._whole_item(dict(payload))
            case Opaque() if carrier := encode_carrier(block, {}):
                item = responses.carrier_item(self._ids.item("rs"), carrier)
                return self._end_message() + self._whole_item(item)
        return b""

    def _add(self, item: dict[str, Any]) -> tuple[int, bytes]:
        """Start an item; returns its index and the event for it."""
        index = len(self._output)
        self._output.append(item)
        return index, self._event("response.output_item.added", output_index=index, item=item)

    def _whole_item(self, item: dict[str, Any]) -> bytes:
        index, out = self._add(item)
        return out + self._event("response.output_item.done", output_index=index, item=item)

    def _begin_text(self, index: int, block: Text | Refusal) -> bytes:
        out = b""
        if self._message is None:
            self._message = responses.message_item(self._ids.item("msg"), [], "in_progress")
            out = self._add(self._message)[1]
        content = self._message["content"]
        place = {"content_index": len(content)}
        part = _Part(block, self._message["id"], self._output.index(self._message), place)
        part.extra = block.extra if isinstance(block, Text) else {}
        self._open[index] = part
        empty = responses.encode_part(type(block)())
        content.append(empty)
        kind = "refusal" if isinstance(block, Refusal) else "output_text"
        _frame_deltas(part, kind, b',"logprobs":[]' if kind == "output_text" else b"")
        return out + self._event("response.content_part.added", **_where(part), part=empty)

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
        whole = responses.encode_part(Refusal(text) if refused else Text(text, citations))
        self._output[part.index]["content"][part.place["content_index"]] = whole
        out = b""
        for at, annotation in enumerate(whole.get("annotations", ())):
            out += self._event(
                "response.output_text.annotation.added",
                **_where(part),
                annotation_index=at,
                annotation=annotation,
            )
        if refused:
            out += self._event("response.refusal.done", **_where(part), refusal=text)
        else:
            done = {"text": text, "logprobs": []}
            out += self._event("response.output_text.done", **_where(part), **done)
        out += self._event("response.content_part.done", **_where(part), part=whole)
        item = self._output[part.index]
        if item is not self._message and not self._has_open_parts(part.index):
            out += self._message_done(part.index)
        carrier = encode_carrier(part.block, extra)
        if carrier:
            out += self._end_message() + self._whole_item(
                responses.carrier_item(self._ids.item("rs"), carrier)
            )
        return out

    def _begin_summary(self, part: _Part) -> bytes:
        """Start the only part of a reasoning item's summary."""
        part.place = {"summary_index": 0}
        _frame_deltas(part, "reasoning_summary_text")
        empty = {"type": "summary_text", "text": ""}
        return self._event("response.reasoning_summary_part.added", **_where(part), part=empty)

    def _finish_reasoning(self, part: _Part, text: str, extra: Extra) -> bytes:
        item = responses.reasoning_item(part.item_id, text, encode_carrier(part.block, extra))
        self._output[part.index] = item
        out = b""
        if text:
            summary = {"type": "summary_text", "text": text}
            out = self._event("response.reasoning_summary_text.done", **_where(part), text=text)
            out += self._event("response.reasoning_summary_part.done", **_where(part), part=summary)
        return out + self._event("response.output_item.done", output_index=part.index, item=item)

    def _finish_call(self, part: _Part, text: str, extra: Extra) -> bytes:
        block = part.block
        assert isinstance(block, ToolCall)  # noqa: S101 (for the type checker)
        call = ToolCall(block.id, block.name, text, block.extra)
        item = responses.call_item(call, part.item_id, self._tools, "completed")
        self._output[part.index] = item
        if item["type"] == "custom_tool_call":
            text = item["input"]
            out = self._event("response.custom_tool_call_input.delta", **_where(part), delta=text)
            out += self._event("response.custom_tool_call_input.done", **_where(part), input=text)
        elif item["type"] == "tool_search_call":
            out = b""  # the item has its arguments
        else:
            name = {"name": item["name"], "arguments": text}
            out = self._event("response.function_call_arguments.done", **_where(part), **name)
        out += self._event("response.output_item.done", output_index=part.index, item=item)
        carrier = encode_carrier(part.block, extra)
        if carrier:
            out += self._whole_item(responses.carrier_item(self._ids.item("rs"), carrier))
        return out

    def _end_message(self, status: str = "completed") -> bytes:
        """Another item begins, or the answer ends. The message ends with its last open part."""
        item, self._message = self._message, None
        if item is None:
            return b""
        index = self._output.index(item)
        return b"" if self._has_open_parts(index) else self._message_done(index, status)

    def _has_open_parts(self, index: int) -> bool:
        return any(part.index == index for part in self._open.values())

    def _message_done(self, index: int, status: str = "completed") -> bytes:
        item = self._output[index]
        item["status"] = status
        return self._event("response.output_item.done", output_index=index, item=item)

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
        return out + self._event(f"response.{status}", response=self._answer)


def _where(part: _Part) -> dict[str, Any]:
    return {"item_id": part.item_id, "output_index": part.index, **part.place}


def _frame_deltas(part: _Part, kind: str, after: bytes = b"") -> None:
    """Encode the parts of a delta's frame around its number and text, once per part."""
    name = f"response.{kind}.delta"
    where = _json.dumps({"type": name, **_where(part)})[:-1]
    part.before = b'event: %b\ndata: %b,"sequence_number":' % (name.encode(), where)
    part.after = after + b"}\n\n"
