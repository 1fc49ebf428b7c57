"""The answers of the mock model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise

import msgspec

from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    Extra,
    MessageEnd,
    MessageStart,
    Reasoning,
    Refusal,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

GREETING = "Hello from the mock."

_WORDS = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the mock model, independent of vendors; each simulator encodes it in its
    dialect.

    `text` is a greeting by default, and empty if the model refuses or calls tools. `signature`
    signs the reasoning, and `refusal` is the text of a refusal. `stop` is derived from the other
    fields by default. `pieces` is the number of deltas that texts and arguments are cut into, by
    default one per word. `first_after` is the time in seconds before the first byte (of the status
    line), `pace` the time between two events of a stream.
    """

    text: str | None = None
    _: KW_ONLY
    reasoning: str = ""
    signature: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str = ""
    stop: StopReason | None = None
    usage: Usage = Usage(input=12, output=7)
    pieces: int | None = None
    first_after: float = 0.0
    pace: float = 0.0

    @property
    def words(self) -> str:
        """The text; the greeting if no text is given."""
        if self.text is not None:
            return self.text
        return "" if self.tool_calls or self.refusal else GREETING

    def events(self, model: str) -> Iterator[Event]:
        """Return the answer of `model` as a stream of neutral events."""
        # At first the prompt is counted, and at most one token of the answer, as Anthropic does.
        early = msgspec.structs.replace(
            self.usage, output=min(self.usage.output, 1), reasoning=0, audio_output=0
        )
        yield MessageStart("", model, early)
        for index, (block, text, extra) in enumerate(self._blocks()):
            yield BlockStart(index, block)
            for piece in self.cut(text):
                yield BlockDelta(index, piece)
            yield BlockEnd(index, extra)
        stop = self.stop or (StopReason.TOOLS if self.tool_calls else StopReason.END)
        yield MessageEnd(stop, self.usage)

    def cut(self, text: str) -> list[str]:
        """Return `text` cut into its deltas."""
        if self.pieces is None:
            return _WORDS.findall(text)
        count = max(1, min(self.pieces, len(text)))
        edges = [len(text) * at // count for at in range(count + 1)]
        return [text[a:b] for a, b in pairwise(edges) if a < b]

    def _blocks(self) -> Iterator[tuple[Block, str, Extra]]:
        if self.reasoning or self.signature:
            signed = {"signature": self.signature}
            extra = {"anthropic": signed, "gemini": signed} if self.signature else {}
            yield Reasoning(), self.reasoning, extra
        if self.words:
            yield Text(), self.words, {}
        if self.refusal:
            yield Refusal(), self.refusal, {}
        for call in self.tool_calls:
            yield ToolCall(call.id, call.name, extra=call.extra), call.arguments or "{}", {}
