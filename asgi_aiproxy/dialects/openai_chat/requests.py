"""Reads chat requests: OpenAI's format to the neutral one.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _media, _parsing
from asgi_aiproxy.dialects.openai_chat import order, reasoning, schemas
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Block,
    Media,
    Message,
    Opaque,
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
    merge,
)

NAME = "openai_chat"
OPENAI = "openai"  # extra that both of OpenAI's chat APIs share

_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<how>[^,]*),(?P<data>.*)", re.DOTALL)
# Members that are read here or that only concern the gateway.
_KNOWN = frozenset((*schemas.ChatRequest.__struct_fields__, "provider"))

# Default values: a member with its default can be dropped without loss.
_DEFAULTS: dict[str, Any] = {
    "store": False,
    "service_tier": "auto",
    "verbosity": "medium",
    "metadata": {},
    "logit_bias": {},
}
_NO_DEFAULT = object()


def decode_request(body: bytes) -> Request:
    """Read the body of POST /v1/chat/completions."""
    request = _parsing.body(schemas.chat_request, body)
    _check_supported(request)
    rest = {
        k: v
        for k, v in _parsing.members(body, _KNOWN).items()
        if v != _DEFAULTS.get(k, _NO_DEFAULT)
    }
    requested = {"logprobs": request.logprobs, "top_logprobs": request.top_logprobs}
    rest |= {name: value for name, value in requested.items() if value}
    extra: dict[str, Any] = {NAME: rest} if rest else {}
    if request.cache_control:
        extra["anthropic"] = {"cache_control": request.cache_control}
    return Request(
        model=request.model,
        messages=tuple(_Conversation().read(request.messages)),
        tools=tuple(_tools(request)),
        tool_choice=_tool_choice(request),
        parallel_tools=request.parallel_tool_calls,
        output=_output(request.response_format),
        thinking=reasoning.reasoning_options(request),
        max_tokens=_parsing.limit(request.max_completion_tokens, "max_completion_tokens")
        or _parsing.limit(request.max_tokens, "max_tokens"),
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        seed=request.seed,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        user=request.user or "",
        stream=bool(request.stream),
        stream_usage=bool(request.stream_options and request.stream_options.include_usage),
        extra=extra,
    )


def _check_supported(request: schemas.ChatRequest) -> None:
    other = "a provider with another API than OpenAI's"
    if request.n is not None and request.n != 1:
        raise invalid(f"'n' must be 1 for {other}.", "n")
    if request.audio or "audio" in (request.modalities or ()):
        raise invalid(f"Audio output is not available from {other}.", "modalities")


class _Conversation:
    """Reads messages in order. Legacy function calls, which have no ids, get generated ones."""

    def __init__(self) -> None:
        self._legacy = 0
        self._names: dict[str, str] = {}  # tool call id -> function name

    def read(self, messages: list[schemas.Message]) -> Iterator[Message]:
        for index, message in enumerate(messages):
            where = f"messages[{index}]"
            match message.role:
                case "system" | "developer":
                    parts = _with_cache_point_at_end(
                        _parts(message.content, where), message.cache_control
                    )
                    yield Message("system", parts, message.name or "")
                case "user":
                    parts = _with_cache_point_at_end(
                        _parts(message.content, where), message.cache_control
                    )
                    yield Message("user", parts, message.name or "")
                case "assistant":
                    blocks = _with_cache_point_at_end(
                        self._assistant(message, where), message.cache_control
                    )
                    yield Message("assistant", blocks, message.name or "")
                case "tool" | "function":
                    result = _with_cache_point(self._result(message, where), message.cache_control)
                    yield Message("user", (result,))
                case role:
                    raise invalid(
                        f"Invalid value: '{role}'. Supported values are: 'system', 'developer', "
                        f"'user', 'assistant' and 'tool'.",
                        f"{where}.role",
                        "invalid_value",
                    )

    def _assistant(self, message: schemas.Message, where: str) -> Iterator[Part]:
        content = [p for p in _parts(message.content, where) if not _empty(p)]
        calls = list(self._calls(message, where))
        images = list(_images(message, where))
        ordered = order.restore(message, content, images, calls)
        if ordered is not None:
            yield from ordered
        else:
            yield from reasoning.read_reasoning(message, content, calls)
            yield from content
        if message.refusal:
            yield Refusal(message.refusal)
        if ordered is None:
            yield from images
            yield from calls

    def _calls(self, message: schemas.Message, where: str) -> Iterator[ToolCall]:
        for index, call in enumerate(message.tool_calls or ()):
            place = f"{where}.tool_calls[{index}]"
            custom = call.custom if _is_custom_tool_call(call) else None
            if custom is not None:
                name, arguments = custom.name, _json.dumps({"input": custom.input}).decode()
            elif call.function is not None:
                name, arguments = call.function.name, _arguments(call.function)
            else:
                raise _parsing.missing_field_error(f"{place}.function")
            if not call.id:
                raise invalid(f"Missing required parameter: '{place}.id'.", f"{place}.id")
            self._names[call.id] = name
            tool_call = ToolCall(call.id, name, arguments, _signature(call.extra_content))
            yield _with_cache_point(tool_call, call.cache_control)
        if message.function_call is not None:
            self._legacy += 1
            call_id = f"call_{self._legacy}"
            self._names[call_id] = message.function_call.name
            yield ToolCall(call_id, message.function_call.name, _arguments(message.function_call))

    def _result(self, message: schemas.Message, where: str) -> ToolResult:
        call_id = message.tool_call_id
        if message.role == "function":
            call_id = f"call_{self._legacy}"
        if not call_id:
            raise invalid(
                f"Missing required parameter: '{where}.tool_call_id'.", f"{where}.tool_call_id"
            )
        parts = []
        for part in _parts(message.content, where):
            if not isinstance(part, Text | Media):
                raise invalid("A tool result must contain text or media only.", f"{where}.content")
            parts.append(part)
        return ToolResult(call_id, tuple(parts), self._names.get(call_id) or message.name or "")


def _is_custom_tool_call(call: schemas.ToolCall) -> bool:
    """Whether a call is of a custom tool. If it has both members, the one with content counts."""
    function, custom = call.function, call.custom
    if function is None or custom is None:
        return function is None
    return not (function.name or function.arguments) and bool(custom.name or custom.input)


def _images(message: schemas.Message, where: str) -> Iterator[Media]:
    """The images that the model generated."""
    for index, image in enumerate(message.images or ()):
        place = f"{where}.images[{index}].image_url"
        link = image.image_url
        url = link.url if isinstance(link, schemas.ImageURL) else link
        if not url:
            raise _parsing.missing_field_error(place)
        yield _media_from_url("image", url, "image/*", place, _signature(image.extra_content))


def _signature(extra_content: dict[str, Any] | None) -> dict[str, Any]:
    """Gemini's signature of a call or an image."""
    signature = ((extra_content or {}).get("google") or {}).get("thought_signature")
    return {"gemini": {"signature": signature}} if signature else {}


def _empty(part: Part) -> bool:
    return isinstance(part, Text) and not part.text


def _arguments(function: schemas.Function) -> str:
    if isinstance(function.arguments, dict):
        return _json.dumps(function.arguments).decode()
    return function.arguments or ""


def _parts(content: str | list[schemas.Part] | None, where: str) -> Iterator[Block]:
    if isinstance(content, str):
        yield Text(content)
        return
    for index, part in enumerate(content or ()):
        place = f"{where}.content[{index}]"
        block = _media.require_base64(_part(part, place), place)
        yield _with_cache_point(block, part.cache_control)


P = TypeVar("P", bound=Part)


def _with_cache_point(part: P, mark: dict[str, Any] | None) -> P:
    """The part with a cache point for Anthropic, if `mark` is given; refusals cannot have one."""
    if not mark or isinstance(part, Refusal | Opaque):
        return part
    extra = merge(part.extra, {"anthropic": {"cache_control": mark}})
    return msgspec.structs.replace(part, extra=extra)


def _with_cache_point_at_end(parts: Iterable[P], mark: dict[str, Any] | None) -> tuple[P, ...]:
    """The parts of a message; a cache point of the message is put on its last part."""
    found = tuple(parts)
    return (*found[:-1], _with_cache_point(found[-1], mark)) if mark and found else found


def _part(part: schemas.Part, where: str) -> Block:
    match part:
        case schemas.Part(type="text" | "input_text" | "output_text", text=str(text)):
            return Text(text)
        case schemas.Part(type="refusal", refusal=str(text)):
            return Refusal(text)
        case schemas.Part(type="thinking"):
            return Reasoning(reasoning.flatten(part.thinking))
        case schemas.Part(type="image_url", image_url=schemas.ImageURL(url=url, detail=detail)):
            extra = {OPENAI: {"detail": detail}} if detail else {}
            return _media_from_url("image", url, "image/*", f"{where}.image_url.url", extra)
        case schemas.Part(type="image_url", image_url=str(url)):
            return _media_from_url("image", url, "image/*", f"{where}.image_url")
        case schemas.Part(type="video_url", video_url=schemas.ImageURL(url=url)):
            return _media_from_url("video", url, "video/*", f"{where}.video_url.url")
        case schemas.Part(
            type="input_audio", input_audio=schemas.InputAudio(data=data, format=form)
        ):
            return Media(
                kind="audio", media_type=_AUDIO_TYPES.get(form, f"audio/{form}"), data=data
            )
        case schemas.Part(type="file", file=schemas.File(file_id=str(file), filename=name)):
            return Media(kind="document", file=file, name=name or "")
        case schemas.Part(type="file", file=schemas.File(file_data=str(data), filename=name)):
            return _media_from_url("document", data, "application/pdf", where, name=name or "")
    known = "'text', 'image_url', 'input_audio', 'file' and 'refusal'"
    raise invalid(
        f"Invalid content part of type '{part.type}'. Supported are {known}, "
        f"each with its member of the same name.",
        where,
        "invalid_value",
    )


_AUDIO_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}


def _media_from_url(
    kind: Any, url: str, default: str, where: str, extra: Any = None, name: str = ""
) -> Media:
    extra = extra or {}
    if url.startswith(("http://", "https://", "gs://", "s3://")):
        return Media(kind=kind, url=url, name=name, extra=extra)
    found = _DATA_URL.match(url)
    if found:
        media_type, data = found["type"] or default, found["data"]
        if "base64" not in found["how"]:
            data = base64.b64encode(unquote_to_bytes(data)).decode()
        return Media(kind=kind, media_type=media_type, data=data, name=name, extra=extra)
    if kind == "document" and url:
        return Media(kind=kind, media_type=default, data=url, name=name, extra=extra)
    raise invalid(
        "Expected a URL that begins with 'https://' or 'data:<type>;base64,'.", where, "invalid_url"
    )


def _tools(request: schemas.ChatRequest) -> Iterator[Tool]:
    for index, tool in enumerate(request.tools or ()):
        if tool.type == "function" and tool.function is None:
            raise _parsing.missing_field_error(f"tools[{index}].function")
        if tool.function is None or tool.type != "function":
            raise invalid(
                f"Tools of type '{tool.type}' are not available from this provider; "
                f"only functions are.",
                f"tools[{index}].type",
            )
        yield _tool(tool.function, tool.cache_control)
    for function in request.functions or ():
        yield _tool(function, None)


def _tool(function: schemas.FunctionDefinition, mark: dict[str, Any] | None) -> Tool:
    mark = mark or function.cache_control
    extra = {"anthropic": {"cache_control": mark}} if mark else {}
    return Tool(
        name=function.name,
        description=function.description or "",
        schema=function.parameters,
        strict=function.strict,
        extra=extra,
    )


def _tool_choice(request: schemas.ChatRequest) -> ToolChoice | None:
    match request.tool_choice if request.tool_choice is not None else request.function_call:
        case None:
            return None
        case "auto" | "none" | "required" as mode:
            return ToolChoice(mode)
        case "any":
            return ToolChoice("required")
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}:
            names = tuple(_function_name(tool) for tool in tools)
            return ToolChoice("required" if mode == "required" else "auto", names)
        case dict(choice):
            return ToolChoice("required", (_function_name(choice),))
        case other:
            raise invalid(
                f"Invalid value: '{other}'. Supported values are: 'none', 'auto' and 'required'.",
                "tool_choice",
                "invalid_value",
            )


def _function_name(choice: Any) -> str:
    match choice:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise invalid("Missing required parameter: 'tool_choice.function.name'.", "tool_choice")


def _output(response_format: schemas.ResponseFormat | None) -> Output | None:
    match response_format:
        case None | schemas.ResponseFormat(type="text"):
            return None
        case schemas.ResponseFormat(type="json_object"):
            return Output()
        case schemas.ResponseFormat(type="json_schema", json_schema=schemas.JSONSchema() as schema):
            return Output(
                schema=schema.schema or {},
                name=schema.name,
                description=schema.description or "",
                strict=schema.strict,
            )
        case schemas.ResponseFormat(type="json_schema"):
            raise invalid(
                "Missing required parameter: 'response_format.json_schema'.",
                "response_format.json_schema",
            )
    raise invalid(
        f"Invalid value: '{response_format.type}'. Supported values are: 'text', 'json_object' and "
        f"'json_schema'.",
        "response_format.type",
        "invalid_value",
    )
