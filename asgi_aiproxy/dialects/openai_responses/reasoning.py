"""How signed reasoning of any vendor travels through the Responses API.

The API has one place for what a vendor wants back unread: `encrypted_content` of a reasoning item,
which clients return as it came. OpenAI's own content stands there as it is. Anthropic's and
Gemini's signatures stand there behind the vendor's name and what they belong to, as
`anthropic.signature:EqoB...`: OpenAI's never holds a colon, so the two cannot be confused, and each
dialect sends its own vendor only what carries its name. What signs a text or a call, as Gemini
does, is an item of its own behind it: `gemini.previous:...`, `gemini.call.<call id>:...`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.messages import Block, Extra, Reasoning, ToolCall

_VENDORS = ("anthropic", "gemini")


def encode_carrier(block: Block, extra: Extra) -> str:
    """The `encrypted_content` for what a block carries; empty if its vendor signed nothing."""
    own = extra.get(NAME, {}).get("encrypted_content")
    if own and isinstance(block, Reasoning):
        return str(own)
    for vendor in _VENDORS:
        members = extra.get(vendor, {})
        if redacted := members.get("redacted"):
            return f"{vendor}.redacted:{redacted}"
        if signature := members.get("signature"):
            match block:
                case Reasoning():
                    what = "signature"
                case ToolCall(id=call_id):
                    what = f"call.{quote(call_id, safe='')}"
                case _:
                    what = "previous"
            return f"{vendor}.{what}:{signature}"
    return ""


def decode_carrier(content: str, item_id: str, turn: list[Any]) -> tuple[Extra, int | None]:
    """What `encrypted_content` carries, and which part of the assistant's turn so far it signs.

    The second is None for reasoning, which carries its own signature.
    """
    head, colon, value = content.partition(":")
    vendor, _, what = head.partition(".")
    if not content:
        return {}, None
    if not colon or vendor not in _VENDORS:
        own: dict[str, Any] = {"encrypted_content": content}
        if item_id:
            own["id"] = item_id
        return {NAME: own}, None
    extra = {vendor: {"redacted" if what == "redacted" else "signature": value}}
    if what == "previous" and turn:
        return extra, len(turn) - 1
    if what.startswith("call."):
        call_id = unquote(what.removeprefix("call."))
        for at, part in enumerate(turn):
            if isinstance(part, ToolCall) and part.id == call_id:
                return extra, at
    return extra, None
