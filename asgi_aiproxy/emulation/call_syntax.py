"""Reads tool calls that a model wrote as text, in the notations that models use. Pure.

The notations and where they come from: `1: {"toolId": ...}` (chatgpt-adapter); `{"name": ...,
"arguments": ...}`, alone, in a list, in a code fence or between `<tool_call>` tags (Hermes, Qwen,
Mistral, Granite, Llama with `parameters`); OpenAI's `{"function": {...}}` and `{"tool_calls":
[...]}`; `<function=NAME><parameter=KEY>...` (Qwen3-Coder); `<invoke name="...">` (Claude);
`<arg_key>` and `<arg_value>` (GLM); `functions.NAME:0` before the arguments (Kimi, DeepSeek);
`NAME(key="value")` (Llama); `Action:` and `Action Input:` (ReAct).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json

ID_KEYS = ("toolId", "tool_id", "tool_name", "function_name", "name", "tool", "function", "action")
_ARGUMENT_KEYS = (
    "arguments",
    "parameters",
    "args",
    "params",
    "tool_input",
    "action_input",
    "input",
)
_MAX_DEPTH = 4  # lists and `tool_calls` around a call
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_DECODER = json.JSONDecoder(strict=False)

_XML_CALL = re.compile(r"<(?:function=|invoke\s+name=)\s*[\"']?([^\"'>\s]+)[\"']?\s*>")
_XML_PARAMETER = re.compile(
    r"<parameter(?:=|\s+name=)\s*[\"']?([^\"'>\s]+)[\"']?[^>]*>\n?(.*?)\n?</parameter>", re.DOTALL
)
_ARGUMENT_PAIR = re.compile(
    r"<arg_key>\s*(.*?)\s*</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL
)
_WORD = re.compile(r"[\w.-]+")
_REACT = re.compile(r"Action:\s*([\w.-]+)\s*\n\s*Action[ _]Input:\s*")


class FoundCall(msgspec.Struct, frozen=True):
    """A call of the tool `name`; `arguments` is any JSON value."""

    name: str
    arguments: Any


class FoundTask(msgspec.Struct, frozen=True):
    """A task of a plan, and the tool that does it."""

    name: str
    task: str


class InvalidCall(msgspec.Struct, frozen=True):
    """Text that was meant as a call, and what is wrong with it, as a sentence for the model."""

    text: str
    problem: str


Found = FoundCall | FoundTask | InvalidCall


class ToolNames:
    """Finds the tool that a model meant by a name: case, `-`, `_` and `functions.` do not matter.

    `names` are the names of the tools.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._exact = frozenset(names)
        self._plain: dict[str, str] = {}
        for name in names:
            self._plain.setdefault(_plain_name(name), name)

    def __contains__(self, name: object) -> bool:
        return name in self._exact

    def find(self, name: str) -> str | None:
        """The name of the tool; None if there is no such tool."""
        return name if name in self._exact else self._plain.get(_plain_name(name))

    @property
    def unknown_problem(self) -> str:
        """What to say of a call of another tool."""
        return f"There is no such tool; the tools are: {', '.join(self.names)}."


def _plain_name(name: str) -> str:
    name = name.strip().removeprefix("functions.").removeprefix("functions:")
    return re.sub(r":\d+$", "", name).replace("-", "_").lower()


def read_json(text: str) -> Any:
    """A JSON value, also with trailing commas or as a Python literal. Raises ValueError."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        for attempt in (_without_trailing_commas, ast.literal_eval):
            try:
                value = attempt(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                continue
            if isinstance(value, dict | list):
                return value
        raise ValueError("It is not valid JSON.") from error


def _without_trailing_commas(text: str) -> Any:
    return _DECODER.decode(_TRAILING_COMMA.sub(r"\1", text))


def calls_of_value(value: Any, names: ToolNames, depth: int = 0) -> list[Found]:
    """The calls in a JSON value; empty if it is something else."""
    if depth > _MAX_DEPTH:
        return []
    if isinstance(value, list):
        return [call for item in value for call in calls_of_value(item, names, depth + 1)]
    if not isinstance(value, dict):
        return []
    for member, kind in (("tool_calls", list), ("calls", list), ("function", dict)):
        if isinstance(value.get(member), kind):
            return calls_of_value(value[member], names, depth + 1)
    return _calls_of_object(value, names)


def _calls_of_object(value: Mapping[str, Any], names: ToolNames) -> list[Found]:
    if len(value) == 1:
        (key,) = value
        if key in names and isinstance(value[key], dict):
            return [FoundCall(key, value[key])]
    key = next((key for key in ID_KEYS if isinstance(value.get(key), str)), "")
    if not key:
        return []
    name = names.find(value[key])
    if name is None:
        # A call of another tool has nothing but what calls have; other JSON is the answer.
        others = value.keys() - {key, "id", "type", "index"}
        if key != "toolId" and not (len(others) == 1 and others <= {*_ARGUMENT_KEYS}):
            return []
        return [InvalidCall(_json.dumps(value).decode(), names.unknown_problem)]
    if isinstance(value.get("task"), str) and not any(a in value for a in _ARGUMENT_KEYS):
        return [FoundTask(name, value["task"])]
    return [FoundCall(name, _arguments(value, key))]


def _arguments(value: Mapping[str, Any], key: str) -> Any:
    """The arguments of a call, which some models write as JSON text, or beside the name."""
    for member in _ARGUMENT_KEYS:
        if member in value:
            found = value[member]
            if isinstance(found, str):
                try:
                    return read_json(found) if found.strip() else {}
                except ValueError:
                    return found
            return {} if found is None else found
    return {name: item for name, item in value.items() if name not in (key, "id", "type")}


def calls_of_text(text: str, names: ToolNames) -> list[Found]:
    """The calls in a region of text that was delimited as one, in any of the notations."""
    found: list[Found] = list(_xml_calls(text, names))
    if found:
        return found
    end = 0
    while (start := _next_json(text, end)) >= 0:
        try:
            value, stop = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        calls = calls_of_value(value, names)
        if not calls and isinstance(value, dict):
            name = _last_name(text[end:start], names)
            if name is not None:
                calls = [FoundCall(name, value)]
        found += calls
        end = stop
    if not found:
        try:
            found = calls_of_value(read_json(text.strip()), names)
        except ValueError:
            return []
    return found


def _next_json(text: str, start: int) -> int:
    places = [place for place in (text.find("{", start), text.find("[{", start)) if place >= 0]
    return min(places, default=-1)


def _last_name(text: str, names: ToolNames) -> str | None:
    """The last word of a text that names a tool."""
    for word in reversed(_WORD.findall(text.replace(":", " :"))):
        if (name := names.find(word)) is not None:
            return name
    return None


def _xml_calls(text: str, names: ToolNames) -> Iterator[Found]:
    """Calls with their arguments as elements."""
    heads = list(_XML_CALL.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends[: len(heads)], strict=True):
        body = text[head.end() : end]
        name = names.find(head[1])
        if name is None:
            yield InvalidCall(text, names.unknown_problem)
            continue
        pairs = _XML_PARAMETER.findall(body)
        start = body.find("{")
        if not pairs and start >= 0:
            try:
                yield FoundCall(name, _DECODER.raw_decode(body, start)[0])
            except ValueError:
                yield InvalidCall(text, "The arguments are not valid JSON.")
            continue
        yield FoundCall(name, {key: _plain_value(value) for key, value in pairs})
    pairs = [] if heads else _ARGUMENT_PAIR.findall(text)
    if pairs:
        name = _last_name(text[: text.index("<arg_key>")], names)
        if name is None:
            yield InvalidCall(text, names.unknown_problem)
        else:
            yield FoundCall(name, {key: _plain_value(value) for key, value in pairs})


def _plain_value(text: str) -> Any:
    """A value that is written without quotes: JSON, or else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def react_call(text: str, names: ToolNames) -> list[Found]:
    """The call in `Action: NAME` and `Action Input: {...}`; empty if there is none."""
    head = _REACT.match(text.lstrip(" \t"))
    if head is None or (name := names.find(head[1])) is None:
        return []
    try:
        return [FoundCall(name, read_json(text.lstrip(" \t")[head.end() :].strip()))]
    except ValueError:
        return [InvalidCall(text, "The arguments are not valid JSON.")]


def python_calls(text: str, names: ToolNames) -> list[Found]:
    """The calls in `NAME(key="value")` or a list of such; empty if the text is anything else."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []
    nodes = tree.elts if isinstance(tree, ast.List) else [tree]
    found: list[Found] = []
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            return []
        name = names.find(ast.unparse(node.func))
        if name is None or len(node.args) > (0 if node.keywords else 1):
            return []
        try:
            arguments = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
            if node.args:
                arguments = ast.literal_eval(node.args[0])
            json.dumps(arguments)
        except (ValueError, TypeError, SyntaxError):
            return []
        if None in arguments or not isinstance(arguments, dict):
            return []
        found.append(FoundCall(name, arguments))
    return found
