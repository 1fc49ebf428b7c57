"""Reasoning and its signatures in OpenAI's chat format, which has no members for them.

Responses carry the text as `reasoning_content` (DeepSeek's name, the most widely supported) and, if
the vendor signed it, `reasoning_details` in OpenRouter's format, which clients send back unchanged:
https://openrouter.ai/docs/use-cases/reasoning-tokens. Gemini's signature of a tool call is sent as
`extra_content.google.thought_signature`, as in Google's own OpenAI-compatible API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.openai_chat import schemas
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Block, Extra, Opaque, Reasoning, Text, Thinking, ToolCall

ANTHROPIC = "anthropic-claude-v1"
GEMINI = "google-gemini-v1"
OPENAI = "openai-responses-v1"
RESPONSES = "openai_responses"  # the dialect whose vendor encrypts reasoning
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def reasoning_details(text: str, extra: Extra) -> list[dict[str, Any]]:
    """The `reasoning_details` of one reasoning block; empty if it has no signature."""
    redacted = extra.get("anthropic", {}).get("redacted")
    if redacted:
        return [{"type": "reasoning.encrypted", "data": redacted, "format": ANTHROPIC}]
    encrypted = extra.get(RESPONSES, {}).get("encrypted_content")
    if encrypted:
        detail = {"type": "reasoning.encrypted", "data": encrypted, "format": OPENAI}
        optional = {"id": extra[RESPONSES].get("id"), "summary": text}
        return [detail | {name: value for name, value in optional.items() if value}]
    for vendor, form in (("anthropic", ANTHROPIC), ("gemini", GEMINI)):
        signature = extra.get(vendor, {}).get("signature")
        if signature and (text or vendor == "anthropic"):
            detail = {"type": "reasoning.text", "text": text}
            return [{**detail, "signature": signature, "format": form}]
        if signature:
            return [{"type": "reasoning.encrypted", "data": signature, "format": form}]
    return []


def is_signed(extra: Extra) -> bool:
    """Whether a vendor signed or encrypted the reasoning, for itself."""
    own = {**extra.get("anthropic", {}), **extra.get("gemini", {}), **extra.get(RESPONSES, {})}
    return not own.keys().isdisjoint(("signature", "redacted", "encrypted_content"))


def signature_details(block: Opaque) -> list[dict[str, Any]]:
    """The `reasoning_details` of a part of Gemini's that holds only a signature."""
    match block:
        case Opaque("gemini", {"text": "", "thoughtSignature": str(found)}) if found:
            return reasoning_details("", {"gemini": {"signature": found}})
    return []


def read_reasoning(
    message: schemas.Message, content: list[Block], calls: list[ToolCall]
) -> Iterator[Reasoning]:
    """The reasoning of a replayed message.

    Signatures that belong to the text or to calls are restored in `content` and `calls`, in place.
    """
    plain = message.reasoning_content or message.reasoning or ""
    blocks: list[Reasoning] = []
    for detail in message.reasoning_details or ():
        if detail.format == GEMINI and detail.data:
            _restore_signature(detail, content, calls)
            continue
        block = read_detail(detail)
        if not block.text and not block.extra:
            continue
        if blocks and not blocks[-1].extra and (not detail.data or _encrypts_summary(detail)):
            # one block in pieces, as collected from a stream
            block = Reasoning(blocks.pop().text + block.text, block.extra)
        blocks.append(block)
    if plain and not any(block.text for block in blocks):
        # The text is not in the details: it belongs to the only block that is signed.
        signed = [i for i, b in enumerate(blocks) if _signs_text(b.extra)]
        if len(signed) == 1:
            blocks[signed[0]] = Reasoning(plain, blocks[signed[0]].extra)
        else:
            blocks.insert(0, Reasoning(plain))
    return iter(blocks)


def read_detail(detail: schemas.Detail) -> Reasoning:
    """The reasoning block of one member of `reasoning_details`."""
    if detail.data and detail.format == GEMINI:
        return Reasoning("", {"gemini": {"signature": detail.data}})
    if detail.data and detail.format == ANTHROPIC and detail.type == "reasoning.encrypted":
        return Reasoning("", {"anthropic": {"redacted": detail.data}})
    if detail.data and detail.format == OPENAI:
        encrypted = {"encrypted_content": detail.data, **({"id": detail.id} if detail.id else {})}
        return Reasoning(detail.summary or "", {RESPONSES: encrypted})
    vendor = "gemini" if detail.format == GEMINI else "anthropic"
    extra = {vendor: {"signature": detail.signature}} if detail.signature else {}
    return Reasoning(detail.text or detail.summary or "", extra)


def _encrypts_summary(detail: schemas.Detail) -> bool:
    """Whether a detail is what OpenRouter sends after the summary of the same reasoning."""
    return detail.format == OPENAI and not detail.summary


def _signs_text(extra: Extra) -> bool:
    return "signature" in extra.get("anthropic", {}) or RESPONSES in extra


def _restore_signature(detail: schemas.Detail, content: list[Block], calls: list[ToolCall]) -> None:
    """Restore a signature on the call with its id, else on the last text, else on an empty text."""
    extra = {"gemini": {"signature": detail.data}}
    for index, call in enumerate(calls):
        if detail.id == call.id:
            calls[index] = ToolCall(call.id, call.name, call.arguments, extra)
            return
    for index in range(len(content) - 1, -1, -1):
        block = content[index]
        if isinstance(block, Text):
            content[index] = Text(block.text, block.citations, {**block.extra, **extra})
            return
    content.append(Text("", extra=extra))


def read_text(message: Mapping[str, Any]) -> str:
    """The text of the reasoning in a response's message or delta, under either of its names."""
    text = message.get("reasoning_content") or message.get("reasoning")
    return text if isinstance(text, str) else ""


def read_details(message: Mapping[str, Any]) -> str:
    """The text of the reasoning in `reasoning_details`, where some servers have it alone."""
    return "".join(
        _parsing.get_text(detail, "text") or _parsing.get_text(detail, "summary")
        for detail in _parsing.objects(message.get("reasoning_details"))
    )


def flatten(thinking: Any) -> str:
    """The text of Mistral's `thinking` part: a string, or a list of text parts."""
    if isinstance(thinking, str):
        return thinking
    if isinstance(thinking, list):
        texts = (part.get("text") for part in thinking if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def reasoning_options(request: schemas.ChatRequest) -> Thinking | None:
    """The reasoning options, in any of the three forms that clients use. Raises APIError."""
    _check_effort(request.reasoning_effort, "reasoning_effort")
    if request.thinking is not None:
        if request.thinking.type == "disabled":
            return Thinking(effort="none")
        return Thinking(
            effort=request.reasoning_effort or "", budget=request.thinking.budget_tokens
        )
    if request.reasoning is not None:
        options = request.reasoning
        _check_effort(options.effort, "reasoning.effort")
        if options.enabled is False or options.effort == "none":
            return Thinking(effort="none")
        summary = None if options.exclude is None else not options.exclude
        return Thinking(effort=options.effort or "", budget=options.max_tokens, summary=summary)
    if request.reasoning_effort:
        return Thinking(effort=request.reasoning_effort)
    return None


def _check_effort(effort: str | None, where: str) -> None:
    if effort and effort not in _EFFORTS:
        known = ", ".join(f"'{known_effort}'" for known_effort in _EFFORTS)
        raise invalid(
            f"Invalid value: '{effort}'. Supported values are: {known}.", where, "invalid_value"
        )
