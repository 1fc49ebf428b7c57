"""Writes chat requests: the neutral format to OpenAI's.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._unsupported import unsupported_fields
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.openai_chat.reasoning import is_signed
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Media,
    Message,
    Output,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

NAME = "openai_chat"
OPENAI = "openai"  # extra that both of OpenAI's chat APIs share


def encode_request(request: Request) -> ProviderRequest:
    """Write the body of POST /chat/completions."""
    body: dict[str, Any] = {"model": request.model}
    body["messages"] = [out for m in request.messages for out in _write_message(m)]
    if request.tools:
        body["tools"] = [{"type": "function", "function": _write_tool(t)} for t in request.tools]
    if request.tool_choice is not None and request.tools:
        body["tool_choice"] = _write_tool_choice(request.tool_choice)
    _set_if_given(body, "parallel_tool_calls", request.parallel_tools if request.tools else None)
    _set_if_given(body, "response_format", _write_output(request.output))
    _set_if_given(body, "max_completion_tokens", request.max_tokens)
    for name in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"):
        _set_if_given(body, name, getattr(request, name))
    _set_if_given(body, "stop", list(request.stop) or None)
    _set_if_given(body, "user", request.user or None)
    if request.thinking is not None:
        _set_if_given(
            body, "reasoning_effort", request.thinking.effort or _effort(request.thinking.budget)
        )
    body["stream"] = request.stream
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    body.update(request.extra.get(NAME, {}))
    ignored = unsupported_fields(request, NAME, names=True)
    if request.top_k is not None:
        ignored.append("top_k")
    return ProviderRequest("/chat/completions", body, ignored=tuple(ignored))


def _set_if_given(body: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        body[name] = value


def _effort(budget: int | None) -> str | None:
    if budget is None:
        return None
    return "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"


def _write_message(message: Message) -> Iterator[dict[str, Any]]:
    name = {"name": message.name} if message.name else {}
    if message.role == "assistant":
        if answer := _write_assistant(message.parts):
            yield {"role": "assistant", **answer, **name}
        return
    results = [p for p in message.parts if isinstance(p, ToolResult)]
    rest = [p for p in message.parts if not isinstance(p, ToolResult)]
    tool_media: list[Part] = []
    for result in results:
        # A tool message can only hold text: media of a tool follow in a user message.
        texts = [p for p in result.parts if isinstance(p, Text)]
        tool_media += [p for p in result.parts if isinstance(p, Media)]
        text = "".join(p.text for p in texts)
        yield {"role": "tool", "tool_call_id": result.id, "content": text}
    if tool_media or rest:
        parts = [out for p in [*tool_media, *rest] if (out := _write_part(p)) is not None]
        content: Any = parts
        if len(parts) <= 1 and all(part["type"] == "text" for part in parts):
            content = parts[0]["text"] if parts else ""
        yield {"role": message.role, "content": content, **name}


def _write_assistant(parts: tuple[Part, ...]) -> dict[str, Any]:
    """An earlier answer; empty if it has no text, refusal or call, as vendors refuse such messages.

    Its reasoning is included unless another vendor signed it: DeepSeek, Kimi and others require
    theirs. Providers that refuse the member remove it (`providers/message_format.py`).
    """
    out: dict[str, Any] = {}
    text = "".join(p.text for p in parts if isinstance(p, Text))
    refusal = "".join(p.text for p in parts if isinstance(p, Refusal))
    calls = [p for p in parts if isinstance(p, ToolCall)]
    if not text and not refusal and not calls:
        return out
    out["content"] = text or None
    thoughts = (p.text for p in parts if isinstance(p, Reasoning) and not is_signed(p.extra))
    if thought := "".join(thoughts):
        out["reasoning_content"] = thought
    if refusal:
        out["refusal"] = refusal
    if calls:
        out["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in calls
        ]
    return out


def _write_part(part: Part) -> dict[str, Any] | None:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "text", "text": text}
        case Media(kind="image") if part.url or part.data:
            image_url = {"url": _url(part), **part.extra.get(OPENAI, {})}
            return {"type": "image_url", "image_url": image_url}
        case Media(kind="audio", data=data) if data:
            form = part.media_type.partition("/")[2]
            return {
                "type": "input_audio",
                "input_audio": {"data": data, "format": {"mpeg": "mp3"}.get(form, form)},
            }
        case Media(kind="document") if text := _parsing.document_text(part):
            return {"type": "text", "text": f"{part.name}\n{text}" if part.name else text}
        case Media(kind="document", file=file) if file:
            return {"type": "file", "file": {"file_id": file}}
        case Media(kind="document", data=data) if data:
            named = {"filename": part.name or "document.pdf"}
            return {"type": "file", "file": {"file_data": _url(part), **named}}
        case Media(kind="video") if part.url or part.data:
            return {"type": "video_url", "video_url": {"url": _url(part)}}
        case Media():
            raise invalid(
                f"OpenAI's chat API does not accept {part.kind} in this form.", "messages"
            )
        case _:
            return None


def _url(media: Media) -> str:
    return media.url or f"data:{media.media_type};base64,{media.data}"


def _write_tool(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    _set_if_given(out, "description", tool.description or None)
    _set_if_given(out, "parameters", tool.schema)
    _set_if_given(out, "strict", tool.strict)
    return out


def _write_tool_choice(choice: ToolChoice) -> Any:
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if not named:
        return choice.mode
    if len(named) == 1 and choice.mode == "required":
        return named[0]
    allowed = {"mode": choice.mode, "tools": named}
    return {"type": "allowed_tools", "allowed_tools": allowed}


def _write_output(output: Output | None) -> dict[str, Any] | None:
    if output is None:
        return None
    if output.schema is None:
        return {"type": "json_object"}
    named: dict[str, Any] = {"name": output.name or "answer", "schema": output.schema}
    _set_if_given(named, "description", output.description or None)
    _set_if_given(named, "strict", output.strict)
    return {"type": "json_schema", "json_schema": named}
