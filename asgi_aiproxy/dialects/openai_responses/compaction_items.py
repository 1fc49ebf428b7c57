"""Compaction items that hold a conversation's summary in plain text.

OpenAI's own compaction items are encrypted and readable for OpenAI alone. Those made here are for
any vendor: `encrypted_content` is a prefix and the text in base64. In a request such an item stands
for a message of the user with the text.

https://platform.openai.com/docs/guides/compaction
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from asgi_aiproxy import _json

PREFIX = "aiproxy.summary:"
NEEDLE = f'"{PREFIX}'.encode()


def compaction_item(id: str, text: str) -> dict[str, Any]:
    """A compaction item with a text."""
    packed = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
    return {"id": id, "type": "compaction", "encrypted_content": PREFIX + packed}


def text_of(content: object) -> str | None:
    """The text in the `encrypted_content` of a compaction item; None if it is a vendor's own."""
    if not isinstance(content, str) or not content.startswith(PREFIX):
        return None
    try:
        return base64.b64decode(content.removeprefix(PREFIX)).decode("utf-8", "replace")
    except binascii.Error:
        return None


def with_messages(items: Any) -> Any:
    """Items, which may be encoded, in which each compaction item with a text is the message that
    it stands for."""
    found = _json.loads(items) if isinstance(items, bytes) else items
    return [_as_message(item) for item in found] if isinstance(found, list) else found


def _as_message(item: Any) -> Any:
    match item:
        case {"type": "compaction", "encrypted_content": content}:
            text = text_of(content)
            if text is not None:
                part = {"type": "input_text", "text": text}
                return {"type": "message", "role": "user", "content": [part]}
    return item
