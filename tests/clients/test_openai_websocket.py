"""The official `openai` package over its WebSocket, with each vendor behind it."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import Response
from websockets.exceptions import InvalidStatus

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, VENDORS, World
from tests.clients.test_openai_responses import CLOCK, TOOLS, WEATHER

pytestmark = [pytest.mark.anyio, VENDORS]

ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


async def turn(connection: Any, **create: Any) -> list[Any]:
    """The events of one response."""
    await connection.response.create(**create)
    events = []
    async for event in connection:
        events.append(event)
        if event.type in ENDS:
            return events
    raise AssertionError("the connection was closed")


def final(events: list[Any]) -> Response:
    assert events[-1].type == "response.completed", events[-1]
    # Strict: the client itself does not validate.
    return Response.model_validate(events[-1].response.model_dump(mode="json", warnings=False))


def sent(world: World, number: int = -1) -> str:
    """What a vendor was sent."""
    return world.mock.requests[number].body.decode()


async def test_events_are_those_of_a_stream(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    streamed = await client.responses.create(model=MODELS[vendor], input="Hi", stream=True)
    kinds = [event.type async for event in streamed]
    async with client.responses.connect() as connection:
        events = await turn(connection, model=MODELS[vendor], input="Hi")
    assert [event.type for event in events] == kinds
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final(events).output_text == "Hello from the mock."
    record = world.record(2)
    assert (record.principal, record.provider, record.outcome) == ("team", vendor, "done")
    assert (record.operation, record.usage) == ("responses", Usage(input=12, output=7))


async def test_a_tool_loop_chained_by_ids_without_storing_anything(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Answer(tool_calls=(WEATHER, CLOCK)), Answer("It is noon."), Answer("Bye."))
    requested: Any = {"model": MODELS[vendor], "tools": TOOLS, "store": False}
    async with client.responses.connect() as connection:
        first = final(await turn(connection, **requested, input="What time is it?"))
        calls = [item for item in first.output if item.type == "function_call"]
        results: Any = [
            {"type": "function_call_output", "call_id": call.call_id, "output": f"{call.name} ok"}
            for call in calls
        ]
        second = final(
            await turn(connection, **requested, input=results, previous_response_id=first.id)
        )
        assert second.output_text == "It is noon."
        third = final(
            await turn(connection, **requested, input="Thanks", previous_response_id=second.id)
        )
    assert third.previous_response_id == second.id
    body = sent(world)
    order = ["What time is it?", "Paris", "weather ok", "clock ok", "It is noon.", "Thanks"]
    assert [body.index(text) for text in order] == sorted(body.index(text) for text in order)
    assert "previous_response_id" not in body
    assert world.record(3).outcome == "done"


async def test_a_warm_up_calls_no_vendor_and_can_be_continued(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    requested: Any = {"model": MODELS[vendor], "store": False, "instructions": "Be brief."}
    async with client.responses.connect() as connection:
        events = await turn(connection, **requested, input="the warm part", generate=False)
        assert [event.type for event in events] == ["response.created", "response.completed"]
        warm = final(events)
        assert (warm.output, warm.status, warm.model) == ([], "completed", MODELS[vendor])
        assert warm.usage is not None
        assert warm.usage.total_tokens == 0
        assert world.mock.requests == []
        empty = final(await turn(connection, **requested, input=[], generate=False))
        for id in (warm.id, warm.id, empty.id):
            final(
                await turn(connection, **requested, input="the new part", previous_response_id=id)
            )
    assert [sent(world, n).count("the warm part") for n in range(3)] == [1, 1, 0]
    assert [sent(world, n).count("Be brief.") for n in range(3)] == [1, 1, 1]
    assert "generate" not in sent(world).replace("generateContent", "").replace("generation", "")
    assert world.record(3).outcome == "done"


async def test_errors_are_events_with_a_status_and_the_connection_goes_on(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    model = MODELS[vendor]
    wrong: list[tuple[int, dict[str, Any]]] = [
        (404, {"model": "no-such-model", "input": "Hi"}),
        (404, {"model": model, "input": "Hi", "previous_response_id": "resp_nothing"}),
        (400, {"input": "Hi"}),
        (400, {"model": model, "input": "Hi", "background": True}),
        (400, {"model": model, "input": 1}),
        (400, {"model": model, "input": "Hi", "store": "yes"}),
        (404, {"model": "no-such-model", "input": "Hi", "generate": False}),
    ]
    async with client.responses.connect() as connection:
        for status, create in wrong:
            (event,) = await turn(connection, **create)
            assert (event.type, event.status) == ("error", status), create
            assert event.error.message
            assert event.error.type == "invalid_request_error"
        assert final(await turn(connection, model=model, input="Hi")).output_text
        world.mock.script(Fault.status(429, body={"error": {"message": "Slow down."}}))
        (event,) = await turn(connection, model=model, input="Hi")
        assert (event.type, event.status) == ("error", 429)


async def test_a_response_that_breaks_off_has_one_last_event(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    broken = Fault.error_after({"openai": 6, "anthropic": 4, "gemini": 2}[vendor])
    world.mock.script(broken.of(Answer(pace=0.02)), Answer("Again."))
    async with client.responses.connect() as connection:
        events = await turn(connection, model=MODELS[vendor], input="Hi")
        assert events[-1].type == "response.failed"
        assert events[-1].response.error.message
        assert "error" not in [event.type for event in events]
        assert final(await turn(connection, model=MODELS[vendor], input="Hi")).output_text
    assert world.record(2).outcome == "done"


async def test_events_name_the_stream_of_their_request(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    async with client.responses.connect() as connection:
        events = await turn(connection, model=MODELS[vendor], input="Hi", stream_id='a"1')
        assert {event.stream_id for event in events} == {'a"1'}
        (event,) = await turn(connection, model="nothing", input="Hi", stream_id="b")
        assert (event.status, event.stream_id) == (404, "b")


async def test_a_caller_without_a_token_cannot_connect(world: World, vendor: str) -> None:
    async with openai.AsyncOpenAI(base_url=world.url, api_key="wrong") as client:
        with pytest.raises(InvalidStatus) as caught:
            await client.responses.connect().enter()
    assert caught.value.response.status_code == 401


async def test_a_response_cannot_be_steered(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    async with client.responses.connect() as connection:
        text: Any = {"role": "user", "content": "Hi"}
        await connection.response.steer(input=[text], previous_response_id="resp_1")
        event: Any = await connection.recv()
    assert event.type == "response.steer.failed"
    assert event.error.code == "steering_not_supported"
