"""Reads streamed responses: events of the Responses API to neutral ones.

A response is a list of items, each with parts: `output_index` counts items, `content_index` and
`summary_index` the parts of one. Every event has a `sequence_number`, starting at 0.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import CallIds, decode_run
from asgi_aiproxy.dialects.openai_chat.errors import read_error
from asgi_aiproxy.dialects.openai_responses import responses, schemas
from asgi_aiproxy.dialects.openai_responses.annotations import decode_citations
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.dialects.openai_responses.tools import arguments_text, decode_call, ran_by_vendor
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Citation,
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
)

_decode_delta = schemas.delta.decode
_decode_deltas = schemas.deltas.decode
_TEXTS = {
    "response.output_text.delta": Text,
    "response.refusal.delta": Refusal,
    "response.reasoning_summary_text.delta": Reasoning,
    "response.reasoning_text.delta": Reasoning,
}
_ARGUMENTS = "response.function_call_arguments.delta"
_ENDS = ("response.completed", "response.complete", "response.incomplete")


class Decoder:
    """Converts the events of a stream to neutral ones.

    A part of a message is a block, and so is a reasoning item with all its parts. The key of a
    block is the item's index, and for parts of a message also the part's. Of an item's summary and
    its reasoning, the one that comes first is the block's text, as in `responses.reasoning_text`.
    """

    def __init__(self) -> None:
        self.model = ""
        self.usage: Usage | None = None
        self.ended = False
        self._started = False
        self._tools: Any = None  # as the response repeats them
        self._next = 0
        self._open: dict[Hashable, int] = {}  # block numbers by key
        self._kinds: dict[int, type[Block]] = {}
        self._citations: dict[Hashable, list[Citation]] = {}
        self._started_keys: dict[Hashable, None] = {}  # keys of blocks that have started, in order
        self._spoke = False  # whether there is any text or refusal
        self._cited: set[Hashable] = set()  # keys of texts whose citations are known
        self._lengths: dict[Hashable, int] = {}  # in characters, of texts that are complete
        self._call_ids: set[str] = set()  # of calls that have started
        self._ids = CallIds()
        self._inputs: dict[
            int, tuple[ToolCall, list[str]]
        ] = {}  # texts of custom tools' inputs, by item
        self._empty: set[int] = set()  # blocks of calls without arguments so far
        self._called = False
        self._thoughts: dict[Any, str] = {}  # types of the events with an item's reasoning
        self._reasoning_ids: dict[Any, str] = {}  # ids of reasoning items that must be sent back

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one piece."""
        if self._open:
            try:
                event = _decode_delta(data)
            except ValueError:
                pass
            else:
                kind = _TEXTS.get(event.type)
                key: Hashable = event.output_index
                if kind is Text or kind is Refusal:
                    key = event.output_index, event.content_index
                elif event.type not in (_ARGUMENTS, self._thoughts.get(key)):
                    return self._parse_event(data)
                number = self._open.get(key)
                if number is not None:
                    if not event.delta:
                        return ()
                    self._empty.discard(number)
                    return (BlockDelta(number, event.delta),)
        return self._parse_event(data)

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """Return the block, the texts and the number of the pieces that are deltas of one text
        block.
        """
        events = decode_run(_decode_deltas, pieces)
        positions = {(event.type, event.output_index, event.content_index) for event in events}
        if len(positions) != 1:
            return None
        kind, *key = positions.pop()
        number = self._open.get(tuple(key))
        if number is None or kind != "response.output_text.delta":
            return None
        return number, [event.delta for event in events if event.delta], len(pieces)

    def close(self) -> Sequence[Event]:
        """Nothing if the response was complete; otherwise raises APIError."""
        if not self.ended:
            raise _parsing.truncated_response_error("the stream ended without response.completed")
        return ()

    def _parse_event(self, data: bytes) -> Sequence[Event]:
        if self.ended or not data.lstrip().startswith(b"{"):
            return ()
        event = _json.loads(data)
        kind = _parsing.get_text(event, "type")
        if kind == "error" or (not kind and event.get("error")):
            raise read_error(
                event if isinstance(event.get("error"), dict) else {"error": event}, 200
            )
        if kind == "response.failed":
            answer = _object(event.get("response"))
            self._count(answer)
            responses.raise_error({"status": "failed", **answer})
        events: list[Event] = []
        if not self._started:
            answer = _object(event.get("response"))
            self._started = True
            self._tools = answer.get("tools")
            self.model = str(answer.get("model") or "")
            events.append(MessageStart(str(answer.get("id") or ""), self.model))
        events += self._event(kind, event)
        return events

    def _event(self, kind: str, event: dict[str, Any]) -> Iterator[Event]:
        index = event.get("output_index")
        match kind:
            case "response.output_item.added":
                yield from self._added(index, _object(event.get("item")))
            case "response.output_item.done":
                yield from self._done(index, _object(event.get("item")))
            case "response.content_part.done":
                key = index, event.get("content_index", 0)
                self._lengths[key] = len(_parsing.get_text(event.get("part"), "text"))
                yield from self._close(key)
            case "response.output_text.annotation.added":
                key = index, event.get("content_index", 0)
                found = decode_citations([event.get("annotation")], self._begins(key))
                self._citations.setdefault(key, []).extend(found)
                self._cited.add(key)
            case "response.custom_tool_call_input.delta":
                if index in self._inputs:
                    self._inputs[index][1].append(_parsing.get_text(event, "delta"))
            case "response.function_call_arguments.delta" | "response.function_call_arguments.done":
                text = _parsing.get_text(event, "delta")
                if self._open.get(index) in self._empty:  # some servers send no deltas
                    text = text or _parsing.get_text(event, "arguments")
                yield from self._add_text(index, ToolCall("", ""), text)
            case _ if kind in _TEXTS:
                text = _parsing.get_text(event, "delta")
                if _TEXTS[kind] is Reasoning:
                    yield from self._add_thought(index, kind, text)
                else:
                    part = index, event.get("content_index", 0)
                    yield from self._add_text(part, _TEXTS[kind](), text)
            case _ if kind in _ENDS:
                yield from self._end(_object(event.get("response")))

    def _added_reasoning(self, index: Any, item: dict[str, Any]) -> None:
        self._thoughts.pop(index, None)  # some servers give several items one index
        item_id = _parsing.get_text(item, "id")
        carrier = ":" in _parsing.get_text(item, "encrypted_content")  # a carrier of another vendor
        if "encrypted_content" in item and item_id and not carrier:
            self._reasoning_ids[index] = item_id

    def _add_thought(self, index: Any, kind: str, text: str) -> Iterator[Event]:
        if text and self._thoughts.setdefault(index, kind) == kind:
            yield from self._add_text(index, self._reasoning_block(index), text)

    def _reasoning_block(self, index: Any) -> Reasoning:
        item_id = self._reasoning_ids.get(index)
        return Reasoning("", {NAME: {"id": item_id}} if item_id else {})

    def _type(self, item: dict[str, Any]) -> Any:
        """The type of an item; that of a hosted tool's call if the vendor ran it itself."""
        return "hosted_call" if ran_by_vendor(item, self._tools) else item.get("type")

    def _added(self, index: Any, item: dict[str, Any]) -> Iterator[Event]:
        match self._type(item):
            case "reasoning":
                self._added_reasoning(index, item)
            case "function_call":
                call = decode_call(responses.item_call_id(item), {**item, "arguments": ""})
                yield from self._begin(index, call)
                yield from self._add_text(index, call, arguments_text(item))
            case "custom_tool_call":
                call = decode_call(responses.item_call_id(item), item)
                self._inputs[index] = call, []

    def _begin(self, key: Hashable, block: Block) -> Iterator[Event]:
        yield from self._close(key)  # some servers give several items one index
        number = self._open[key] = self._next
        self._next += 1
        self._started_keys[key] = None
        self._spoke = self._spoke or isinstance(block, Text | Refusal)
        if isinstance(block, ToolCall):
            self._empty.add(number)
            block = self._call(block)
        yield BlockStart(number, block)

    def _call(self, call: ToolCall) -> ToolCall:
        """Start a call; returns it with a unique id."""
        self._called = True
        self._call_ids.add(call.id)
        return self._ids.unique(call)

    def _add_text(self, key: Hashable, block: Block, text: str) -> Iterator[Event]:
        if not text or (isinstance(block, ToolCall) and key not in self._open):
            return
        if key not in self._open:
            yield from self._begin(key, block)
        number = self._open[key]
        self._empty.discard(number)
        yield BlockDelta(number, text)

    def _close(self, key: Hashable, extra: Extra | None = None) -> Iterator[Event]:
        number = self._open.pop(key, None)
        if number is not None:
            if number in self._empty:
                yield BlockDelta(number, "{}")
            yield BlockEnd(number, extra or {}, tuple(self._citations.pop(key, ())))

    def _done(self, index: Any, item: dict[str, Any]) -> Iterator[Event]:
        """End an item; content that its deltas did not contain is returned now."""
        match self._type(item):
            case "hosted_call":
                yield from self._single(Opaque(NAME, item))
            case "message":
                yield from self._done_message(index, item)
            case "reasoning":
                if index not in self._started_keys:
                    self._added_reasoning(index, item)
                    yield from self._add_text(
                        index, self._reasoning_block(index), responses.reasoning_text(item)
                    )
                extra = responses.reasoning_extra(item)
                if index not in self._started_keys and extra:
                    yield from self._begin(index, self._reasoning_block(index))
                yield from self._close(index, extra)
            case "function_call":
                if index not in self._started_keys:
                    yield from self._added(index, item)
                elif self._open.get(index) in self._empty:
                    yield from self._add_text(index, ToolCall("", ""), arguments_text(item))
                yield from self._close(index)
            case "custom_tool_call":
                self._inputs.pop(index, None)
                yield from self._single(next(responses.decode_item(item)))
            case str():
                for block in responses.decode_item(item):
                    yield from self._single(block)

    def _done_message(self, index: Any, item: dict[str, Any]) -> Iterator[Event]:
        # (By their order, not by their indexes: some servers number the parts from 1.)
        known = [key for key in self._started_keys if isinstance(key, tuple) and key[0] == index]
        for at, part in enumerate(_parsing.objects(item.get("content"))):
            key: Hashable = known[at] if at < len(known) else (index, "done", at)
            if at >= len(known):
                refused = part.get("type") == "refusal"
                block: Block = Refusal() if refused else Text()
                text = _parsing.get_text(part, "refusal" if refused else "text")
                yield from self._add_text(key, block, text)
            self._lengths[key] = len(_parsing.get_text(part, "text"))
            found = list(decode_citations(part.get("annotations"), self._begins(key)))
            if found and key not in self._cited:
                if key not in self._open:  # a separate text has the citations
                    yield from self._begin(key, Text())
                self._citations[key] = found
            yield from self._close(key)
        for open_key in [k for k in self._open if isinstance(k, tuple) and k[0] == index]:
            yield from self._close(open_key)

    def _begins(self, key: Hashable) -> int:
        """The characters of all texts before this one."""
        earlier = itertools.takewhile(lambda each: each != key, self._started_keys)
        return sum(self._lengths.get(each, 0) for each in earlier)

    def _single(self, block: Block) -> Iterator[Event]:
        number = self._next
        self._next += 1
        self._started_keys["block", number] = None
        if isinstance(block, ToolCall):
            opening = self._call(ToolCall(block.id, block.name, extra=block.extra))
            yield BlockStart(number, opening)
            yield BlockDelta(number, block.arguments)
        else:
            yield BlockStart(number, block)
        yield BlockEnd(number)

    def _end(self, answer: dict[str, Any]) -> Iterator[Event]:
        responses.raise_error(answer)
        self._count(answer)
        for key in list(self._open):
            yield from self._close(key)
        for call, pieces in self._inputs.values():
            item = {"type": "custom_tool_call", "name": call.name, "input": "".join(pieces)}
            whole = decode_call(call.id, item)
            yield from self._single(msgspec.structs.replace(whole, extra=call.extra))
        yield from self._missing(_parsing.objects(answer.get("output")))
        stop, word = responses.stop_reason(answer, self._called)
        self.ended = True
        yield MessageEnd(stop, self.usage, word, conversation=responses.kept_id(answer))

    def _missing(self, output: Sequence[dict[str, Any]]) -> Iterator[Event]:
        """What only the end has: some servers stream texts but no calls, or nothing at all."""
        nothing, silent = not self._started_keys, not self._spoke
        for index, item in enumerate(output):
            match self._type(item):
                case "function_call" | "custom_tool_call":
                    missing = responses.item_call_id(item) not in self._call_ids
                case "message":
                    missing = silent
                case _:
                    missing = nothing
            if missing:
                yield from self._done(("end", index), item)

    def _count(self, answer: dict[str, Any]) -> None:
        usage = responses.decode_usage(answer.get("usage"))
        if usage is not None:
            self.usage = usage


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
