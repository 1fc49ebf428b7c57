"""Whole responses and usage: Anthropic's format to the neutral one, and back.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import with_unique_ids
from asgi_aiproxy.dialects._carriers import encode_carrier
from asgi_aiproxy.dialects.anthropic import errors
from asgi_aiproxy.messages import (
    Block,
    Citation,
    MessageEnd,
    Opaque,
    Reasoning,
    Refusal,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

NAME = "anthropic"

STOPS = {
    "end_turn": StopReason.END,
    "stop_sequence": StopReason.END,
    "max_tokens": StopReason.LENGTH,
    "model_context_window_exceeded": StopReason.LENGTH,
    "tool_use": StopReason.TOOLS,
    "refusal": StopReason.FILTER,
}
STOP_REASONS = {
    StopReason.END: "end_turn",
    StopReason.LENGTH: "max_tokens",
    StopReason.TOOLS: "tool_use",
    StopReason.FILTER: "refusal",
    StopReason.OTHER: "end_turn",
}


def stop_reason(stop: StopReason, word: str, called: bool) -> str:
    """Anthropic's stop reason; that of the provider (`word`) if it is one of them for `stop`."""
    if STOPS.get(word) is stop or word == "pause_turn":
        return "tool_use" if called and word == "end_turn" else word
    if called and stop in (StopReason.END, StopReason.OTHER):
        return "tool_use"
    return STOP_REASONS[stop]


# ── responses ────────────────────────────────────────────────────────────────


def decode_response(body: bytes) -> Response:
    """Read a whole message."""
    answer = _parsing.parse_object(body)
    if answer is None:
        raise _parsing.unparsable_response_error(200, body)
    errors.raise_error(answer, body)
    content = answer.get("content")
    if isinstance(content, str):  # from some compatible servers
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise _parsing.truncated_response_error("it has no content")
    word = _parsing.get_text(answer, "stop_reason")
    return Response(
        id=str(answer.get("id") or ""),
        model=str(answer.get("model") or ""),
        blocks=tuple(
            with_unique_ids(_block(at, b) for at, b in enumerate(content) if isinstance(b, dict))
        ),
        stop=STOPS.get(word, StopReason.OTHER),
        usage=decode_usage(answer.get("usage")),
        word=word,
        refusal=refusal_explanation(answer.get("stop_details")),
        extra=end_extra(answer),
    )


def refusal_explanation(details: Any) -> str:
    """Why the model refused, as text for the user."""
    return _parsing.get_text(details, "explanation")


def end_extra(end: Mapping[str, Any]) -> dict[str, Any]:
    """The extras of the end of a message: stop sequence and details."""
    found = {name: end[name] for name in ("stop_sequence", "stop_details") if end.get(name)}
    return {NAME: found} if found else {}


def _block(number: int, block: dict[str, Any]) -> Block:
    match block:
        case {"type": "text", "text": str(text)}:
            return Text(text, tuple(decode_citations(block)))
        case {"type": "thinking", "thinking": str(text)}:
            signature = block.get("signature")
            return Reasoning(text, {NAME: {"signature": signature}} if signature else {})
        case {"type": "redacted_thinking", "data": str(data)}:
            return Reasoning("", {NAME: {"redacted": data}})
        case {"type": "tool_use", "name": str(name)}:
            call_id = block.get("id") or f"toolu_{number}"
            return ToolCall(call_id, name, arguments_text(block.get("input")) or "{}")
    return Opaque(NAME, block)  # a hosted tool and its result, or something new


def arguments_text(arguments: Any) -> str:
    """A tool's input as JSON text."""
    if not arguments:
        return ""
    return arguments if isinstance(arguments, str) else _json.dumps(arguments).decode()


def decode_citations(block: Mapping[str, Any]) -> Iterator[Citation]:
    """Read the citations of a text block."""
    yield from map(decode_citation, _parsing.objects(block.get("citations")))


def decode_citation(citation: dict[str, Any]) -> Citation:
    """Read a citation of the web or of a document in the conversation."""
    return Citation(
        url=_parsing.get_text(citation, "url"),
        title=_parsing.get_text(citation, "title") or _parsing.get_text(citation, "document_title"),
        quote=_parsing.get_text(citation, "cited_text"),
    )


def encode_response(response: Response, new_id: str, model: str) -> bytes:
    """Write a whole message; `model` is the one that was requested, if the provider names none."""
    called = any(isinstance(b, ToolCall) for b in response.blocks)
    refused = any(isinstance(b, Refusal) for b in response.blocks)
    own = response.extra.get(NAME, {})
    return _json.dumps(
        {
            "id": response.id or new_id,
            "type": "message",
            "role": "assistant",
            "model": response.model or model,
            "content": [out for b in response.blocks for out in _write(b)],
            **encode_end(response, called, refused, own),
            "usage": encode_usage(response.usage or Usage()),
            **({"conversation": response.conversation} if response.conversation else {}),
        }
    )


def encode_end(
    ended: Response | MessageEnd, called: bool, refused: bool, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Write how a message ended; `own` are Anthropic's own extras of the end, if any.

    `called`, `refused`: whether one of its blocks is a tool call or a refusal, which other vendors
    have as a kind of text.
    """
    stop = ended.stop
    if refused and not called and stop is StopReason.END:
        stop = StopReason.FILTER
    reason = stop_reason(stop, ended.word, called)
    details = own.get("stop_details")
    if details is None and ended.refusal and reason == "refusal":
        details = {"type": "refusal", "category": None, "explanation": ended.refusal}
    end = {"stop_reason": reason, "stop_sequence": own.get("stop_sequence")}
    return {**end, "stop_details": details} if details else end


def _write(block: Block) -> Iterator[dict[str, Any]]:
    extra = {} if isinstance(block, Refusal | Opaque) else block.extra
    carrier = encode_carrier(NAME, block, extra)
    carried = [{"type": "thinking", "thinking": "", "signature": carrier}] if carrier else []
    match block:
        case Text(text, citations):
            out: dict[str, Any] = {"type": "text", "text": text}
            if citations:
                out["citations"] = [encode_citation(c) for c in citations]
            yield out
            yield from carried
        case Refusal(text):
            yield {"type": "text", "text": text}
        case Reasoning(_, {"anthropic": {"redacted": data}}):
            yield {"type": "redacted_thinking", "data": data}
        case Reasoning(text, extra):
            signature = extra.get(NAME, {}).get("signature") or carrier
            yield {"type": "thinking", "thinking": text, "signature": signature}
        case ToolCall(call_id, name, arguments):
            yield from carried
            yield {
                "type": "tool_use",
                "id": call_id,
                "name": name,
                "input": _parsing.arguments(arguments, []),
            }
        case Opaque("anthropic", payload):
            yield dict(payload)
        case Opaque():
            yield from carried


def encode_citation(citation: Citation) -> dict[str, Any]:
    """Write a citation in the form of a web search result."""
    return {
        "type": "web_search_result_location",
        "cited_text": citation.quote,
        "url": citation.url,
        "title": citation.title,
        "encrypted_index": "",
    }


# ── usage ────────────────────────────────────────────────────────────────────


def add_counts(counts: dict[str, Any], usage: Any) -> None:
    """Update the counts of a stream, in place. Each event has the totals so far.

    Some compatible servers count the input at the start and send 0 for it at the end.
    """
    if isinstance(usage, dict):
        known = {name: value for name, value in usage.items() if value is not None}
        counts.update({n: v for n, v in known.items() if v != 0 or not counts.get(n)})


def decode_usage(usage: Any) -> Usage | None:
    """Read `usage`. Anthropic does not include cached tokens in the input: they are added."""
    if not isinstance(usage, dict):
        return None
    read = _parsing.read_count(usage, "cache_read_input_tokens")
    split = usage.get("cache_creation")
    written_1h = _parsing.read_count(split, "ephemeral_1h_input_tokens")
    written_5m = _parsing.read_count(split, "ephemeral_5m_input_tokens")
    written = _parsing.read_count(usage, "cache_creation_input_tokens") or written_5m + written_1h
    return Usage(
        input=_parsing.read_count(usage, "input_tokens") + read + written,
        output=_parsing.read_count(usage, "output_tokens"),
        cache_read=read,
        cache_write=written,
        cache_write_1h=written_1h,
        reasoning=_parsing.read_count(usage.get("output_tokens_details"), "thinking_tokens"),
    )


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Write `usage`."""
    out: dict[str, Any] = {
        "input_tokens": max(usage.input - usage.cache_read - usage.cache_write, 0),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }
    if usage.cache_write_1h:
        out["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write - usage.cache_write_1h,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.reasoning:
        out["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return out
