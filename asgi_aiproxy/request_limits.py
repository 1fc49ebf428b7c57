"""Limits for requests that are translated: messages, parts, tools and nesting depth. Pure.

Translating costs Python time for each message, part and tool: megabytes of very small messages
would occupy a process for seconds. The counts are taken without decoding the messages. Requests
that pass through untranslated cost next to nothing and are not limited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from re import compile as pattern

import msgspec

from asgi_aiproxy.errors import APIError, invalid, require_int_at_least

_MESSAGES = ("messages", "contents", "input")
_STRING = pattern(rb'"[^"]*"')
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{}[]'))
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_LIST, _OBJECT = b"[{"


class _Message(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"")
    parts: msgspec.Raw = msgspec.Raw(b"")


class _Tool(msgspec.Struct):
    """Gemini's tools hold several functions."""

    declarations: msgspec.Raw = msgspec.field(name="functionDeclarations", default=msgspec.Raw(b""))


_message = msgspec.json.Decoder(_Message).decode
_tool = msgspec.json.Decoder(_Tool).decode


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """Limits for requests that are translated into another API.

    Arguments:

    - `messages`: the number of messages.
    - `parts`: the number of parts of all messages together.
    - `tools`: the number of tools.
    - `depth`: how deep objects and arrays may be nested.

    Raises ConfigurationError if a limit is below 1.
    """

    messages: int = 10_000
    parts: int = 20_000
    tools: int = 2_000
    depth: int = 200

    def __post_init__(self) -> None:
        require_int_at_least(
            messages=self.messages, parts=self.parts, tools=self.tools, depth=self.depth
        )

    def check(self, fields: Mapping[str, msgspec.Raw], body: bytes) -> None:
        """Raise APIError (400) if a limit is exceeded; `fields` are the members of `body`."""
        objects = body.count(b"{")
        if objects > min(self.messages, self.parts, self.tools):
            self._check_counts(fields)
        if objects + body.count(b"[") > self.depth and depth_of(body) > self.depth:
            raise _too_much("It is nested", "levels deep", None, self.depth, "depth")

    def _check_counts(self, fields: Mapping[str, msgspec.Raw]) -> None:
        for name in _MESSAGES:
            messages = _items(fields.get(name))
            if len(messages) > self.messages:
                raise _too_much(f"{name!r} holds", "messages", name, self.messages, "messages")
            parts = sum(_count_parts(message) for message in messages)
            if parts > self.parts:
                raise _too_much(f"{name!r} holds", "parts", name, self.parts, "parts")
        tools = _items(fields.get("tools"))
        declared = sum(len(_items(_tool(tool).declarations)) for tool in tools if _is_object(tool))
        if max(len(tools), declared) > self.tools:
            raise _too_much("'tools' holds", "tools", "tools", self.tools, "tools")


def _items(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    if not raw or memoryview(raw)[0] != _LIST:
        return []
    return _array(raw)


def _is_object(raw: msgspec.Raw) -> bool:
    return memoryview(raw)[0] == _OBJECT


def _count_parts(raw: msgspec.Raw) -> int:
    if not _is_object(raw):
        return 1
    message = _message(raw)
    return sum(len(_items(held)) for held in (message.content, message.parts) if held)


def depth_of(body: bytes) -> int:
    """Return how deep the objects and arrays of a JSON text are nested."""
    structure = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURE)
    depth = deepest = 0
    for bracket in _STRING.sub(b"", structure):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _too_much(what: str, of: str, param: str | None, limit: int, name: str) -> APIError:
    return invalid(
        f"{what} more than {limit} {of}, the limit for requests that are translated for the "
        f"provider of this model (limit: {name}).",
        param,
        "too_many",
    )
