"""Writes message requests: the neutral format to Anthropic's.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _json_schema, _parsing
from asgi_aiproxy.dialects._claude import capabilities, json_schema, thinking
from asgi_aiproxy.dialects._unsupported import unsupported_fields
from asgi_aiproxy.dialects.anthropic.content import NAME, Notes, cached
from asgi_aiproxy.dialects.anthropic.conversation import Conversation
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.messages import Request, Tool

_JSON_ONLY = "Answer with a single JSON object and nothing else."
_JSON_OF = "Answer with JSON of this schema and nothing else: "


def encode_request(request: Request) -> ProviderRequest:
    """Write the body of POST /v1/messages."""
    return _Writer(request).draft()


class _Writer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._model = capabilities.of(request.model)
        self._notes = Notes()
        self._ignored = self._notes.ignored
        self._body: dict[str, Any] = {}
        self._added_instruction = ""  # in place of a parameter that the model does not support

    def draft(self) -> ProviderRequest:
        request, body = self._request, self._body
        body["model"] = request.model
        body["max_tokens"] = request.max_tokens or self._model.default_limit
        conversation = Conversation(self._model, self._notes)
        for number, message in enumerate(request.messages):
            conversation.add(number, message)
        conversation.end()
        self._write_tools()
        self._write_output()
        if request.thinking is not None:
            self._ignored += thinking.write(
                body,
                request.thinking,
                self._model,
                limited=request.max_tokens is not None,
                bare_call=conversation.bare_call,
            )
        self._write_conversation(conversation)
        self._write_sampling()
        if request.stop:
            body["stop_sequences"] = [stop for stop in request.stop if stop.strip()]
            if len(body["stop_sequences"]) < len(request.stop):
                self._ignored.append("stop")  # Anthropic rejects stop sequences of white space
        if request.user:
            body["metadata"] = {"user_id": _user_id(request.user)}
        if request.stream:
            body["stream"] = True
        body.update(request.extra.get(NAME, {}))
        self._ignored += unsupported_fields(request, NAME)
        betas = ",".join(sorted(self._notes.betas))
        headers = {"anthropic-beta": betas} if betas else {}
        ignored = tuple(dict.fromkeys(self._ignored))
        return ProviderRequest("/v1/messages", body, headers=headers, ignored=ignored)

    def _write_conversation(self, conversation: Conversation) -> None:
        system = conversation.system
        if self._added_instruction:
            system = [*system, {"type": "text", "text": self._added_instruction}]
            if self._model.preserved and conversation.has_thinking:
                # Earlier thinking blocks would be rejected because of this added text.
                if thinking.bind(self._body):
                    self._notes.betas.add(thinking.BINDING_BETA)
                else:
                    conversation.remove_thinking()
        turns = conversation.turns
        if not turns:  # a user turn is required
            if not system:
                raise _parsing.empty_messages_error()
            turns, system = [{"role": "user", "content": system}], []
        if any("cache_control" in block for block in system):
            self._body["system"] = system
        elif system:
            self._body["system"] = "\n\n".join(block["text"] for block in system)
        self._body["messages"] = turns

    def _write_tools(self) -> None:
        choice, tools = self._request.tool_choice, self._request.tools
        if not tools:
            return
        mode = choice.mode if choice is not None else "auto"
        names = choice.names if choice is not None else ()
        forces_one_tool = mode == "required" and len(names) == 1
        if names and not forces_one_tool:
            if self._model.preserved:  # thinking blocks are bound to all tools
                self._ignored.append("tool_choice")
            else:
                tools = tuple(tool for tool in tools if tool.name in names)
        if mode == "required" and not self._model.forced:
            self._ignored.append("tool_choice")
            mode, forces_one_tool = "auto", False
        self._body["tools"] = [self._tool(tool) for tool in tools]
        sequential = (
            {"disable_parallel_tool_use": True} if self._request.parallel_tools is False else {}
        )
        if mode == "none":
            self._body["tool_choice"] = {"type": "none"}
        elif forces_one_tool:
            self._body["tool_choice"] = {"type": "tool", "name": names[0], **sequential}
        elif choice is not None or sequential:
            kind = "any" if mode == "required" else "auto"
            self._body["tool_choice"] = {"type": kind, **sequential}

    def _tool(self, tool: Tool) -> dict[str, Any]:
        out: dict[str, Any] = {"name": tool.name}
        if tool.description:
            out["description"] = tool.description
        wants_strict = self._model.structured if tool.strict else False
        strict = (
            json_schema.strict(_json_schema.object_schema(tool.schema)) if wants_strict else None
        )
        if strict is not None:
            out["strict"] = True
            out["input_schema"], lost = strict
        else:
            out["input_schema"], lost = json_schema.for_tool(tool.schema)
            self._ignored += ["tools[].function.strict"] if tool.strict else []
        self._ignored += [f"tools[].function.parameters.{name}" for name in lost]
        return cached(out, tool)

    def _write_output(self) -> None:
        output = self._request.output
        if output is None:
            return
        strict = None
        if output.schema is None:
            self._added_instruction = _JSON_ONLY
        else:
            strict = json_schema.strict(output.schema) if self._model.structured else None
            self._added_instruction = (
                _JSON_OF + _json.dumps(output.schema).decode() if strict is None else ""
            )
        if strict is None:
            self._ignored.append("response_format")  # only requested in the prompt
            return
        schema, lost = strict
        self._ignored += [f"response_format.json_schema.schema.{name}" for name in lost]
        self._body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}

    def _write_sampling(self) -> None:
        request = self._request
        if request.seed is not None:
            self._ignored.append("seed")
        for name in ("presence_penalty", "frequency_penalty"):
            if getattr(request, name):  # a penalty of 0 has no effect
                self._ignored.append(name)
        given = {
            n: v
            for n in ("temperature", "top_p", "top_k")
            if (v := getattr(request, n)) is not None
        }
        thinks = self._body.get("thinking", {}).get("type") in ("enabled", "adaptive")
        if not self._model.sampling or thinks:
            # Leaving out the default value 1 changes nothing.
            self._ignored += [n for n, v in given.items() if n == "top_k" or v != 1]
            return
        if given.get("temperature", 0) > 1:  # OpenAI's ends at 2
            given["temperature"] = 1
            self._ignored.append("temperature")
        if {"temperature", "top_p"} <= given.keys() and self._model.sampling == 1:
            del given["top_p"]
            self._ignored.append("top_p")
        self._body.update(given)


def _user_id(user: str) -> str:
    """A user id for Anthropic, which rejects personal data: such an id is replaced by its SHA-256.

    https://platform.claude.com/docs/en/api/messages (`metadata.user_id`; at most 256 characters)
    """
    if len(user) <= 256 and not _PERSONAL.search(user):
        return user
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


# An e-mail address, a name, a telephone number.
_PERSONAL = re.compile(r"@|[^\x21-\x7e]|^[+\d().\-/]{7,}$")
