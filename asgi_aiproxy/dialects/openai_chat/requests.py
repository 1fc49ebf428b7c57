"""Chat requests: OpenAI's words to neutral ones."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
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
OPENAI = "openai"  # what both of OpenAI's chat APIs understand

_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<how>[^,]*),(?P<data>.*)", re.DOTALL)
# Members that are read here, or that concern the gateway alone.
_KNOWN = frozenset((*schemas.ChatRequest.__struct_fields__, "provider"))

# What some members are anyway: then nothing is lost without them.
_ANYWAY: dict[str, Any] = {
    "store": False,
    "service_tier": "auto",
    "verbosity": "medium",
    "metadata": {},
    "logit_bias": {},
}
_NOTHING = object()


def decode_request(body: bytes) -> Request:
    """Read the body of POST /v1/chat/completions."""
    asked = _parsing.body(schemas.chat_request, body)
    _refuse_what_only_openai_has(asked)
    rest = {
        k: v for k, v in _parsing.members(body, _KNOWN).items() if v != _ANYWAY.get(k, _NOTHING)
    }
    own = {"logprobs": asked.logprobs, "top_logprobs": asked.top_logprobs}
    rest |= {name: value for name, value in own.items() if value}
    extra: dict[str, Any] = {NAME: rest} if rest else {}
    if asked.cache_control:
        extra["anthropic"] = {"cache_control": asked.cache_control}
    return Request(
        model=asked.model,
        messages=tuple(_Conversation().read(asked.messages)),
        tools=tuple(_tools(asked)),
        tool_choice=_tool_choice(asked),
        parallel_tools=asked.parallel_tool_calls,
        output=_output(asked.response_format),
        thinking=reasoning.reasoning_options(asked),
        max_tokens=_parsing.limit(asked.max_completion_tokens, "max_completion_tokens")
        or _parsing.limit(asked.max_tokens, "max_tokens"),
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        user=asked.user or "",
        stream=bool(asked.stream),
        stream_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        extra=extra,
    )


def _refuse_what_only_openai_has(asked: schemas.ChatRequest) -> None:
    other = "a provider that does not speak OpenAI's own format"
    if asked.n is not None and asked.n != 1:
        raise invalid(f"'n' must be 1 for {other}.", "n")
    if asked.audio or "audio" in (asked.modalities or ()):
        raise invalid(f"Audio output is not available from {other}.", "modalities")


class _Conversation:
    """Reads messages in order; legacy function calls get ids on the way."""

    def __init__(self) -> None:
        self._legacy = 0
        self._names: dict[str, str] = {}  # tool call id -> function name

    def read(self, messages: list[schemas.Message]) -> Iterator[Message]:
        for at, message in enumerate(messages):
            where = f"messages[{at}]"
            match message.role:
                case "system" | "developer":
                    parts = _last_marked(_parts(message.content, where), message.cache_control)
                    yield Message("system", parts, message.name or "")
                case "user":
                    parts = _last_marked(_parts(message.content, where), message.cache_control)
                    yield Message("user", parts, message.name or "")
                case "assistant":
                    said = _last_marked(self._assistant(message, where), message.cache_control)
                    yield Message("assistant", said, message.name or "")
                case "tool" | "function":
                    result = _marked(self._result(message, where), message.cache_control)
                    yield Message("user", (result,))
                case role:
                    raise invalid(
                        f"Invalid value: '{role}'. Supported values are: 'system', 'developer', "
                        f"'user', 'assistant' and 'tool'.",
                        f"{where}.role",
                        "invalid_value",
                    )

    def _assistant(self, message: schemas.Message, where: str) -> Iterator[Part]:
        said = [p for p in _parts(message.content, where) if not _empty(p)]
        calls = list(self._calls(message, where))
        images = list(_images(message, where))
        ordered = order.restore(message, said, images, calls)
        if ordered is not None:
            yield from ordered
        else:
            yield from reasoning.read_reasoning(message, said, calls)
            yield from said
        if message.refusal:
            yield Refusal(message.refusal)
        if ordered is None:
            yield from images
            yield from calls

    def _calls(self, message: schemas.Message, where: str) -> Iterator[ToolCall]:
        for at, call in enumerate(message.tool_calls or ()):
            place = f"{where}.tool_calls[{at}]"
            custom = call.custom if _of_custom_tool(call) else None
            if custom is not None:
                name, arguments = custom.name, _json.dumps({"input": custom.input}).decode()
            elif call.function is not None:
                name, arguments = call.function.name, _arguments(call.function)
            else:
                raise _parsing.missing_field_error(f"{place}.function")
            if not call.id:
                raise invalid(f"Missing required parameter: '{place}.id'.", f"{place}.id")
            self._names[call.id] = name
            made = ToolCall(call.id, name, arguments, _signed(call.extra_content))
            yield _marked(made, call.cache_control)
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
                raise invalid("A tool's result holds text or media only.", f"{where}.content")
            parts.append(part)
        return ToolResult(call_id, tuple(parts), self._names.get(call_id) or message.name or "")


def _of_custom_tool(call: schemas.ToolCall) -> bool:
    """Whether a call with both members is of a custom tool: one of them may be empty."""
    function, custom = call.function, call.custom
    if function is None or custom is None:
        return function is None
    return not (function.name or function.arguments) and bool(custom.name or custom.input)


def _images(message: schemas.Message, where: str) -> Iterator[Media]:
    """The pictures that the model drew."""
    for at, image in enumerate(message.images or ()):
        place = f"{where}.images[{at}].image_url"
        link = image.image_url
        url = link.url if isinstance(link, schemas.ImageURL) else link
        if not url:
            raise _parsing.missing_field_error(place)
        yield _linked("image", url, "image/*", place, _signed(image.extra_content))


def _signed(extra_content: dict[str, Any] | None) -> dict[str, Any]:
    """Gemini's signature of a call or a picture."""
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
    for at, part in enumerate(content or ()):
        yield _marked(_part(part, f"{where}.content[{at}]"), part.cache_control)


P = TypeVar("P", bound=Part)


def _marked(part: P, mark: dict[str, Any] | None) -> P:
    """The part with its cache point for Anthropic, if it has one; a refusal cannot."""
    if not mark or isinstance(part, Refusal | Opaque):
        return part
    extra = merge(part.extra, {"anthropic": {"cache_control": mark}})
    return msgspec.structs.replace(part, extra=extra)


def _last_marked(parts: Iterable[P], mark: dict[str, Any] | None) -> tuple[P, ...]:
    """The parts of a message that may be marked as a whole: its end is the cache point."""
    found = tuple(parts)
    return (*found[:-1], _marked(found[-1], mark)) if mark and found else found


def _part(part: schemas.Part, where: str) -> Block:
    match part:
        case schemas.Part(type="text" | "input_text" | "output_text", text=str(text)):
            return Text(text)
        case schemas.Part(type="refusal", refusal=str(text)):
            return Refusal(text)
        case schemas.Part(type="thinking"):
            return Reasoning(reasoning.flatten(part.thinking))
        case schemas.Part(type="image_url", image_url=schemas.ImageURL(url=url, detail=detail)):
            seen = {OPENAI: {"detail": detail}} if detail else {}
            return _linked("image", url, "image/*", f"{where}.image_url.url", seen)
        case schemas.Part(type="image_url", image_url=str(url)):
            return _linked("image", url, "image/*", f"{where}.image_url")
        case schemas.Part(type="video_url", video_url=schemas.ImageURL(url=url)):
            return _linked("video", url, "video/*", f"{where}.video_url.url")
        case schemas.Part(
            type="input_audio", input_audio=schemas.InputAudio(data=data, format=form)
        ):
            return Media(kind="audio", media_type=_AUDIO.get(form, f"audio/{form}"), data=data)
        case schemas.Part(type="file", file=schemas.File(file_id=str(file), filename=name)):
            return Media(kind="document", file=file, name=name or "")
        case schemas.Part(type="file", file=schemas.File(file_data=str(data), filename=name)):
            return _linked("document", data, "application/pdf", where, name=name or "")
    known = "'text', 'image_url', 'input_audio', 'file' and 'refusal'"
    raise invalid(
        f"Invalid content part of type '{part.type}'. Supported are {known}, "
        f"each with its member of the same name.",
        where,
        "invalid_value",
    )


_AUDIO = {"mp3": "audio/mpeg", "wav": "audio/wav"}


def _linked(
    kind: Any, url: str, default: str, where: str, extra: Any = None, name: str = ""
) -> Media:
    extra = extra or {}
    if url.startswith(("http://", "https://", "gs://")):
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


def _tools(asked: schemas.ChatRequest) -> Iterator[Tool]:
    for at, tool in enumerate(asked.tools or ()):
        if tool.type == "function" and tool.function is None:
            raise _parsing.missing_field_error(f"tools[{at}].function")
        if tool.function is None or tool.type != "function":
            raise invalid(
                f"Tools of type '{tool.type}' are not available from this provider; "
                f"only functions are.",
                f"tools[{at}].type",
            )
        yield _tool(tool.function, tool.cache_control)
    for function in asked.functions or ():
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


def _tool_choice(asked: schemas.ChatRequest) -> ToolChoice | None:
    match asked.tool_choice if asked.tool_choice is not None else asked.function_call:
        case None:
            return None
        case "auto" | "none" | "required" as mode:
            return ToolChoice(mode)
        case "any":
            return ToolChoice("required")
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}:
            names = tuple(_chosen(tool) for tool in tools)
            return ToolChoice("required" if mode == "required" else "auto", names)
        case dict(choice):
            return ToolChoice("required", (_chosen(choice),))
        case other:
            raise invalid(
                f"Invalid value: '{other}'. Supported values are: 'none', 'auto' and 'required'.",
                "tool_choice",
                "invalid_value",
            )


def _chosen(choice: Any) -> str:
    match choice:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise invalid("Missing required parameter: 'tool_choice.function.name'.", "tool_choice")


def _output(wanted: schemas.ResponseFormat | None) -> Output | None:
    match wanted:
        case None | schemas.ResponseFormat(type="text"):
            return None
        case schemas.ResponseFormat(type="json_object"):
            return Output()
        case schemas.ResponseFormat(type="json_schema", json_schema=schemas.JSONSchema() as named):
            return Output(
                schema=named.schema or {},
                name=named.name,
                description=named.description or "",
                strict=named.strict,
            )
        case schemas.ResponseFormat(type="json_schema"):
            raise invalid(
                "Missing required parameter: 'response_format.json_schema'.",
                "response_format.json_schema",
            )
    raise invalid(
        f"Invalid value: '{wanted.type}'. Supported values are: 'text', 'json_object' and "
        f"'json_schema'.",
        "response_format.type",
        "invalid_value",
    )
