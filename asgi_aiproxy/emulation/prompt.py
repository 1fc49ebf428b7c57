"""The text that describes tools to a model that has none, and the text of calls and results. Pure.

The format of replies is that of chatgpt-adapter (`0:` for an answer, `1:` for calls, `toolId` for
the name of a tool), because small models follow it well: one character decides, and the rest of
the line is one JSON value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.messages import (
    Media,
    Message,
    Output,
    Part,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

TOOL_RESPONSE = "TOOL_RESPONSE"

_TOOLS = '''You can use tools. You are offline yourself: never invent the output of a tool.
Each tool has an id (toolId), and its arguments are described by a JSON schema:
"""
{tools}
"""
Reply in one of two forms.
If no tool is needed, reply with `0: ` followed by your answer to the user.
If tools are needed, reply with nothing but one line for each call:
1: {{"toolId": "<the id of the tool>", "arguments": {{<the arguments>}}}}
The outputs of tools follow in a message that begins with {response}. Do not call a tool again \
with the same arguments if its output is there; answer the user with it.'''
_REQUIRED = "In this reply you must call {names}: it must begin with `1: `."
_SINGLE = "Call at most one tool in a reply."
_JSON_OUTPUT = "Reply with one JSON value and nothing else: no code fence, no explanation."
_JSON_SCHEMA = "It must be valid for this JSON schema:\n{schema}"
_PLAN = """Do not answer yet. Divide what the user wants into at most three tasks, each for one \
tool, in the order in which they must be done; leave out what was already done. Reply with nothing \
but one line:
1: [{"toolId": "<the id of the tool>", "task": "<what to do>"}]
If no tool is needed, reply with `0: no tasks`."""
_TASK = "Do this task now with the tool {name}: {task}"
_INVALID = "Your last reply could not be used: {problem} Reply again, in the form described."


def describe_tools(tools: Sequence[Tool], *, names: Sequence[str], single: bool) -> str:
    """The instructions for `tools`. `names`: the model must call one of these; empty: it may."""
    listed = [
        {
            "toolId": tool.name,
            "description": tool.description,
            "parameters": tool.schema if tool.schema is not None else {"type": "object"},
        }
        for tool in tools
    ]
    text = _TOOLS.format(tools=_json.dumps(listed).decode(), response=TOOL_RESPONSE)
    if names:
        text += "\n" + _REQUIRED.format(names=" or ".join(names))
    if single:
        text += "\n" + _SINGLE
    return text


def describe_output(output: Output) -> str:
    """The instructions for a response in JSON."""
    text = _JSON_OUTPUT
    if output.schema is not None:
        text += "\n" + _JSON_SCHEMA.format(schema=_json.dumps(output.schema).decode())
    return text


def with_instructions(request: Request, *texts: str) -> Request:
    """The request with texts added to the end of its first system messages."""
    messages = list(request.messages)
    end = 0
    while end < len(messages) and messages[end].role == "system":
        end += 1
    messages.insert(end, Message("system", tuple(Text(text) for text in texts)))
    return msgspec.structs.replace(request, messages=tuple(messages))


def with_plan_prompt(request: Request) -> Request:
    """The request with the wish for a list of tasks."""
    return _with_user_text(request, _PLAN)


def with_task(request: Request, name: str, task: str) -> Request:
    """The request with the wish to do one task."""
    return _with_user_text(request, _TASK.format(name=name, task=task))


def with_correction(request: Request, reply: str, problem: str) -> Request:
    """The request with an invalid reply, and what is wrong with it."""
    messages = (
        *request.messages,
        Message("assistant", (Text(reply or "0:"),)),
        Message("user", (Text(_INVALID.format(problem=problem)),)),
    )
    return msgspec.structs.replace(request, messages=messages)


def _with_user_text(request: Request, text: str) -> Request:
    message = Message("user", (Text(text),))
    return msgspec.structs.replace(request, messages=(*request.messages, message))


def without_tool_parts(request: Request) -> Request:
    """The request with calls and results of tools as text, and without tools."""
    names = {
        part.id: part.name
        for message in request.messages
        for part in message.parts
        if isinstance(part, ToolCall)
    }
    messages = tuple(
        msgspec.structs.replace(message, parts=tuple(_text_parts(message.parts, names)))
        if any(isinstance(part, ToolCall | ToolResult) for part in message.parts)
        else message
        for message in request.messages
    )
    return msgspec.structs.replace(
        request, messages=messages, tools=(), tool_choice=None, parallel_tools=None
    )


def _text_parts(parts: Sequence[Part], names: Mapping[str, str]) -> Iterator[Part]:
    for part in parts:
        match part:
            case ToolCall(name=name, arguments=arguments):
                yield Text(f"1: {write_call(name, arguments)}\n")
            case ToolResult(id=id):
                name = names.get(id) or part.name or id
                head = f"{TOOL_RESPONSE}: {name}" + (" (failed)" if part.error else "")
                text = "".join(p.text for p in part.parts if isinstance(p, Text))
                yield Text(f'{head}\n"""\n{text}\n"""\n')
                yield from (p for p in part.parts if isinstance(p, Media))
            case _:
                yield part


def write_call(name: str, arguments: str) -> str:
    """A call as the model is to write it."""
    members: dict[str, Any] = {"toolId": name}
    head = _json.dumps(members).decode()[:-1]
    return f'{head}, "arguments": {arguments or "{}"}}}'
