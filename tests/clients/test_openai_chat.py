"""The official `openai` package, unmodified: chat, with each vendor behind the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from asgi_aiproxy.messages import StopReason, ToolCall, Usage
from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, VENDORS, World

pytestmark = [pytest.mark.anyio, VENDORS]

HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER = ToolCall("call_1", "weather", '{"city": "Paris", "unit": "celsius"}')
CLOCK = ToolCall("call_2", "clock", '{"zone": "CET"}')


def function(name: str, **properties: str) -> Any:
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": "A tool.", "parameters": schema, "strict": True},
    }


TOOLS = [function("weather", city="string", unit="string"), function("clock", zone="string")]


class Place(BaseModel):
    city: str
    people: int


async def test_a_whole_answer(client: openai.AsyncOpenAI, world: World, vendor: str) -> None:
    answer = await client.chat.completions.create(model=MODELS[vendor], messages=HI)
    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert choice.message.content == "Hello from the mock."
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 7)
    assert answer.usage.total_tokens == 19
    record = world.record()
    assert (record.principal, record.provider, record.outcome) == ("team", vendor, "done")
    assert record.usage == Usage(input=12, output=7)
    assert world.mock.requests[0].secrets == {f"sk-{vendor}"}


def test_a_whole_answer_of_the_client_that_is_not_async(
    sync_client: openai.OpenAI, world: World, vendor: str
) -> None:
    answer = sync_client.chat.completions.create(model=MODELS[vendor], messages=HI)
    assert answer.choices[0].message.content == "Hello from the mock."


async def test_a_stream_has_no_usage_unless_requested_and_the_record_has_it(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    stream = await client.chat.completions.create(model=MODELS[vendor], messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello from the mock."
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert len(chunks) > 4
    assert world.record().usage == Usage(input=12, output=7)


async def test_a_stream_has_usage_if_requested(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    stream = await client.chat.completions.create(
        model=MODELS[vendor],
        messages=HI,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    *others, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (12, 7)
    assert all(chunk.usage is None for chunk in others)
    assert world.record().usage == Usage(input=12, output=7)


def test_a_stream_of_the_client_that_is_not_async(
    sync_client: openai.OpenAI, world: World, vendor: str
) -> None:
    with sync_client.chat.completions.create(
        model=MODELS[vendor], messages=HI, stream=True
    ) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "Hello from the mock."


def test_closing_a_stream_early_ends_the_vendors_request(
    sync_client: openai.OpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Fault.silence_after(6))
    stream = sync_client.chat.completions.create(model=MODELS[vendor], messages=HI, stream=True)
    assert any(chunk.choices[0].delta.content for chunk in stream)
    stream.close()
    assert world.record().outcome == "cut"
    assert world.mock.requests[0]._over.wait(5)
    assert world.mock.requests[0].client_gone


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_cancelled_or_timed_out_call_ends_the_vendors_request(
    client: openai.AsyncOpenAI, world: World, vendor: str, stream: bool
) -> None:
    world.mock.always(Fault.silence())
    requested: Any = {"model": MODELS[vendor], "messages": HI, "stream": stream}
    call = asyncio.ensure_future(client.chat.completions.create(**requested))
    seen = await world.mock.wait_seen()
    call.cancel()
    await seen.wait_gone()
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.2).chat.completions.create(**requested)
    await (await world.mock.wait_seen(2)).wait_gone()
    assert world.record(2).outcome == "cut"


async def test_the_stream_helper_puts_the_answer_together(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    async with client.chat.completions.stream(model=MODELS[vendor], messages=HI) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert "content.delta" in kinds
    assert kinds.count("content.done") == 1
    assert final.choices[0].message.content == "Hello from the mock."
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("pieces", [1, 5, 1000])
async def test_two_tools_at_once_streamed(
    client: openai.AsyncOpenAI, world: World, vendor: str, pieces: int
) -> None:
    world.mock.script(Answer(tool_calls=(WEATHER, CLOCK), pieces=pieces))
    async with client.chat.completions.stream(
        model=MODELS[vendor], messages=HI, tools=TOOLS, parallel_tool_calls=True
    ) as stream:
        done = [e async for e in stream if e.type == "tool_calls.function.arguments.done"]
        final = await stream.get_final_completion()
    (choice,) = final.choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    calls = choice.message.tool_calls or []
    assert [call.function.name for call in calls] == ["weather", "clock"]
    assert [json.loads(call.function.arguments) for call in calls] == [
        json.loads(WEATHER.arguments),
        json.loads(CLOCK.arguments),
    ]
    assert len({call.id for call in calls}) == 2
    assert all(call.id for call in calls)
    assert [event.name for event in done] == ["weather", "clock"]
    assert {event.index for event in done} == {0, 1}


async def test_a_round_of_tools(client: openai.AsyncOpenAI, world: World, vendor: str) -> None:
    world.mock.script(Answer(tool_calls=(WEATHER, CLOCK)), Answer("22 degrees."))
    requested: Any = {"model": MODELS[vendor], "tools": TOOLS, "tool_choice": "required"}
    first = await client.chat.completions.create(messages=HI, **requested)
    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls or []
    results = [{"role": "tool", "tool_call_id": c.id, "content": "22"} for c in calls]
    messages = [*HI, choice.message.model_dump(exclude_none=True), *results]
    second = await client.chat.completions.create(messages=messages, **requested)
    assert second.choices[0].message.content == "22 degrees."
    sent = json.dumps(world.mock.requests[1].json)
    assert sent.count("weather") >= 2  # the tool and its call
    assert sent.count('"22"') == 2


async def test_a_call_without_arguments_has_an_empty_object(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Answer(tool_calls=(ToolCall("call_1", "now"),)))
    async with client.chat.completions.stream(
        model=MODELS[vendor], messages=HI, tools=[function("now")]
    ) as stream:
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {}


async def test_parse_gives_the_model_of_its_schema(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Answer('{"city": "Paris", "people": 2100000}'))
    answer = await client.chat.completions.parse(
        model=MODELS[vendor], messages=HI, response_format=Place
    )
    assert answer.choices[0].message.parsed == Place(city="Paris", people=2_100_000)
    assert "people" in json.dumps(world.mock.requests[0].json)  # the schema went along


async def test_parse_below_beta_and_streamed(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.always(Answer('{"city": "Paris", "people": 2100000}', pieces=9))
    answer = await client.beta.chat.completions.parse(
        model=MODELS[vendor], messages=HI, response_format=Place
    )
    assert answer.choices[0].message.parsed == Place(city="Paris", people=2_100_000)
    async with client.chat.completions.stream(
        model=MODELS[vendor], messages=HI, response_format=Place
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Place(city="Paris", people=2_100_000)


async def test_parse_gives_tools_their_arguments(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Answer(tool_calls=(ToolCall("c", "Place", '{"city":"Paris","people":1}'),)))
    answer = await client.chat.completions.parse(
        model=MODELS[vendor], messages=HI, tools=[openai.pydantic_function_tool(Place)]
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == Place(city="Paris", people=1)


async def test_a_json_object_can_be_requested(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Answer('{"a": 1}'))
    answer = await client.chat.completions.create(
        model=MODELS[vendor], messages=HI, response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content or "") == {"a": 1}


async def test_an_answer_that_reached_the_limit_has_that_finish_reason(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.always(Answer('{"city": "Pa', stop=StopReason.LENGTH))
    answer = await client.chat.completions.create(
        model=MODELS[vendor], messages=HI, max_completion_tokens=3
    )
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(openai.LengthFinishReasonError):
        await client.chat.completions.parse(
            model=MODELS[vendor], messages=HI, response_format=Place
        )


async def test_a_refusal_of_the_model_is_reported_as_one(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Answer(refusal="I cannot help with that."))
    answer = await client.chat.completions.create(model=MODELS[vendor], messages=HI)
    message = answer.choices[0].message
    assert "I cannot help with that." in (message.refusal or message.content or "")


async def test_cached_and_reasoning_tokens_are_reported(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    used = Usage(input=100, output=50, cache_read=40, reasoning=0 if vendor == "anthropic" else 20)
    world.mock.script(Answer("Hm.", usage=used))
    answer = await client.chat.completions.create(model=MODELS[vendor], messages=HI)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 40
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (100, 50)
    if used.reasoning:
        assert answer.usage.completion_tokens_details is not None
        assert answer.usage.completion_tokens_details.reasoning_tokens == 20
    assert world.record().usage == used


async def test_the_raw_response_has_headers_and_body(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    raw = await client.chat.completions.with_raw_response.create(model=MODELS[vendor], messages=HI)
    assert raw.http_response.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["aiproxy-provider"] == vendor
    assert f"sk-{vendor}" not in str(raw.headers)
    assert raw.parse().choices[0].message.content == "Hello from the mock."
    if vendor != "gemini":
        assert raw.request_id is None or raw.request_id.startswith("req_mock")


async def test_the_streaming_response_gives_lines(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    async with client.chat.completions.with_streaming_response.create(
        model=MODELS[vendor], messages=HI, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


async def test_an_image_and_a_system_prompt_go_along(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    pixel = "iVBORw0KGgo="
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}},
    ]
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "And kind."},
        {"role": "user", "content": parts},
    ]
    await client.chat.completions.create(model=MODELS[vendor], messages=messages)
    sent = json.dumps(world.mock.requests[0].json)
    for expected in (pixel, "Be brief.", "And kind.", "What is this?"):
        assert expected in sent


async def test_legacy_completions_work_with_every_vendor(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    answer = await client.completions.create(model=MODELS[vendor], prompt="Once upon", max_tokens=9)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "Hello from the mock."
    stream = await client.completions.create(
        model=MODELS[vendor], prompt="Once upon", max_tokens=9, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.text for chunk in chunks for c in chunk.choices) == "Hello from the mock."
    assert all(chunk.usage is None for chunk in chunks)
    assert world.record(2).usage == Usage(input=12, output=7)
