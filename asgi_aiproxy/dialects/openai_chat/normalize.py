"""Normalizes responses of OpenAI-compatible servers that deviate from OpenAI's format.

Clients (OpenAI's SDKs above all) expect exactly what OpenAI sends. Compatible servers deviate in
many small ways. Instead of a table of vendors and quirks there is one tolerant reader: it accepts
every known deviation from any vendor and writes what OpenAI would have written. Unknown members are
kept. Deviations seen in real traffic:

- reasoning inside `content` (Mistral);
- usage in a chunk with choices (DeepSeek, Groq, Mistral), inside a choice (Moonshot), in `x_groq`
  (Groq), or in every chunk (Perplexity);
- no `[DONE]` (Perplexity), no finish reason before it (Snowflake), a second finish reason and a
  repeated role (OpenRouter), own finish reasons (Together's `eos`);
- an empty `custom` next to the `function` of a call, empty strings for absent members (Snowflake);
- ids repeated or empty in later fragments of a call (Alibaba), one index or one id for all calls
  (bridges to Gemini);
- a first chunk without id and model (Azure), the whole message so far in every chunk (Perplexity).

Whole responses are normalized in place by `normalize_response`. Streams go through a
`ChunkNormalizer`, which keeps the state of one stream:

1. The first chunk with an id or a choice sets the head (`id`, `object`, `created`, `model`) of all.
2. Finish reasons and usage are removed from chunks and stored, as a later chunk may still add
   content or repeat them. `end` writes each exactly once, after all content.
3. Tool calls are numbered in the order in which their names become known. Fragments are held until
   the name arrives. A fragment belongs to the call with its index, else with its id, else to the
   latest call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import CallIds
from asgi_aiproxy.dialects.openai_chat import (
    errors,
    reasoning,
    responses,
)


def parse_chunk(data: bytes) -> dict[str, Any] | None:
    """The chunk in the data of an event; None for keep-alive data of relays."""
    if data[:1] != b"{" and data.lstrip()[:1] != b"{":
        return None
    chunk: dict[str, Any] = _json.loads(data)
    return chunk


def normalize_response(body: dict[str, Any], new_id: str) -> bool:
    """Normalize a whole chat completion in place; True if anything was changed."""
    changed = _normalize_head(body, "chat.completion", new_id)
    for at, choice in enumerate(_parsing.objects(body.get("choices"))):
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        changed |= _set_unless(choice, "index", at, isinstance(choice.get("index"), int))
        changed |= _set_unless(message, "role", "assistant", message.get("role") == "assistant")
        changed |= normalize_content(message)
        changed |= _drop_empty_function_call(message)
        calls = message.get("tool_calls")
        if calls is not None:
            changed |= _normalize_calls(message, calls)
        called = bool(message.get("tool_calls"))
        word = responses.normalize_finish_reason(choice.get("finish_reason"), called) or "stop"
        changed |= _set_unless(choice, "finish_reason", word, choice.get("finish_reason") == word)
    return changed


def _normalize_head(body: dict[str, Any], kind: str, new_id: str) -> bool:
    changed = _set_unless(body, "id", new_id, isinstance(body.get("id"), str) and bool(body["id"]))
    changed |= _set_unless(body, "object", kind, body.get("object") == kind)
    changed |= _set_unless(body, "created", int(time.time()), type(body.get("created")) is int)
    return changed | _set_unless(body, "model", "", isinstance(body.get("model"), str))


def _set_unless(where: dict[str, Any], name: str, value: Any, valid: bool) -> bool:
    if not valid:
        where[name] = value
    return not valid


def normalize_content(message: dict[str, Any]) -> bool:
    """Make `content` a string; reasoning inside it becomes `reasoning_content`."""
    parts = message.get("content")
    if parts is None or isinstance(parts, str):
        return False
    texts, reasoning_texts = [], []
    for part in parts if isinstance(parts, list) else ():
        match part:
            case {"type": "thinking", "thinking": thinking}:
                reasoning_texts.append(reasoning.flatten(thinking))
            case {"text": str(text)}:
                texts.append(text)
    message["content"] = "".join(texts)
    if reasoning_texts:
        message["reasoning_content"] = "".join(reasoning_texts)
    return True


def _drop_empty_function_call(message: dict[str, Any]) -> bool:
    call = message.get("function_call")
    if call is None or (isinstance(call, dict) and (call.get("name") or call.get("arguments"))):
        return False
    del message["function_call"]
    return True


def _normalize_calls(message: dict[str, Any], calls: Any) -> bool:
    if not calls:
        del message["tool_calls"]
        return True
    changed = False
    ids = CallIds()
    for at, call in enumerate(_parsing.objects(calls)):
        known = call.get("id")
        call_id = ids.unique_id(known if isinstance(known, str) and known else f"call_{at}")
        changed |= _set_unless(call, "id", call_id, known == call_id)
        kind = responses.call_kind(call)
        changed |= _set_unless(call, "type", kind, call.get("type") == kind)
        other = "function" if kind == "custom" else "custom"
        if call.get(other) is not None:
            del call[other]
            changed = True
        function = call.get("function")
        if isinstance(function, dict) and not isinstance(function.get("arguments"), str):
            function["arguments"] = responses.whole_arguments(function.get("arguments"))
            changed = True
    return changed


class ChunkNormalizer:
    """Normalizes the chunks of one stream. Finish reasons and usage are held back until the end.

    `usage_null`: keep `"usage": null` in chunks.
    """

    def __init__(self, new_id: str, *, usage_null: bool = False) -> None:
        self._id = new_id
        self._usage_null = usage_null
        self.head: dict[str, Any] | None = None  # the members that all chunks share
        self._early: dict[str, Any] = {}  # members received before the response had an id
        self._roles: set[int] = set()
        self._finish: dict[int, str] = {}
        # The chunks of finish reasons and usage; of the choice, what was not passed on yet.
        self._ends: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._usage_in: dict[str, Any] = {}
        self._calls: dict[int, _ToolCalls] = {}
        self.usage: dict[str, Any] | None = None

    def finish(self, index: int) -> str | None:
        """The finish reason of one choice in OpenAI's values; None until received."""
        calls = self._calls.get(index)
        return responses.normalize_finish_reason(
            self._finish.get(index), calls is not None and calls.count > 0
        )

    def done(self) -> None:
        """`[DONE]` was received after content: choices without a finish reason have ended."""
        for index in self._roles:
            self._finish.setdefault(index, "stop")

    def check(self) -> None:
        """Raise APIError if the response, which has no content, ended with a failure."""
        errors.raise_failure(self._finish.get(0))

    def fits(self, id: str, object: str, created: int, model: str, index: int) -> bool:
        """Whether a chunk has the head of all others, and its choice has started."""
        head = self.head
        return (
            head is not None
            and index in self._roles
            and head["id"] == id
            and head["object"] == object
            and head["created"] == created
            and head["model"] == model
        )

    def chunk(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Normalize a chunk in place; None if nothing of it is left to send."""
        choices = list(_parsing.objects(chunk.get("choices")))
        groq = _groq_usage(chunk, keep=self._usage_null and not choices)
        usage = chunk.get("usage") or groq or _choice_usage(choices)
        if "usage" in chunk and not (self._usage_null and chunk["usage"] is None):
            del chunk["usage"]
        if isinstance(usage, dict):
            self.usage = usage
            self._usage_in = {} if choices else chunk
        if self.head is None:
            if not choices and not chunk.get("id"):
                self._early |= chunk
                return None
            chunk.update({k: v for k, v in self._early.items() if k not in chunk})
            _normalize_head(chunk, "chat.completion.chunk", self._id)
            self.head = {k: chunk[k] for k in ("id", "object", "created", "model")}
        else:
            chunk.update(self.head)
        chunk["choices"] = [choice for choice in choices if self._choice(choice, chunk)]
        if not chunk["choices"] and (choices or usage):
            return None
        return chunk

    def end(self, *, usage_wanted: bool) -> Iterator[dict[str, Any]]:
        """The last chunks of the stream: one finish reason per choice, then usage."""
        head = self.head or {}
        for index in sorted(self._finish):
            chunk, rest = self._ends.get(index, ({}, {}))
            choice = {"index": index, "delta": {}, **rest, "finish_reason": self.finish(index)}
            yield {**chunk, **head, "choices": [choice]}
        if usage_wanted and self.usage is not None:
            yield {**self._usage_in, **head, "choices": [], "usage": self.usage}

    def _choice(self, choice: dict[str, Any], chunk: dict[str, Any]) -> bool:
        """Normalize one choice of a chunk; False if only its finish reason is left."""
        index = choice.get("index")
        if type(index) is not int:
            index = choice["index"] = 0
        reason = choice.get("finish_reason")
        choice["finish_reason"] = None
        if isinstance(reason, str) and reason:
            self._finish.setdefault(index, reason)
        message = choice.pop("message", None)  # Perplexity: the whole message so far
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            new = isinstance(message, dict) and index not in self._roles
            delta = choice["delta"] = message if new else {}
        has_content = self._delta(index, delta)
        if reason and index not in self._ends:
            self._ends[index] = dict(chunk), {} if has_content else choice
        return has_content or not reason

    def _delta(self, index: int, delta: dict[str, Any]) -> bool:
        if index in self._roles:
            delta.pop("role", None)
        else:
            self._roles.add(index)
            delta["role"] = "assistant"
        normalize_content(delta)
        _drop_empty_function_call(delta)
        if not isinstance(delta.get("refusal", ""), str | None):
            del delta["refusal"]
        calls = delta.pop("tool_calls", None)
        if calls and isinstance(calls, list):
            state = self._calls.setdefault(index, _ToolCalls())
            known = [out for c in calls if isinstance(c, dict) and (out := state.fragment(c))]
            if known:
                delta["tool_calls"] = known
        return any(value for value in delta.values())


def _groq_usage(chunk: dict[str, Any], *, keep: bool) -> Any:
    """Usage in `x_groq`, Groq's earlier place for it. It is removed unless `keep`."""
    groq = chunk.get("x_groq")
    if not isinstance(groq, dict):
        return None
    return groq.get("usage") if keep else groq.pop("usage", None)


def _choice_usage(choices: list[dict[str, Any]]) -> Any:
    """Usage inside a choice, Moonshot's place for it."""
    found = [choice.pop("usage", None) for choice in choices]
    return next(filter(None, found), None)


class _ToolCalls:
    """The tool calls of one choice."""

    def __init__(self) -> None:
        self.count = 0  # calls whose name is known
        self._ids = CallIds()
        self._known: dict[Any, _ToolCall] = {}

    def fragment(self, call: dict[str, Any]) -> dict[str, Any] | None:
        """Normalize one fragment; None while the name of its call is not known."""
        call_id, names = _string(call.pop("id", None)), map(call.get, ("function", "custom"))
        name = next((n for part in names if (n := _parsing.get_text(part, "name"))), "")
        state = self._state(call.get("index"), call_id, name)
        if state.number is None:
            state.kind = responses.call_kind(call, state.kind)
        kind = state.kind
        call.pop("function" if kind == "custom" else "custom", None)
        part = call.get(kind)
        if not isinstance(part, dict):
            part = call[kind] = {}
        part.pop("name", None)
        field = "input" if kind == "custom" else "arguments"
        text = responses.arguments_text(part.get(field))
        if state.number is not None:
            call["index"], part[field] = state.number, text
            return call
        state.id = state.id or call_id
        state.held += text
        if not name:
            return None
        number = call["index"] = state.number = self.count
        self.count += 1
        call["id"] = self._ids.unique_id(state.id or f"call_{number}")
        call["type"] = kind
        part["name"], part[field] = name, state.held
        return call

    def _state(self, index: Any, call_id: str, name: str) -> _ToolCall:
        if type(index) is int:
            key: Any = index
        elif call_id:
            key = ("id", call_id)
        else:
            key = next(reversed(self._known), 0)
        state = self._known.setdefault(key, _ToolCall())
        if state.number is not None and name:
            # A second name starts another call, unless an index or an id say that it is the same.
            is_other = call_id != state.id if call_id else type(index) is not int
            if is_other:
                state = self._known[key] = _ToolCall()
        return state


class _ToolCall:
    """One tool call. Its fragments are held until the name is known."""

    def __init__(self) -> None:
        self.number: int | None = None  # set when its first fragment is sent
        self.kind = "function"
        self.id = ""
        self.held = ""


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
