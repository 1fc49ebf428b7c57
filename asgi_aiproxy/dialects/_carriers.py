"""Carriers: how a vendor's signed reasoning travels through the API of another vendor.

Vendors sign reasoning, some also tool calls and texts, and require the signature in the next
request. A client sends one member of its own API back unchanged: the `signature` of a thinking
block (Anthropic), or the `encrypted_content` of a reasoning item (OpenAI). It contains the
signature of the API's own vendor as it is, and that of another vendor as a carrier::

    <vendor>.<what it belongs to>:<signature>        gemini.call.toolu_1:CpQB...

No vendor's own value contains a colon, so the two cannot be confused. A signature belongs to the
reasoning itself (`signature`, `redacted`, `reasoning.<item id>`), to a call (`call.<call id>`), to
the text before it (`previous`), or to an empty text (`text`). Each dialect sends its vendor only
the signatures with the vendor's name, and carriers of others are removed from native requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from asgi_aiproxy.messages import Block, Extra, Opaque, Part, Reasoning, Text, ToolCall, merge

# The dialects whose vendors sign; carriers begin with these names.
_NAMES = {"anthropic": "anthropic", "gemini": "gemini", "openai_responses": "openai"}
_DIALECTS = {name: dialect for dialect, name in _NAMES.items()}


def encode_carrier(face: str, block: Block, extra: Extra) -> str:
    """Return the carrier for the signature that another vendor than that of `face` gave a block;
    empty without one.

    `extra` is the `extra` of the complete block.
    """
    if isinstance(block, Opaque):
        return _of_empty_part(face, block)
    for dialect, name in _NAMES.items():
        members = extra.get(dialect) if dialect != face else None
        if not members:
            continue
        if redacted := members.get("redacted"):
            return f"{name}.redacted:{redacted}"
        if signature := members.get("signature"):
            return f"{name}.{_signed_part(block)}:{signature}"
        if (content := members.get("encrypted_content")) and isinstance(block, Reasoning):
            item_id = quote(members.get("id", ""), safe="")
            return f"{name}.reasoning.{item_id}:{content}"
    return ""


def _signed_part(block: Block) -> str:
    match block:
        case Reasoning():
            return "signature"
        case ToolCall(id=call_id):
            return f"call.{quote(call_id, safe='')}"
    return "previous"


def _of_empty_part(face: str, block: Opaque) -> str:
    """Return the carrier for a part of Gemini's that contains only a signature."""
    match block:
        case Opaque("gemini", {"thoughtSignature": str(found)}) if found and face != "gemini":
            if block.payload.keys() <= {"text", "thought", "thoughtSignature"}:
                what = "signature" if block.payload.get("thought") else "text"
                return f"gemini.{what}:{found}"
    return ""


def is_carrier(face: str, value: Any) -> bool:
    """Return whether a value in a request to `face` is a carrier of another vendor's signature."""
    if not isinstance(value, str):
        return False
    head, colon, _ = value.partition(":")
    dialect = _DIALECTS.get(head.partition(".")[0], face)
    return bool(colon) and dialect != face


def needles(face: str) -> tuple[bytes, ...]:
    """Return byte strings of which the JSON of a request contains at least one if it has
    carriers.
    """
    return tuple(f'"{name}.'.encode() for dialect, name in _NAMES.items() if dialect != face)


def decode_carrier(value: str) -> tuple[str, Extra]:
    """Return the part that a carrier's signature belongs to, and the signature as a block's
    `extra`.
    """
    head, _, signature = value.partition(":")
    name, _, what = head.partition(".")
    dialect = _DIALECTS[name]
    if what.startswith("reasoning."):
        own = {"encrypted_content": signature}
        if item_id := unquote(what.removeprefix("reasoning.")):
            own["id"] = item_id
        return "signature", {dialect: own}
    return what, {dialect: {"redacted" if what == "redacted" else "signature": signature}}


def restore(face: str, parts: Iterable[Part]) -> list[Part]:
    """Return the parts of an assistant turn with their signatures restored.

    Carriers are expected as reasoning with a signature of `face`.
    """
    out: list[Part] = []
    calls: dict[str, Extra] = {}
    for part in parts:
        value = part.extra.get(face, {}).get("signature") if isinstance(part, Reasoning) else None
        if not isinstance(part, Reasoning) or not is_carrier(face, value):
            out.append(part)
            continue
        what, extra = decode_carrier(str(value))
        if what.startswith("call."):
            calls[unquote(what.removeprefix("call."))] = extra
        elif what == "previous" and out and isinstance(last := out[-1], Text):
            out[-1] = msgspec.structs.replace(last, extra=merge(last.extra, extra))
        elif what in ("previous", "text"):
            out.append(Text("", (), extra))
        else:
            out.append(Reasoning(part.text, extra))
    if not calls:
        return out
    return [
        msgspec.structs.replace(part, extra=merge(part.extra, calls.get(part.id, {})))
        if isinstance(part, ToolCall)
        else part
        for part in out
    ]
