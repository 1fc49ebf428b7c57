"""generateContent requests: neutral words to Google's."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from asgi_aiproxy.dialects import _read, _schema
from asgi_aiproxy.dialects._left_out import left_out
from asgi_aiproxy.dialects.base import Draft
from asgi_aiproxy.messages import (
    Media,
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

# From Gemini 3 on, a function call is replayed with its signature. For calls that another model
# made, or whose signature was lost on the way, Google documents this stand-in:
# https://ai.google.dev/gemini-api/docs/thought-signatures
_NO_SIGNATURE = "skip_thought_signature_validator"
_CONFIG = "generationConfig."
_GENERATION = re.compile(r"gemini-(\d+)")


def encode_request(request: Request) -> Draft:
    """Write the body of :generateContent or :streamGenerateContent?alt=sse."""
    return _Writer(request).draft()


def path(model: str, *, stream: bool) -> str:
    """The path of a model's method; `model` may be written as Google's lists do."""
    model = model.removeprefix("models/")
    method = "streamGenerateContent" if stream else "generateContent"
    return f"/v1beta/models/{quote(model, safe='')}:{method}"


class _Writer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._ignored: list[str] = []
        self._names: dict[str, str] = {}  # tool call id -> function name
        found = _GENERATION.search(request.model)
        # An alias such as gemini-flash-latest names no generation, and means a new one.
        self._generation = int(found[1]) if found else 3

    def draft(self) -> Draft:
        request = self._request
        body: dict[str, Any] = {"contents": self._contents()}
        system = [
            {"text": part.text}
            for message in request.messages
            if message.role == "system"
            for part in message.parts
            if isinstance(part, Text) and part.text
        ]
        if not body["contents"]:  # instructions alone are not taken, so the user says them
            if not system:
                raise _read.nothing_said()
            body["contents"] = [{"role": "user", "parts": system}]
        elif system:
            body["systemInstruction"] = {"parts": system}
        self._write_tools(body)
        config = self._config()
        for name, value in request.extra.get(NAME, {}).items():
            if name.startswith(_CONFIG):
                config[name.removeprefix(_CONFIG)] = value
            else:
                body[name] = value
        if config:
            body["generationConfig"] = config
        self._ignored += left_out(request, NAME)
        for name, given in (("user", request.user), ("parallel_tool_calls", self._one_at_a_time())):
            if given:
                self._ignored.append(name)
        if any(tool.strict for tool in request.tools):
            self._ignored.append("tools[].function.strict")
        return Draft(
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
        for message in self._request.messages:
            if message.role == "system":
                continue
            role = "model" if message.role == "assistant" else "user"
            parts = [p for part in message.parts for p in self._parts(part)]
            self._stand_in(parts)
            if not parts:
                continue
            if out and out[-1]["role"] == role:
                out[-1]["parts"] += parts
            else:
                out.append({"role": role, "parts": parts})
        return out

    def _stand_in(self, parts: list[dict[str, Any]]) -> None:
        """Sign the first call of a turn if nothing of it is signed."""
        calls = [part for part in parts if "functionCall" in part]
        if self._generation >= 3 and calls and not any("thoughtSignature" in p for p in parts):
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
                args = _read.arguments(arguments, self._ignored)
                yield {"functionCall": {"id": call_id, "name": name, "args": args}, **signed}
            case Reasoning(text) if signed:  # unsigned thoughts are of no use to it
                yield {"text": text, "thought": True, **signed}
            case ToolResult():
                yield from self._result(part)
            case Media():
                yield {**self._media(part), **signed}
            case Opaque("gemini", payload):
                yield dict(payload)

    def _result(self, result: ToolResult) -> Iterator[dict[str, Any]]:
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        value = None if result.error else _read.object_in(text)
        response = value if value is not None else {"error" if result.error else "result": text}
        name = self._names.get(result.id) or result.name or result.id
        yield {"functionResponse": {"id": result.id, "name": name, "response": response}}
        for part in result.parts:
            if isinstance(part, Media):
                yield self._media(part)

    def _media(self, media: Media) -> dict[str, Any]:
        if media.url or media.file:
            uri = media.url or media.file
            kind = media.media_type if "*" not in media.media_type else ""
            guessed = mimetypes.guess_type(urlsplit(uri).path)[0]
            data = {"fileUri": uri, "mimeType": kind or guessed or _DEFAULT_TYPE[media.kind]}
            return {"fileData": data}
        if media.text:
            data64 = base64.b64encode(media.text.encode("utf-8", "replace")).decode()
            return {"inlineData": {"mimeType": media.media_type or "text/plain", "data": data64}}
        kind = media.media_type
        if not kind or "*" in kind:
            kind = _DEFAULT_TYPE[media.kind]
        return {"inlineData": {"mimeType": kind, "data": media.data}}

    # parameters

    def _write_tools(self, body: dict[str, Any]) -> None:
        request = self._request
        if not request.tools:
            return
        body["tools"] = [{"functionDeclarations": [_declaration(t) for t in request.tools]}]
        choice = request.tool_choice
        if choice is None:
            return
        mode = {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.mode]
        config: dict[str, Any] = {"mode": mode}
        if choice.names:
            # Names narrow ANY and VALIDATED only; the latter leaves the choice to the model.
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
            "presencePenalty": request.presence_penalty,
            "frequencyPenalty": request.frequency_penalty,
            "thinkingConfig": self._thinking(),
        }
        if request.output is not None:
            config["responseMimeType"] = "application/json"
            config["responseJsonSchema"] = request.output.schema
        return {name: value for name, value in config.items() if value is not None}

    def _thinking(self) -> dict[str, Any] | None:
        wish = self._request.thinking
        if wish is None:
            return None
        shown = wish.summary is not False and wish.effort != "none"
        config: dict[str, Any] = {"includeThoughts": True} if shown else {}
        if self._generation >= 3 and wish.effort:
            # Gemini 3 can not be told not to think: its least is `minimal` (`low` for Pro).
            pro = "pro" in self._request.model
            level = _LEVELS.get(wish.effort, "high")
            config["thinkingLevel"] = "low" if pro and level == "minimal" else level
        elif wish.budget is not None:
            config["thinkingBudget"] = wish.budget
        elif wish.effort:
            config["thinkingBudget"] = _BUDGETS.get(wish.effort, 24576)
            if config["thinkingBudget"] == 0 and "pro" in self._request.model:
                config["thinkingBudget"] = 128  # 2.5 Pro's least
        return config or None


_DEFAULT_TYPE = {
    "image": "image/jpeg",
    "audio": "audio/wav",
    "video": "video/mp4",
    "document": "application/pdf",
}
# As in https://ai.google.dev/gemini-api/docs/openai#thinking
_LEVELS = {"none": "minimal", "minimal": "minimal", "low": "low", "medium": "medium"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}


def _declaration(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    if tool.schema is not None:
        out["parametersJsonSchema"] = _schema.of_object(tool.schema)
    return out
