"""Pydantic AI, unmodified: its agents over each client API, with each vendor behind the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

from asgi_aiproxy.messages import ToolCall
from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, TOKEN, VENDORS, World

FACES = ["chat", "responses", "messages", "gemini"]
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.parametrize("face", FACES),
    VENDORS,
]


@pytest.fixture
async def model(world: World, face: str, vendor: str) -> AsyncIterator[Model]:
    name = MODELS[vendor]
    openai_provider = OpenAIProvider(base_url=f"{world.polyglot}/v1", api_key=TOKEN)
    if face == "chat":
        yield OpenAIChatModel(name, provider=openai_provider)
    elif face == "responses":
        yield OpenAIResponsesModel(name, provider=openai_provider)
    elif face == "messages":
        provider = AnthropicProvider(base_url=world.polyglot, api_key=TOKEN)
        yield AnthropicModel(name, provider=provider)
    else:
        yield GoogleModel(name, provider=GoogleProvider(base_url=world.polyglot, api_key=TOKEN))


class Place(BaseModel):
    city: str
    people: int


async def test_a_run_with_tools(world: World, model: Model) -> None:
    calls = (
        ToolCall("call_1", "weather", '{"city": "Paris"}'),
        ToolCall("call_2", "weather", '{"city": "Rome"}'),
    )
    world.mock.script(Answer("Hm.", tool_calls=calls), Answer("It is warm."))
    agent = Agent(model, instructions="Be brief.", retries=0)

    @agent.tool_plain
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"22 degrees in {city}"

    result = await agent.run("Hi")
    assert result.output == "It is warm."
    assert result.usage.output_tokens == 14
    sent = world.mock.requests[1].body.decode()
    assert sent.count("22 degrees in") == 2
    assert "Be brief." in sent


async def test_a_streamed_run(world: World, model: Model) -> None:
    agent = Agent(model, retries=0)
    async with agent.run_stream("Hi") as stream:
        said = [text async for text in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(said) == "Hello from the mock."


async def test_structured_output(world: World, model: Model) -> None:
    """Pydantic AI has the model call a tool for it."""
    place = '{"city": "Paris", "people": 7}'
    world.mock.script(Answer(tool_calls=(ToolCall("call_1", "final_result", place),)))
    result = await Agent(model, output_type=Place, retries=0).run("Hi")
    assert result.output == Place(city="Paris", people=7)


async def test_an_error_has_its_status(world: World, model: Model) -> None:
    world.mock.script(Fault.status(400, "The vendor says no."))
    with pytest.raises(ModelHTTPError, match="The vendor says no") as caught:
        await Agent(model, retries=0).run("Hi")
    assert caught.value.status_code == 400
