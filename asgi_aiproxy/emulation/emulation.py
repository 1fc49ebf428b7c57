"""`Emulation`: tools and JSON output for models that do not have them. Theory of operation.

Where a target has an emulation, a chat request that needs what the model lacks is changed before it
is sent: the tools and the form of the reply become part of the system prompt (`prompt`), calls and
results of earlier turns become text. The response passes through an `EmulationFilter`, which finds
the calls in its text (`call_parser`), checks their arguments against the tool's schema, and turns
them into calls of the neutral model, so that every client API shows them as its own. Text streams
as usual; only what may be a call is held.

A reply that cannot be used (a call that is cut off, invalid or of another tool, a required call
that is missing, JSON that does not fit the schema) is requested again, together with what is
wrong with it. If the second reply is invalid too, the request fails with the code
`emulation_failed`; if nothing was sent to the client yet, the next target is tried.

The further requests use the same key, are not streamed, and are part of the same exchange: their
usage is added to its usage.

`leaked_calls` is for models that have tools, but sometimes write a call as text: requests stay
unchanged, and only a complete and valid call of one of the request's tools is taken out of the
text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from asgi_aiproxy.emulation.filter import EmulationFilter, EmulationPlan
from asgi_aiproxy.emulation.plans import PlanCache
from asgi_aiproxy.emulation.prompt import (
    describe_output,
    describe_tools,
    with_instructions,
    with_plan_prompt,
    with_task,
    without_tool_parts,
)
from asgi_aiproxy.emulation.schema import load_validator
from asgi_aiproxy.errors import ConfigurationError, invalid
from asgi_aiproxy.messages import Message, Request, Text, Tool, ToolCall, ToolResult
from asgi_aiproxy.providers.emulator import EmulatedRequest

Feature = Literal["tools", "json_schema", "leaked_calls"]
_FEATURES = ("tools", "json_schema", "leaked_calls")


class Emulation:
    """What is emulated for the models of a target.

    Arguments:

    - `features`: `tools`; `json_schema` (JSON output, with or without a schema); `leaked_calls`
      (calls that a model with tools writes as text).
    - `default_tool`: the tool that is called, without arguments, when the model calls none. It is
      only used by requests that have this tool.
    - `tasks`: let the model divide the request into up to three tasks first, and do them one by
      one. A plan is kept for `plan_seconds` in the memory of the process; afterwards, or in another
      worker, a new one is made.

    Raises ConfigurationError for an unknown feature, or if the library that validates JSON is not
    installed.
    """

    def __init__(
        self,
        features: Iterable[Feature] | Feature = ("tools", "json_schema"),
        *,
        default_tool: str = "",
        tasks: bool = False,
        plan_seconds: float = 120.0,
    ) -> None:
        given = (features,) if isinstance(features, str) else tuple(features)
        for feature in given:
            if feature not in _FEATURES:
                raise ConfigurationError(
                    f"There is no emulated feature {feature!r}. There are: {', '.join(_FEATURES)}."
                )
        if {"tools", "leaked_calls"} <= {*given}:
            raise ConfigurationError(
                "leaked_calls is for models that have tools: leave out `tools` or `leaked_calls`."
            )
        load_validator()
        self.features: tuple[Feature, ...] = given
        self._default_tool = default_tool
        self._plans = PlanCache(plan_seconds) if tasks else None

    def __repr__(self) -> str:
        return f"Emulation({', '.join(self.features)})"

    def apply(self, request: Request, principal: str) -> EmulatedRequest | None:
        """The request as it is sent, and the filter of its response; None if nothing is emulated.

        `principal` is the id of the caller. Raises APIError if a chosen tool does not exist.
        """
        history = any(
            isinstance(part, ToolCall | ToolResult)
            for message in request.messages
            for part in message.parts
        )
        output = request.output if "json_schema" in self.features else None
        if "tools" in self.features and (request.tools or history):
            return self._with_tools(request, principal, emulate_output=output is not None)
        if output is not None:
            return self._without_tools(request)
        if "leaked_calls" in self.features and request.tools and not _forbids_tools(request):
            plan = EmulationPlan(request=request, tools=request.tools, leaked=True)
            return EmulatedRequest(None, (), lambda ask: EmulationFilter(plan, ask))
        return None

    def _without_tools(self, request: Request) -> EmulatedRequest:
        output = request.output
        assert output is not None  # noqa: S101
        sent = with_instructions(
            msgspec.structs.replace(request, output=None), describe_output(output)
        )
        plan = EmulationPlan(request=sent, output=output)
        return EmulatedRequest(sent, ("json_schema",), lambda ask: EmulationFilter(plan, ask))

    def _with_tools(
        self, request: Request, principal: str, *, emulate_output: bool
    ) -> EmulatedRequest:
        tools, required = _usable_tools(request)
        plain = without_tool_parts(request)
        output = request.output if emulate_output else None
        names = [*(["tools"] if tools else []), *(["json_schema"] if output is not None else [])]
        texts = []
        if output is not None:
            plain = msgspec.structs.replace(plain, output=None)
            texts.append(describe_output(output))
        answered = with_instructions(plain, *texts) if texts else plain
        if tools:
            single = request.parallel_tools is False
            texts.insert(
                0,
                describe_tools(
                    tools, names=[t.name for t in tools] if required else (), single=single
                ),
            )
        sent = with_instructions(plain, *texts) if texts else plain
        default = next((tool.name for tool in tools if tool.name == self._default_tool), "")
        done = _answered_calls(request)
        plans = self._plans if tools else None
        first, tasks, planning = sent, "", False
        if plans is not None:
            tasks = plans.key(request, principal)
            kept = plans.get(tasks)
            planning = kept is None
            if kept is None:
                first = with_plan_prompt(sent)
            else:
                names_done = {name for name, _ in done}
                pending = [task for task in kept if task.name not in names_done]
                first = sent = (
                    with_task(sent, *msgspec.structs.astuple(pending[0])) if pending else answered
                )
                tools = tools if pending else ()
        plan = EmulationPlan(
            request=sent,
            without_tools=answered,
            tools=tools,
            required=required,
            single=request.parallel_tools is False,
            output=output,
            default_tool=default,
            done=done,
            tasks=tasks,
            planning=planning,
        )
        return EmulatedRequest(
            first, tuple(names), lambda ask: EmulationFilter(plan, ask, plans=plans)
        )


def _forbids_tools(request: Request) -> bool:
    return request.tool_choice is not None and request.tool_choice.mode == "none"


def _usable_tools(request: Request) -> tuple[tuple[Tool, ...], bool]:
    """The tools that the model may call, and whether it must call one."""
    choice = request.tool_choice
    if choice is None:
        return request.tools, False
    if choice.mode == "none":
        return (), False
    tools = request.tools
    if choice.names:
        tools = tuple(tool for tool in tools if tool.name in choice.names)
        if not tools:
            raise invalid(f"There is no tool {choice.names[0]!r}.", "tool_choice")
    return tools, choice.mode == "required" and bool(tools)


def _answered_calls(request: Request) -> frozenset[tuple[str, str]]:
    """Name and arguments of the calls since the last text of the user: they need no repetition."""
    found: set[tuple[str, str]] = set()
    for message in reversed(request.messages):
        if _is_user_text(message):
            break
        for part in message.parts:
            if isinstance(part, ToolCall):
                found.add((part.name, canonical(part.arguments)))
    return frozenset(found)


def _is_user_text(message: Message) -> bool:
    return message.role == "user" and any(
        isinstance(part, Text) and part.text.strip() for part in message.parts
    )


def canonical(arguments: str) -> str:
    """Arguments in one spelling, for comparison."""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments or "{}"), order="sorted").decode()
    except (msgspec.DecodeError, ValueError):
        return arguments
