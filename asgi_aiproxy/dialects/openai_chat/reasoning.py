"""How thoughts and their signatures travel through OpenAI's format, which has no place for them.

Answers carry the text as `reasoning_content` (DeepSeek's word, the most widely read) and, where the
vendor signed it, `reasoning_details` in OpenRouter's form, which clients send back unchanged:
https://openrouter.ai/docs/use-cases/reasoning-tokens. Gemini's signature of a tool call travels as
`extra_content.google.thought_signature`, as in Google's own OpenAI-compatible API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects.openai_chat import schemas
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Block, Extra, Opaque, Reasoning, Text, Thinking, ToolCall

ANTHROPIC = "anthropic-claude-v1"
GEMINI = "google-gemini-v1"
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def reasoning_details(text: str, extra: Extra) -> list[dict[str, Any]]:
    """The `reasoning_details` for one block of thoughts; empty if nobody signed it."""
    redacted = extra.get("anthropic", {}).get("redacted")
    if redacted:
        return [{"type": "reasoning.encrypted", "data": redacted, "format": ANTHROPIC}]
    for vendor, form in (("anthropic", ANTHROPIC), ("gemini", GEMINI)):
        signature = extra.get(vendor, {}).get("signature")
        if signature and (text or vendor == "anthropic"):
            words = {"type": "reasoning.text", "text": text}
            return [{**words, "signature": signature, "format": form}]
        if signature:
            return [{"type": "reasoning.encrypted", "data": signature, "format": form}]
    return []


def proof(block: Opaque) -> list[dict[str, Any]]:
    """The same for one of Gemini's parts that holds nothing but a signature."""
    match block:
        case Opaque("gemini", {"text": "", "thoughtSignature": str(found)}) if found:
            return reasoning_details("", {"gemini": {"signature": found}})
    return []


def read_reasoning(
    message: schemas.Message, said: list[Block], calls: list[ToolCall]
) -> Iterator[Reasoning]:
    """The thoughts of a replayed message; signatures of text and calls are put back in place."""
    plain = message.reasoning_content or message.reasoning or ""
    blocks: list[Reasoning] = []
    for detail in message.reasoning_details or ():
        if detail.format == GEMINI and detail.data:
            _sign(detail, said, calls)
            continue
        block = thought(detail)
        if not block.text and not block.extra:
            continue
        if blocks and not blocks[-1].extra and not detail.data:
            # one block in pieces, as a stream was collected
            block = Reasoning(blocks.pop().text + block.text, block.extra)
        blocks.append(block)
    if plain and not any(block.text for block in blocks):
        # The words stand beside the details: they are those of the one block that is signed.
        signed = [at for at, b in enumerate(blocks) if "signature" in b.extra.get("anthropic", {})]
        if len(signed) == 1:
            blocks[signed[0]] = Reasoning(plain, blocks[signed[0]].extra)
        else:
            blocks.insert(0, Reasoning(plain))
    return iter(blocks)


def thought(detail: schemas.Detail) -> Reasoning:
    """The thoughts that one member of `reasoning_details` tells."""
    if detail.data and detail.format == GEMINI:
        return Reasoning("", {"gemini": {"signature": detail.data}})
    if detail.data and detail.format == ANTHROPIC and detail.type == "reasoning.encrypted":
        return Reasoning("", {"anthropic": {"redacted": detail.data}})
    vendor = "gemini" if detail.format == GEMINI else "anthropic"
    extra = {vendor: {"signature": detail.signature}} if detail.signature else {}
    return Reasoning(detail.text or detail.summary or "", extra)


def _sign(detail: schemas.Detail, said: list[Block], calls: list[ToolCall]) -> None:
    """Give a signature back to the call it names, to the words, or to a text without any."""
    extra = {"gemini": {"signature": detail.data}}
    for at, call in enumerate(calls):
        if detail.id == call.id:
            calls[at] = ToolCall(call.id, call.name, call.arguments, extra)
            return
    for at in range(len(said) - 1, -1, -1):
        block = said[at]
        if isinstance(block, Text):
            said[at] = Text(block.text, block.citations, {**block.extra, **extra})
            return
    said.append(Text("", extra=extra))


def flatten(thinking: Any) -> str:
    """The text of Mistral's `thinking` part: a string, or a list of text parts."""
    if isinstance(thinking, str):
        return thinking
    if isinstance(thinking, list):
        texts = (part.get("text") for part in thinking if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def reasoning_options(asked: schemas.ChatRequest) -> Thinking | None:
    """How much to think, in any of the three spellings. Raises APIError."""
    _check_effort(asked.reasoning_effort, "reasoning_effort")
    if asked.thinking is not None:
        if asked.thinking.type == "disabled":
            return Thinking(effort="none")
        return Thinking(effort=asked.reasoning_effort or "", budget=asked.thinking.budget_tokens)
    if asked.reasoning is not None:
        told = asked.reasoning
        _check_effort(told.effort, "reasoning.effort")
        if told.enabled is False or told.effort == "none":
            return Thinking(effort="none")
        summary = None if told.exclude is None else not told.exclude
        return Thinking(effort=told.effort or "", budget=told.max_tokens, summary=summary)
    if asked.reasoning_effort:
        return Thinking(effort=asked.reasoning_effort)
    return None


def _check_effort(word: str | None, where: str) -> None:
    if word and word not in _EFFORTS:
        known = ", ".join(f"'{effort}'" for effort in _EFFORTS)
        raise invalid(
            f"Invalid value: '{word}'. Supported values are: {known}.", where, "invalid_value"
        )
