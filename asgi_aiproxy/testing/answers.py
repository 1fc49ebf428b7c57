"""What the mock model says."""

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
    """What the mock model says, in words of no vendor; each dialect puts it into its own.

    `text` is a greeting unless given, and nothing where the model declines or calls tools.
    `signature` signs the reasoning, and `refusal` is the text of a refusal. `stop` follows from
    the rest unless given. `pieces` is into how many deltas texts and arguments are cut, by default
    one a word. `first_after` are the seconds before the first byte (of the status line), `pace`
    those between two events of a stream.
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
        """The text, or what stands for it."""
        if self.text is not None:
            return self.text
        return "" if self.tool_calls or self.refusal else GREETING

    def events(self, model: str) -> Iterator[Event]:
        """The answer of `model` as a stream of neutral events."""
        # The prompt is counted first, and of the answer a token at most: so does Anthropic.
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
        """`text` in as many deltas as it shall come in."""
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
