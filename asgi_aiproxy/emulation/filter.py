"""`EmulationFilter`: turns the text of a response into calls of tools, or into JSON.

See `asgi_aiproxy.emulation.emulation` for the theory of operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.emulation.call_parser import AnswerMark, CallParser
from asgi_aiproxy.emulation.call_syntax import Found, FoundCall, FoundTask, InvalidCall, read_json
from asgi_aiproxy.emulation.event_writer import EventWriter
from asgi_aiproxy.emulation.plans import MAX_TASKS, PlanCache
from asgi_aiproxy.emulation.prompt import with_correction, with_task
from asgi_aiproxy.emulation.schema import SchemaChecker
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    MessageEnd,
    Output,
    Request,
    Response,
    StopReason,
    Text,
    Tool,
    add_usage,
)
from asgi_aiproxy.providers.emulator import Ask, EmulationFailedError

_MAX_REPLY = 256 * 1024  # characters of an invalid reply that the model is shown


class EmulationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a filter has to do.

    - `request`: the request as it is sent; `without_tools`: the same without the tools.
    - `tools`: the tools that the model may call; `required`: it must call one; `single`: only one.
    - `output`: the JSON that is wanted.
    - `default_tool`: the tool that is called if the model calls none; empty: none.
    - `done`: name and arguments of the calls whose results the model has.
    - `tasks`: the key of the plan, if the model plans first; `planning`: the request asks for it.
    - `leaked`: the model has tools; only clear calls are taken out of its text.
    """

    request: Request
    without_tools: Request | None = None
    tools: tuple[Tool, ...] = ()
    required: bool = False
    single: bool = False
    output: Output | None = None
    default_tool: str = ""
    done: frozenset[tuple[str, str]] = frozenset()
    tasks: str = ""
    planning: bool = False
    leaked: bool = False


class EmulationFilter:
    """Filters the events of one response.

    `ask` sends a further request to the model. `plans` keep the tasks of a conversation. `remarks`:
    `corrected`, `asked_without_tools`, `leaked_calls` (some were found).
    """

    def __init__(self, plan: EmulationPlan, ask: Ask, *, plans: PlanCache | None = None) -> None:
        self.remarks: tuple[str, ...] = ()
        self._plan = plan
        self._ask = ask
        self._plans = plans
        self._tools = {tool.name: tool for tool in plan.tools}
        self._names = tuple(self._tools)
        self._writer = EventWriter(trim=not plan.leaked)
        self._parsers: dict[int, CallParser | None] = {}  # of the open text blocks
        # Text that is only sent once it is clear that the reply is valid.
        self._holds = plan.output is not None or plan.planning or plan.required
        self._held: list[str] = []
        self._reply: list[str] = []
        self._problem = ""
        self._tasks: list[FoundTask] = []
        self._emitted = set(plan.done)
        self._repeated = self._answered = self._wrote_text = False
        self._further: list[Response] = []

    async def feed(self, event: Event) -> Sequence[Event]:
        """Return the events to release. Raises APIError if the replies are invalid."""
        match event:
            case BlockStart(index=index, block=Text() as text):
                self._parsers[index] = self._parser()
                self._writer.open_text(text.extra)
                self._take_text(index, text.text)
            case BlockDelta(index=index, text=delta) if index in self._parsers:
                self._take_text(index, delta)
            case BlockEnd(index=index) if index in self._parsers:
                parser = self._parsers.pop(index)
                if parser is not None:
                    self._take(parser.close())
                self._writer.close_text(event)
            case MessageEnd():
                await self._finish(event)
            case _:
                self._writer.pass_through(event)
        return self._writer.take()

    async def close(self) -> Sequence[Event]:
        """Nothing is held after the end of the message."""
        return ()

    # the text of a reply

    def _parser(self) -> CallParser | None:
        if not self._names:
            return None
        return CallParser(
            self._names,
            instructed=not self._plan.leaked,
            accepts=lambda call: not self._problem_of_arguments(call),
        )

    def _take_text(self, index: int, text: str) -> None:
        if text:
            parser = self._parsers[index]
            self._reply.append(text)
            self._take(parser.feed(text) if parser is not None else [text])

    def _take(self, items: Sequence[str | Found | AnswerMark]) -> None:
        for item in items:
            match item:
                case str():
                    self._wrote_text = self._wrote_text or bool(item.strip())
                    if self._holds:
                        self._held.append(item)
                    else:
                        self._writer.text(item)
                case FoundCall():
                    self._take_call(item)
                case FoundTask() if self._plan.planning:
                    self._tasks.append(item)
                case FoundTask(name=name, task=task):
                    arguments = arguments_of_task(self._tools[name], task)
                    if arguments is not None:
                        self._take_call(FoundCall(name, arguments))
                    else:
                        self._problem = self._problem or "Give the arguments instead of a task."
                case InvalidCall():
                    self._problem = self._problem or item.problem
                case AnswerMark():
                    self._answered = True

    def _take_call(self, call: FoundCall) -> None:
        problem = self._problem_of_arguments(call)
        if problem:
            self._problem = self._problem or f"The arguments of {call.name} are invalid: {problem}"
            return
        written = msgspec.json.encode(call.arguments, order="sorted").decode()
        if (call.name, written) in self._emitted:
            self._repeated = True
            return
        if self._plan.single and self._writer.calls:
            return
        self._emitted.add((call.name, written))
        if self._plan.output is None and not self._plan.planning:
            self._release_held()
        if self._plan.leaked and not self.remarks:
            self.remarks = ("leaked_calls",)
        self._writer.call(call.name, _json.dumps(call.arguments).decode())

    def _problem_of_arguments(self, call: FoundCall) -> str:
        schema = self._tools[call.name].schema
        return SchemaChecker(schema, object_only=True).problem(call.arguments)

    def _release_held(self) -> None:
        self._holds = False
        self._writer.text("".join(self._held))
        self._held = []

    # the end of the reply

    async def _finish(self, end: MessageEnd) -> None:
        """Correct the reply if it cannot be used, and end the message."""
        writer, output = self._writer, self._plan.output
        cut_off = end.stop in (StopReason.LENGTH, StopReason.FILTER)
        if not self._plan.leaked and not cut_off:
            await self._complete()
        if output is not None and not writer.calls and not cut_off:
            self._held = [_read_output(output, "".join(self._held))[0]]
        self._release_held()
        writer.end()
        usage = end.usage
        for response in self._further:
            usage = add_usage(usage, response.usage)
        stop = StopReason.TOOLS if writer.calls and not cut_off else end.stop
        writer.pass_through(msgspec.structs.replace(end, stop=stop, usage=usage))

    async def _complete(self) -> None:
        """Send the further requests that the reply makes necessary."""
        plan, default = self._plan, self._plan.default_tool
        if plan.planning:
            await self._do_tasks()
        problem = self._problem_of_reply()
        if problem:
            await self._correct(problem)
        elif not self._writer.calls and self._needs_plain_answer():
            await self._answer_without_tools()
        if default and not self._writer.calls and (default, "{}") not in plan.done:
            self._release_held()
            self._take_call(FoundCall(default, {}))

    def _problem_of_reply(self) -> str:
        """What is wrong with the reply, as a sentence; empty if it can be used."""
        plan = self._plan
        if self._problem:
            return self._problem
        if self._writer.calls:
            return ""
        if plan.required and not self._repeated and not plan.default_tool:
            return f"It does not call a tool. Call {' or '.join(self._names)}."
        if plan.output is not None and not self._needs_plain_answer():
            return _read_output(plan.output, "".join(self._held))[1]
        return ""

    def _needs_plain_answer(self) -> bool:
        """Whether the model only said that no tool is needed, or repeated a call."""
        if self._plan.without_tools is None or self._plan.default_tool:
            return False
        return self._repeated or (self._answered and not self._wrote_text)

    async def _correct(self, problem: str) -> None:
        """Request the reply again; raise EmulationFailedError if it is invalid again."""
        self.remarks += ("corrected",)
        reply = "".join(self._reply)[:_MAX_REPLY]
        self._held, self._problem, self._repeated = [], "", False
        had_text, calls = self._wrote_text and not self._holds, self._writer.calls
        self._holds = True
        await self._read(with_correction(self._plan.request, reply, problem))
        again = self._problem_of_reply()
        called = self._writer.calls > calls
        if again and not called and not self._plan.default_tool:
            raise EmulationFailedError(again)
        if called or had_text:
            self._held = []  # what the model says beside a corrected call

    async def _answer_without_tools(self) -> None:
        """Request the answer of the model as if there were no tools."""
        assert self._plan.without_tools is not None  # noqa: S101
        self.remarks += ("asked_without_tools",)
        self._names = ()
        await self._read(self._plan.without_tools)
        if self._plan.output is not None:
            problem = _read_output(self._plan.output, "".join(self._held))[1]
            if problem:
                raise EmulationFailedError(problem)

    async def _read(self, request: Request) -> None:
        """Send a further request, and take the text of the response like that of the first."""
        response = await self._ask(request)
        self._further.append(response)
        parser = self._parser()
        for block in response.blocks:
            if isinstance(block, Text):
                self._take(parser.feed(block.text) if parser is not None else [block.text])
        if parser is not None:
            self._take(parser.close())

    async def _do_tasks(self) -> None:
        """Keep the plan that the model made, and do its first task."""
        plan, plans = self._plan, self._plans
        assert plans is not None  # noqa: S101
        tasks = tuple(self._tasks[:MAX_TASKS])
        plans.put(plan.tasks, tasks)
        self._held, self._problem, self._holds = [], "", plan.required
        self._wrote_text, self._answered = False, not tasks
        self._plan = msgspec.structs.replace(plan, planning=False)
        if self._writer.calls or not tasks:
            return
        task = tasks[0]
        arguments = arguments_of_task(self._tools[task.name], task.task)
        if arguments is not None:
            self._take_call(FoundCall(task.name, arguments))
            return
        request = with_task(plan.request, task.name, task.task)
        self._plan = msgspec.structs.replace(self._plan, request=request)
        await self._read(request)
        last = self._further[-1]
        self._reply = [block.text for block in last.blocks if isinstance(block, Text)]


def arguments_of_task(tool: Tool, task: str) -> dict[str, str] | None:
    """The arguments of a tool whose only parameters are described by `$`: they receive the task.

    None if the model must choose the arguments.
    """
    properties = (tool.schema or {}).get("properties") or {}
    wishes = [
        p.get("description") == "$" if isinstance(p, dict) else False for p in properties.values()
    ]
    return dict.fromkeys(properties, task) if all(wishes) else None


def _read_output(output: Output, text: str) -> tuple[str, str]:
    """The JSON text in a reply, and what is wrong with it (empty if it is valid)."""
    checker = SchemaChecker(output.schema, object_only=output.schema is None)
    problem = "It contains no JSON."
    for candidate in _json_candidates(text):
        try:
            value = read_json(candidate)
        except ValueError:
            continue
        problem = checker.problem(value)
        if not problem:
            return _json.dumps(value).decode(), ""
    return text, problem


def _json_candidates(text: str) -> Iterator[str]:
    """The stretches of a reply that may be the JSON value: all of it, code fences, from the first
    bracket to the last."""
    plain = text.strip()
    yield plain
    parts = plain.split("```")
    for part in parts[1::2]:
        head, _, rest = part.partition("\n")
        yield rest if head.strip().isalnum() or not head.strip() else part
    for opening, closing in ("{}", "[]"):
        start, end = plain.find(opening), plain.rfind(closing)
        if 0 <= start < end:
            yield plain[start : end + 1]
