"""The model behind a coding agent, scripted: it reads a file, edits it, runs it, and is done.

`AgentModel` is a step of a `MockProvider`. It finds out from the request which tools the agent
offers, in the vendor's format, and calls those: each agent has tools and arguments of its own. How
far it is follows from the results in the request. All its reasoning is signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asgi_aiproxy.messages import ToolCall
from asgi_aiproxy.testing import Answer
from asgi_aiproxy.testing.received import ReceivedRequest

BEFORE, AFTER = "hello", "bonjour"
DONE = "All of it is done."


@dataclass(frozen=True)
class OfferedTool:
    """A tool by the name that the vendor's model sees, and by its own name."""

    called: str
    name: str
    namespace: str = ""
    custom: bool = False

    def call(self, number: int, arguments: dict[str, Any]) -> ToolCall:
        """The call number `number` of the turn."""
        own: dict[str, Any] = {"custom": True} if self.custom else {}
        if self.namespace:
            own |= {"namespace": self.namespace, "name": self.name}
        extra = {"openai_responses": own} if own else {}
        return ToolCall(f"call_{number}", self.called, json.dumps(arguments), extra)


@dataclass
class AgentModel:
    """Plays the model for one turn about `file`; `results` are those of the last request."""

    file: Path
    results: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)

    def __call__(self, seen: ReceivedRequest) -> Answer:
        tools = {tool.name: tool for tool in offered_tools(seen)}
        if not tools:
            return Answer("A title")  # some agents have the session named
        self.results = list(tool_results(seen))
        number = len(self.results)
        steps = self._steps(tools)
        if number >= len(steps):
            return Answer(DONE)
        name, arguments = steps[number]
        signature = f"c2lnbmVkLWJ5LXRoZS12ZW5kb3It{number}AAA"
        self.signatures.append(signature)
        call = tools[name].call(number, arguments)
        return Answer(
            "One moment.",
            reasoning=f"Thought {number}.",
            signature=signature,
            tool_calls=(call,),
            pieces=3,
        )

    def _steps(self, tools: dict[str, OfferedTool]) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of the three calls, in the agent's words."""
        path = str(self.file)
        run, show = f"python3 {path}", f"cat {path}"
        patch = (
            f"*** Begin Patch\n*** Update File: {path}\n@@\n"
            f'-print("{BEFORE}")\n+print("{AFTER}")\n*** End Patch\n'
        )
        if "Read" in tools:  # Claude Code
            edit = {"file_path": path, "old_string": BEFORE, "new_string": AFTER}
            command = {"command": run, "description": "Runs it"}
            return [("Read", {"file_path": path}), ("Edit", edit), ("Bash", command)]
        if "read" in tools:  # opencode
            edit = {"filePath": path, "oldString": BEFORE, "newString": AFTER}
            command = {"command": run, "description": "Runs it"}
            return [("read", {"filePath": path}), ("edit", edit), ("bash", command)]
        if "read_file" in tools:  # Gemini CLI
            edit = {"file_path": path, "old_string": BEFORE, "new_string": AFTER}
            command = {"command": run, "description": "Runs it"}
            replace = ("replace", {**edit, "instruction": "Change the greeting."})
            return [("read_file", {"file_path": path}), replace, ("run_shell_command", command)]
        if "exec" in tools:  # Codex with a model that it knows: its tools are functions of a script
            commands = [
                f"text((await tools.exec_command({{cmd: {json.dumps(show)}}})).output)",
                f"text(await tools.apply_patch({json.dumps(patch)}))",
                f"text((await tools.exec_command({{cmd: {json.dumps(run)}}})).output)",
            ]
            return [("exec", {"input": command}) for command in commands]
        if "apply_patch" in tools:  # Codex with an older model
            shell = [("exec_command", {"cmd": command}) for command in (show, run)]
            return [shell[0], ("apply_patch", {"input": patch}), shell[1]]
        change = f"sed -i s/{BEFORE}/{AFTER}/ {path}"  # Codex with another vendor's model
        return [("exec_command", {"cmd": command}) for command in (show, change, run)]


def offered_tools(seen: ReceivedRequest) -> Iterator[OfferedTool]:
    """The functions and custom tools that a request declares, in any vendor's format."""
    members = seen.members
    match seen.dialect:
        case "gemini":
            for group in members.get("tools", ()):
                for tool in group.get("functionDeclarations", ()):
                    yield _flat(tool["name"])
        case "anthropic":
            yield from (_flat(tool["name"]) for tool in members.get("tools", ()))
        case "openai":
            yield from (_flat(tool["function"]["name"]) for tool in members.get("tools", ()))
        case _:
            items = [item for item in members["input"] if item.get("type") == "additional_tools"]
            for declarations in (members.get("tools", ()), *(item["tools"] for item in items)):
                yield from _of_responses(declarations)


def _flat(name: str) -> OfferedTool:
    """A tool whose name the gateway made of a namespace and a name."""
    return OfferedTool(name, name.rpartition("__")[2])


def _of_responses(declarations: list[dict[str, Any]], namespace: str = "") -> Iterator[OfferedTool]:
    for tool in declarations:
        match tool["type"]:
            case "namespace":
                yield from _of_responses(tool["tools"], tool["name"])
            case "function" | "custom" as kind:
                yield OfferedTool(tool["name"], tool["name"], namespace, kind == "custom")


def tool_results(seen: ReceivedRequest) -> Iterator[str]:
    """The results of tools in a request, in any vendor's format."""
    members = seen.members
    match seen.dialect:
        case "gemini":
            parts = [part for turn in members["contents"] for part in turn["parts"]]
            found = [part["functionResponse"] for part in parts if "functionResponse" in part]
        case "anthropic":
            turns = [turn["content"] for turn in members["messages"]]
            blocks = [block for turn in turns if isinstance(turn, list) for block in turn]
            found = [block["content"] for block in blocks if block["type"] == "tool_result"]
        case "openai":
            found = [turn["content"] for turn in members["messages"] if turn["role"] == "tool"]
        case _:
            outputs = ("function_call_output", "custom_tool_call_output")
            items = [item for item in members["input"] if item.get("type") in outputs]
            found = [item["output"] for item in items]
    yield from map(json.dumps, found)
