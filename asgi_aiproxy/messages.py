"""The neutral model of AI chat APIs: requests, responses and streams, independent of vendors.

A response is a sequence of events in one legal order (`check` is its executable form)::

    MessageStart, (BlockStart, BlockDelta*, BlockEnd)*, MessageEnd

Indices of blocks increase; several blocks may be open at once; deltas only go to an open block.
A whole response is a folded stream, so the two cannot diverge. Encoded as JSON, blocks and events
have a member `type` with the name of their class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol, final

import msgspec

Extra = Mapping[str, Any]  # members of one dialect only, keyed by its name


class FrozenStruct(msgspec.Struct, frozen=True, omit_defaults=True):
    """An immutable struct, compared by value."""


# ── parts of a conversation ──────────────────────────────────────────────────


class Citation(FrozenStruct, frozen=True, kw_only=True):
    """A source for a stretch of text; `start` and `end` count characters of the whole response."""

    url: str = ""
    title: str = ""
    quote: str = ""
    start: int | None = None
    end: int | None = None


class Text(FrozenStruct, frozen=True, tag=True):
    """Text of a message."""

    text: str = ""
    citations: tuple[Citation, ...] = ()
    extra: Extra = {}


class Refusal(FrozenStruct, frozen=True, tag=True):
    """The model's text when it declines a request."""

    text: str = ""


class Reasoning(FrozenStruct, frozen=True, tag=True):
    """Reasoning or its summary; `extra` holds the signature that the vendor expects back."""

    text: str = ""
    extra: Extra = {}


class ToolCall(FrozenStruct, frozen=True, tag=True):
    """The model asks the client to run a tool."""

    id: str
    name: str
    arguments: str = ""  # JSON text exactly as the model wrote it
    extra: Extra = {}


class Media(FrozenStruct, frozen=True, kw_only=True, tag=True):
    """An image, document, audio or video: exactly one of `data` (base64), `url`, `file`, `text`."""

    kind: Literal["image", "document", "audio", "video"]
    media_type: str = ""
    data: str = ""
    url: str = ""
    file: str = ""
    text: str = ""
    name: str = ""
    extra: Extra = {}


class ToolResult(FrozenStruct, frozen=True, tag=True):
    """The result of the client's tool for the tool call `id`."""

    id: str
    parts: tuple[Text | Media, ...] = ()
    name: str = ""
    error: bool = False
    extra: Extra = {}


class Opaque(FrozenStruct, frozen=True, tag=True):
    """A block of one dialect only; other dialects drop it and report that."""

    dialect: str
    payload: Mapping[str, Any]


Block = Text | Refusal | Reasoning | ToolCall | Media | Opaque
Part = Block | ToolResult


# ── requests ───────────────────────────────────────────────────────────────


class Message(FrozenStruct, frozen=True):
    """One turn. Tool results are parts of a user turn."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]
    name: str = ""


class Tool(FrozenStruct, frozen=True, kw_only=True):
    """A function the model may call; `schema` is the JSON schema of its arguments."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None
    extra: Extra = {}


class ToolChoice(FrozenStruct, frozen=True):
    """`names` narrows `required` or `auto` to some of the tools."""

    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] = ()


class Output(FrozenStruct, frozen=True, kw_only=True):
    """The response must be JSON, valid for `schema` if it is given."""

    schema: Mapping[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None


class Thinking(FrozenStruct, frozen=True, kw_only=True):
    """How much reasoning: an effort, a budget in tokens, or off (`effort="none"`)."""

    effort: str = ""
    budget: int | None = None
    summary: bool | None = None


class Request(FrozenStruct, frozen=True, kw_only=True):
    """A chat request. `extra` holds members that have no neutral meaning, keyed by dialect.

    `conversation` is the id of the conversation to continue, as the provider that keeps it knows
    it; empty to have one kept from now on, None if the client does not request one.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    output: Output | None = None
    thinking: Thinking | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str = ""
    stream: bool = False
    stream_usage: bool = True  # the client requested usage in the stream
    conversation: str | None = None
    extra: Extra = {}


# The user's text before a conversation that the assistant begins, for APIs that refuse those.
OPENING = "(The conversation begins with your message.)"


def after_last_answer(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages after the last one of the assistant; empty if there are none after it."""
    for at in range(len(messages), 0, -1):
        if messages[at - 1].role == "assistant":
            return messages[at:]
    return messages


def new_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages that a service which keeps the conversation does not have: those after the last
    answer, or the last message if that is the assistant's.
    """
    return after_last_answer(messages) or messages[-1:]


# ── responses ──────────────────────────────────────────────────────────────


class StopReason(StrEnum):
    """Why the response ended."""

    END = "end"
    LENGTH = "length"
    TOOLS = "tools"
    FILTER = "filter"
    OTHER = "other"


class Usage(FrozenStruct, frozen=True, kw_only=True):
    """Token counts. `input` and `output` are totals; the other counts are parts of one of them.

    Some operations are charged by other units: `images`, `characters` of text, `audio_seconds`,
    and `search_units` (of rerank: one for a query with up to 100 documents).
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    images: int = 0
    characters: int = 0
    audio_seconds: int = 0
    search_units: int = 0


@final
class MessageStart(FrozenStruct, frozen=True, tag=True):
    """The response begins: its id and model, and the prompt tokens if the vendor reports them."""

    id: str
    model: str
    usage: Usage | None = None


@final
class BlockStart(FrozenStruct, frozen=True, gc=False, tag=True):
    """A block begins; deltas append to its text, or to the arguments of a tool call."""

    index: int
    block: Block


@final
class BlockDelta(FrozenStruct, frozen=True, gc=False, tag=True):
    """More text (or arguments) of an open block."""

    index: int
    text: str


@final
class BlockEnd(FrozenStruct, frozen=True, tag=True):
    """A block is complete; `extra` and `citations` are merged into it."""

    index: int
    extra: Extra = {}
    citations: tuple[Citation, ...] = ()


@final
class MessageEnd(FrozenStruct, frozen=True, tag=True):
    """The response is complete; `word` is the vendor's stop reason, `refusal` its explanation.

    `conversation` is what the next request continues, if the provider keeps the conversation.
    """

    stop: StopReason
    usage: Usage | None = None
    word: str = ""
    refusal: str = ""
    extra: Extra = {}
    conversation: str = ""


Event = MessageStart | BlockStart | BlockDelta | BlockEnd | MessageEnd


class Response(FrozenStruct, frozen=True, kw_only=True):
    """A whole response."""

    id: str
    model: str
    blocks: tuple[Block, ...] = ()
    stop: StopReason = StopReason.END
    usage: Usage | None = None
    word: str = ""
    refusal: str = ""
    extra: Extra = {}
    conversation: str = ""


def fold(events: Iterable[Event]) -> Response:
    """Collect a stream of events into a whole response. Raises ValueError if it is incomplete."""
    start: MessageStart | None = None
    end: MessageEnd | None = None
    blocks: dict[int, Block] = {}
    texts: dict[int, list[str]] = {}
    for event in check(events):
        match event:
            case MessageStart():
                start = event
            case BlockStart(index=index, block=block):
                blocks[index], texts[index] = block, []
            case BlockDelta(index=index, text=text):
                texts[index].append(text)
            case BlockEnd(index=index):
                blocks[index] = _finish(blocks[index], "".join(texts.pop(index)), event)
            case _:
                end = event
    if start is None or end is None:
        raise ValueError("the response is incomplete")
    return Response(
        id=start.id,
        model=start.model,
        blocks=tuple(blocks.values()),
        stop=end.stop,
        usage=end.usage if end.usage is not None else start.usage,
        word=end.word,
        refusal=end.refusal,
        extra=end.extra,
        conversation=end.conversation,
    )


def _finish(block: Block, text: str, end: BlockEnd) -> Block:
    match block:
        case Text():
            return Text(
                block.text + text, block.citations + end.citations, merge(block.extra, end.extra)
            )
        case Refusal():
            return Refusal(block.text + text)
        case Reasoning():
            return Reasoning(block.text + text, merge(block.extra, end.extra))
        case ToolCall():
            return ToolCall(
                block.id, block.name, block.arguments + text, merge(block.extra, end.extra)
            )
        case Opaque():
            return Opaque(block.dialect, {**block.payload, **end.extra.get(block.dialect, {})})
    return block


def merge(one: Extra, other: Extra) -> Extra:
    """Merge two extras, dialect by dialect."""
    if not other:
        return one
    return {**one, **{name: {**one.get(name, {}), **members} for name, members in other.items()}}


def unfold(response: Response) -> Iterator[Event]:
    """Return the events of a response as a stream, with one delta per block.

    Vendors send the signature of a block at its beginning or at its end; here it is in both.
    """
    yield MessageStart(response.id, response.model, response.usage)
    for index, block in enumerate(response.blocks):
        match block:
            case Text(text, citations, extra):
                yield BlockStart(index, Text(extra=extra))
                if text:
                    yield BlockDelta(index, text)
                yield BlockEnd(index, extra, citations)
            case Refusal(text) if text:
                yield BlockStart(index, Refusal())
                yield BlockDelta(index, text)
                yield BlockEnd(index)
            case Reasoning(text, extra) if text:
                yield BlockStart(index, Reasoning(extra=extra))
                yield BlockDelta(index, text)
                yield BlockEnd(index)
            case ToolCall(id, name, arguments, extra):
                yield BlockStart(index, ToolCall(id, name, extra=extra))
                if arguments:
                    yield BlockDelta(index, arguments)
                yield BlockEnd(index)
            case _:
                yield BlockStart(index, block)
                yield BlockEnd(index)
    yield MessageEnd(
        response.stop,
        response.usage,
        response.word,
        response.refusal,
        response.extra,
        response.conversation,
    )


def check(events: Iterable[Event]) -> Iterator[Event]:
    """Pass events through; raise ValueError at the first that is out of order."""
    started = ended = False
    last = -1
    opened: set[int] = set()
    for event in events:
        match event:
            case MessageStart():
                legal = not started
                started = True
            case BlockStart(index=index):
                legal = started and not ended and index > last
                last = index
                opened.add(index)
            case BlockDelta(index=index):
                legal = index in opened
            case BlockEnd(index=index):
                legal = index in opened
                opened.discard(index)
            case _:
                legal = started and not ended and not opened
                ended = True
        if not legal:
            raise ValueError(f"out of order: {event!r}")
        yield event
    if started and not ended:
        raise ValueError("the stream ends without MessageEnd")


class EventFilter(Protocol):
    """Sees the events of one response, and releases what the client may be sent."""

    async def feed(self, event: Event) -> Sequence[Event]:
        """Return the events to release now. Raises APIError to end the response."""

    async def close(self) -> Sequence[Event]:
        """Return what is still held, at the end of the response. Raises APIError."""


def add_usage(one: Usage | None, other: Usage | None) -> Usage | None:
    """The sum of token counts; None if neither was reported."""
    if one is None or other is None:
        return one if other is None else other
    sums = {name: getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__}
    return Usage(**sums)
