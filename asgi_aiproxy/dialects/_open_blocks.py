"""Blocks that a stream encoder has begun, for APIs whose chunks hold pieces of text.

All chunks of a block are equal but for their text, so what surrounds that is encoded once. A block
without such chunks is sent whole when it ends; its text is collected until then.
"""

from __future__ import annotations

from asgi_aiproxy import _json
from asgi_aiproxy.messages import Block

_encode = _json.encode


class OpenBlock:
    """One block. `before` and `after` surround a piece of its text; empty if it is sent whole."""

    __slots__ = ("after", "before", "block", "pieces")

    def __init__(
        self, block: Block, before: bytes = b"", after: bytes = b"", *, text: str = ""
    ) -> None:
        self.block = block
        self.before = before
        self.after = after
        self.pieces = [text]  # `text` was sent with the beginning

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def delta(self, text: str) -> bytes:
        """The chunk for one more piece of text."""
        self.pieces.append(text)
        if not self.before:
            return b""
        try:  # the hot path: `quote` would be one more call
            return self.before + _encode(text) + self.after
        except UnicodeEncodeError:
            return self.before + _json.quote(text) + self.after

    def run(self, texts: list[str]) -> bytes:
        """The chunks for more pieces of text."""
        self.pieces += texts
        return _json.quote_each(texts, self.before, self.after) if self.before else b""
