"""Writes requests of the Responses API: the neutral format to OpenAI's.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._unsupported import unsupported_fields
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.openai_responses.requests import INCLUDED, OPENAI
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.dialects.openai_responses.tools import (
    Declared,
    call_item,
    declared,
    encode_choice,
    encode_tools,
)
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    after_last_answer,
)

_MIN_OUTPUT_TOKENS = 16  # OpenAI answers 400 to a lower limit


def encode_request(request: Request) -> ProviderRequest:
    """Write the body of POST /v1/responses. Raises APIError for content it cannot express."""
    ignored = unsupported_fields(request, NAME)
    system, messages = _leading_system(request.messages)
    known = declared(request.tools)
    said = after_last_answer(messages) if request.conversation else messages
    items = [item for message in said for item in _write_message(message, known)]
    if not items:
        raise _parsing.empty_messages_error()
    own = request.extra.get(NAME, {})
    store = request.conversation is not None
    body: dict[str, Any] = {"model": request.model, "input": items, "store": store}
    _put(body, "previous_response_id", request.conversation or None)
    _put(body, "instructions", system or None)
    tools = encode_tools(request.tools, as_request=True) + list(own.get("tools", ()))
    _put(body, "tools", tools or None)
    if request.tool_choice is not None and request.tools:
        body["tool_choice"] = encode_choice(request.tool_choice, known)
    _put(body, "parallel_tool_calls", request.parallel_tools if request.tools else None)
    if request.max_tokens is not None:
        body["max_output_tokens"] = max(request.max_tokens, _MIN_OUTPUT_TOKENS)
        if request.max_tokens < _MIN_OUTPUT_TOKENS:
            ignored.append("max_tokens")
    _put(body, "temperature", request.temperature)
    _put(body, "top_p", request.top_p)
    _put(body, "user", request.user or None)
    _put(body, "reasoning", _write_thinking(request.thinking))
    if _wants_encrypted(request):
        body["include"] = [INCLUDED]
    text = dict(own.get("text", {}))
    if request.output is not None:
        text["format"] = _write_output(request.output)
    _put(body, "text", text or None)
    if request.stream:
        body["stream"] = True
    for name in ("top_k", "seed", "presence_penalty", "frequency_penalty"):
        if getattr(request, name) is not None:
            ignored.append(name)
    if request.stop:
        ignored.append("stop")
    for name, value in own.items():
        body.setdefault(name, value)
    return ProviderRequest("/responses", body, ignored=tuple(dict.fromkeys(ignored)))


def _put(body: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        body[name] = value


def _leading_system(messages: tuple[Message, ...]) -> tuple[str, tuple[Message, ...]]:
    """The instructions at the beginning of the conversation, and the messages after them."""
    texts: list[str] = []
    for at, message in enumerate(messages):
        if message.role != "system" or not all(isinstance(p, Text) for p in message.parts):
            return "\n\n".join(texts), messages[at:]
        said = "".join(part.text for part in message.parts if isinstance(part, Text))
        texts += [said] if said else []
    return "\n\n".join(texts), ()


def _wants_encrypted(request: Request) -> bool:
    """Return whether reasoning is requested or was sent back: only reasoning models accept the
    member.
    """
    thinking = request.thinking
    if thinking is not None and thinking.effort != "none":
        return True
    parts = (part for message in request.messages for part in message.parts)
    return any(isinstance(part, Reasoning) and NAME in part.extra for part in parts)


def _write_message(message: Message, tools: Declared) -> Iterator[dict[str, Any]]:
    if message.role == "assistant":
        yield from _write_assistant(message.parts, tools)
        return
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            yield _write_result(part, tools)
        elif (written := _write_part(part)) is not None:
            content.append(written)
    if content:
        role = "developer" if message.role == "system" else "user"
        yield {"type": "message", "role": role, "content": content}


def _write_assistant(parts: tuple[Part, ...], tools: Declared) -> Iterator[dict[str, Any]]:
    content: list[str] = []
    for part in parts:
        match part:
            case Text(text=text) | Refusal(text=text) if text:
                content.append(text)
                continue
        item = _write_item(part, tools)
        if item is None:
            continue
        if content:
            yield _said(content)
            content = []
        yield item
    if content:
        yield _said(content)


def _said(content: list[str]) -> dict[str, Any]:
    """An earlier message of the assistant: a string, as parts belong to messages with ids."""
    return {"type": "message", "role": "assistant", "content": "".join(content)}


def _write_item(part: Part, tools: Declared) -> dict[str, Any] | None:
    match part:
        case Reasoning(text=text, extra={"openai_responses": {"encrypted_content": content}}):
            summary = [{"type": "summary_text", "text": text}] if text else []
            item = {"type": "reasoning", "summary": summary, "encrypted_content": content}
            known = part.extra[NAME].get("id")
            return {"id": known, **item} if known else item
        case ToolCall():
            item = call_item(part, tools)
            return {**item, "arguments": "{}"} if item.get("arguments") == "" else item
        case Opaque(dialect=dialect, payload=payload) if dialect == NAME:
            return dict(payload)
        case Media(kind="image"):
            return None  # the API has no item for an image that another vendor's model generated
    return None


def _write_result(result: ToolResult, tools: Declared) -> dict[str, Any]:
    kind = "function_call_output"
    if "custom" in tools.get(result.name, ()) or result.extra.get(NAME, {}).get("custom"):
        kind = "custom_tool_call_output"
    output: Any = "".join(part.text for part in result.parts if isinstance(part, Text))
    if any(isinstance(part, Media) for part in result.parts):
        output = [out for part in result.parts if (out := _write_part(part)) is not None]
    return {"type": kind, "call_id": result.id, "output": output}


def _write_part(part: Part) -> dict[str, Any] | None:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "input_text", "text": text}
        case Media(kind="image", file=file) if file:
            return {"type": "input_image", "file_id": file}
        case Media(kind="image") if part.url or part.data:
            seen = {"detail": "auto", **part.extra.get(OPENAI, {})}
            return {"type": "input_image", "image_url": _link(part), **seen}
        case Media(kind="document") if text := _parsing.document_text(part):
            return {"type": "input_text", "text": f"{part.name}\n{text}" if part.name else text}
        case Media(kind="document", file=file) if file:
            return {"type": "input_file", "file_id": file}
        case Media(kind="document", url=url) if url:
            return {"type": "input_file", "file_url": url}
        case Media(kind="document", data=data) if data:
            name = part.name or "document.pdf"
            return {"type": "input_file", "filename": name, "file_data": _link(part)}
        case Media():
            raise invalid(
                f"The Responses API does not accept {part.kind} in this form.", "messages"
            )
    return None


def _link(media: Media) -> str:
    return media.url or f"data:{media.media_type};base64,{media.data}"


def _write_output(output: Output) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    out: dict[str, Any] = {
        "type": "json_schema",
        "name": output.name or "answer",
        "schema": output.schema,
    }
    _put(out, "description", output.description or None)
    _put(out, "strict", output.strict)
    return out


def _write_thinking(thinking: Thinking | None) -> dict[str, Any] | None:
    if thinking is None:
        return None
    effort = thinking.effort
    if not effort and thinking.budget is not None:
        effort = _effort_of(thinking.budget)
    out: dict[str, Any] = {}
    _put(out, "effort", effort or None)
    if thinking.summary is not False and effort != "none":
        out["summary"] = "auto"
    return out or None


def _effort_of(budget: int) -> str:
    """The effort for a budget of reasoning tokens."""
    return "low" if budget <= 2048 else "medium" if budget <= 12_288 else "high"
