"""What those who nearly speak OpenAI's format get wrong, put right.

Unknown members stay as they are. Seen in real traffic: thoughts inside `content` (Mistral), usage
beside choices (DeepSeek, Groq, Mistral), inside one (Moonshot) or in every chunk (Perplexity), no
`[DONE]` (Perplexity), no finish reason before it (Snowflake), an empty `custom` beside the
`function` of a call, a second finish reason and a repeated role (OpenRouter), a finish reason of
their own (Together's `eos`), empty strings for nothing (Snowflake), ids repeated or empty in later
fragments of a call (Alibaba), one index for all calls (bridges to Gemini), a first chunk that names
neither answer nor model (Azure).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.openai_chat import (
    errors,
    reasoning,
    responses,
)


def parse_chunk(data: bytes) -> dict[str, Any] | None:
    """The chunk in the data of an event; None for what some relays send as data to keep alive."""
    if data[:1] != b"{" and data.lstrip()[:1] != b"{":
        return None
    chunk: dict[str, Any] = _json.loads(data)
    return chunk


def normalize_response(body: dict[str, Any], new_id: str) -> bool:
    """Put a whole chat completion right in place; tells whether anything was wrong."""
    changed = _head(body, "chat.completion", new_id)
    for at, choice in enumerate(_parsing.objects(body.get("choices"))):
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        changed |= _set(choice, "index", at, isinstance(choice.get("index"), int))
        changed |= _set(message, "role", "assistant", message.get("role") == "assistant")
        changed |= normalize_content(message)
        changed |= _legacy(message)
        calls = message.get("tool_calls")
        if calls is not None:
            changed |= _whole_calls(message, calls)
        called = bool(message.get("tool_calls"))
        word = responses.finish_word(choice.get("finish_reason"), called) or "stop"
        changed |= _set(choice, "finish_reason", word, choice.get("finish_reason") == word)
    return changed


def _head(body: dict[str, Any], kind: str, new_id: str) -> bool:
    changed = _set(body, "id", new_id, isinstance(body.get("id"), str) and bool(body["id"]))
    changed |= _set(body, "object", kind, body.get("object") == kind)
    changed |= _set(body, "created", int(time.time()), type(body.get("created")) is int)
    return changed | _set(body, "model", "", isinstance(body.get("model"), str))


def _set(where: dict[str, Any], name: str, value: Any, right: bool) -> bool:
    if not right:
        where[name] = value
    return not right


def normalize_content(message: dict[str, Any]) -> bool:
    """Make `content` a string; thoughts inside it become `reasoning_content`."""
    parts = message.get("content")
    if parts is None or isinstance(parts, str):
        return False
    texts, thoughts = [], []
    for part in parts if isinstance(parts, list) else ():
        match part:
            case {"type": "thinking", "thinking": thinking}:
                thoughts.append(reasoning.flatten(thinking))
            case {"text": str(text)}:
                texts.append(text)
    message["content"] = "".join(texts)
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    return True


def _legacy(message: dict[str, Any]) -> bool:
    call = message.get("function_call")
    if call is None or (isinstance(call, dict) and (call.get("name") or call.get("arguments"))):
        return False
    del message["function_call"]
    return True


def _whole_calls(message: dict[str, Any], calls: Any) -> bool:
    if not calls:
        del message["tool_calls"]
        return True
    changed = False
    for at, call in enumerate(_parsing.objects(calls)):
        changed |= _set(call, "id", f"call_{at}", bool(call.get("id")))
        kind = responses.call_kind(call)
        changed |= _set(call, "type", kind, call.get("type") == kind)
        other = "function" if kind == "custom" else "custom"
        if call.get(other) is not None:
            del call[other]
            changed = True
        function = call.get("function")
        if isinstance(function, dict) and not isinstance(function.get("arguments"), str):
            function["arguments"] = responses.arguments_text(function.get("arguments")) or "{}"
            changed = True
    return changed


class ChunkNormalizer:
    """Puts the chunks of one stream right. Finish reasons and usage are held back to the end.

    Members that are not known stay where they came. `usage_null`: so does `"usage": null`.
    """

    def __init__(self, new_id: str, *, usage_null: bool = False) -> None:
        self._id = new_id
        self._usage_null = usage_null
        self.head: dict[str, Any] | None = None  # what all chunks have in common
        self._early: dict[str, Any] = {}  # what came before the answer had an id
        self._roles: set[int] = set()
        self._finish: dict[int, str] = {}
        # The chunks that finish reasons and usage came in; of a choice what was not passed on yet.
        self._ends: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._usage_in: dict[str, Any] = {}
        self._calls: dict[int, _Calls] = {}
        self.usage: dict[str, Any] | None = None

    def finish(self, index: int) -> str | None:
        """The finish reason of one choice in OpenAI's words, once it came."""
        calls = self._calls.get(index)
        return responses.finish_word(self._finish.get(index), calls is not None and calls.told > 0)

    def done(self) -> None:
        """`[DONE]` came after content: choices without a finish reason (Snowflake) have ended."""
        for index in self._roles:
            self._finish.setdefault(index, "stop")

    def check(self) -> None:
        """Raise APIError if the answer, which has no content, ended with a failure."""
        errors.raise_failure(self._finish.get(0))

    def fits(self, id: str, object: str, created: int, model: str, index: int) -> bool:
        """Whether a chunk's head is that of all others, and its choice has begun."""
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
        """The chunk put right, in place; None if nothing of it is left to say."""
        choices = list(_parsing.objects(chunk.get("choices")))
        groq = _in_groq(chunk, keep=self._usage_null and not choices)
        usage = chunk.get("usage") or groq or _in_choice(choices)
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
            _head(chunk, "chat.completion.chunk", self._id)
            self.head = {k: chunk[k] for k in ("id", "object", "created", "model")}
        else:
            chunk.update(self.head)
        chunk["choices"] = [choice for choice in choices if self._choice(choice, chunk)]
        if not chunk["choices"] and (choices or usage):
            return None
        return chunk

    def end(self, *, usage_wanted: bool) -> Iterator[dict[str, Any]]:
        """The chunks that close the stream: one finish reason a choice, then usage."""
        head = self.head or {}
        for index in sorted(self._finish):
            chunk, rest = self._ends.get(index, ({}, {}))
            choice = {"index": index, "delta": {}, **rest, "finish_reason": self.finish(index)}
            yield {**chunk, **head, "choices": [choice]}
        if usage_wanted and self.usage is not None:
            yield {**self._usage_in, **head, "choices": [], "usage": self.usage}

    def _choice(self, choice: dict[str, Any], chunk: dict[str, Any]) -> bool:
        """Put one choice of a chunk right; False if nothing is left of it but how it ended."""
        index = choice.get("index")
        if type(index) is not int:
            index = choice["index"] = 0
        word = choice.get("finish_reason")
        choice["finish_reason"] = None
        if isinstance(word, str) and word:
            self._finish.setdefault(index, word)
        message = choice.pop("message", None)  # Perplexity: the answer so far, beside the delta
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            new = isinstance(message, dict) and index not in self._roles
            delta = choice["delta"] = message if new else {}
        says = self._delta(index, delta)
        if word and index not in self._ends:
            self._ends[index] = dict(chunk), {} if says else choice
        return says or not word

    def _delta(self, index: int, delta: dict[str, Any]) -> bool:
        if index in self._roles:
            delta.pop("role", None)
        else:
            self._roles.add(index)
            delta["role"] = "assistant"
        normalize_content(delta)
        _legacy(delta)
        if not isinstance(delta.get("refusal", ""), str | None):
            del delta["refusal"]
        calls = delta.pop("tool_calls", None)
        if calls and isinstance(calls, list):
            state = self._calls.setdefault(index, _Calls())
            told = [out for c in calls if isinstance(c, dict) and (out := state.fragment(c))]
            if told:
                delta["tool_calls"] = told
        return any(value for value in delta.values())


def _in_groq(chunk: dict[str, Any], *, keep: bool) -> Any:
    """Where Groq told usage before it did so as OpenAI does. It is taken out unless `keep`."""
    groq = chunk.get("x_groq")
    if not isinstance(groq, dict):
        return None
    return groq.get("usage") if keep else groq.pop("usage", None)


def _in_choice(choices: list[dict[str, Any]]) -> Any:
    """Where Moonshot tells usage."""
    told = [choice.pop("usage", None) for choice in choices]
    return next(filter(None, told), None)


class _Calls:
    """The tool calls of one choice."""

    def __init__(self) -> None:
        self.told = 0
        self._known: dict[Any, _Call] = {}

    def fragment(self, call: dict[str, Any]) -> dict[str, Any] | None:
        """One fragment put right; None while there is nothing to tell of its call."""
        call_id, names = _word(call.pop("id", None)), map(call.get, ("function", "custom"))
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
            return None  # it waits for its name
        number = call["index"] = state.number = self.told
        self.told += 1
        call["id"] = state.id or f"call_{number}"
        call["type"] = kind
        part["name"], part[field] = name, state.held
        return call

    def _state(self, index: Any, call_id: str, name: str) -> _Call:
        if type(index) is int:
            key: Any = index
        elif call_id:
            key = ("id", call_id)
        else:
            key = next(reversed(self._known), 0)
        state = self._known.setdefault(key, _Call())
        if state.number is not None and name:
            # A name after a name: another call, unless an index or an id say that it is the same.
            other = call_id != state.id if call_id else type(index) is not int
            if other:
                state = self._known[key] = _Call()
        return state


class _Call:
    """One tool call. Its first fragment waits until the name is known."""

    def __init__(self) -> None:
        self.number: int | None = None  # once it was told
        self.kind = "function"
        self.id = ""
        self.held = ""


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
