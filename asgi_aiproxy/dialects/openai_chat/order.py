"""How the order of an answer's blocks travels through a chat message.

A chat message has one text and one list of calls; vendors' answers are lists of blocks: thoughts,
text, a call, more thoughts, more text. Some vendors want their blocks back in exactly that order
(Claude's preserved thinking answers 400 to any other). So an answer whose order a chat message
would lose carries one more member of `reasoning_details`, which clients send back unchanged: a
token for each block, with the length of its text in characters. If what comes back does not fit
the tokens (an edited text, a dropped detail), the usual order is taken: thoughts, text, pictures,
calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from asgi_aiproxy.dialects.openai_chat import reasoning, schemas
from asgi_aiproxy.messages import Block, Extra, Media, Opaque, Reasoning, Text, ToolCall, merge

FORMAT = "aiproxy-order-v1"

# r: thoughts; e: thoughts of which there is nothing but Gemini's signature; t, s: a text, and one
# that Gemini signed (it may be empty), each with its length; i: a picture; c: a call.
_TOKENS = re.compile(r"(?:[reic]|[ts]\d{1,9})(?: (?:[reic]|[ts]\d{1,9}))*")
# What a chat message says without help.
_USUAL = re.compile(r"r*(?:[ts]\d*)?i*c*")


class BlockOrder:
    """Notes the blocks of one answer as they begin and end."""

    def __init__(self) -> None:
        self._tokens: dict[int, str] = {}  # by index of the block, in the order of beginning
        self._text: int | None = None  # the text that is open
        self._known = True

    def begin(self, index: int, block: Block) -> None:
        """A block begins."""
        picture = isinstance(block, Media) and block.kind == "image"
        self._tokens[index] = "c" if isinstance(block, ToolCall) else "i" if picture else ""
        if isinstance(block, Text):
            self._known = self._known and self._text is None  # texts that mix have no order
            self._text = index

    def end(self, index: int, block: Block, text: str, details: Sequence[dict[str, Any]]) -> None:
        """A block is complete; `details` are the `reasoning_details` that it got."""
        if isinstance(block, Text):
            self._text = None
            self._tokens[index] = f"s{len(text)}" if details else f"t{len(text)}" if text else ""
        elif isinstance(block, Opaque) and details:
            self._tokens[index] = "e" if block.payload.get("thought") else "s0"
        elif isinstance(block, Reasoning) and details:
            bare = details[0].get("format") == reasoning.GEMINI and "text" not in details[0]
            self._tokens[index] = "e" if bare else "r"

    def details(self) -> list[dict[str, Any]]:
        """The member of `reasoning_details` for this order; none if it is the usual one."""
        tokens = [token for token in self._tokens.values() if token]
        if not self._known or _USUAL.fullmatch("".join(tokens)):
            return []
        return [{"type": "reasoning.encrypted", "data": " ".join(tokens), "format": FORMAT}]


def restore(
    message: schemas.Message,
    said: Sequence[Block],
    images: Sequence[Media],
    calls: Sequence[ToolCall],
) -> list[Block] | None:
    """The blocks of a replayed answer in their order; None if it is not known, or does not fit.

    `said` are the parts of its content.
    """
    details = message.reasoning_details or ()
    data = next((d.data for d in details if d.format == FORMAT), None)
    if not data or not _TOKENS.fullmatch(data):
        return None
    texts = [part for part in said if isinstance(part, Text)]
    thoughts = [reasoning.thought(detail) for detail in details if detail.format != FORMAT]
    tokens = data.split(" ")
    text = "".join(part.text for part in texts)
    lengths = sum(int(token[1:]) for token in tokens if token[0] in "ts")
    fits = (
        len(texts) == len(said)
        and lengths == len(text)
        and sum(token[0] in "res" for token in tokens) == len(thoughts)
        and tokens.count("i") == len(images)
        and tokens.count("c") == len(calls)
    )
    if not fits:
        return None
    marks: Extra = {}
    for part in texts:
        marks = merge(marks, part.extra)
    signed, pictures, called = iter(thoughts), iter(images), iter(calls)
    out: list[Block] = []
    at = 0
    for token in tokens:
        match token[0]:
            case "t" | "s" as kind:
                end = at + int(token[1:])
                extra = next(signed).extra if kind == "s" else {}
                extra = merge(extra, marks) if end == len(text) else extra
                out.append(Text(text[at:end], (), extra))
                at = end
            case "i":
                out.append(next(pictures))
            case "c":
                out.append(next(called))
            case _:
                out.append(next(signed))
    return out
