"""Writes what Coze's official SDK declares of chats, for tests: tests/support/coze_types.json.

    uv run --no-project --with cozepy==0.20.0 python scripts/coze_types.py

The SDK cannot be installed beside the tests: it requires an older version of websockets. A type is
"str", "int", "bool" or "any"; a list is [type], an object with any names {"*": type}, words are
{"enum": [...]}, an object of the SDK {"of": name}. A member is [type, whether it is required].
"""

from __future__ import annotations

import inspect
import json
import typing
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cozepy.chat import Chat, ChatClient, ChatEventType, Message, ToolOutput
from pydantic import BaseModel

TABLE = Path(__file__).parents[1] / "tests" / "support" / "coze_types.json"
_PLAIN = {str: "str", int: "int", bool: "bool", Any: "any"}


class Types:
    """The types that were written, by name."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def write(self, kind: Any) -> Any:
        """Write a type, and the objects in it."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind in _PLAIN:
            return _PLAIN[kind]
        if origin is typing.Union:
            (given,) = (each for each in arguments if each is not type(None))
            return self.write(given)
        if origin is list:
            return [self.write(arguments[0])]
        if origin is dict:
            return {"*": self.write(arguments[1])}
        if origin is typing.Literal:
            return _PLAIN[type(arguments[0])]
        if issubclass(kind, Enum):
            return {"enum": [each.value for each in kind]}
        if kind.__name__ not in self.objects:
            self.objects[kind.__name__] = {}
            self.objects[kind.__name__] = self._members(kind)
        return {"of": kind.__name__}

    def _members(self, kind: type[BaseModel]) -> dict[str, Any]:
        return {
            name: [self.write(field.annotation), field.is_required()]
            for name, field in kind.model_fields.items()
        }

    def add_request(self, name: str, method: Any, *left_out: str) -> None:
        """The body that a method writes from its parameters."""
        hints = typing.get_type_hints(method)
        self.objects[name] = {
            each.name: [self.write(hints[each.name]), each.default is inspect.Parameter.empty]
            for each in inspect.signature(method).parameters.values()
            if each.name in hints and each.name not in left_out
        }


def table() -> dict[str, Any]:
    """The table of all types."""
    types = Types()
    types.add_request("ChatRequest", ChatClient._create, "conversation_id")  # (in the query)
    types.write(ToolOutput)
    events = {
        each.value: types.write(Chat if ".chat." in each.value else Message)["of"]
        for each in ChatEventType
        if each.value.startswith("conversation.")
    }
    return {"cozepy": version("cozepy"), "events": events, **types.objects}


def text(found: dict[str, Any]) -> str:
    """JSON with a line for each member of an object."""
    lines = []
    for name, members in found.items():
        if isinstance(members, dict):
            inner = ",\n".join(f'  "{each}": {json.dumps(of)}' for each, of in members.items())
            lines.append(f' "{name}": {{\n{inner}\n }}')
        else:
            lines.append(f' "{name}": {json.dumps(members)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(text(table()), "utf-8")
