"""Reads message requests: Anthropic's format to the neutral one.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._carriers import is_carrier, restore
from asgi_aiproxy.dialects._media import require_base64
from asgi_aiproxy.dialects.anthropic import schemas
from asgi_aiproxy.dialects.anthropic.errors import THREAD_UNSUPPORTED
from asgi_aiproxy.dialects.anthropic.tools import decode_choice, decode_tools, ignored_members
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

NAME = "anthropic"
# Members that are reported to be ignored, whatever the provider.
_UNREAD = "anthropic.unread"
_OUTPUT = schemas.OutputConfig.__struct_fields__


def decode_request(body: bytes) -> Request:
    """Read the body of POST /v1/messages. Raises APIError."""
    request = _parsing.body(schemas.messages_request, body)
    raw = _json.loads(body)
    _refuse_thread(raw)
    known = schemas.MessagesRequest.__struct_fields__
    rest = {k: v for k, v in raw.items() if k not in known and v is not None}
    unread = ignored_members(request.tools or ())
    config = raw.get("output_config") or {}
    unread |= {f"output_config.{n}": v for n, v in config.items() if n not in _OUTPUT and v}
    output_format = (
        request.output_config and request.output_config.format
    ) or request.output_format
    choice = request.tool_choice
    return Request(
        model=request.model,
        messages=tuple(_conversation(request, raw)),
        tools=tuple(decode_tools(request.tools or ())),
        tool_choice=decode_choice(choice),
        parallel_tools=False if choice and choice.disable_parallel_tool_use else None,
        output=Output(schema=output_format.schema or {}) if output_format else None,
        thinking=_thinking(request),
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop=tuple(request.stop_sequences or ()),
        user=(request.metadata and request.metadata.user_id) or "",
        stream=bool(request.stream),
        extra={name: found for name, found in ((NAME, rest), (_UNREAD, unread)) if found},
    )


def _refuse_thread(raw: dict[str, Any]) -> None:
    """Refuse a thread, which is a conversation that Anthropic keeps: later requests hold only what
    is new. On this code Anthropic's SDKs send the whole conversation again, without `thread`.
    """
    if raw.get("thread"):
        raise invalid(
            "thread: message threads are not available for this model: send the whole conversation "
            "in 'messages', without 'thread'.",
            "thread",
            THREAD_UNSUPPORTED,
        )


def _conversation(request: schemas.MessagesRequest, raw: dict[str, Any]) -> Iterator[Message]:
    if request.system:
        parts = _parts(request.system, raw["system"], "system")
        yield Message("system", tuple(parts))
    for at, message in enumerate(request.messages):
        where = f"messages[{at}]"
        if message.role not in ("user", "assistant", "system"):
            raise invalid(
                f"{where}.role: expected 'user' or 'assistant', got '{message.role}'.",
                f"{where}.role",
            )
        parts = _parts(message.content, raw["messages"][at]["content"], f"{where}.content")
        if message.role == "assistant":
            parts = iter(restore(NAME, parts))
        else:
            parts = _known_blocks(parts, f"{where}.content")
        yield Message(message.role, tuple(parts))  # type: ignore[arg-type]


def _known_blocks(parts: Iterator[Part], where: str) -> Iterator[Part]:
    """The parts of a user's message. Raises APIError for a block that Anthropic does not document.

    (Other vendors get no block of Anthropic's own kinds; that is reported.)
    """
    for at, part in enumerate(parts):
        if isinstance(part, Opaque) and part.payload.get("type") not in _OWN_BLOCKS:
            place = f"{where}[{at}]"
            raise invalid(f"{place}: unknown type '{part.payload.get('type')}'.", place)
        yield part


# What may stand in a user's message and has a meaning to Anthropic alone.
_OWN_BLOCKS = frozenset(
    {"search_result", "container_upload", "tool_reference", "tool_addition", "tool_removal"}
    | {"browser_state", "compaction", "fallback", "server_tool_use", "mcp_tool_use"}
    | {"mcp_tool_result", "mcp_tool_listing", "web_search_tool_result", "web_fetch_tool_result"}
    | {"code_execution_tool_result", "bash_code_execution_tool_result", "advisor_tool_result"}
    | {"text_editor_code_execution_tool_result", "tool_search_tool_result"}
)


def without_carriers(messages: bytes) -> list[Any] | None:
    """Messages, still encoded, without the signatures of other vendors; None if there are none."""
    found = _json.loads(messages)
    out = [_own(message) for message in found] if isinstance(found, list) else []
    if all(now is before for now, before in zip(out, found, strict=False)):
        return None
    return [message for message in out if message is not None]


def _own(message: Any) -> Any:
    """A message with what Anthropic can read of it; None if that is nothing."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not any(map(_is_carrier, content)):
        return message
    kept = [block for block in content if not _is_carrier(block)]
    return {**message, "content": kept} if kept else None


def _is_carrier(block: Any) -> bool:
    match block:
        case {"type": "thinking", "signature": signature}:
            return is_carrier(NAME, signature)
    return False


def _parts(content: str | list[schemas.Part], raw: Any, where: str) -> Iterator[Part]:
    if isinstance(content, str):
        yield Text(content)
        return
    for at, part in enumerate(content):
        yield require_base64(_part(part, raw[at], f"{where}[{at}]"), f"{where}[{at}]")


def _part(part: schemas.Part, raw: dict[str, Any], where: str) -> Part:
    cache = {NAME: {"cache_control": part.cache_control}} if part.cache_control else {}
    match part:
        case schemas.Part(type="text", text=str(text)):
            return Text(text, extra=cache)
        case schemas.Part(type="image" | "document", source=schemas.Source()):
            return _media(part, where, cache)
        case schemas.Part(type="tool_use", id=str(call_id), name=str(name)):
            return ToolCall(call_id, name, _json.dumps(part.input or {}).decode(), cache)
        case schemas.Part(type="tool_result", tool_use_id=str(call_id)):
            results = tuple(_result(part, raw, where))
            return ToolResult(call_id, results, error=bool(part.is_error), extra=cache)
        case schemas.Part(type="thinking", thinking=str(text)):
            signed = {NAME: {"signature": part.signature}} if part.signature else {}
            return Reasoning(text, signed)
        case schemas.Part(type="redacted_thinking", data=str(data)):
            return Reasoning("", {NAME: {"redacted": data}})
    if part.type in _KNOWN_PART_TYPES:
        raise invalid(f"{where}: incomplete part of type '{part.type}'.", where)
    return Opaque(NAME, raw)


_KNOWN_PART_TYPES = frozenset(
    {"text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking"}
)


def _result(part: schemas.Part, raw: dict[str, Any], where: str) -> Iterator[Text | Media]:
    content = part.content
    if isinstance(content, dict):
        raise invalid(f"{where}.content: expected a string or a list.", f"{where}.content")
    for at, out in enumerate(_parts(content or "", raw.get("content"), f"{where}.content")):
        if isinstance(out, Text | Media):
            yield out
        else:  # search_result, tool_reference ...: kept as JSON text
            yield Text(_json.dumps(raw["content"][at]).decode())


def _media(part: schemas.Part, where: str, extra: Any) -> Media:
    source = part.source
    kind: Any = part.type
    name = part.title or ""
    match source:
        case schemas.Source(type="base64", media_type=media_type, data=data):
            return Media(kind=kind, media_type=media_type, data=data, name=name, extra=extra)
        case schemas.Source(type="url", url=url):
            return Media(kind=kind, url=url, name=name, extra=extra)
        case schemas.Source(type="file", file_id=file):
            return Media(kind=kind, file=file, name=name, extra=extra)
        case schemas.Source(type="text", data=text):
            return Media(kind=kind, media_type="text/plain", text=text, name=name, extra=extra)
        case schemas.Source(type="content", content=list(content)):
            text = "\n".join(c.get("text", "") for c in content if isinstance(c, dict))
            return Media(kind=kind, media_type="text/plain", text=text, name=name, extra=extra)
    raise invalid(f"{where}.source: unknown type of source.", f"{where}.source")


def _thinking(request: schemas.MessagesRequest) -> Thinking | None:
    effort = (request.output_config and request.output_config.effort) or ""
    thinking = request.thinking
    if thinking is None:
        return Thinking(effort=effort) if effort else None
    if thinking.type == "disabled":
        return Thinking(effort="none")
    summary = None if thinking.display is None else thinking.display != "omitted"
    if not effort and thinking.budget_tokens is None:
        effort = "high"  # Anthropic's default
    return Thinking(effort=effort, budget=thinking.budget_tokens, summary=summary)
