"""langchain-openai, unmodified, with each vendor behind the gateway."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from asgi_aiproxy.messages import ToolCall
from asgi_aiproxy.testing import Answer, Fault
from asgi_aiproxy.testing.operations import DIMENSIONS, embed
from tests.clients.conftest import MODELS, TOKEN, VENDORS, World

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """LangChain keeps its HTTP clients for the life of the process, and so for one event loop."""
    yield
    gc.collect()  # what it left open is complained of while the loop is there


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"22 degrees in {city}"


class Place(BaseModel):
    """A place."""

    city: str
    people: int


def model(world: World, vendor: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODELS[vendor],
        base_url=world.url,
        api_key=SecretStr(TOKEN),
        max_retries=0,
        **more,
    )


@VENDORS
async def test_invoke(world: World, vendor: str) -> None:
    answer = await model(world, vendor).ainvoke([HumanMessage("Hi")])
    assert answer.content == "Hello from the mock."
    assert isinstance(answer, AIMessage)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 19
    assert answer.response_metadata["finish_reason"] == "stop"
    assert model(world, vendor).invoke("Hi").content == "Hello from the mock."


@VENDORS
@pytest.mark.parametrize("usage", [False, True])
async def test_streams(world: World, vendor: str, usage: bool) -> None:
    whole: AIMessageChunk | None = None
    count = 0
    async for chunk in model(world, vendor, stream_usage=usage).astream("Hi"):
        assert isinstance(chunk, AIMessageChunk)
        count += bool(chunk.content)
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert whole.content == "Hello from the mock."
    assert count == 4
    assert (whole.usage_metadata is not None) == usage
    assert world.record().usage is not None


@VENDORS
async def test_tools_are_bound_called_and_answered(world: World, vendor: str) -> None:
    call = ToolCall("call_1", "weather", '{"city": "Paris"}')
    world.mock.script(Answer(tool_calls=(call,)), Answer("It is warm."))
    bound = model(world, vendor).bind_tools([weather])
    first = await bound.ainvoke([HumanMessage("Hi")])
    (requested,) = first.tool_calls
    assert (requested["name"], requested["args"]) == ("weather", {"city": "Paris"})
    result = await weather.ainvoke(requested)
    assert isinstance(result, ToolMessage)
    second = await bound.ainvoke([HumanMessage("Hi"), first, result])
    assert second.content == "It is warm."


@VENDORS
async def test_tools_are_streamed(world: World, vendor: str) -> None:
    calls = (
        ToolCall("call_1", "weather", '{"city": "Paris"}'),
        ToolCall("call_2", "weather", '{"city": "Rome"}'),
    )
    world.mock.script(Answer(tool_calls=calls, pieces=7))
    whole: AIMessageChunk | None = None
    async for chunk in model(world, vendor).bind_tools([weather]).astream("Hi"):
        assert isinstance(chunk, AIMessageChunk)
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert [call["args"] for call in whole.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]


@VENDORS
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_structured_output(world: World, vendor: str, method: Any) -> None:
    said = '{"city": "Paris", "people": 7}'
    if method == "function_calling":
        world.mock.script(Answer(tool_calls=(ToolCall("call_1", "Place", said),)))
    else:
        world.mock.script(Answer(said))
    found = await model(world, vendor).with_structured_output(Place, method=method).ainvoke("Hi")
    assert found == Place(city="Paris", people=7)


async def test_embeddings(world: World) -> None:
    embeddings = OpenAIEmbeddings(
        model=MODELS["openai"],
        base_url=world.url,
        api_key=SecretStr(TOKEN),
        check_embedding_ctx_length=False,
    )
    (vector,) = await embeddings.aembed_documents(["one"])
    assert vector == pytest.approx(embed("one", DIMENSIONS), rel=1e-6)


@VENDORS
async def test_an_error_is_openais_exception(world: World, vendor: str) -> None:
    world.mock.script(Fault.rate_limited(None))
    with pytest.raises(openai.RateLimitError):
        await model(world, vendor).ainvoke("Hi")
