"""Reads the tools of message requests: those of the client, and Anthropic's own.

Anthropic defines some tools that the client runs (a shell, a text editor, a memory). Other vendors
see a function with the same arguments instead. A search among tools is left out, because others are
given all tools at once. Tools that Anthropic runs are refused: others have none with their answers.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from asgi_aiproxy.dialects.anthropic import schemas
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Tool, ToolChoice

NAME = "anthropic"

_STRING: Mapping[str, Any] = {"type": "string"}
_INTEGER: Mapping[str, Any] = {"type": "integer"}
_LINES: Mapping[str, Any] = {"type": "array", "items": _INTEGER, "minItems": 2, "maxItems": 2}


def _commands(names: Sequence[str], **more: Mapping[str, Any]) -> dict[str, Any]:
    properties = {"command": {"type": "string", "enum": list(names)}, **more}
    return {"type": "object", "properties": properties, "required": ["command"]}


_EDITING: dict[str, Mapping[str, Any]] = {
    "path": _STRING,
    "file_text": _STRING,
    "old_str": _STRING,
    "new_str": _STRING,
    "insert_line": _INTEGER,
    "insert_text": _STRING,
    "view_range": _LINES,
}
# Tools that the client runs: what they are for, and their arguments.
_CLIENT_TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bash": (
        "Run a command in a shell that keeps its state between calls; `restart` starts it afresh.",
        {"type": "object", "properties": {"command": _STRING, "restart": {"type": "boolean"}}},
    ),
    "text_editor": (
        "View and edit text files. `view` shows a file (lines `view_range`) or a directory, "
        "`create` writes `file_text`, `str_replace` replaces the only occurrence of `old_str` by "
        "`new_str`, `insert` puts `insert_text` after line `insert_line`.",
        _commands(("view", "create", "str_replace", "insert"), **_EDITING),
    ),
    "memory": (
        "Keep notes in files below /memories, across conversations. `view` shows a file or a "
        "directory, `create` writes `file_text`, `str_replace` replaces `old_str` by `new_str`, "
        "`insert` puts `insert_text` after line `insert_line`, `delete` removes `path`, `rename` "
        "moves `old_path` to `new_path`.",
        _commands(
            ("view", "create", "str_replace", "insert", "delete", "rename"),
            **_EDITING,
            old_path=_STRING,
            new_path=_STRING,
        ),
    ),
}
_SEARCH = "tool_search_tool_"


def decode_tools(tools: Sequence[schemas.Tool]) -> Iterator[Tool]:
    """The tools as functions. Raises APIError for one that only Anthropic runs."""
    for at, tool in enumerate(tools):
        kind = tool.type or "custom"
        if kind.startswith(_SEARCH):
            continue
        description, schema = tool.description or "", tool.input_schema
        if kind != "custom":
            known = _CLIENT_TOOLS.get(kind.rpartition("_")[0])
            if known is None:
                raise invalid(
                    f"tools[{at}]: Anthropic's own tool '{kind}' is not available from the "
                    "provider of this model.",
                    f"tools[{at}].type",
                )
            description, schema = known
        yield Tool(
            name=tool.name,
            description=description,
            schema=schema,
            strict=tool.strict,
            extra={NAME: {"cache_control": tool.cache_control}} if tool.cache_control else {},
        )


def ignored_members(tools: Sequence[schemas.Tool]) -> dict[str, Any]:
    """What is lost of the tools, by the name under which it is reported."""
    lost: dict[str, Any] = {}
    for tool in tools:
        if (tool.type or "").startswith(_SEARCH):
            lost[f"tools[].type: {tool.type}"] = True
        if tool.input_examples:
            lost["tools[].input_examples"] = True
    return lost


def decode_choice(choice: schemas.ToolChoice | None) -> ToolChoice | None:
    """Read `tool_choice`. Raises APIError for an unknown type."""
    match choice:
        case None:
            return None
        case schemas.ToolChoice(type="any"):
            return ToolChoice("required")
        case schemas.ToolChoice(type="tool", name=str(name)):
            return ToolChoice("required", (name,))
        case schemas.ToolChoice(type="auto" | "none" as mode):
            return ToolChoice(mode)
    raise invalid(f"tool_choice.type: unknown type '{choice.type}'.", "tool_choice.type")
