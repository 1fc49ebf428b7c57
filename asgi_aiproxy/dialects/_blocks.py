"""Builds block events for dialects whose streams have no blocks.

Neutral events are grouped in numbered blocks: `BlockStart`, any number of `BlockDelta`, `BlockEnd`.
Anthropic's API and OpenAI's Responses API stream such blocks. OpenAI's chat API, Gemini and Ollama
stream flat deltas instead: a piece of text, then a piece of reasoning, then a fragment of a tool
call. This module decides, for all three, where a block starts and ends.

- Text-like blocks (text, reasoning, refusal): at most one is open. A delta of the same kind extends
  it; a delta of another kind, a tool call or a single block ends it and starts the next.
- Tool calls: each has a key of the vendor (an index or a counter). Fragments of several calls may
  interleave, so calls stay open until the response ends.
- Single blocks (images, opaque parts) start and end at once.
- Some vendors give several calls one id, with which no client could distinguish their results:
  every call but the first gets an id of its own (`CallIds`, which the other dialects use too).

Indexes are assigned in the order of block starts and never reused. `answered` says whether there is
any content besides reasoning; decoders use it to turn an empty response whose finish reason is a
failure into an error, while the call can still be retried elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import msgspec

from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    Extra,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
)

MIN_RUN = 4  # pieces; fewer are decoded one by one
T = TypeVar("T")


def decode_run(decode: Callable[[bytes], list[T]], pieces: list[bytes]) -> list[T]:
    """The decoded JSON texts of a run, all of one type; empty if one of them is of another.

    `decode` decodes a JSON array, which takes half the time of decoding its members one by one.
    """
    try:
        return decode(b"[%b]" % b",".join(pieces))
    except (ValueError, RecursionError):
        return []


class CallIds:
    """Makes the ids of the tool calls in one response unique."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: set[str] | None = None  # (most streams have no call, and a set is large)

    def unique_id(self, wanted: str) -> str:
        """The id `wanted`; with a number at its end if an earlier call has it."""
        if self._used is None:
            self._used = set()
        call_id, number = wanted, 1
        while call_id in self._used:
            number += 1
            call_id = f"{wanted}_{number}"
        self._used.add(call_id)
        return call_id

    def unique(self, call: ToolCall) -> ToolCall:
        """The call; with another id if an earlier one has the same."""
        call_id = self.unique_id(call.id)
        return call if call_id == call.id else msgspec.structs.replace(call, id=call_id)


def with_unique_ids(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks of a whole response, each of its tool calls with an id of its own."""
    ids = CallIds()
    for block in blocks:
        yield ids.unique(block) if isinstance(block, ToolCall) else block


class Blocks:
    """Converts the flat deltas of one streamed response to block events."""

    def __init__(self) -> None:
        self._next = 0
        self._kind: type[Block] | None = None
        self._text_index = -1  # of the open text, reasoning or refusal block
        self._calls: dict[Hashable, int] = {}
        self._calls_without_arguments: set[int] = set()
        self._call_ids = CallIds()
        self._answered = False

    @property
    def called(self) -> bool:
        """Whether there is a tool call."""
        return bool(self._calls)

    @property
    def begun(self) -> bool:
        """Whether there is any block."""
        return self._next > 0

    @property
    def answered(self) -> bool:
        """Whether there is any content. Reasoning alone does not count."""
        return self._answered or self.called

    @property
    def open(self) -> bool:
        """Whether a block of text is open."""
        return self._kind is not None

    @property
    def open_text(self) -> int | None:
        """The index of the open block of text; None if none, or one of another kind, is open."""
        return self._text_index if self._kind is Text else None

    def stop_reason(self, stop: StopReason) -> StopReason:
        """The stop reason that goes with the blocks: `TOOLS` only if there are tool calls.

        Some vendors end calls like texts, or end with a word for calls after one that is not the
        client's.
        """
        if self.called and stop is StopReason.END:
            return StopReason.TOOLS
        if not self.called and stop is StopReason.TOOLS:
            return StopReason.END
        return stop

    def has(self, key: Hashable) -> bool:
        """Whether the tool call with this key has started."""
        return key in self._calls

    def text(self, block: Block, piece: str) -> list[Event]:
        """Add text to the open block; first start `block` if no block of its kind is open."""
        if type(block) is self._kind:
            return [BlockDelta(self._text_index, piece)]
        events = self.end_text()
        self._kind, self._text_index = type(block), self._index()
        self._answered = self._answered or self._kind is not Reasoning
        return [*events, BlockStart(self._text_index, block), BlockDelta(self._text_index, piece)]

    def end_text(
        self, extra: Extra | None = None, citations: tuple[Citation, ...] = ()
    ) -> list[Event]:
        """End the open text block, if there is one."""
        if self._kind is None:
            return []
        self._kind = None
        return [BlockEnd(self._text_index, extra or {}, citations)]

    def cite(self, citations: tuple[Citation, ...]) -> list[Event]:
        """Attach citations to the open text block, or to a new empty one."""
        if self._kind is Text:
            return self.end_text(citations=citations)
        index = self._index()
        return [
            *self.end_text(),
            BlockStart(index, Text()),
            BlockEnd(index, citations=citations),
        ]

    def single(self, block: Block, *, content: bool = True) -> list[Event]:
        """Start and end a block that arrives whole.

        `content`: False for a block that only carries a signature of the vendor.
        """
        index = self._index()
        self._answered = self._answered or content
        return [*self.end_text(), BlockStart(index, block), BlockEnd(index)]

    def call(self, key: Hashable, call: ToolCall) -> list[Event]:
        """Start a tool call."""
        index = self._calls[key] = self._index()
        self._calls_without_arguments.add(index)
        return [*self.end_text(), BlockStart(index, self._call_ids.unique(call))]

    def arguments(self, key: Hashable, piece: str) -> list[Event]:
        """Add arguments to a tool call that has started; all of them may be `null`."""
        index = self._calls[key]
        if piece == "null" and index in self._calls_without_arguments:
            return []
        self._calls_without_arguments.discard(index)
        return [BlockDelta(index, piece)]

    def end(self) -> list[Event]:
        """End all open blocks. A tool call without arguments gets `{}`."""
        events = self.end_text()
        for index in self._calls.values():
            if index in self._calls_without_arguments:
                events.append(BlockDelta(index, "{}"))
            events.append(BlockEnd(index))
        return events

    def _index(self) -> int:
        self._next += 1
        return self._next - 1
