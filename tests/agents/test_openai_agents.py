"""The OpenAI Agents SDK, unmodified, with each vendor behind the gateway."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from asgi_aiproxy.messages import ToolCall
from asgi_aiproxy.testing import Answer
from tests.agents.conftest import TOKEN, AgentWorld, Found

SCRIPT = Path(__file__).with_name("openai_agents.py")
PARIS = ToolCall("call_1", "weather", '{"city": "Paris"}')
ROME = ToolCall("call_2", "weather", '{"city": "Rome"}')
PLACE = '{"city": "Paris", "people": 7}'


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_agents_run_with_tools_streams_and_structured_output(
    world: AgentWorld, program: Found, api: str
) -> None:
    packages = program("python/agents").parent
    world.mock.reset()
    said = Answer("Hm.", reasoning="Let me see.", signature="c2lnbmVk", tool_calls=(PARIS, ROME))
    world.mock.script(said, Answer("It is warm."), Answer("Still warm."), Answer(PLACE))
    env = world.environment() | {"PYTHONPATH": str(packages)}
    printed = world.run(sys.executable, SCRIPT, world.url, TOKEN, "team-model", api, env=env)
    assert json.loads(printed) == {
        "run": "It is warm.",
        "cities": ["Paris", "Rome"],
        "output_tokens": 14,
        "streamed": "Still warm.",
        "deltas": "Still warm.",
        "place": json.loads(PLACE),
    }
    assert world.mock.requests[1].body.decode().count("22 degrees in") == 2
    if world.vendor == "anthropic" and api == "responses":
        assert "c2lnbmVk" in world.mock.requests[1].body.decode()
    assert world.left_loopback == []
