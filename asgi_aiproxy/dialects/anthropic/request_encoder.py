"""Message requests: neutral words to Anthropic's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects import _media, _read, _schema
from asgi_aiproxy.dialects._left_out import left_out
from asgi_aiproxy.dialects.anthropic import json_schema, models
from asgi_aiproxy.dialects.base import Draft
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)

NAME = "anthropic"

_JSON_ONLY = "Answer with a single JSON object and nothing else."
_FILES_BETA = "files-api-2025-04-14"
_BAD_ID = re.compile(r"[^a-zA-Z0-9_-]")


def encode_request(request: Request) -> Draft:
    """Write the body of POST /v1/messages."""
    return _Writer(request).draft()


class _Writer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._ignored: list[str] = []
        self._betas: set[str] = set()
        self._body: dict[str, Any] = {}
        self._where = "messages"  # what is being written

    def draft(self) -> Draft:
        request, body = self._request, self._body
        body["model"] = request.model
        body["max_tokens"] = request.max_tokens or models.default_max_tokens(request.model)
        messages = self._messages()
        system = self._system()
        if not messages:
            messages, system = _asked(system), ""
        if system:
            body["system"] = system
        body["messages"] = messages
        self._write_tools()
        self._write_output()
        self._write_thinking()
        self._write_sampling()
        if request.stop:
            body["stop_sequences"] = [stop for stop in request.stop if stop.strip()]
            if len(body["stop_sequences"]) < len(request.stop):
                self._ignored.append("stop")  # Anthropic refuses those of white space alone
        if request.user:
            body["metadata"] = {"user_id": _user_id(request.user)}
        if request.stream:
            body["stream"] = True
        body.update(request.extra.get(NAME, {}))
        self._ignored += left_out(request, NAME)
        headers = {"anthropic-beta": ",".join(sorted(self._betas))} if self._betas else {}
        ignored = tuple(dict.fromkeys(self._ignored))
        return Draft("/v1/messages", body, headers=headers, ignored=ignored)

    # messages

    def _system(self) -> str | list[dict[str, Any]]:
        texts = [
            part
            for message in self._request.messages
            if message.role == "system"
            for part in message.parts
            if isinstance(part, Text) and part.text
        ]
        if self._request.output is not None and self._request.output.schema is None:
            texts.append(Text(_JSON_ONLY))
        if any(NAME in text.extra for text in texts):
            return [_cached({"type": "text", "text": text.text}, text) for text in texts]
        return "\n\n".join(text.text for text in texts)

    def _messages(self) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for number, message in enumerate(self._request.messages):
            if message.role == "system":
                continue
            blocks: list[dict[str, Any]] = []
            for at, part in enumerate(message.parts):
                self._where = f"messages[{number}].content[{at}]"
                blocks += self._blocks(part)
            if not blocks:
                continue
            if out and out[-1]["role"] == message.role:
                out[-1]["content"] += blocks
            else:
                out.append({"role": message.role, "content": blocks})
        for turn in out:
            if turn["role"] == "user":  # results must come first
                turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        if out and out[-1]["role"] == "assistant":
            last = out[-1]["content"][-1]
            if last["type"] == "text":  # a prefill must not end in white space
                last["text"] = last["text"].rstrip() or "…"
        return out

    def _blocks(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case Text(text) | Refusal(text):
                if text.strip():
                    yield _cached({"type": "text", "text": text}, part)
            case Reasoning(text, {"anthropic": {"signature": signature}}):
                yield {"type": "thinking", "thinking": text, "signature": signature}
            case Reasoning(_, {"anthropic": {"redacted": data}}):
                yield {"type": "redacted_thinking", "data": data}
            case ToolCall(call_id, name, arguments):
                use = {"type": "tool_use", "id": _id(call_id), "name": name}
                made = {**use, "input": _read.arguments(arguments, self._ignored)}
                yield _cached(made, part)
            case ToolResult():
                yield self._result(part)
            case Media():
                yield _cached(self._media(part), part)
            case Opaque("anthropic", payload):
                yield dict(payload)

    def _result(self, result: ToolResult) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(result.id)}
        if all(isinstance(part, Text) for part in result.parts):
            out["content"] = "".join(part.text for part in result.parts)
        else:
            message = self._where.rpartition(".")[0]
            out["content"] = []
            for at, part in enumerate(result.parts):
                self._where = f"{message}.content[{at}]"
                out["content"] += self._blocks(part)
        if result.error:
            out["is_error"] = True
        return _cached(out, result)

    def _media(self, media: Media) -> dict[str, Any]:
        kind, source = media.kind, self._source(media)
        if source.get("media_type") in _IMAGES:
            kind = "image"  # whatever its sender took it for
        elif source["type"] in ("base64", "text"):
            kind = "document"
        out: dict[str, Any] = {"type": kind, "source": source}
        if kind == "document" and media.name:
            out["title"] = media.name
        return out

    def _source(self, media: Media) -> dict[str, Any]:
        if media.kind not in ("image", "document"):
            raise invalid(f"Anthropic's models take no {media.kind}.", self._where)
        if media.url:
            return {"type": "url", "url": media.url}
        if media.file:
            self._betas.add(_FILES_BETA)
            return {"type": "file", "file_id": media.file}
        text = _read.text_of(media)
        if text:
            return {"type": "text", "media_type": "text/plain", "data": text}
        kind = _media.media_type(media)
        if kind not in _IMAGES and kind != _PDF:
            raise invalid(
                f"Anthropic's models take images as JPEG, PNG, GIF or WebP and documents as PDF or "
                f"plain text; this is {kind or 'of an unknown type'}.",
                self._where,
                "invalid_value",
            )
        return {"type": "base64", "media_type": kind, "data": media.data}

    # parameters

    def _write_tools(self) -> None:
        choice, tools = self._request.tool_choice, self._request.tools
        if not tools:
            return
        one = choice is not None and choice.mode == "required" and len(choice.names) == 1
        if choice is not None and choice.names and not one:
            tools = tuple(tool for tool in tools if tool.name in choice.names)
        self._body["tools"] = [self._tool(tool) for tool in tools]
        alone = {"disable_parallel_tool_use": True} if self._request.parallel_tools is False else {}
        if choice is None:
            if alone:
                self._body["tool_choice"] = {"type": "auto", **alone}
        elif choice.mode == "none":
            self._body["tool_choice"] = {"type": "none"}
        elif one:
            self._body["tool_choice"] = {"type": "tool", "name": choice.names[0], **alone}
        else:
            word = "any" if choice.mode == "required" else "auto"
            self._body["tool_choice"] = {"type": word, **alone}

    def _tool(self, tool: Tool) -> dict[str, Any]:
        out: dict[str, Any] = {"name": tool.name}
        if tool.description:
            out["description"] = tool.description
        wanted = models.takes_strict_tools(self._request.model) if tool.strict else False
        strict = json_schema.strict(_schema.of_object(tool.schema)) if wanted else None
        if strict is not None:
            out["strict"] = True
            out["input_schema"], lost = strict
        else:
            out["input_schema"], lost = json_schema.of_tool(tool.schema)
            self._ignored += ["tools[].function.strict"] if tool.strict else []
        self._ignored += [f"tools[].function.parameters.{name}" for name in lost]
        return _cached(out, tool)

    def _write_output(self) -> None:
        output = self._request.output
        if output is None:
            return
        if output.schema is None:
            self._ignored.append("response_format")  # only asked for in words, see _system
            return
        strict = json_schema.strict(output.schema)
        if strict is None:
            self._ignored.append("response_format")
            return
        schema, lost = strict
        self._ignored += [f"response_format.json_schema.schema.{name}" for name in lost]
        self._body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}

    def _write_thinking(self) -> None:
        wish = self._request.thinking
        if wish is None or wish.effort == "none":
            return
        choice = self._body.get("tool_choice", {}).get("type")
        if choice in ("any", "tool") or self._replays_unsigned_call():
            self._ignored.append("reasoning_effort")  # Anthropic refuses to think here
        elif models.thinks_adaptively(self._request.model):
            self._think_adaptively(wish)
        else:
            self._think_within(_budget(wish))

    def _think_adaptively(self, wish: Thinking) -> None:
        thinking: dict[str, Any] = {"type": "adaptive"}
        if not models.takes_sampling(self._request.model) and wish.summary is not False:
            thinking["display"] = "summarized"  # left out by default from 4.7 on
        self._body["thinking"] = thinking
        config = self._body.setdefault("output_config", {})
        config["effort"] = _effort(wish, self._request.model)

    def _think_within(self, budget: int) -> None:
        limit = self._body["max_tokens"]
        if self._request.max_tokens is None:
            self._body["max_tokens"] = max(limit, budget + 4096)
        elif limit <= budget:
            budget = limit - 1
        if budget < 1024:  # Anthropic's least
            self._ignored.append("reasoning_effort")
        else:
            self._body["thinking"] = {"type": "enabled", "budget_tokens": budget}

    def _replays_unsigned_call(self) -> bool:
        """Whether the turn in progress calls tools and lost its thoughts on the way."""
        for turn in reversed(self._body["messages"]):
            if turn["role"] == "assistant":
                kinds = [block["type"] for block in turn["content"]]
                return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")
            if any(block["type"] != "tool_result" for block in turn["content"]):
                return False
        return False

    def _write_sampling(self) -> None:
        request = self._request
        if request.seed is not None:
            self._ignored.append("seed")
        for name in ("presence_penalty", "frequency_penalty"):
            if getattr(request, name):  # nobody misses a penalty of nothing
                self._ignored.append(name)
        wishes = {
            n: v
            for n in ("temperature", "top_p", "top_k")
            if (v := getattr(request, n)) is not None
        }
        thinks = "thinking" in self._body
        if not models.takes_sampling(request.model) or thinks:
            if thinks and wishes.get("temperature") == 1:
                del wishes["temperature"]  # what it is anyway
            self._ignored += wishes
            return
        if wishes.get("temperature", 0) > 1:  # OpenAI's ends at 2
            wishes["temperature"] = 1
            self._ignored.append("temperature")
        both = "temperature" in wishes and "top_p" in wishes
        if both and not models.takes_both_samplings(request.model):
            del wishes["top_p"]
            self._ignored.append("top_p")
        self._body.update(wishes)


def _asked(system: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Instructions alone, which Anthropic does not take, as the user's words."""
    if not system:
        raise _read.nothing_said()
    content = [{"type": "text", "text": system}] if isinstance(system, str) else system
    return [{"role": "user", "content": content}]


def _user_id(user: str) -> str:
    """What tells users apart. Anthropic refuses what says who they are, and wants a hash instead.

    https://platform.claude.com/docs/en/api/messages (`metadata.user_id`; at most 256 characters)
    """
    if len(user) <= 256 and not _PERSONAL.search(user):
        return user
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


_PERSONAL = re.compile(r"@|[^\x21-\x7e]|^[+\d().\-/]{7,}$")


def _cached(block: dict[str, Any], part: Any) -> dict[str, Any]:
    mark = part.extra.get(NAME, {}).get("cache_control") if hasattr(part, "extra") else None
    return {**block, "cache_control": mark} if mark else block


def _id(call_id: str) -> str:
    return _BAD_ID.sub("_", call_id)


_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF = "application/pdf"


def _budget(wish: Thinking) -> int:
    if wish.budget is not None:
        return wish.budget
    return {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}.get(wish.effort, 24576)


def _effort(wish: Thinking, model: str) -> str:
    word = wish.effort
    if not word and wish.budget is not None:
        word = "low" if wish.budget <= 2048 else "medium" if wish.budget <= 8192 else "high"
    if word == "minimal":
        return "low"
    if word == "xhigh":
        return "xhigh" if not models.takes_sampling(model) else "high"
    if word == "max":
        return "max" if "opus" in model or not models.takes_sampling(model) else "high"
    return word if word in ("low", "medium", "high") else "high"
