"""How signed reasoning of any vendor travels through the Responses API.

The API has one place for what a vendor wants back unread: `encrypted_content` of a reasoning item,
which clients return as it came. OpenAI's own content stands there as it is, that of other vendors
as a carrier (see `dialects._carriers`). What signs a text or a call, as Gemini does, is an item of
its own behind it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _carriers
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.messages import Block, Extra, Reasoning, Text, ToolCall

NEEDLES = _carriers.needles(NAME)


def encode_carrier(block: Block, extra: Extra) -> str:
    """The `encrypted_content` for what a block carries; empty if its vendor signed nothing."""
    own = extra.get(NAME, {}).get("encrypted_content")
    if own and isinstance(block, Reasoning):
        return str(own)
    return _carriers.encode_carrier(NAME, block, extra)


def decode_carrier(content: str, item_id: str, turn: list[Any]) -> tuple[Extra, int | None]:
    """What `encrypted_content` carries, and which part of the assistant's turn so far it signs.

    The second is None for reasoning, which carries its own signature. A signature without a text is
    that of an empty one, which is added to the turn.
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
    """Items of `input`, still encoded, without carriers of others; None if there are none."""
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
