"""Reads generateContent requests: Google's format to the neutral one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _json_schema, _media, _parsing
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.dialects.gemini import schemas
from asgi_aiproxy.dialects.gemini.carriers import (
    Thoughts,
    carried_thoughts,
    decode_carrier,
    join_thoughts,
    restore_thoughts,
)
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Extra,
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

NAME = "gemini"

_CONFIG = "generationConfig."


def decode_request(operation: Operation, body: bytes) -> Request:
    """Read the body of :generateContent and :streamGenerateContent."""
    return read_request(operation.model, parse(body), stream=bool(operation.stream))


def read_request(model: str, parsed: dict[str, Any], *, stream: bool = False) -> Request:
    """Read a parsed body. Raises APIError naming the member that is invalid."""
    try:
        request = msgspec.convert(parsed, schemas.GenerateContentRequest)
    except msgspec.ValidationError as error:
        raise _parsing.type_error(error) from error
    config = request.generation_config or schemas.GenerationConfig()
    if (config.candidate_count or 1) != 1:
        raise invalid(
            "candidateCount must be 1 for a provider with another API than Gemini's.",
            "generationConfig.candidateCount",
        )
    extra = _google_extra(parsed)
    return Request(
        model=model,
        messages=tuple(_Conversation().read(request)),
        tools=tuple(_tools(request, parsed)),
        tool_choice=_tool_choice(request),
        output=_output(config),
        thinking=_thinking(config.thinking_config),
        max_tokens=config.max_output_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=None if config.top_k is None else int(config.top_k),
        stop=tuple(config.stop_sequences or ()),
        seed=config.seed,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        stream=stream,
        extra={NAME: extra} if extra else {},
    )


def _google_extra(body: dict[str, Any]) -> dict[str, Any]:
    """Members without a neutral meaning; those of `generationConfig` under dotted names."""
    known = {"model", *schemas.GenerateContentRequest.__struct_encode_fields__}
    extra = {name: value for name, value in body.items() if name not in known}
    config = body.get("generationConfig") or {}
    known = {*schemas.GenerationConfig.__struct_encode_fields__}
    extra |= {f"{_CONFIG}{name}": value for name, value in config.items() if name not in known}
    if extra.get(f"{_CONFIG}responseModalities") == ["TEXT"]:
        del extra[f"{_CONFIG}responseModalities"]  # the default value
    return {name: value for name, value in extra.items() if value is not None}


def parse(body: bytes) -> dict[str, Any]:
    """Parse a body, in one spelling of its members. Raises APIError."""
    try:
        return schemas.normal(_json.loads(body))
    except _json.NotJSONError as error:
        raise invalid(f"The request body could not be read as JSON: {error}.") from error
    except RecursionError as error:
        raise invalid("The request body is nested too deeply.") from error


class _Conversation:
    """Reads contents in order. Calls without an id get one; results find theirs by name."""

    def __init__(self) -> None:
        self._open: list[ToolCall] = []
        self._carried: dict[str, Thoughts] = {}  # the thoughts before calls, by their ids
        self._count = 0

    def read(self, request: schemas.GenerateContentRequest) -> Iterator[Message]:
        if request.system_instruction is not None:
            texts = [Text(p.text) for p in request.system_instruction.parts or () if p.text]
            yield Message("system", tuple(texts))
        turn: list[Part] | None = None  # of the model; streams have one content for each chunk
        for number, content in enumerate(request.contents):
            parts: list[Part] = []
            for at, part in enumerate(content.parts or ()):
                where = f"contents[{number}].parts[{at}]"
                found = [_media.require_base64(out, where) for out in self._part(part)]
                if not found and content.role != "model" and part.text is None:
                    raise invalid(
                        f"{where}: a part must have one of the documented members, "
                        "such as 'text', 'inlineData' or 'functionResponse'.",
                        where,
                    )
                parts += found
            if content.role == "model":
                turn = [*(turn or ()), *parts]
                continue
            if turn is not None:
                yield self._turn(turn)
                turn = None
            yield Message("user", tuple(parts))
        if turn is not None:
            yield self._turn(turn)

    def _turn(self, parts: list[Part]) -> Message:
        carried, self._carried = self._carried, {}
        return Message("assistant", tuple(restore_thoughts(join_thoughts(parts), carried)))

    def _part(self, part: schemas.Part) -> Iterator[Part]:
        signature = part.thought_signature
        extra: Extra = {NAME: {"signature": signature}} if signature else {}
        if (foreign := decode_carrier(signature)) is not None:
            signature, extra = None, foreign if part.thought else {}
        signed = {"thoughtSignature": signature} if signature else {}
        match part:
            case schemas.Part(function_call=schemas.FunctionCall() as call):
                self._count += 1
                call_id = call.id or f"call_{self._count}"
                arguments = _json.dumps(call.args or {}).decode()
                made = ToolCall(call_id, call.name, arguments, extra)
                self._open.append(made)
                if thoughts := carried_thoughts(part.thought_signature):
                    self._carried[call_id] = thoughts
                yield made
            case schemas.Part(function_response=schemas.FunctionResponse() as result):
                yield self._result(result)
            case schemas.Part(text=str(text), thought=True):
                yield Reasoning(text, extra)
            case schemas.Part(text=str(text)):
                yield Text(text, extra=extra)
            case schemas.Part(inline_data=schemas.Blob(mime_type=kind, data=data)):
                # Google also accepts URL-safe base64; other vendors do not.
                data = data.replace("-", "+").replace("_", "/")
                yield Media(kind=_kind(kind), media_type=kind, data=data, extra=extra)
            case schemas.Part(file_data=schemas.FileData(file_uri=uri, mime_type=kind)):
                yield Media(kind=_kind(kind), media_type=kind, url=uri)
            case schemas.Part(executable_code=payload) if payload is not None:
                yield Opaque(NAME, {"executableCode": payload, **signed})
            case schemas.Part(code_execution_result=payload) if payload is not None:
                yield Opaque(NAME, {"codeExecutionResult": payload, **signed})
            case _ if extra:
                yield Text("", extra=extra)

    def _result(self, result: schemas.FunctionResponse) -> ToolResult:
        same = [c for c in self._open if c.id == result.id]
        made = same or [c for c in self._open if result.name in (c.name, "")]
        call_id = result.id or result.name
        if made:
            self._open.remove(made[0])
            call_id = made[0].id
        response = result.response
        parts: list[Text | Media] = []
        error = isinstance(response, dict) and set(response) == {"error"}
        if isinstance(response, dict) and len(response) == 1:
            ((word, value),) = response.items()
            response = value if word in ("result", "output", "error") else response
        if response is not None:
            text = response if isinstance(response, str) else _json.dumps(response).decode()
            parts.append(Text(text))
        for part in result.parts or ():
            parts += [p for p in self._part(part) if isinstance(p, Text | Media)]
        return ToolResult(call_id, tuple(parts), result.name, error)


def _kind(media_type: str) -> Any:
    head = media_type.partition("/")[0]
    return head if head in ("image", "audio", "video") else "document"


def _tools(request: schemas.GenerateContentRequest, body: dict[str, Any]) -> Iterator[Tool]:
    for at, tool in enumerate(request.tools or ()):
        if any(name != "functionDeclarations" for name in body["tools"][at]):
            raise invalid(
                "This provider supports functionDeclarations only, not Google's own tools.",
                f"tools[{at}]",
            )
        for function in tool.function_declarations or ():
            schema = function.parameters_json_schema
            if schema is None and function.parameters is not None:
                schema = _json_schema.from_gemini_schema(function.parameters)
            yield Tool(name=function.name, description=function.description or "", schema=schema)


def _tool_choice(request: schemas.GenerateContentRequest) -> ToolChoice | None:
    config = request.tool_config.function_calling_config if request.tool_config else None
    if config is None or config.mode in (None, "MODE_UNSPECIFIED"):
        return None
    names = tuple(config.allowed_function_names or ())
    match config.mode:
        case "NONE":
            return ToolChoice("none")
        case "ANY":
            return ToolChoice("required", names)
    return ToolChoice("auto", names)


def _output(config: schemas.GenerationConfig) -> Output | None:
    if config.response_json_schema is not None:
        return Output(schema=config.response_json_schema)
    if config.response_schema is not None:
        return Output(schema=_json_schema.from_gemini_schema(config.response_schema))
    return Output() if config.response_mime_type == "application/json" else None


def _thinking(config: schemas.ThinkingConfig | None) -> Thinking | None:
    if config is None:
        return None
    if config.thinking_budget == 0:
        return Thinking(effort="none")
    budget = config.thinking_budget
    return Thinking(
        effort=(config.thinking_level or "").lower(),
        budget=None if budget == -1 else budget,
        summary=config.include_thoughts,
    )
