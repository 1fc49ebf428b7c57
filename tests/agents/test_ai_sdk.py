"""The AI SDK for JavaScript (`ai`, `@ai-sdk/...`), unmodified, each vendor behind the gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asgi_aiproxy.messages import ToolCall
from asgi_aiproxy.testing import Answer, Fault
from tests.agents.conftest import FOLDER, NODE, TOKEN, AgentWorld, Found

SCRIPT = Path(__file__).with_name("ai_sdk.mjs")
PARIS = ToolCall("call_1", "weather", '{"city": "Paris"}')
ROME = ToolCall("call_2", "weather", '{"city": "Rome"}')
PLACE = '{"city": "Paris", "people": 7}'


APIS = ["openai", "openai-stored", "openai-chat", "anthropic", "google"]


@pytest.mark.parametrize("api", APIS)
def test_the_ai_sdk_gets_answers_streams_tools_objects_and_errors(
    world: AgentWorld, program: Found, api: str
) -> None:
    program("node_modules/ai/package.json")
    world.mock.reset()
    said = Answer("Hm.", reasoning="Let me see.", signature="c2lnbmVk", tool_calls=(PARIS, ROME))
    world.mock.script(Answer(), Answer(), said, Answer("It is warm."), Answer(PLACE))
    world.mock.script(Fault.status(400, "The vendor says no."))
    arguments = (world.url, TOKEN, "team-model", api, FOLDER)
    printed = world.run(program(NODE), SCRIPT, *arguments, env=world.environment())
    found = json.loads(printed)
    assert found["whole"] == {"text": "Hello from the mock.", "usage": 7, "reason": "stop"}
    assert found["stream"] == {"text": "Hello from the mock.", "pieces": 4, "reason": "stop"}
    assert found["tools"] == {"text": "It is warm.", "asked": ["Paris", "Rome"], "steps": 2}
    assert found["object"] == json.loads(PLACE)
    assert found["error"]["status"] == 400
    assert "The vendor says no." in found["error"]["message"]
    assert "Be brief." in world.mock.requests[0].body.decode()
    again = world.mock.requests[3].body.decode()
    assert again.count("22 degrees in") == 2
    assert ("item_reference" in again) == ((api, world.vendor) == ("openai-stored", "openai"))
    if world.vendor == "anthropic" and api.startswith("openai") and api != "openai-chat":
        assert "c2lnbmVk" in again
    assert world.left_loopback == []
