"""Writes generateContent requests: the neutral format to Google's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _json_schema, _media, _parsing
from asgi_aiproxy.dialects._unsupported import unsupported_fields
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.gemini import capabilities, json_schema
from asgi_aiproxy.dialects.gemini.responses import DEFAULT_TYPE, encode_link
from asgi_aiproxy.dialects.gemini.thinking import thinking_config
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.messages import (
    OPENING,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

NAME = "gemini"

# From Gemini 3 on, a function call must be sent back with its signature. For calls of another
# model, or without a signature, Google documents this substitute:
# https://ai.google.dev/gemini-api/docs/thought-signatures
_NO_SIGNATURE = "skip_thought_signature_validator"
_CONFIG = "generationConfig."


def encode_request(request: Request) -> ProviderRequest:
    """Write the body of :generateContent or :streamGenerateContent?alt=sse."""
    return _Writer(request).draft()


def path(model: str, *, stream: bool) -> str:
    """The path of the method that generates content; `model` may have the prefix of Google's
    lists.
    """
    return method_path(model, "streamGenerateContent" if stream else "generateContent")


def method_path(model: str, method: str) -> str:
    """The path of a model's method."""
    model = check_model(model.removeprefix("models/"))
    return f"/v1beta/models/{quote(model, safe='')}:{method}"


class _Writer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._ignored: list[str] = []
        self._names: dict[str, str] = {}  # tool call id -> function name
        self._model = capabilities.of(request.model)
        self._system: list[dict[str, Any]] = []
        self._instruction_part_ids: list[
            int
        ] = []  # ids of the parts with instructions in mid-conversation

    def draft(self) -> ProviderRequest:
        request = self._request
        body: dict[str, Any] = {"contents": self._contents()}
        config = self._config()
        self._write_output(config)
        system = self._system
        # Google rejects a conversation of instructions only: they become user text
        if not body["contents"]:
            if not system:
                raise _parsing.empty_messages_error()
            body["contents"] = [{"role": "user", "parts": system}]
        elif system and self._model.system:
            body["systemInstruction"] = {"parts": system}
        elif system:
            self._ignored.append("messages[].role")  # instructions became user text
            _add_to_turn(body["contents"], "user", list(map(_marked, system)), first=True)
        self._write_tools(body)
        for name, value in request.extra.get(NAME, {}).items():
            if name.startswith(_CONFIG):
                config[name.removeprefix(_CONFIG)] = value
            else:
                body[name] = value
        if config:
            body["generationConfig"] = config
        self._ignored += unsupported_fields(request, NAME)
        for name, body_ in (("user", request.user), ("parallel_tool_calls", self._one_at_a_time())):
            if body_:
                self._ignored.append(name)
        if any(tool.strict for tool in request.tools):
            self._ignored.append("tools[].function.strict")
        return ProviderRequest(
            path(request.model, stream=request.stream),
            body,
            query="alt=sse" if request.stream else "",
            ignored=tuple(dict.fromkeys(self._ignored)),
        )

    def _one_at_a_time(self) -> bool:
        return self._request.parallel_tools is False and bool(self._request.tools)

    # contents

    def _contents(self) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for number, message in enumerate(self._request.messages):
            if message.role == "system":
                self._instruct(message, out)
                continue
            parts: list[dict[str, Any]] = []
            for at, part in enumerate(message.parts):
                self._where = f"messages[{number}].content[{at}]"
                parts += self._parts(part)
            self._sign_first_call(parts)
            role = "model" if message.role == "assistant" else "user"
            if not out and role == "model" and any("functionCall" in part for part in parts):
                _add_to_turn(out, "user", [{"text": OPENING}])
            _add_to_turn(out, role, parts)
        for content in out:  # results must come first, directly after their calls
            if any("functionResponse" in part for part in content["parts"]):
                content["parts"].sort(key=lambda part: id(part) in self._instruction_part_ids)
        return out

    def _instruct(self, message: Message, out: list[dict[str, Any]]) -> None:
        """Add instructions: those at the beginning become the system instruction, later ones stay
        in place.

        Google has no role for the latter: they become user text, marked as instructions.
        """
        texts = [{"text": p.text} for p in message.parts if isinstance(p, Text) and p.text]
        if any(not isinstance(part, Text) for part in message.parts):
            self._ignored.append("messages[].content")
        if not out:
            self._system += texts
        elif texts:
            self._ignored.append("messages[].role")
            marked = list(map(_marked, texts))
            self._instruction_part_ids += map(id, marked)
            _add_to_turn(out, "user", marked)

    def _sign_first_call(self, parts: list[dict[str, Any]]) -> None:
        """Add a substitute signature to the first call of a turn without any signature."""
        calls = [part for part in parts if "functionCall" in part]
        if self._model.signatures and calls and not any("thoughtSignature" in p for p in parts):
            calls[0]["thoughtSignature"] = _NO_SIGNATURE

    def _parts(self, part: Part) -> Iterator[dict[str, Any]]:
        signature = part.extra.get(NAME, {}).get("signature") if hasattr(part, "extra") else None
        signed = {"thoughtSignature": signature} if signature else {}
        match part:
            case Text(text) | Refusal(text):
                if text or signed:
                    yield {"text": text, **signed}
            case ToolCall(call_id, name, arguments):
                self._names[call_id] = name
                args = _parsing.arguments(arguments, self._ignored)
                yield {"functionCall": {"id": call_id, "name": name, "args": args}, **signed}
            case Reasoning(text) if signed:  # Google does not use unsigned reasoning
                yield {"text": text, "thought": True, **signed}
            case ToolResult():
                yield from self._result(part)
            case Media():
                yield {**self._media(part), **signed}
            case Opaque("gemini", payload):
                yield dict(payload)

    def _result(self, result: ToolResult) -> Iterator[dict[str, Any]]:
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        value = None if result.error else _parsing.parse_object(text)
        response = value if value is not None else {"error" if result.error else "result": text}
        name = self._names.get(result.id) or result.name or result.id
        yield {"functionResponse": {"id": result.id, "name": name, "response": response}}
        for part in result.parts:
            if isinstance(part, Media):
                yield self._media(part)

    def _media(self, media: Media) -> dict[str, Any]:
        if media.url or media.file:
            return encode_link(media)
        if media.text:
            data64 = base64.b64encode(media.text.encode("utf-8", "replace")).decode()
            return {"inlineData": {"mimeType": media.media_type or "text/plain", "data": data64}}
        kind = _media.media_type(media) or DEFAULT_TYPE[media.kind]
        if kind.startswith("image/") and kind not in _IMAGES:
            raise invalid(
                f"Google's models accept images as PNG, JPEG, WebP, HEIC or HEIF, not {kind}.",
                self._where,
                "invalid_value",
            )
        return {"inlineData": {"mimeType": kind, "data": media.data}}

    # parameters

    def _write_tools(self, body: dict[str, Any]) -> None:
        request = self._request
        if not request.tools or self._no_tools:
            return
        body["tools"] = [{"functionDeclarations": list(map(self._declaration, request.tools))}]
        choice = request.tool_choice
        if choice is None:
            return
        mode = {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.mode]
        config: dict[str, Any] = {"mode": mode}
        if choice.names:
            # Names only restrict the modes ANY and VALIDATED; the latter leaves the choice to the
            # model.
            config["mode"] = "ANY" if choice.mode == "required" else "VALIDATED"
            config["allowedFunctionNames"] = list(choice.names)
        body["toolConfig"] = {"functionCallingConfig": config}

    def _config(self) -> dict[str, Any]:
        request = self._request
        config: dict[str, Any] = {
            "maxOutputTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "topK": request.top_k,
            "stopSequences": list(request.stop) or None,
            "seed": request.seed,
            "presencePenalty": self._penalty("presence_penalty"),
            "frequencyPenalty": self._penalty("frequency_penalty"),
            "thinkingConfig": self._thinking(),
        }
        if not self._model.sampling:  # they have no effect
            wishes = (("temperature", 1), ("top_p", 1), ("top_k", None))
            self._ignored += [n for n, usual in wishes if getattr(request, n) not in (None, usual)]
            config |= {"temperature": None, "topP": None, "topK": None}
        return {name: value for name, value in config.items() if value is not None}

    def _penalty(self, name: str) -> float | None:
        value: float | None = getattr(self._request, name)
        if self._model.penalties:
            return value
        if value:  # a penalty of 0 has no effect
            self._ignored.append(name)
        return None

    def _thinking(self) -> dict[str, Any] | None:
        options = self._request.thinking
        if options is None:
            return None
        config, exact = thinking_config(options, self._model, self._request.max_tokens)
        if not exact:
            self._ignored.append("reasoning_effort")
        return config

    @property
    def _no_tools(self) -> bool:
        """Return whether declared tools, which must not be called, prevent an output schema."""
        choice = self._request.tool_choice
        barred = choice is not None and choice.mode == "none"
        return self._request.output is not None and barred and not self._model.both

    def _write_output(self, config: dict[str, Any]) -> None:
        """Write the output format; as an instruction if the model does not support it together with
        tools.
        """
        output = self._request.output
        if output is None:
            return
        schema = output.schema
        if self._request.tools and not self._model.both and not self._no_tools:
            self._ignored.append("response_format")
            words = "When you answer without calling a function, answer with JSON and nothing else"
            like = f", of this JSON schema: {_json.dumps(schema).decode()}" if schema else "."
            self._system.append({"text": words + like})
            return
        config["responseMimeType"] = "application/json"
        if schema is not None:
            config["responseJsonSchema"], lost = json_schema.adapted(schema)
            self._ignored += [f"response_format.json_schema.schema.{name}" for name in lost]

    def _declaration(self, tool: Tool) -> dict[str, Any]:
        out: dict[str, Any] = {"name": tool.name}
        if tool.description:
            out["description"] = tool.description
        if tool.schema is not None:
            schema, lost = json_schema.adapted(_json_schema.object_schema(tool.schema))
            out["parametersJsonSchema"] = schema
            self._ignored += [f"tools[].function.parameters.{name}" for name in lost]
        return out


def _add_to_turn(
    out: list[dict[str, Any]], role: str, parts: list[dict[str, Any]], *, first: bool = False
) -> None:
    """Add parts to the turn of `role`, at the end of the conversation or at its beginning."""
    if not parts:
        return
    at = 0 if first else -1
    if out and out[at]["role"] == role:
        said = out[at]["parts"]
        out[at]["parts"] = parts + said if first else said + parts
    else:
        out.insert(0 if first else len(out), {"role": role, "parts": parts})


def _marked(part: dict[str, Any]) -> dict[str, Any]:
    return {"text": f"<system>\n{part['text']}\n</system>"}


_IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
