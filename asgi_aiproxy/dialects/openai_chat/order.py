"""Keeps the order of a response's blocks in a chat message.

A chat message has one text and one list of tool calls. Responses of other vendors are lists of
blocks: reasoning, text, a call, more reasoning, more text. Some vendors require their blocks
back in exactly that order (Claude with preserved thinking answers 400 to any other). A response
whose order a chat message would lose gets one more member of `reasoning_details`, which
clients send back unchanged. It holds one token per block, with the length of its text in
characters. If the replayed message does not match (an edited text, a dropped detail), the
default order is used: reasoning, text, images, calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from asgi_aiproxy.dialects.openai_chat import reasoning, schemas
from asgi_aiproxy.messages import Block, Extra, Media, Opaque, Reasoning, Text, ToolCall, merge

FORMAT = "aiproxy-order-v1"

# r: reasoning; e: reasoning with Gemini's signature but no text; t: a text with its length; s: the
# same, signed by Gemini (it may be empty); i: an image; c: a tool call.
_TOKENS = re.compile(r"(?:[reic]|[ts]\d{1,9})(?: (?:[reic]|[ts]\d{1,9}))*")
# The order that a chat message can represent without tokens.
_DEFAULT_ORDER = re.compile(r"r*(?:[ts]\d*)?i*c*")


class BlockOrder:
    """Records the order of the blocks of one response."""

    def __init__(self) -> None:
        self._tokens: dict[int, str] = {}  # by index of the block, in the order of their start
        self._open_text: int | None = None
        self._is_sequential = True

    def begin(self, index: int, block: Block) -> None:
        """A block starts."""
        is_image = isinstance(block, Media) and block.kind == "image"
        self._tokens[index] = "c" if isinstance(block, ToolCall) else "i" if is_image else ""
        if isinstance(block, Text):
            # The order of interleaved texts cannot be recorded.
            self._is_sequential = self._is_sequential and self._open_text is None
            self._open_text = index

    def end(self, index: int, block: Block, text: str, details: Sequence[dict[str, Any]]) -> None:
        """A block is complete; `details` are its `reasoning_details`."""
        if isinstance(block, Text):
            self._open_text = None
            self._tokens[index] = f"s{len(text)}" if details else f"t{len(text)}" if text else ""
        elif isinstance(block, Opaque) and details:
            self._tokens[index] = "e" if block.payload.get("thought") else "s0"
        elif isinstance(block, Reasoning) and details:
            is_signature_only = (
                details[0].get("format") == reasoning.GEMINI and "text" not in details[0]
            )
            self._tokens[index] = "e" if is_signature_only else "r"

    def details(self) -> list[dict[str, Any]]:
        """The member of `reasoning_details` with this order; empty if it is the default order."""
        tokens = [token for token in self._tokens.values() if token]
        if not self._is_sequential or _DEFAULT_ORDER.fullmatch("".join(tokens)):
            return []
        return [{"type": "reasoning.encrypted", "data": " ".join(tokens), "format": FORMAT}]


def restore(
    message: schemas.Message,
    content: Sequence[Block],
    images: Sequence[Media],
    calls: Sequence[ToolCall],
) -> list[Block] | None:
    """The blocks of a replayed response in their original order.

    None if the order is not recorded or does not match. `content` are the parts of its `content`.
    """
    details = message.reasoning_details or ()
    data = next((d.data for d in details if d.format == FORMAT), None)
    if not data or not _TOKENS.fullmatch(data):
        return None
    texts = [part for part in content if isinstance(part, Text)]
    signed_blocks = [reasoning.read_detail(detail) for detail in details if detail.format != FORMAT]
    tokens = data.split(" ")
    text = "".join(part.text for part in texts)
    lengths = sum(int(token[1:]) for token in tokens if token[0] in "ts")
    matches = (
        len(texts) == len(content)
        and lengths == len(text)
        and sum(token[0] in "res" for token in tokens) == len(signed_blocks)
        and tokens.count("i") == len(images)
        and tokens.count("c") == len(calls)
    )
    if not matches:
        return None
    text_extra: Extra = {}
    for part in texts:
        text_extra = merge(text_extra, part.extra)
    next_signed, next_image, next_call = iter(signed_blocks), iter(images), iter(calls)
    out: list[Block] = []
    position = 0
    for token in tokens:
        match token[0]:
            case "t" | "s" as kind:
                end = position + int(token[1:])
                extra = next(next_signed).extra if kind == "s" else {}
                extra = merge(extra, text_extra) if end == len(text) else extra
                out.append(Text(text[position:end], (), extra))
                position = end
            case "i":
                out.append(next(next_image))
            case "c":
                out.append(next(next_call))
            case _:
                out.append(next(next_signed))
    return out
