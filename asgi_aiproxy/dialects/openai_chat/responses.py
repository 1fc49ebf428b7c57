"""Whole responses: OpenAI's chat completions to the neutral format, and back.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import with_unique_ids
from asgi_aiproxy.dialects.openai_chat import (
    errors,
    order,
    reasoning,
)
from asgi_aiproxy.dialects.openai_chat.usage import decode_usage, encode_usage
from asgi_aiproxy.messages import (
    Block,
    Citation,
    Extra,
    Media,
    MessageEnd,
    Opaque,
    Reasoning,
    Refusal,
    Response,
    StopReason,
    Text,
    ToolCall,
)

NAME = "openai_chat"

STOPS = {
    "stop": StopReason.END,
    "length": StopReason.LENGTH,
    "tool_calls": StopReason.TOOLS,
    "function_call": StopReason.TOOLS,
    "content_filter": StopReason.FILTER,
}
FINISH_REASONS = {
    StopReason.END: "stop",
    StopReason.LENGTH: "length",
    StopReason.TOOLS: "tool_calls",
    StopReason.FILTER: "content_filter",
    StopReason.OTHER: "stop",
}


# Finish reasons of other vendors, with the one of OpenAI's five that means the same.
ALIASES = {
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "insufficient_system_resource": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "recitation": "content_filter",
    "refusal": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "guardrail_intervened": "content_filter",
}


def answers(message: Mapping[str, Any]) -> bool:
    """Whether a message, or a delta, has content besides reasoning."""
    return any(value for name, value in message.items() if name not in _NO_CONTENT)


_NO_CONTENT = frozenset({"role", "reasoning_content", "reasoning", "reasoning_details"})


def normalize_finish_reason(word: Any, called: bool) -> str | None:
    """The finish reason as one of OpenAI's; None if it is missing."""
    if not isinstance(word, str) or not word:
        return None
    word = word.lower()
    word = ALIASES.get(word, word)
    if word not in STOPS:
        word = "stop"
    return "tool_calls" if called and word == "stop" else word


def finish_reason(stop: StopReason, called: bool) -> str:
    """OpenAI's finish reason; `tool_calls` instead of `stop` if there are tool calls."""
    if called and stop in (StopReason.END, StopReason.OTHER):
        return "tool_calls"
    return FINISH_REASONS[stop]


# ── responses ────────────────────────────────────────────────────────────────


def decode_response(body: bytes) -> Response:
    """Read a whole chat completion."""
    answer = _parsing.parse_object(body)
    if answer is None:
        raise _parsing.unparsable_response_error(200, body)
    errors.raise_error(answer)
    match answer.get("choices"):
        case [{"message": dict(message)} as choice, *_]:
            pass
        case _:  # some servers report errors like this, each in its own format
            raise _parsing.truncated_response_error(f"it has no choices: {_parsing.excerpt(body)}")
    if not answers(message):
        errors.raise_failure(choice.get("finish_reason"))
    blocks = tuple(with_unique_ids(_blocks(message)))
    called = any(isinstance(block, ToolCall) for block in blocks)
    word = normalize_finish_reason(choice.get("finish_reason"), called)
    # A whole response without a finish reason is complete.
    return Response(
        id=str(answer.get("id") or ""),
        model=str(answer.get("model") or ""),
        blocks=blocks,
        stop=STOPS[word or finish_reason(StopReason.END, called)],
        usage=decode_usage(answer.get("usage")),
        word=word or "",
    )


def _blocks(message: dict[str, Any]) -> Iterator[Block]:
    thought = reasoning.read_text(message) or reasoning.read_details(message)
    if thought:
        yield Reasoning(thought)
    content = message.get("content")
    citations = tuple(decode_citations(message.get("annotations")))
    if isinstance(content, str) and content:
        yield Text(content, citations)
    for part in content if isinstance(content, list) else ():
        match part:
            case {"type": "thinking", "thinking": thinking}:
                yield Reasoning(reasoning.flatten(thinking))
            case {"text": str(text)} if text:
                yield Text(text)
    spoken = _parsing.get_text(message.get("audio"), "transcript")
    if spoken and not content:
        yield Text(spoken)
    refusal = _parsing.get_text(message, "refusal")
    if refusal:
        yield Refusal(refusal)
    yield from map(decode_image, _parsing.objects(message.get("images")))
    for at, call in enumerate(_parsing.objects(message.get("tool_calls"))):
        yield _call(call, at)
    match message.get("function_call"):
        case {"name": str(name), **legacy} if name:
            yield ToolCall("call_0", name, whole_arguments(legacy.get("arguments")))


def call_kind(call: Mapping[str, Any], before: str = "function") -> Literal["function", "custom"]:
    """Whether a tool call, or a fragment of one, is of a function or of a custom tool.

    Some servers (Snowflake, bridges to other vendors) send both members, one of them empty: the one
    with content counts. If both are empty the kind is `before`, that of the earlier fragments.
    """
    for kind in _KINDS:
        part = call.get(kind)
        if isinstance(part, dict) and any(part.values()):
            return kind
    if isinstance(call.get("function"), dict) == isinstance(call.get("custom"), dict):
        return "custom" if before == "custom" else "function"
    return "custom" if isinstance(call.get("custom"), dict) else "function"


_KINDS: tuple[Literal["function", "custom"], ...] = ("function", "custom")


def _call(call: dict[str, Any], at: int) -> ToolCall:
    if call_kind(call) == "custom":  # its input is free text
        custom = call["custom"]
        text = arguments_text(custom.get("input"))
        return ToolCall(call.get("id") or f"call_{at}", _parsing.get_text(custom, "name"), text)
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return ToolCall(
        call.get("id") or f"call_{at}",
        _parsing.get_text(function, "name"),
        whole_arguments(function.get("arguments")),
        call_extra(call),
    )


def call_extra(call: dict[str, Any]) -> Extra:
    """The vendor extras of a tool call or an image: Gemini's signature."""
    match call.get("extra_content"):
        case {"google": {"thought_signature": str(signature)}} if signature:
            return {"gemini": {"signature": signature}}
    return {}


def decode_image(image: dict[str, Any]) -> Media:
    """Read a member of `images`."""
    url = _parsing.get_text(image.get("image_url"), "url")
    head, _, data = url.partition(";base64,")
    extra = call_extra(image)
    if data:
        kind = head.removeprefix("data:")
        return Media(kind="image", media_type=kind, data=data, extra=extra)
    return Media(kind="image", url=url, extra=extra)


def arguments_text(arguments: Any) -> str:
    """Arguments, or a piece of them, as JSON text; some vendors send them parsed."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else _json.dumps(arguments).decode()


def whole_arguments(arguments: Any) -> str:
    """All arguments of a call as JSON text: an object, also if there are none."""
    text = arguments_text(arguments)
    return "{}" if text in ("", "null") else text


def decode_citations(annotations: Any) -> Iterator[Citation]:
    """Read the citations in `annotations`."""
    for annotation in _parsing.objects(annotations):
        found = annotation.get("url_citation")
        if annotation.get("type") == "url_citation" and isinstance(found, dict):
            start, end = found.get("start_index"), found.get("end_index")
            yield Citation(
                url=_parsing.get_text(found, "url"),
                title=_parsing.get_text(found, "title"),
                start=start if isinstance(start, int) else None,
                end=end if isinstance(end, int) else None,
            )


def encode_response(response: Response, created: int, new_id: str, model: str) -> bytes:
    """Write a whole chat completion.

    `created` is in Unix seconds; `model` is the one that was requested, if the provider names none.
    """
    called = any(isinstance(b, ToolCall) for b in response.blocks)
    choice = {
        "index": 0,
        "message": _message(response),
        "logprobs": None,
        "finish_reason": finish_reason(response.stop, called),
    }
    answer: dict[str, Any] = {
        "id": response.id or new_id,
        "object": "chat.completion",
        "created": created,
        "model": response.model or model,
        "choices": [choice],
    }
    if response.usage is not None:
        answer["usage"] = encode_usage(response.usage)
    answer |= extensions(response)
    return _json.dumps(answer)


def extensions(end: Response | MessageEnd) -> dict[str, Any]:
    """Members that OpenAI's format does not have: of vendors, and the conversation to continue."""
    found = {name: end.extra[name] for name in _EXTENSIONS if name in end.extra}
    return {**found, "conversation": end.conversation} if end.conversation else found


_EXTENSIONS = ("coze", "chatgpt_web", "claude_web")


def _message(response: Response) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    annotations: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    block_order = order.BlockOrder()
    position = 0  # in characters of the text
    for number, block in enumerate(response.blocks):
        block_order.begin(number, block)
        match block:
            case Text(text, citations, extra):
                annotations += [
                    encode_citation(c, position, position + len(text)) for c in citations
                ]
                signed = reasoning.reasoning_details("", extra)
                block_order.end(number, block, text, signed)
                details += signed
                texts.append(text)
                position += len(text)
            case Reasoning(text, extra):
                signed = reasoning.reasoning_details(text, extra)
                block_order.end(number, block, text, signed)
                details += signed
                thoughts.append(text)
            case Refusal(text):
                refusals.append(text)
            case Opaque():
                signed = reasoning.signature_details(block)
                block_order.end(number, block, "", signed)
                details += signed
            case ToolCall():
                calls.append(tool_call(block))
            case Media(kind="image"):
                images.append(image(block))
    details += block_order.details()
    details = [{**detail, "index": index} for index, detail in enumerate(details)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not calls else None,
        "refusal": "".join(refusals) or response.refusal or None,
    }
    optional = {
        "reasoning_content": "".join(thoughts),
        "reasoning_details": details,
        "annotations": annotations,
        "images": images,
        "tool_calls": calls,
    }
    return message | {name: value for name, value in optional.items() if value}


def tool_call(call: ToolCall) -> dict[str, Any]:
    """Write a member of `tool_calls`."""
    out: dict[str, Any] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    return out | _signature(call.extra)


def image(media: Media) -> dict[str, Any]:
    """Write a member of `images`, OpenRouter's member for images that the model generated."""
    url = media.url or f"data:{media.media_type};base64,{media.data}"
    return {"type": "image_url", "image_url": {"url": url}, **_signature(media.extra)}


def _signature(extra: Extra) -> dict[str, Any]:
    """Gemini's signature of a call or an image, as in Google's OpenAI-compatible API."""
    signature = extra.get("gemini", {}).get("signature")
    return {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}


def encode_citation(citation: Citation, start: int, end: int) -> dict[str, Any]:
    """Write a member of `annotations`; without positions it covers all text from `start` to `end`.

    OpenAI's format has no citations of documents in the conversation, which have no URL: they are
    written in the same form, with their title and quote.
    """
    out: dict[str, Any] = {
        "start_index": start if citation.start is None else citation.start,
        "end_index": end if citation.end is None else citation.end,
        "url": citation.url,
        "title": citation.title,
    }
    if citation.quote and not citation.url:
        out["quote"] = citation.quote
    return {"type": "url_citation", "url_citation": out}
