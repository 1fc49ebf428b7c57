"""Writes chat requests: the neutral format to Cohere's.

https://docs.cohere.com/reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _json_schema, _media, _parsing
from asgi_aiproxy.dialects._unsupported import unsupported_fields, vendor_fields
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.cohere import capabilities, json_schema
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Media,
    Message,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

NAME = "cohere"

# Members of Cohere's requests that clients of other APIs may send unchanged. (`logprobs` is not
# among them: in Cohere's answers they belong to groups of tokens, for which others have no place.)
KNOWN = frozenset({"documents", "citation_options", "safety_mode", "strict_tools", "priority"})
_IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192}  # higher: no limit
_MAX_STOPS, _MAX_TOP_K, _MAX_TOP_P, _MIN_TOP_P = 5, 500, 0.99, 0.01


def encode_request(request: Request) -> ProviderRequest:
    """Write the body of POST /v2/chat; raises APIError for content that Cohere does not accept."""
    return _Writer(request).draft()


class _Writer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._model = capabilities.of(request.model)
        self._ignored: list[str] = []
        self._documents: list[dict[str, Any]] = []
        self._instruction = ""  # in place of a parameter that cannot be combined with others

    def draft(self) -> ProviderRequest:
        request = self._request
        body: dict[str, Any] = {"model": request.model, "messages": []}
        for number, message in enumerate(request.messages):
            body["messages"] += self._message(message, f"messages[{number}]")
        if request.stream:
            body["stream"] = True
        self._write_tools(body)
        if self._documents:
            body["documents"] = self._documents
        body.update(vendor_fields(request, KNOWN))
        self._write_output(body)
        self._write_sampling(body)
        self._write_thinking(body)
        self._complete(body)
        for name, given in (
            ("user", request.user),
            ("parallel_tool_calls", request.parallel_tools is False and request.tools),
        ):
            if given:
                self._ignored.append(name)
        self._ignored += unsupported_fields(request, NAME, known=KNOWN)
        return ProviderRequest("/v2/chat", body, ignored=tuple(dict.fromkeys(self._ignored)))

    # messages

    def _message(self, message: Message, where: str) -> Iterator[dict[str, Any]]:
        if message.role == "assistant":
            yield from self._assistant(message)
            return
        content: list[dict[str, Any]] = []
        for index, part in enumerate(message.parts):
            match part:
                case Text(text) | Refusal(text) if text:
                    content.append({"type": "text", "text": text})
                case Media():
                    content += self._media(part, f"{where}.content[{index}]")
                case ToolResult():
                    yield self._result(part)
                    content += [
                        block
                        for item in part.parts
                        if isinstance(item, Media) and item.kind == "image"
                        for block in self._media(item, f"{where}.content[{index}]")
                    ]
        if content:
            yield {"role": message.role, "content": _plain(content)}

    def _assistant(self, message: Message) -> Iterator[dict[str, Any]]:
        calls = [self._call(part) for part in message.parts if isinstance(part, ToolCall)]
        content: list[dict[str, Any]] = []
        for part in message.parts:
            match part:
                case Reasoning(text) if text and self._model.thinking:
                    content.append({"type": "thinking", "thinking": text})
                case Text(text) | Refusal(text) if text:
                    content.append({"type": "text", "text": text})
                case Media():
                    self._ignored.append("messages[].images")
        out: dict[str, Any] = {"role": "assistant"}
        if calls:  # text next to calls is sent as their plan
            out["tool_calls"] = calls
            if plan := "".join(block["text"] for block in content if "text" in block):
                out["tool_plan"] = plan
            content = [block for block in content if "text" not in block]
        if content:
            out["content"] = _plain(content)
        if len(out) > 1:
            yield out

    def _call(self, call: ToolCall) -> dict[str, Any]:
        arguments = _parsing.arguments(call.arguments, self._ignored)
        function = {"name": call.name, "arguments": _json.dumps(arguments).decode()}
        return {"id": call.id, "type": "function", "function": function}

    def _result(self, result: ToolResult) -> dict[str, Any]:
        text = "".join(
            part.text if isinstance(part, Text) else _parsing.document_text(part)
            for part in result.parts
        )
        return {"role": "tool", "tool_call_id": result.id, "content": text}

    def _media(self, media: Media, where: str) -> Iterator[dict[str, Any]]:
        if media.kind == "image" and (media.url or media.data):
            kind = _media.media_type(media) or "image/jpeg"
            if media.data and kind not in _IMAGES:
                raise invalid(
                    f"Cohere's models accept images as PNG, JPEG, WebP or GIF, not {kind}.",
                    where,
                    "invalid_value",
                )
            image = {"url": media.url or f"data:{kind};base64,{media.data}"}
            detail = media.extra.get("openai", {}).get("detail")
            yield {"type": "image_url", "image_url": image | ({"detail": detail} if detail else {})}
            return
        text = _parsing.document_text(media)
        if not text:
            raise invalid(
                "Cohere's models accept images and plain text documents only.",
                where,
                "invalid_value",
            )
        data = {"text": text} | ({"title": media.name} if media.name else {})
        self._documents.append({"id": f"doc:{len(self._documents)}", "data": data})

    def _complete(self, body: dict[str, Any]) -> None:
        """Add the instruction, and what Cohere requires of every conversation."""
        messages = body["messages"]
        if self._instruction:
            messages.insert(0, {"role": "system", "content": self._instruction})
        if not any(message["role"] != "system" for message in messages):
            if not messages:
                raise _parsing.empty_messages_error()
            messages[-1]["role"] = "user"  # a user turn is required

    # parameters

    def _write_tools(self, body: dict[str, Any]) -> None:
        tools, choice = self._request.tools, self._request.tool_choice
        if choice is not None and choice.names:
            tools = tuple(tool for tool in tools if tool.name in choice.names)
        if not tools:
            return
        body["tools"] = [_tool(tool) for tool in tools]
        strict = [tool for tool in tools if tool.strict]
        if strict:  # it applies to all tools or to none
            if len(strict) == len(tools) and all(
                json_schema.can_be_strict(t.schema) for t in tools
            ):
                body["strict_tools"] = True
            else:
                self._ignored.append("tools[].function.strict")
        if choice is not None and choice.mode != "auto":
            body["tool_choice"] = choice.mode.upper()

    def _write_output(self, body: dict[str, Any]) -> None:
        output = self._request.output
        if output is None:
            return
        if "tools" in body or "documents" in body:  # cannot be combined
            self._ignored.append("response_format")
            like = f" of this JSON schema: {_json.dumps(output.schema).decode()}"
            self._instruction = "When you answer without calling a tool, answer with JSON" + (
                f"{like if output.schema else ''} and nothing else."
            )
            return
        body["response_format"] = {"type": "json_object"}
        if output.schema is not None:
            schema, lost = json_schema.adapted(output.schema)
            body["response_format"]["json_schema"] = schema
            self._ignored += [f"response_format.json_schema.schema.{name}" for name in lost]

    def _write_sampling(self, body: dict[str, Any]) -> None:
        request = self._request
        given = {
            "max_tokens": request.max_tokens,
            "temperature": self._within("temperature", 0, 1),
            "p": self._within("top_p", _MIN_TOP_P, _MAX_TOP_P),
            "k": self._within("top_k", 0, _MAX_TOP_K),
            "seed": request.seed,
            "presence_penalty": self._within("presence_penalty", 0, 1),
            "frequency_penalty": self._within("frequency_penalty", 0, 1),
        }
        body.update({name: value for name, value in given.items() if value is not None})
        if request.stop:
            body["stop_sequences"] = list(request.stop[:_MAX_STOPS])
            if len(request.stop) > _MAX_STOPS:
                self._ignored.append("stop")

    def _within(self, name: str, lowest: float, highest: float) -> float | None:
        """A parameter, moved into the range that Cohere accepts and reported if it is outside.

        A `top_p` of 1 is not reported: Cohere's maximum, 0.99, has practically the same effect.
        """
        value: float | None = getattr(self._request, name)
        if value is None or lowest <= value <= highest:
            return value
        if not (name == "top_p" and value == 1):
            self._ignored.append(name)
        return lowest if value < lowest else highest

    def _write_thinking(self, body: dict[str, Any]) -> None:
        options = self._request.thinking
        if options is None:
            return
        if options.effort == "none":
            if self._model.thinking:
                body["thinking"] = {"type": "disabled"}
            return
        if not self._model.thinking:
            self._ignored.append("reasoning_effort")
            return
        budget = options.budget if options.budget is not None else _BUDGETS.get(options.effort)
        body["thinking"] = {"type": "enabled"} | ({"token_budget": budget} if budget else {})


def _plain(content: list[dict[str, Any]]) -> Any:
    """Content as a string, if it is a single text."""
    if all(block["type"] == "text" for block in content) and len(content) == 1:
        return content[0]["text"]
    return content


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = _json_schema.object_schema(tool.schema)
    return {"type": "function", "function": function}
