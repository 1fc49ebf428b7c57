"""Writes the events of a response whose blocks change, with indices in legal order."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    Extra,
    Text,
    ToolCall,
)


class EventWriter:
    """Numbers the blocks of a response in which text may become calls.

    `trim`: spaces at the beginning and end of the text are left out. Spaces before a call are held,
    and left out if nothing but calls follows. `calls` counts the calls.
    """

    def __init__(self, *, trim: bool) -> None:
        self._trim = trim
        self._next = 0
        self._numbers: dict[int, int] = {}  # of blocks that pass through
        self._open: int | None = None  # the open block of text
        self._space = ""
        self._wrote = False
        self._extra: Extra = {}
        self._out: list[Event] = []
        self.calls = 0

    def take(self) -> Sequence[Event]:
        """The events that were written since the last call."""
        out, self._out = self._out, []
        return out

    def pass_through(self, event: Event) -> None:
        """Write an event of a block that is not text, renumbered."""
        match event:
            case BlockStart(index=index, block=block):
                self._numbers[index] = self._take_number()
                self.calls += isinstance(block, ToolCall)
                event = BlockStart(self._numbers[index], block)
            case BlockDelta(index=index, text=text):
                event = BlockDelta(self._numbers[index], text)
            case BlockEnd(index=index, extra=extra, citations=citations):
                event = BlockEnd(self._numbers.pop(index), extra, citations)
        self._out.append(event)

    def open_text(self, extra: Extra) -> None:
        """Begin a block of text; it is only written once there is text."""
        self._extra = extra

    def text(self, text: str) -> None:
        """Write text, but for the spaces at its end."""
        text = self._space + text
        if self._trim and not self._wrote:
            text = text.lstrip()
        kept = text.rstrip()
        self._space = text[len(kept) :]
        if kept:
            self._wrote = True
            self._write(kept)

    def close_text(self, end: BlockEnd) -> None:
        """End a block of text, with what belongs to it."""
        if not self._trim and self._space and not self.calls:
            space, self._space = self._space, ""
            self._write(space)
        elif self._open is None and (end.citations or end.extra):
            self._write("")
        self._end_text(end.extra, end.citations)

    def call(self, name: str, arguments: str) -> None:
        """Write a call."""
        self.end()
        index = self._take_number()
        self.calls += 1
        self._space = ""
        self._out += [
            BlockStart(index, ToolCall(f"call_{secrets.token_hex(12)}", name)),
            BlockDelta(index, arguments),
            BlockEnd(index),
        ]

    def end(self) -> None:
        """End what is open."""
        self._end_text({}, ())

    def _write(self, text: str) -> None:
        if self._open is None:
            self._open = self._take_number()
            self._out.append(BlockStart(self._open, Text(extra=self._extra)))
        self._out.append(BlockDelta(self._open, text))

    def _end_text(self, extra: Extra, citations: tuple[Citation, ...]) -> None:
        if self._open is not None:
            self._out.append(BlockEnd(self._open, extra, citations))
            self._open = None

    def _take_number(self) -> int:
        self._next += 1
        return self._next - 1
