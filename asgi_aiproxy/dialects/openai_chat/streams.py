"""Streamed answers: chunks to events, and events to chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import Blocks
from asgi_aiproxy.dialects.openai_chat import normalize, order, reasoning, responses, schemas
from asgi_aiproxy.dialects.openai_chat.usage import decode_usage, encode_usage
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
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
    Usage,
    merge,
)

DONE = b"data: [DONE]\n\n"
_encode = _json.encode
_decode_plain = schemas.plain_chunk.decode
_TEXT, _REASONING = Text(), Reasoning()


class Decoder:
    """Chunks of a chat completion to events. Only the first choice is read."""

    def __init__(self) -> None:
        self._blocks = Blocks()
        self._chunks = normalize.ChunkNormalizer("")
        self._started = self.ended = False

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return decode_usage(self._chunks.usage)

    @property
    def model(self) -> str:
        """The model that answers."""
        return str((self._chunks.head or {}).get("model", ""))

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one chunk."""
        if self._started and not self.ended:
            try:
                (choice,) = _decode_plain(data).choices
            except ValueError:
                pass
            else:
                return self._plain(choice.delta) if choice.index == 0 else ()
        if data.strip() == b"[DONE]":
            if self._blocks.begun:
                self._chunks.done()
            return self.close()  # the provider may leave the connection open
        chunk = normalize.parse_chunk(data)
        if chunk is None or self.ended:
            return ()
        responses.raise_error(chunk)
        mended = self._chunks.chunk(chunk)
        head = self._chunks.head
        if head is None:
            return ()
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(MessageStart(head["id"], head["model"]))
        for choice in (mended or {}).get("choices", ()):
            if choice["index"] == 0:
                events += self._delta(choice["delta"])
        return events

    def run(self, pieces: list[bytes]) -> tuple[int, list[str]] | None:
        """Not known: what a chunk means depends on those before it."""
        return None

    def close(self) -> Sequence[Event]:
        """The end of the message, if it was not told before; the finish reason must have come."""
        if self.ended:
            return ()
        word = self._chunks.finish(0)
        if word is None:
            raise _parsing.truncated_response_error("the stream ended without a finish reason")
        if not self._blocks.answered:
            self._chunks.check()
        self.ended = True
        return [*self._blocks.end(), MessageEnd(responses.STOPS[word], self.usage, word)]

    def _plain(self, delta: schemas.PlainDelta) -> Sequence[Event]:
        words = delta.content
        thought = delta.reasoning_content or delta.reasoning
        if not thought:
            return self._blocks.text(_TEXT, words) if words else ()
        events = self._blocks.text(_REASONING, thought)
        return [*events, *self._blocks.text(_TEXT, words)] if words else events

    def _delta(self, delta: dict[str, Any]) -> Iterator[Event]:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            yield from self._blocks.text(Reasoning(), thought)
        if delta.get("content"):
            yield from self._blocks.text(Text(), delta["content"])
        refusal = _parsing.get_text(delta, "refusal")
        if refusal:
            yield from self._blocks.text(Refusal(), refusal)
        citations = tuple(responses.decode_citations(delta.get("annotations")))
        if citations:
            yield from self._blocks.cite(citations)
        for image in _parsing.objects(delta.get("images")):
            yield from self._blocks.single(responses.decode_image(image))
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)
        if isinstance(delta.get("function_call"), dict):
            yield from self._legacy(delta["function_call"])

    def _call(self, call: dict[str, Any]) -> Iterator[Event]:
        part = call["function"] if "function" in call else call["custom"]
        if "id" in call:
            opening = ToolCall(call["id"], part["name"], extra=responses.call_extra(call))
            yield from self._blocks.call(call["index"], opening)
        arguments = part["arguments"] if "function" in call else part["input"]
        if arguments:
            yield from self._blocks.arguments(call["index"], arguments)

    def _legacy(self, function: dict[str, Any]) -> Iterator[Event]:
        if not self._blocks.has("legacy"):
            name = _parsing.get_text(function, "name")
            yield from self._blocks.call("legacy", ToolCall("call_0", name))
        arguments = responses.arguments_text(function.get("arguments"))
        if arguments:
            yield from self._blocks.arguments("legacy", arguments)


class Encoder:
    """Events to chunks of a chat completion."""

    def __init__(self, *, usage_wanted: bool, created: int, new_id: str) -> None:
        self._usage_wanted = usage_wanted
        self._created = created
        self._id = new_id
        self._head = b""
        # For each open block what stands before and after its text in a chunk, and its text so far.
        self._open: dict[int, tuple[bytes, bytes, list[str]]] = {}
        self._calls = 0
        self._at = 0  # characters of visible text in blocks that have ended
        self._visible: set[int] = set()
        self._extras: dict[int, Extra] = {}
        self._blocks: dict[int, Block] = {}  # those that are open
        self._order = order.BlockOrder()
        # How many members each list has so far: the SDK joins lists of a stream by `index`.
        self._told: dict[str, int] = {}

    def feed(self, event: Event) -> bytes:
        """The chunks that tell this event."""
        if type(event) is BlockDelta:
            before, after, texts = self._open[event.index]
            text = event.text
            texts.append(text)
            try:
                return before + _encode(text) + after
            except UnicodeEncodeError:
                return before + _json.quote(text) + after
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
        """The chunks that tell more of one block."""
        before, after, told = self._open[index]
        told += texts
        return _json.quote_each(texts, before, after)

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream; no `[DONE]` follows, so no client takes the answer for whole."""
        return encode_frame(responses.encode_error(error))

    def _start(self, event: MessageStart) -> bytes:
        head = {
            "id": event.id or self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": event.model,
        }
        self._head = b"data: " + _json.dumps(head)[:-1]
        return self._chunk(b'{"role":"assistant","content":""}')

    def _chunk(self, delta: bytes, finish: bytes = b"null") -> bytes:
        before, after = self._frame()
        return before + delta + after.replace(b"null", finish)

    def _frame(self) -> tuple[bytes, bytes]:
        return self._head + b',"choices":[{"index":0,"delta":', b',"finish_reason":null}]}\n\n'

    def _begin(self, event: BlockStart) -> bytes:
        self._blocks[event.index] = event.block
        self._order.begin(event.index, event.block)
        match event.block:
            case Text(_, _, extra):
                self._extras[event.index] = extra
                self._visible.add(event.index)
                self._grow(event.index, b'{"content":', b"}")
            case Reasoning(text, extra):
                self._extras[event.index] = extra
                self._grow(event.index, b'{"reasoning_content":', b"}", text)
            case Refusal():
                self._grow(event.index, b'{"refusal":', b"}")
            case ToolCall() as call:
                number = self._calls
                self._calls += 1
                lead = b'{"tool_calls":[{"index":%d,"function":{"arguments":' % number
                self._grow(event.index, lead, b"}}]}")
                opening = {"index": number, **responses.tool_call(call)}
                return self._chunk(_json.dumps({"tool_calls": [opening]}))
            case Media(kind="image") as media:
                images = self._numbered("images", [responses.image(media)])
                return self._chunk(_json.dumps({"images": images}))
        return b""

    def _grow(self, index: int, before: bytes, after: bytes, text: str = "") -> None:
        head, tail = self._frame()
        self._open[index] = (head + before, after + tail, [text])

    def _finish(self, event: BlockEnd) -> bytes:
        _, _, pieces = self._open.pop(event.index, (b"", b"", []))
        block = self._blocks.pop(event.index)
        text = whole = "".join(pieces)
        delta: dict[str, Any] = {}
        if event.index in self._visible:
            start, self._at = self._at, self._at + len(text)
            if event.citations:
                cited = [responses.encode_citation(c, start, self._at) for c in event.citations]
                delta["annotations"] = self._numbered("annotations", cited)
            text = ""
        extra = merge(self._extras.pop(event.index, {}), event.extra)
        details = reasoning.reasoning_details(text, extra) if extra else []
        if isinstance(block, Opaque):
            details = reasoning.proof(block)
        if details:
            delta["reasoning_details"] = self._numbered("reasoning_details", details)
        self._order.end(event.index, block, whole, details)
        return self._chunk(_json.dumps(delta)) if delta else b""

    def _numbered(self, name: str, members: list[dict[str, Any]]) -> list[dict[str, Any]]:
        start = self._told.get(name, 0)
        self._told[name] = start + len(members)
        return [{"index": start + at, **member} for at, member in enumerate(members)]

    def _end(self, event: MessageEnd) -> bytes:
        finish = responses.finish_reason(event.stop, self._calls > 0)
        delta: dict[str, Any] = {"refusal": event.refusal} if event.refusal else {}
        details = self._order.details()
        if details:
            delta["reasoning_details"] = self._numbered("reasoning_details", details)
        out = self._chunk(_json.dumps(delta), b'"' + finish.encode() + b'"')
        if self._usage_wanted and event.usage is not None:
            usage = _json.dumps(encode_usage(event.usage))
            out += self._head + b',"choices":[],"usage":' + usage + b"}\n\n"
        return out + DONE
