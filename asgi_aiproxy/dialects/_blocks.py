"""Blocks out of flat deltas: where one block ends and the next begins is guessed here, once."""

from __future__ import annotations

from collections.abc import Hashable

from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    Extra,
    Reasoning,
    Text,
    ToolCall,
)


class Blocks:
    """Opens and closes blocks for a dialect that streams flat deltas.

    Text of one kind is one block until another kind begins. Tool calls are told apart by a key of
    the vendor's and stay open, for they may interleave, until the answer ends.
    """

    def __init__(self) -> None:
        self._next = 0
        self._kind: type[Block] | None = None
        self._flat = -1  # index of the open block of text, reasoning or refusal
        self._calls: dict[Hashable, int] = {}
        self._empty: set[int] = set()  # calls without arguments so far
        self._answered = False

    @property
    def called(self) -> bool:
        """Whether any tool was called."""
        return bool(self._calls)

    @property
    def begun(self) -> bool:
        """Whether there is any block."""
        return self._next > 0

    @property
    def answered(self) -> bool:
        """Whether there is any content; thoughts alone are none."""
        return self._answered or self.called

    @property
    def open(self) -> bool:
        """Whether a block of text is open."""
        return self._kind is not None

    def has(self, key: Hashable) -> bool:
        """Whether this call has begun."""
        return key in self._calls

    def text(self, block: Block, piece: str) -> list[Event]:
        """More text of the kind of `block`, which is what begins if that kind is not open."""
        if type(block) is self._kind:
            return [BlockDelta(self._flat, piece)]
        events = self.end_text()
        self._kind, self._flat = type(block), self._index()
        self._answered = self._answered or self._kind is not Reasoning
        return [*events, BlockStart(self._flat, block), BlockDelta(self._flat, piece)]

    def end_text(
        self, extra: Extra | None = None, citations: tuple[Citation, ...] = ()
    ) -> list[Event]:
        """The open block of text ends."""
        if self._kind is None:
            return []
        self._kind = None
        return [BlockEnd(self._flat, extra or {}, citations)]

    def cite(self, citations: tuple[Citation, ...]) -> list[Event]:
        """Sources for all text so far: the open block's, or those of an empty one of their own."""
        if self._kind is Text:
            return self.end_text(citations=citations)
        index = self._index()
        return [
            *self.end_text(),
            BlockStart(index, Text()),
            BlockEnd(index, citations=citations),
        ]

    def single(self, block: Block, *, content: bool = True) -> list[Event]:
        """A block that comes in one piece; it may be there for the vendor's proofs only."""
        index = self._index()
        self._answered = self._answered or content
        return [*self.end_text(), BlockStart(index, block), BlockEnd(index)]

    def call(self, key: Hashable, call: ToolCall) -> list[Event]:
        """A tool call begins."""
        index = self._calls[key] = self._index()
        self._empty.add(index)
        return [*self.end_text(), BlockStart(index, call)]

    def arguments(self, key: Hashable, piece: str) -> list[Event]:
        """More arguments of a call that has begun."""
        index = self._calls[key]
        self._empty.discard(index)
        return [BlockDelta(index, piece)]

    def end(self) -> list[Event]:
        """The answer ends, and with it all that is open. A call without arguments gets `{}`."""
        events = self.end_text()
        for index in self._calls.values():
            if index in self._empty:
                events.append(BlockDelta(index, "{}"))
            events.append(BlockEnd(index))
        return events

    def _index(self) -> int:
        self._next += 1
        return self._next - 1
