"""Tools of the Responses API: their declarations, choices and calls, read and written.

The API has three features that other vendors lack. A *custom* tool has free text as input instead
of JSON: other vendors get a function with that text as its only argument. A *namespace* groups
tools, as Codex does with the tools of an MCP server, and a call names the namespace and the tool
separately: other vendors get one function for each tool, whose name combines both (`flat_name`).
The original tool is recorded in `Tool.extra` and `ToolCall.extra` (the members `custom`,
`namespace`, `name`, `group` and `search`). A *tool search* that the client executes becomes a
function for other vendors, too.

Tools are declared in three places: the member `tools`, items of type `additional_tools` (Codex puts
all its tools there for most models of OpenAI), and items of type `tool_search_output` with the
results of a tool search. Other vendors get all of them as one list.

https://platform.openai.com/docs/api-reference/responses/create (`tools`, `tool_choice`)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Tool, ToolCall, ToolChoice

# The argument of other vendors' calls that contains the free text of a custom tool.
CUSTOM_INPUT = "input"
TOOL_SEARCH = "tool_search"  # the name of the function that is a tool search
_CUSTOM_SCHEMA = {
    "type": "object",
    "properties": {CUSTOM_INPUT: {"type": "string"}},
    "required": [CUSTOM_INPUT],
    "additionalProperties": False,
}
_MAX_NAME = 64  # characters; the maximum that every vendor accepts
_INVALID_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")

Declared = Mapping[str, Mapping[str, Any]]


# ── reading ──────────────────────────────────────────────────────────────────


def flat_name(namespace: str, name: str, taken: Iterable[str] = ()) -> str:
    """The single name for a tool of a namespace; it ends with a hash if the plain one is too long
    or taken.
    """
    joined = f"{namespace.removesuffix('__')}__{name}"
    clean = _INVALID_IN_NAME.sub("_", joined)
    if clean == joined and len(joined) <= _MAX_NAME and joined not in taken:
        return joined
    digest = hashlib.sha256(f"{namespace}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{clean[: _MAX_NAME - 9]}_{digest}"


def decode_tools(
    places: Iterable[tuple[str, Mapping[str, Any]]],
) -> tuple[list[Tool], list[Mapping[str, Any]]]:
    """The tools that the client runs, and those that only OpenAI can run. Raises APIError.

    `places` are declarations with their paths, such as `tools[0]`. If a tool is declared twice, the
    later declaration counts.
    """
    declarations = list(places)
    found: dict[tuple[str, str], Tool] = {}  # by namespace and name
    hosted: list[Mapping[str, Any]] = []
    taken = {name for _, tool in declarations if isinstance(name := tool.get("name"), str)}
    for where, tool in declarations:
        match tool:
            case {"type": "function" | "custom"}:
                made = _tool(tool, where)
                found["", made.name] = made
            case {"type": "namespace"}:
                for each in _namespace(tool, where, taken):
                    known = found.get(namespace_and_name(each))
                    name = known.name if known is not None else each.name
                    found[namespace_and_name(each)] = msgspec.structs.replace(each, name=name)
                    taken.add(name)
            case {"type": "tool_search", "execution": "client"}:
                found["", TOOL_SEARCH] = _search(tool, where)
            case _:
                hosted.append(tool)
    return list(found.values()), hosted


def _search(tool: Mapping[str, Any], where: str) -> Tool:
    made = _tool({**tool, "name": TOOL_SEARCH}, where)
    return msgspec.structs.replace(made, extra={NAME: {"search": tool}})


def _tool(tool: Mapping[str, Any], where: str) -> Tool:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise _parsing.missing_field_error(f"{where}.name")
    description = _parsing.get_text(tool, "description")
    if tool.get("type") == "custom":
        extra = {NAME: {"custom": tool}}
        return Tool(name=name, description=description, schema=_CUSTOM_SCHEMA, extra=extra)
    schema = tool.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        message = f"Invalid type for '{where}.parameters': expected an object."
        raise invalid(message, f"{where}.parameters", "invalid_type")
    strict = tool.get("strict")
    return Tool(
        name=name,
        description=description,
        schema=schema,
        strict=strict if isinstance(strict, bool) else None,
    )


def _namespace(group: Mapping[str, Any], where: str, taken: set[str]) -> Iterable[Tool]:
    namespace = group.get("name")
    if not isinstance(namespace, str) or not namespace:
        raise _parsing.missing_field_error(f"{where}.name")
    children = group.get("tools")
    if not isinstance(children, list):
        raise _parsing.missing_field_error(f"{where}.tools")
    for at, child in enumerate(children):
        place = f"{where}.tools[{at}]"
        if not isinstance(child, dict) or child.get("type") not in ("function", "custom"):
            message = (
                f"Invalid value for '{place}': expected a tool of type 'function' or 'custom'."
            )
            raise invalid(message, place, "invalid_value")
        tool = _tool(child, place)
        own = {**tool.extra.get(NAME, {}), "namespace": namespace, "name": tool.name}
        yield Tool(
            name=flat_name(namespace, tool.name, taken),
            description=tool.description,
            schema=tool.schema,
            strict=tool.strict,
            extra={NAME: {**own, "group": group}},
        )


def decode_choice(choice: str | dict[str, Any] | None, tools: list[Tool]) -> ToolChoice | None:
    """Read `tool_choice`; None if only OpenAI supports it. Raises APIError."""
    match choice:
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case {"type": "function" | "custom", "name": str(name)}:
            names = _chosen(choice, tools)
            if not names:
                message = f"Tool choice '{name}' not found in 'tools' parameter."
                raise invalid(message, "tool_choice")
            return ToolChoice("required", names)
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            chosen = [name for tool in allowed for name in _chosen(tool, tools)]
            return ToolChoice(mode, tuple(dict.fromkeys(chosen)))
        case str(word):
            raise invalid(
                f"Invalid value: '{word}'. Supported values are: 'none', 'auto', and 'required'.",
                "tool_choice",
                "invalid_value",
            )
    return None


def _chosen(choice: Any, tools: list[Tool]) -> tuple[str, ...]:
    """The names of the functions that a choice selects: one, or all of a namespace."""
    match choice:
        case {"type": "namespace", "name": str(namespace)}:
            return tuple(t.name for t in tools if _openai_extra(t).get("namespace") == namespace)
        case {"name": str(name), "namespace": str(namespace)}:
            return tuple(t.name for t in tools if namespace_and_name(t) == (namespace, name))
        case {"name": str(name)}:
            exact = tuple(tool.name for tool in tools if tool.name == name)
            return exact or tuple(t.name for t in tools if _openai_extra(t).get("name") == name)[:1]
    return ()


def _openai_extra(tool: Tool) -> Mapping[str, Any]:
    own: Mapping[str, Any] = tool.extra.get(NAME, {})
    return own


def namespace_and_name(tool: Tool) -> tuple[str, str]:
    """The namespace of a tool, or an empty string, and its name there."""
    own = _openai_extra(tool)
    return own.get("namespace", ""), own.get("name", tool.name)


def decode_call(call_id: str, item: Mapping[str, Any], tools: Iterable[Tool] = ()) -> ToolCall:
    """The call in an item of type `function_call`, `custom_tool_call` or `tool_search_call`.

    `tools` are those of the request, whose names for the tools of namespaces are used.
    """
    if item.get("type") == "tool_search_call":
        arguments = _json.dumps(item.get("arguments") or {}).decode()
        return ToolCall(call_id, TOOL_SEARCH, arguments, {NAME: {"search": {}}})
    name, namespace = _parsing.get_text(item, "name"), _parsing.get_text(item, "namespace")
    own: dict[str, Any] = {}
    if namespace:
        own = {"namespace": namespace, "name": name}
        known = (tool.name for tool in tools if namespace_and_name(tool) == (namespace, name))
        name = next(known, "") or flat_name(namespace, name)
    arguments = arguments_text(item)
    if item.get("type") == "custom_tool_call":
        own["custom"] = True
        arguments = _json.dumps({CUSTOM_INPUT: _parsing.get_text(item, "input")}).decode()
    return ToolCall(call_id, name, arguments, {NAME: own} if own else {})


def ran_by_vendor(item: Mapping[str, Any], tools: Any) -> bool:
    """Whether a call of a custom tool is one that the vendor ran itself. `tools` are those that the
    response repeats.

    xAI reports the steps of its search of X like that: calls of tools that the client did not
    declare. https://docs.x.ai/developers/tools/x-search
    """
    if item.get("type") != "custom_tool_call":
        return False
    declarations = _parsing.objects(tools)
    return any(tool.get("type") == "x_search" for tool in declarations) and not any(
        tool.get("type") == "custom" and tool.get("name") == item.get("name")
        for tool in declarations
    )


def arguments_text(item: Mapping[str, Any]) -> str:
    """The arguments in the item of a function call, as JSON. Some servers send them parsed."""
    arguments = item.get("arguments") or ""
    return arguments if isinstance(arguments, str) else _json.dumps(arguments).decode()


def custom_text(arguments: str) -> str:
    """The free text in the arguments of a custom tool's call, whatever their form."""
    found = _parsing.parse_object(arguments)
    if found is not None and isinstance(found.get(CUSTOM_INPUT), str):
        return str(found[CUSTOM_INPUT])
    return arguments


# ── writing ──────────────────────────────────────────────────────────────────


def declared(tools: Iterable[Tool]) -> Declared:
    """The properties of tools that only this API has, by tool name."""
    return {tool.name: own for tool in tools if (own := _openai_extra(tool))}


def is_custom(call: ToolCall, tools: Declared) -> bool:
    """Return whether a call is of a tool whose input is free text."""
    return "custom" in tools.get(call.name, ()) or "custom" in call.extra.get(NAME, ())


def is_search(call: ToolCall, tools: Declared) -> bool:
    """Whether a call is a tool search."""
    return "search" in tools.get(call.name, ()) or "search" in call.extra.get(NAME, ())


def own_name(name: str, own: Mapping[str, Any]) -> dict[str, str]:
    """The members that name a tool: `name`, and `namespace` if it has one."""
    if "namespace" not in own:
        return {"name": name}
    return {"name": own["name"], "namespace": own["namespace"]}


def call_item(call: ToolCall, tools: Declared) -> dict[str, Any]:
    """The members of a call that name the tool."""
    if is_search(call, tools):
        arguments = _parsing.parse_object(call.arguments) or {}
        kind = {"type": "tool_search_call", "execution": "client", "call_id": call.id}
        return {**kind, "arguments": arguments}
    own = {**call.extra.get(NAME, {}), **tools.get(call.name, {})}
    named = {"call_id": call.id, **own_name(call.name, own)}
    if is_custom(call, tools):
        text = custom_text(call.arguments) if call.arguments else ""
        return {"type": "custom_tool_call", "input": text, **named}
    return {"type": "function_call", "arguments": call.arguments, **named}


def encode_tools(tools: Iterable[Tool], *, as_request: bool) -> list[dict[str, Any]]:
    """The declarations of tools: for a request, or as a response repeats them."""
    out: list[dict[str, Any]] = []
    groups: dict[str, dict[str, Any]] = {}
    for tool in tools:
        own = _openai_extra(tool)
        name = own.get("name", tool.name)
        verbatim = own.get("custom") or own.get("search")
        made = dict(verbatim) if verbatim else _function(tool, name, as_request)
        group = own.get("group")
        if group is None:
            out.append(made)
        elif group["name"] in groups:
            groups[group["name"]]["tools"].append(made)
        else:
            groups[group["name"]] = {**group, "tools": [made]}
            out.append(groups[group["name"]])
    return out


def _function(tool: Tool, name: str, as_request: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "function", "name": name}
    if tool.description or not as_request:
        out["description"] = tool.description or None
    out["parameters"] = tool.schema
    if as_request and not tool.schema:
        out["parameters"] = {"type": "object", "properties": {}}
    out["strict"] = bool(tool.strict)  # the default would be true
    return out


def encode_choice(choice: ToolChoice, tools: Declared) -> Any:
    """`tool_choice` for a request, or as a response repeats it."""
    named = [
        {
            "type": "custom" if "custom" in tools.get(name, ()) else "function",
            **own_name(name, tools.get(name, {})),
        }
        for name in choice.names
    ]
    if not named:
        return choice.mode
    if len(named) == 1 and choice.mode == "required":
        return named[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": named}
