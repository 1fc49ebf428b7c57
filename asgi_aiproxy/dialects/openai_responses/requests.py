"""Reads requests of the Responses API: OpenAI's format to the neutral one.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from asgi_aiproxy.dialects import _media, _parsing
from asgi_aiproxy.dialects.openai_responses import schemas
from asgi_aiproxy.dialects.openai_responses.compaction_items import text_of
from asgi_aiproxy.dialects.openai_responses.reasoning import decode_carrier
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.dialects.openai_responses.tools import (
    TOOL_SEARCH,
    decode_call,
    decode_choice,
    decode_tools,
    namespace_and_name,
)
from asgi_aiproxy.errors import APIError, invalid
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
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    merge,
)

OPENAI = "openai"  # extra that both of OpenAI's chat APIs share
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*);base64,(?P<data>.*)", re.DOTALL)
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
# Members that are read here. All others have no neutral meaning.
_KNOWN = frozenset((*schemas.ResponsesRequest.__struct_fields__, "provider"))
# Default values: a member with its default can be dropped without loss.
_DEFAULTS: dict[str, Any] = {
    "service_tier": "auto",
    "truncation": "disabled",
    "metadata": {},
    "top_logprobs": 0,
    "stream_options": {},
}
# Reasoning is returned encrypted in any case.
INCLUDED = "reasoning.encrypted_content"


def decode_request(body: bytes) -> Request:
    """Read the body of POST /v1/responses. Raises APIError naming the invalid member."""
    request = _parsing.body(schemas.responses_request, body)
    _check_stateless(request)
    tools, hosted = decode_tools(_declarations(request))
    messages = _results_after_calls(list(_Conversation(tools).read(request)))
    if not messages:
        raise _parsing.missing_field_error("input")
    extra = {k: v for k, v in _parsing.members(body, _KNOWN).items() if v != _DEFAULTS.get(k, ...)}
    included = extra.pop("include", None)
    if isinstance(included, list) and (more := [w for w in included if w != INCLUDED]):
        extra["include"] = more
    if hosted:
        extra["tools"] = hosted
    if request.store:  # false is the default
        extra["store"] = True
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        extra["text"] = {"verbosity": request.text.verbosity}
    choice = decode_choice(request.tool_choice, tools)
    if choice is None and isinstance(request.tool_choice, dict):
        extra["tool_choice"] = request.tool_choice
    return Request(
        model=request.model,
        messages=tuple(messages),
        tools=tuple(tools),
        tool_choice=choice,
        parallel_tools=request.parallel_tool_calls,
        output=_output(request.text.format if request.text is not None else None),
        thinking=_thinking(request.reasoning),
        max_tokens=_parsing.limit(request.max_output_tokens, "max_output_tokens"),
        temperature=request.temperature,
        top_p=request.top_p,
        user=request.user or "",
        stream=bool(request.stream),
        extra={NAME: extra} if extra else {},
    )


def _declarations(request: schemas.ResponsesRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    """All declarations of tools, in `tools` and in items, each with its place."""
    for at, tool in enumerate(request.tools or ()):
        yield f"tools[{at}]", tool
    for at, raw in enumerate(request.input or () if not isinstance(request.input, str) else ()):
        data = bytes(raw)
        if b'"additional_tools"' not in data and b'"tool_search_output"' not in data:
            continue
        item = _parsing.parse_object(data) or {}
        if item.get("type") not in ("additional_tools", "tool_search_output"):
            continue
        where = f"input[{at}].tools"
        tools = item.get("tools")
        if not isinstance(tools, list):
            raise invalid(f"Invalid type for '{where}': expected an array.", where, "invalid_type")
        for number, tool in enumerate(tools):
            place = f"{where}[{number}]"
            if not isinstance(tool, dict):
                message = f"Invalid type for '{place}': expected an object."
                raise invalid(message, place, "invalid_type")
            yield place, tool


def _check_stateless(request: schemas.ResponsesRequest) -> None:
    """Refuse members that require stored responses: they are not stored by this gateway."""
    if request.background:
        raise _unsupported(
            "background",
            "Background responses are not available for this model: leave out 'background'.",
        )
    if request.prompt:
        raise _unsupported(
            "prompt",
            "'prompt' refers to a template that is kept at OpenAI, and is not available for this "
            "model: send its text in 'input'.",
        )
    for name in ("previous_response_id", "conversation"):
        if getattr(request, name):
            raise _unsupported(
                name,
                f"'{name}' is not available for this model: send the whole conversation in "
                "'input', including the unchanged items of earlier responses.",
            )


def _unsupported(name: str, message: str) -> APIError:
    return invalid(message, name, "unsupported_parameter")


class _Conversation:
    """Reads items in order. Consecutive items of the assistant are one turn."""

    def __init__(self, tools: list[Tool]) -> None:
        self._tools = tools
        self._flat = {namespace_and_name(tool): tool.name for tool in tools}
        self._names: dict[str, str] = {}  # by call id
        self._turn: list[Part] = []

    def read(self, request: schemas.ResponsesRequest) -> Iterator[Message]:
        if request.instructions:
            yield Message("system", (Text(request.instructions),))
        if isinstance(request.input, str):
            yield Message("user", (Text(request.input),))
            return
        for at, raw in enumerate(request.input or ()):
            where = f"input[{at}]"
            data = bytes(raw)
            try:
                item = schemas.item.decode(data)
            except ValueError as error:
                item = _unknown_item(data, where, error)
            message = self._item(item, data, where)
            if message is not None:
                yield from self._end_turn()
                yield message
        yield from self._end_turn()

    def _end_turn(self) -> Iterator[Message]:
        if self._turn:
            yield Message("assistant", tuple(self._turn))
            self._turn = []

    def _item(self, item: schemas.Item, data: bytes, where: str) -> Message | None:
        """The message for an item; None if the item is part of the assistant's turn."""
        match item.type:
            case "message":
                return self._message(item, where)
            case "function_call" | "custom_tool_call":
                self._turn.append(self._call(item, where))
            case "function_call_output" | "custom_tool_call_output":
                return Message("user", (self._result(item, where),))
            case "reasoning":
                self._reasoning(item)
            case "tool_search_call" | "tool_search_output":
                return self._search(_parsing.parse_object(data) or {}, where)
            case "additional_tools":
                pass  # they are among the tools of the request
            case "compaction" if (text := text_of(item.encrypted_content)) is not None:
                return Message("user", (Text(text),))
            case "item_reference":
                raise _unsupported(
                    where,
                    f"'{where}' refers to an item that is not stored for this model: send the item "
                    "itself, as SDKs do with store=false.",
                )
            case _:  # an item of a hosted tool, or of a type added later
                self._turn.append(Opaque(NAME, _parsing.parse_object(data) or {}))
        return None

    def _search(self, item: dict[str, Any], where: str) -> Message | None:
        """A tool search: the turn's call of it, or its result, which names the tools found."""
        if item.get("execution") != "client":
            self._turn.append(Opaque(NAME, item))
            return None
        call_id = _parsing.get_text(item, "call_id")
        if not call_id:
            raise _parsing.missing_field_error(f"{where}.call_id")
        if item.get("type") == "tool_search_call":
            self._turn.append(decode_call(call_id, item))
            return None
        found, _ = decode_tools((where, tool) for tool in item.get("tools", ()))
        known = [self._flat.get(namespace_and_name(tool), tool.name) for tool in found]
        text = "Tools found: " + ", ".join(known) if known else "No tools found."
        return Message("user", (ToolResult(call_id, (Text(text),), TOOL_SEARCH),))

    def _message(self, item: schemas.Item, where: str) -> Message | None:
        parts = tuple(_parts(item.content, f"{where}.content"))
        match item.role:
            case "assistant":
                self._turn += [p for p in parts if not (isinstance(p, Text) and not p.text)]
                return None
            case "user":
                return Message("user", parts)
            case "system" | "developer":
                return Message("system", parts)
            case role:
                raise invalid(
                    f"Invalid value: '{role}'. Supported values are: 'assistant', 'system', "
                    "'developer', and 'user'.",
                    f"{where}.role",
                    "invalid_value",
                )

    def _call(self, item: schemas.Item, where: str) -> ToolCall:
        for name in ("call_id", "name"):
            if not getattr(item, name):
                raise _parsing.missing_field_error(f"{where}.{name}")
        call = decode_call(str(item.call_id), msgspec.to_builtins(item), self._tools)
        self._names[call.id] = call.name
        if item.type == "function_call" and not call.arguments:
            return msgspec.structs.replace(call, arguments="{}")
        return call

    def _result(self, item: schemas.Item, where: str) -> ToolResult:
        if not item.call_id:
            raise _parsing.missing_field_error(f"{where}.call_id")
        if item.output is None:
            raise _parsing.missing_field_error(f"{where}.output")
        parts = tuple(_parts(item.output, f"{where}.output"))
        found = tuple(part for part in parts if isinstance(part, Text | Media))
        extra = {NAME: {"custom": True}} if item.type == "custom_tool_call_output" else {}
        return ToolResult(item.call_id, found, self._names.get(item.call_id, ""), extra=extra)

    def _reasoning(self, item: schemas.Item) -> None:
        text = "".join(part.text or "" for part in (*(item.summary or ()),))
        if not text and isinstance(item.content, list):
            text = "".join(part.text or "" for part in item.content)
        extra, signed = decode_carrier(item.encrypted_content or "", item.id or "", self._turn)
        part = self._turn[signed] if signed is not None else None
        if signed is not None and isinstance(part, Text | ToolCall):
            self._turn[signed] = msgspec.structs.replace(part, extra=merge(part.extra, extra))
            return
        if text or extra:
            self._turn.append(Reasoning(text, extra))


def _results_after_calls(messages: list[Message]) -> list[Message]:
    """The messages with each tool result directly after its call, as other APIs require it.

    Here a message may stand between a call and its output, such as a note that the user wrote while
    the tool ran. Some clients use an id for several calls: the first output is that of the first
    call. An output without a call stays where it is.
    """
    waiting: dict[str, list[ToolResult]] = {}
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolResult):
                waiting.setdefault(part.id, []).append(part)
    moved: set[int] = set()
    following: list[tuple[ToolResult, ...]] = []
    for message in messages:
        calls = [part.id for part in message.parts if isinstance(part, ToolCall)]
        following.append(tuple(waiting[call].pop(0) for call in calls if waiting.get(call)))
        moved.update(map(id, following[-1]))
    out: list[Message] = []
    for message, results in zip(messages, following, strict=True):
        if moved.isdisjoint(map(id, message.parts)):
            out.append(message)
        if results:
            out.append(Message("user", results))
    return out


def _unknown_item(data: bytes, where: str, error: ValueError) -> schemas.Item:
    """Read an item that does not fit the schemas: of an unknown type, or invalid."""
    found = _parsing.parse_object(data)
    kind = found.get("type", "message") if found is not None else None
    described = ("message", "reasoning", "function_call", "custom_tool_call", "item_reference")
    if isinstance(kind, str) and kind.removesuffix("_output") not in described:
        return schemas.Item(type=kind)
    if isinstance(error, msgspec.ValidationError):
        what = _parsing.type_error(error)
        place = f"{where}.{what.param}" if what.param else where
        message = what.message.replace(f"'{what.param}'", f"'{place}'")
        raise invalid(message, place, what.code) from error
    raise invalid(f"Invalid value for '{where}': expected an object.", where) from error


def _parts(content: str | list[schemas.Part] | None, where: str) -> Iterator[Block]:
    if isinstance(content, str):
        yield Text(content)
        return
    for at, part in enumerate(content or ()):
        yield _media.require_base64(_part(part, f"{where}[{at}]"), f"{where}[{at}]")


def _part(part: schemas.Part, where: str) -> Block:
    match part.type:
        case "input_text" | "output_text" | "text" | "summary_text" if part.text is not None:
            return Text(part.text)
        case "refusal" if part.refusal is not None:
            return Refusal(part.refusal)
        case "input_image" if part.image_url:
            extra = {OPENAI: {"detail": part.detail}} if part.detail else {}
            found = _DATA_URL.fullmatch(part.image_url)
            if found is not None:
                media_type = found["type"] or "image/*"
                return Media(kind="image", media_type=media_type, data=found["data"], extra=extra)
            return Media(kind="image", url=part.image_url, extra=extra)
        case "input_image" if part.file_id:
            return Media(kind="image", file=part.file_id)
        case "input_file" if part.file_data is not None:
            found = _DATA_URL.fullmatch(part.file_data)
            media_type = found["type"] if found is not None else "application/pdf"
            data = found["data"] if found is not None else part.file_data
            return Media(
                kind="document", media_type=media_type, data=data, name=part.filename or ""
            )
        case "input_file" if part.file_url:
            return Media(kind="document", url=part.file_url, name=part.filename or "")
        case "input_file" if part.file_id:
            return Media(kind="document", file=part.file_id, name=part.filename or "")
    raise invalid(
        f"Invalid value: '{part.type}'. A part needs a known type and the member that goes with "
        "it: 'input_text' with 'text', 'input_image' with 'image_url', 'input_file' with "
        "'file_data'.",
        where,
        "invalid_value",
    )


def _output(form: schemas.Format | None) -> Output | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return Output()
    if form.type != "json_schema":
        raise invalid(
            f"Invalid value: '{form.type}'. Supported values are: 'text', 'json_object' and "
            "'json_schema'.",
            "text.format.type",
            "invalid_value",
        )
    if form.schema is None:
        raise _parsing.missing_field_error("text.format.schema")
    return Output(
        schema=form.schema,
        name=form.name,
        description=form.description or "",
        strict=form.strict,
    )


def _thinking(reasoning: schemas.Reasoning | None) -> Thinking | None:
    if reasoning is None:
        return None
    effort = reasoning.effort or ""
    if effort and effort not in _EFFORTS:
        known = ", ".join(f"'{word}'" for word in _EFFORTS)
        raise invalid(
            f"Invalid value: '{effort}'. Supported values are: {known}.",
            "reasoning.effort",
            "invalid_value",
        )
    summary = reasoning.summary or reasoning.generate_summary
    if not effort and not summary:
        return None
    return Thinking(effort=effort, summary=True if summary else None)
