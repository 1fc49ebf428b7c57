"""Writes Converse requests: the neutral format to Bedrock's.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from asgi_aiproxy.dialects import _json_schema, _parsing
from asgi_aiproxy.dialects._claude import json_schema, thinking
from asgi_aiproxy.dialects._unsupported import unsupported_fields, vendor_fields
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.bedrock import capabilities
from asgi_aiproxy.dialects.bedrock.capabilities import merge, nest
from asgi_aiproxy.dialects.bedrock.content import NAME, ContentWriter, cache_point, encoded
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.messages import OPENING, Message, Reasoning, Request, Tool, ToolCall, ToolResult

# Members of Converse that a client of another API may send as they are.
KNOWN = frozenset(
    {"additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig"}
    | {"performanceConfig", "promptVariables", "requestMetadata", "serviceTier"}
)
_MORE = "additionalModelRequestFields"
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium"}  # Nova 2 and gpt-oss; else high
_JSON = "answer with a single JSON object and nothing else"


def encode_request(request: Request) -> ProviderRequest:
    """Write a request; raises APIError for content that Bedrock does not accept."""
    return _Writer(request).draft()


def path(model: str, *, stream: bool) -> str:
    """The path of a model's method. `model` may be an ARN, which has slashes."""
    return f"/model/{quote(check_model(model), safe='')}/converse{'-stream' if stream else ''}"


class _Writer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._model = capabilities.of(request.model)
        self._ignored: list[str] = []
        self._system: list[dict[str, Any]] = []
        self._turns: list[dict[str, Any]] = []
        self._more: dict[str, Any] = {}
        parts = [part for message in request.messages for part in message.parts]
        self._calls = {part.name: part for part in parts if isinstance(part, ToolCall)}
        self._tools = self._chosen_tools()

    def draft(self) -> ProviderRequest:
        request = self._request
        body: dict[str, Any] = {}
        instruction = self._write_output(body)
        claude = self._model.claude
        # Added text would invalidate thoughts that are bound to what stands before them.
        bound = bool(instruction) and claude is not None and claude.preserved
        writer = ContentWriter(self._ignored, thoughts=claude is not None and not bound)
        for number, message in enumerate(request.messages):
            self._add(writer, message, f"messages[{number}]")
        if instruction:
            self._system.append({"text": instruction})
        self._write_tools(body)
        config = self._inference()
        self._write_thinking(config)
        if config:
            body["inferenceConfig"] = config
        if not self._turns:  # a turn of the user is required
            if not self._system:
                raise _parsing.empty_messages_error()
            self._turns, self._system = [{"role": "user", "content": self._system}], []
        body["messages"] = self._turns
        if self._system:
            body["system"] = self._system
        own = vendor_fields(request, KNOWN)
        if self._more or _MORE in own:
            given = own.get(_MORE)
            own[_MORE] = merge(self._more, given) if isinstance(given, dict) else self._more
        if claude is not None and request.stop:  # which of them it was
            place = "/delta/stop_sequence" if request.stream else "/stop_sequence"
            own.setdefault("additionalModelResponseFieldPaths", [place])
        body.update(own)
        for name, given in (
            ("user", request.user),
            ("seed", request.seed is not None),
            ("presence_penalty", request.presence_penalty),
            ("frequency_penalty", request.frequency_penalty),
            ("parallel_tool_calls", request.parallel_tools is False and request.tools),
        ):
            if given:
                self._ignored.append(name)
        self._ignored += unsupported_fields(request, NAME, known=KNOWN)
        ignored = tuple(dict.fromkeys(self._ignored))
        return ProviderRequest(path(request.model, stream=request.stream), body, ignored=ignored)

    # messages

    def _add(self, writer: ContentWriter, message: Message, where: str) -> None:
        role = message.role
        content = [
            block
            for index, part in enumerate(message.parts)
            for block in writer.blocks(part, f"{where}.content[{index}]", role=role)
        ]
        if not content:
            return
        if role == "system":
            if not self._turns:
                self._system += content
                return
            claude = self._model.claude
            if claude is None or not claude.system:
                self._ignored.append("messages[].role")  # the user says it
                content = [_marked(block) for block in content]
                role = "user"
        if role == "assistant" and not self._turns:
            self._turns.append({"role": "user", "content": [{"text": OPENING}]})
        if self._turns and self._turns[-1]["role"] == role:  # roles must alternate
            self._turns[-1]["content"] += content
        else:
            self._turns.append({"role": role, "content": content})

    # parameters

    def _chosen_tools(self) -> tuple[Tool, ...]:
        """The tools to send: those that the choice names; none if none may be called."""
        request, choice, claude = self._request, self._request.tool_choice, self._model.claude
        tools = request.tools
        if choice is not None and choice.mode == "none":
            if self._calls and tools:
                self._ignored.append("tool_choice")  # calls in the conversation require tools
                return tools
            return ()
        if choice is not None and choice.names and len(choice.names) < len(tools):
            if choice.mode == "required" and len(choice.names) == 1:
                return tools
            if claude is not None and claude.preserved:  # thoughts are bound to all tools
                self._ignored.append("tool_choice")
                return tools
            return tuple(tool for tool in tools if tool.name in choice.names)
        return tools

    def _write_tools(self, body: dict[str, Any]) -> None:
        if not self._tools:
            if self._calls:  # calls in the conversation require a declaration
                gone = [Tool(name=name) for name in self._calls]
                body["toolConfig"] = {"tools": [self._tool(tool) for tool in gone]}
            return
        specs: list[dict[str, Any]] = []
        for tool in self._tools:
            specs += [self._tool(tool), *cache_point(tool)]
        body["toolConfig"] = {"tools": specs}
        choice, claude = self._request.tool_choice, self._model.claude
        if choice is None or choice.mode == "none":
            return
        forced = choice.mode == "required"
        if forced and claude is not None and not claude.forced:
            self._ignored.append("tool_choice")
            forced = False
        if forced and len(choice.names) == 1:
            body["toolConfig"]["toolChoice"] = {"tool": {"name": choice.names[0]}}
        else:
            body["toolConfig"]["toolChoice"] = {"any" if forced else "auto": {}}

    def _tool(self, tool: Tool) -> dict[str, Any]:
        schema = _json_schema.object_schema(tool.schema)
        out: dict[str, Any] = {"name": tool.name}
        if tool.description:
            out["description"] = tool.description
        strict = json_schema.strict(schema) if tool.strict and self._model.schemas else None
        if strict is not None:
            schema, lost = strict
            out["strict"] = True
        else:
            schema, lost = json_schema.for_tool(schema) if self._model.claude else (schema, ())
            self._ignored += ["tools[].function.strict"] if tool.strict else []
        self._ignored += [f"tools[].function.parameters.{name}" for name in lost]
        return {"toolSpec": {**out, "inputSchema": {"json": schema}}}

    def _write_output(self, body: dict[str, Any]) -> str:
        """Write the form of the answer; returns it in words if the model does not support it."""
        output = self._request.output
        if output is None:
            return ""
        when = "When you answer without calling a tool, " if self._tools else ""
        sentence = f"{when}{_JSON}" if when else _JSON.capitalize()
        if output.schema is None:
            self._ignored.append("response_format")
            return f"{sentence}."
        fitting = json_schema.strict(output.schema) if self._model.schemas else None
        if fitting is None:
            self._ignored.append("response_format")
            return f"{sentence}, of this JSON schema: {encoded(output.schema)}"
        schema, lost = fitting
        self._ignored += [f"response_format.json_schema.schema.{name}" for name in lost]
        definition = {"schema": encoded(schema)}
        definition |= {"name": output.name} if output.name else {}
        definition |= {"description": output.description} if output.description else {}
        structure = {"jsonSchema": definition}
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
        return ""

    def _inference(self) -> dict[str, Any]:
        request, claude = self._request, self._model.claude
        config: dict[str, Any] = {}
        if request.max_tokens is not None:
            config["maxTokens"] = request.max_tokens
        if request.temperature is not None:
            config["temperature"] = min(request.temperature, 1)
            if request.temperature > 1:  # OpenAI's ends at 2
                self._ignored.append("temperature")
        if request.top_p is not None:
            config["topP"] = request.top_p
        if request.top_k is not None:
            if self._model.top_k:
                self._more = merge(self._more, nest(self._model.top_k, request.top_k))
            else:
                self._ignored.append("top_k")
        stops = [stop for stop in request.stop if stop.strip()]
        if stops:
            config["stopSequences"] = stops
        if len(stops) < len(request.stop):
            self._ignored.append("stop")
        if claude is not None and not claude.sampling:
            self._drop_sampling(config)
        elif (
            claude is not None and claude.sampling == 1 and {"temperature", "topP"} <= config.keys()
        ):
            del config["topP"]
            self._ignored.append("top_p")
        return config

    def _drop_sampling(self, config: dict[str, Any]) -> None:
        """Remove parameters that a model rejects; the default value 1 is not reported."""
        for name, member in (("temperature", "temperature"), ("top_p", "topP")):
            if config.pop(member, 1) != 1:
                self._ignored.append(name)
        if self._more.pop("top_k", None) is not None:
            self._ignored.append("top_k")

    def _write_thinking(self, config: dict[str, Any]) -> None:
        options = self._request.thinking
        if options is None:
            return
        level = _LEVELS.get(options.effort or "high", "high")
        match self._model.thinking:
            case "claude":
                self._write_claude_thinking(config)
            case "nova" if options.effort == "none":
                self._more["reasoningConfig"] = {"type": "disabled"}
            case "nova":
                if level == "high" and config.keys() & {"maxTokens", "temperature", "topP"}:
                    level = "medium"  # high excludes these parameters
                    self._ignored.append("reasoning_effort")
                own = {"type": "enabled", "maxReasoningEffort": level}
                self._more["reasoningConfig"] = own
            case "effort" if options.effort != "none":
                self._more["reasoning_effort"] = level
            case _ if options.effort != "none":
                self._ignored.append("reasoning_effort")

    def _write_claude_thinking(self, config: dict[str, Any]) -> None:
        options, model = self._request.thinking, self._model.claude
        if options is None or model is None:
            return
        choice = self._request.tool_choice
        forced = choice is not None and choice.mode == "required" and bool(self._tools)
        limited = self._request.max_tokens is not None
        scratch: dict[str, Any] = {"max_tokens": self._request.max_tokens or model.default_limit}
        scratch |= {"tool_choice": {"type": "any"}} if forced and model.forced else {}
        self._ignored += thinking.write(
            scratch, options, model, limited=limited, bare_call=self._bare_call()
        )
        if "thinking" in scratch:
            self._more["thinking"] = scratch["thinking"]
            if scratch["thinking"]["type"] == "enabled":
                config["maxTokens"] = scratch["max_tokens"]
            if scratch["thinking"]["type"] != "disabled":
                self._drop_sampling(config)
        if "output_config" in scratch:
            self._more["output_config"] = scratch["output_config"]

    def _bare_call(self) -> bool:
        """Whether the last turn has tool calls without the thoughts that led to them."""
        messages = self._request.messages
        if not messages or not any(isinstance(part, ToolResult) for part in messages[-1].parts):
            return False
        last = next((m for m in reversed(messages) if m.role == "assistant"), None)
        return last is not None and not any(
            isinstance(part, Reasoning) and part.extra.get("anthropic") for part in last.parts
        )


def _marked(block: dict[str, Any]) -> dict[str, Any]:
    return {"text": f"<system>\n{block['text']}\n</system>"} if "text" in block else block
