"""Signed reasoning of any vendor in the Responses API.

The API has one member that clients send back unchanged: `encrypted_content` of a reasoning item.
OpenAI's own content is stored there as it is, that of other vendors as a carrier (see
`dialects._carriers`). The signature of a text or a call, as from Gemini, is a reasoning item of its
own after it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _carriers
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.messages import Block, Extra, Opaque, Reasoning, Text, ToolCall

NEEDLES = _carriers.needles(NAME)


def encode_carrier(block: Block, extra: Extra) -> str:
    """The `encrypted_content` for the signature of a block; empty if it was not signed."""
    if not extra and not isinstance(block, Opaque):
        return ""
    own = extra.get(NAME, {}).get("encrypted_content")
    if own and isinstance(block, Reasoning):
        return str(own)
    return _carriers.encode_carrier(NAME, block, extra)


def decode_carrier(content: str, item_id: str, turn: list[Any]) -> tuple[Extra, int | None]:
    """The content of `encrypted_content`, and the part of the assistant's turn so far that it
    signs.

    The second is None for reasoning, which has its own signature. For a signature of an empty text,
    such a text is added to the turn.
    """
    if not content:
        return {}, None
    if not _carriers.is_carrier(NAME, content):
        own: dict[str, Any] = {"encrypted_content": content}
        if item_id:
            own["id"] = item_id
        return {NAME: own}, None
    what, extra = _carriers.decode_carrier(content)
    if what == "text" or (what == "previous" and not turn):
        turn.append(Text())
    if what in ("text", "previous"):
        return extra, len(turn) - 1
    if what.startswith("call."):
        call_id = unquote(what.removeprefix("call."))
        for at, part in enumerate(turn):
            if isinstance(part, ToolCall) and part.id == call_id:
                return extra, at
    return extra, None


def without_carriers(items: bytes) -> list[Any] | None:
    """The items of `input`, still encoded, without carriers of other vendors; None if there are
    none.
    """
    found = _json.loads(items)
    if not isinstance(found, list):
        return None
    kept = [item for item in found if not _is_carrier(item)]
    return kept if len(kept) < len(found) else None


def _is_carrier(item: Any) -> bool:
    match item:
        case {"type": "reasoning", "encrypted_content": content}:
            return _carriers.is_carrier(NAME, content)
    return False
