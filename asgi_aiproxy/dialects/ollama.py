"""Ollama's own API: POST /api/chat, one JSON object per line. Only called, not served to clients.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import getrandbits
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _json_schema, _parsing
from asgi_aiproxy.dialects._blocks import MIN_RUN, Blocks, decode_run
from asgi_aiproxy.dialects._unsupported import unsupported_fields
from asgi_aiproxy.dialects.base import NewId, OutboundDialect, ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status, invalid
from asgi_aiproxy.framing import Framer, NDJSONFramer
from asgi_aiproxy.messages import (
    Event,
    Media,
    Message,
    MessageEnd,
    MessageStart,
    Reasoning,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    fold,
)

NAME = "ollama"


class _PlainMessage(msgspec.Struct, gc=False):
    content: str
    thinking: str | None = None
    tool_calls: None = None


class _PlainLine(msgspec.Struct, gc=False):
    """The lines of which there are hundreds in an answer; all others are read untyped."""

    message: _PlainMessage
    done: bool = False
    error: None = None


_decode_plain = msgspec.json.Decoder(_PlainLine).decode
_decode_plains = msgspec.json.Decoder(list[_PlainLine]).decode
_TEXT = Text()
_STOPS = {"stop": StopReason.END, "length": StopReason.LENGTH}


def new_id() -> str:
    """Return an id for a tool call; Ollama's calls have no ids."""
    return f"call_{getrandbits(96):024x}"


class Ollama(OutboundDialect):
    """Ollama's dialect. `new_id` is replaced by tests that compare bytes."""

    name: ClassVar[str] = NAME

    def __init__(self, *, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write the body of POST /api/chat."""
        ignored = unsupported_fields(request, NAME)
        parts = [part for message in request.messages for part in message.parts]
        names = {part.id: part.name for part in parts if isinstance(part, ToolCall)}
        one_at_a_time = request.parallel_tools is False and bool(request.tools)
        for name, given in (
            ("user", request.user),
            ("tool_choice", _restricts_tools(request)),
            ("parallel_tool_calls", one_at_a_time),
            ("tools[].function.strict", any(tool.strict for tool in request.tools)),
        ):
            if given:
                ignored.append(name)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [out for m in request.messages for out in _write(m, names, ignored)],
            "stream": request.stream,
        }
        if not body["messages"]:  # Ollama would load the model and return an empty answer
            raise _parsing.empty_messages_error()
        if request.tools and not (request.tool_choice and request.tool_choice.mode == "none"):
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": _json_schema.object_schema(tool.schema),
                    },
                }
                for tool in request.tools
            ]
        if request.output is not None:
            body["format"] = "json" if request.output.schema is None else request.output.schema
        if request.thinking is not None:
            effort = request.thinking.effort
            # A level for models that have levels; for the others, whether to think.
            body["think"] = effort if effort in ("low", "medium", "high") else effort != "none"
        options = {
            "num_predict": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": list(request.stop) or None,
            "seed": request.seed,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
        }
        given_options = {name: value for name, value in options.items() if value is not None}
        if given_options:
            body["options"] = given_options
        return ProviderRequest("/api/chat", body, ignored=tuple(dict.fromkeys(ignored)))

    def decode_response(self, body: bytes) -> Response:
        """Read a whole response: one line."""
        if _parsing.parse_object(body) is None:
            raise _parsing.unparsable_response_error(200, body)
        decoder = self.decoder()
        return fold([*decoder.feed(body), *decoder.close()])

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        answer = _parsing.parse_object(body)
        message = _error_message(answer["error"]) if answer and answer.get("error") else ""
        if not message:
            return _parsing.unparsable_response_error(status, body)
        kind = error_kind_for_status(status)
        return APIError(
            kind, message, status=_parsing.client_status(status, kind), upstream_status=status
        )

    def decoder(self) -> Decoder:
        """A new decoder of lines."""
        return Decoder(self._new_id)

    def models_request(self) -> ProviderRequest:
        """GET /api/tags."""
        return ProviderRequest("/api/tags", {})

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models."""
        return _parsing.names(body, "models", "name")

    def framer(self, media_type: str) -> Framer:
        """A new framer for lines."""
        return NDJSONFramer()


class Decoder:
    """Converts the lines of a response to events."""

    ended = False

    def __init__(self, new_id: NewId) -> None:
        self.model = ""
        self.usage: Usage | None = None
        self._new_id = new_id
        self._blocks = Blocks()
        self._started = False
        self._calls = 0
        self._done_reason: str | None = None

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one line."""
        if self._done_reason is not None:
            return ()
        if self._started:
            try:
                plain = _decode_plain(data)
            except ValueError:
                pass
            else:
                message = plain.message
                if message.content and not message.thinking and not plain.done:
                    return self._blocks.text(_TEXT, message.content)
        line = _json.loads(data)
        if line.get("error"):
            raise APIError(ErrorKind.UPSTREAM, _error_message(line["error"]))
        return list(self._line(line))

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """Return the block, the texts and the number of the lines that contain nothing but text."""
        number = self._blocks.open_text
        used = len(pieces)
        while used and pieces[used - 1].find(b'"done_reason"') >= 0:
            used -= 1
        if number is None or used < MIN_RUN or self._done_reason is not None:
            return None
        texts = [
            line.message.content
            for line in decode_run(_decode_plains, pieces[:used])
            if line.message.content and not line.message.thinking and not line.done
        ]
        return (number, texts, used) if len(texts) == used else None

    def close(self) -> Sequence[Event]:
        """The end of the message; raises APIError if the last line is missing."""
        if self._done_reason is None:
            raise _parsing.truncated_response_error("the stream ended before it was done")
        stop = _STOPS.get(self._done_reason, StopReason.OTHER)
        if self._blocks.called and stop is not StopReason.LENGTH:
            stop = StopReason.TOOLS
        return [*self._blocks.end(), MessageEnd(stop, self.usage, self._done_reason)]

    def _line(self, line: dict[str, Any]) -> Iterator[Event]:
        if not self._started:
            self._started = True
            self.model = line.get("model") or ""
            yield MessageStart("", self.model)
        message = line.get("message") or {}
        if message.get("thinking"):
            yield from self._blocks.text(Reasoning(), message["thinking"])
        if message.get("content"):
            yield from self._blocks.text(Text(), message["content"])
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            self._calls += 1
            made = ToolCall(call.get("id") or self._new_id(), function.get("name") or "")
            yield from self._blocks.call(self._calls, made)
            arguments = function.get("arguments")
            if arguments:
                text = arguments if isinstance(arguments, str) else _json.dumps(arguments).decode()
                yield from self._blocks.arguments(self._calls, text)
        if line.get("done"):
            self._done_reason = line.get("done_reason") or "stop"
            if "eval_count" in line or "prompt_eval_count" in line:
                self.usage = decode_usage(line)


def decode_usage(counts: Mapping[str, Any]) -> Usage:
    """Read the counts beside an answer."""
    return Usage(
        input=_parsing.read_count(counts, "prompt_eval_count"),
        output=_parsing.read_count(counts, "eval_count"),
    )


def _error_message(error: Any) -> str:
    return _parsing.get_text(error, "message") or str(error)


def _restricts_tools(request: Request) -> bool:
    """Return whether the request restricts the choice of tools, which Ollama does not support."""
    choice = request.tool_choice
    return choice is not None and (choice.mode == "required" or bool(choice.names))


def _write(message: Message, names: dict[str, str], ignored: list[str]) -> Iterator[dict[str, Any]]:
    text = "".join(p.text for p in message.parts if isinstance(p, Text | Refusal))
    out: dict[str, Any] = {"role": message.role, "content": text}
    for part in message.parts:
        match part:
            case ToolResult(call_id, parts, name):
                result = "".join(p.text for p in parts if isinstance(p, Text))
                name = name or names.get(call_id, "")
                yield {"role": "tool", "tool_name": name, "content": result}
                _add_image(out, [p for p in parts if isinstance(p, Media)])
            case Media():
                _add_image(out, [part])
            case Reasoning(thought):
                out["thinking"] = out.get("thinking", "") + thought
            case ToolCall(_, name, arguments):
                value = _parsing.arguments(arguments, ignored)
                call = {"function": {"name": name, "arguments": value}}
                out.setdefault("tool_calls", []).append(call)
    if out["content"] or len(out) > 2:
        yield out


def _add_image(out: dict[str, Any], media: list[Media]) -> None:
    for item in media:
        if text := _parsing.document_text(item):
            out["content"] = "\n".join(filter(None, (out["content"], item.name, text)))
            continue
        if item.kind != "image" or not item.data:
            raise invalid("Ollama accepts images only, and only as data: URLs.", "messages")
        out.setdefault("images", []).append(item.data)


OLLAMA_CHAT: Ollama = Ollama()
