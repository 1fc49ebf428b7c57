"""The official `openai` package, unmodified: the Responses API, with each vendor behind it."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from pydantic import BaseModel

from asgi_aiproxy.messages import ToolCall, Usage
from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, VENDORS, World

pytestmark = [pytest.mark.anyio, VENDORS]

WEATHER = ToolCall("call_1", "weather", '{"city": "Paris"}')
CLOCK = ToolCall("call_2", "clock", '{"zone": "CET"}')


def function(name: str, member: str) -> Any:
    schema = {
        "type": "object",
        "properties": {member: {"type": "string"}},
        "required": [member],
        "additionalProperties": False,
    }
    return {"type": "function", "name": name, "parameters": schema, "strict": True}


TOOLS = [function("weather", "city"), function("clock", "zone")]


class Place(BaseModel):
    city: str
    people: int


async def test_a_whole_answer(client: openai.AsyncOpenAI, world: World, vendor: str) -> None:
    answer = await client.responses.create(model=MODELS[vendor], input="Hi")
    assert answer.output_text == "Hello from the mock."
    assert answer.status == "completed"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 7)
    record = world.record()
    assert (record.principal, record.provider, record.outcome) == ("team", vendor, "done")
    assert record.usage == Usage(input=12, output=7)


async def test_a_stream(client: openai.AsyncOpenAI, world: World, vendor: str) -> None:
    said = ""
    async with client.responses.stream(model=MODELS[vendor], input="Hi") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                said += event.delta
        answer = await stream.get_final_response()
    assert said == answer.output_text == "Hello from the mock."
    assert world.record().usage == Usage(input=12, output=7)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_parallel_calls_and_their_results(
    client: openai.AsyncOpenAI, world: World, vendor: str, stream: bool
) -> None:
    world.mock.script(Answer(tool_calls=(WEATHER, CLOCK)), Answer("It is noon."))
    requested: Any = {"model": MODELS[vendor], "tools": TOOLS}
    items: list[Any] = [{"role": "user", "content": "Hi"}]
    if stream:
        async with client.responses.stream(**requested, input=items) as events:
            async for _ in events:
                pass
            answer: Any = await events.get_final_response()
    else:
        answer = await client.responses.create(**requested, input=items)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in calls] == [
        ("weather", WEATHER.arguments),
        ("clock", CLOCK.arguments),
    ] or [call.name for call in calls] == ["weather", "clock"]
    items += [item.model_dump(exclude_none=True) for item in answer.output]
    items += [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"{call.name} is fine"}
        for call in calls
    ]
    again = await client.responses.create(**requested, input=items)
    assert again.output_text == "It is noon."
    body = world.mock.requests[-1].body
    assert body.index(b"weather is fine") < body.index(b"clock is fine")


async def test_an_answer_of_a_given_shape_is_parsed(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Answer('{"city": "Oslo", "people": 700000}'))
    answer = await client.responses.parse(model=MODELS[vendor], input="Hi", text_format=Place)
    assert answer.output_parsed == Place(city="Oslo", people=700000)


async def test_a_wrong_request_is_an_error_of_the_client(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    requested: Any = {"max_output_tokens": 0}
    if vendor == "openai":  # where requests pass as they are
        error = {"message": "Too small.", "type": "invalid_request_error"}
        body = {"error": {**error, "param": "max_output_tokens", "code": None}}
        world.mock.always(Fault.status(400, body=body))
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model=MODELS[vendor], input="Hi", **requested)


async def test_a_model_that_does_not_exist_is_an_error_of_the_client(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=f"no-{vendor}", input="Hi")


async def test_a_stream_that_breaks_ends_as_failed(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    broken = Fault.error_after({"openai": 6, "anthropic": 4, "gemini": 2}[vendor])
    world.mock.script(broken.of(Answer(pace=0.02)))
    stream = await client.responses.create(model=MODELS[vendor], input="Hi", stream=True)
    kinds = [event.type async for event in stream]
    assert kinds[-2:] == ["error", "response.failed"]
    assert "response.output_text.delta" in kinds
    assert world.record().outcome == "failed"


def test_closing_a_stream_early_ends_the_vendors_request(
    sync_client: openai.OpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Fault.silence_after(8))
    stream = sync_client.responses.create(model=MODELS[vendor], input="Hi", stream=True)
    assert any(event.type == "response.output_text.delta" for event in stream)
    stream.close()
    assert world.record().outcome == "cut"
