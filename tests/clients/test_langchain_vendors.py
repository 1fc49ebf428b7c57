"""langchain-anthropic and langchain-google-genai, unmodified, each vendor behind the gateway."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from pydantic import BaseModel, SecretStr

from asgi_aiproxy.messages import ToolCall, Usage
from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, TOKEN, VENDORS, World

Make = Callable[[World, str], BaseChatModel]


def claude(world: World, vendor: str) -> BaseChatModel:
    return ChatAnthropic(
        model_name=MODELS[vendor],
        base_url=world.polyglot,
        api_key=SecretStr(TOKEN),
        max_retries=0,
        timeout=None,
        stop=None,
    )


def google(world: World, vendor: str) -> BaseChatModel:
    return ChatGoogleGenerativeAI(
        model=MODELS[vendor],
        base_url=world.polyglot,
        api_key=SecretStr(TOKEN),
        max_retries=1,
    )


pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.parametrize("make", [claude, google]),
    VENDORS,
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """LangChain keeps its HTTP clients for the life of the process, and so for one event loop."""
    yield
    gc.collect()  # clients left open are reported while the loop is there


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"22 degrees in {city}"


class Place(BaseModel):
    """A place."""

    city: str
    people: int


async def test_a_whole_answer(world: World, vendor: str, make: Make) -> None:
    answer = await make(world, vendor).ainvoke([HumanMessage("Hi")])
    assert isinstance(answer, AIMessage)
    assert answer.text == "Hello from the mock."
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 19
    assert world.record().usage == Usage(input=12, output=7)
    assert world.mock.requests[0].secrets == {f"sk-{vendor}"}


async def test_a_stream(world: World, vendor: str, make: Make) -> None:
    whole: AIMessageChunk | None = None
    count = 0
    async for chunk in make(world, vendor).astream("Hi"):
        assert isinstance(chunk, AIMessageChunk)
        count += bool(chunk.text)
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert (whole.text, count) == ("Hello from the mock.", 4)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 7


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_called_and_answered_and_signed_reasoning_returns(
    world: World, vendor: str, make: Make, streamed: bool
) -> None:
    calls = (
        ToolCall("call_1", "weather", '{"city": "Paris"}'),
        ToolCall("call_2", "weather", '{"city": "Rome"}'),
    )
    said = Answer("Hm.", reasoning="Let me see.", signature="c2lnbmVk", tool_calls=calls, pieces=5)
    world.mock.script(said, Answer("It is warm."))
    bound = make(world, vendor).bind_tools([weather])
    first: Any = None
    if streamed:
        async for chunk in bound.astream("Hi"):
            first = chunk if first is None else first + chunk
    else:
        first = await bound.ainvoke("Hi")
    assert [call["args"]["city"] for call in first.tool_calls] == ["Paris", "Rome"]
    results = [await weather.ainvoke(call) for call in first.tool_calls]
    assert all(isinstance(result, ToolMessage) for result in results)
    second = await bound.ainvoke([HumanMessage("Hi"), first, *results])
    assert second.text == "It is warm."
    sent = world.mock.requests[1].body.decode()
    assert sent.count("22 degrees") == 2
    if vendor != "openai" and make is claude:
        assert "c2lnbmVk" in sent


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output(world: World, vendor: str, make: Make, method: Any) -> None:
    said = '{"city": "Paris", "people": 7}'
    if method == "function_calling":
        world.mock.script(Answer(tool_calls=(ToolCall("call_1", "Place", said),)))
    else:
        world.mock.script(Answer(said))
    requested = make(world, vendor).with_structured_output(Place, method=method)
    assert await requested.ainvoke("Hi") == Place(city="Paris", people=7)


async def test_an_error_is_an_exception(world: World, vendor: str, make: Make) -> None:
    world.mock.script(Fault.status(400, "The vendor says no."))
    with pytest.raises(Exception, match="The vendor says no"):
        await make(world, vendor).ainvoke("Hi")
