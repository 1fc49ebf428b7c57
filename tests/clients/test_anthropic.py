"""The official `anthropic` package, unmodified, with each vendor behind the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from asgi_aiproxy.messages import StopReason, ToolCall, Usage
from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, TOKEN, VENDORS, World

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    VENDORS,
]

HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER = ToolCall("call_1", "weather", '{"city": "Paris"}')
CLOCK = ToolCall("call_2", "clock", '{"zone": "CET"}')
TOOLS: Any = [
    {
        "name": name,
        "description": "A tool.",
        "input_schema": {"type": "object", "properties": {key: {"type": "string"}}},
    }
    for name, key in (("weather", "city"), ("clock", "zone"))
]


@pytest.fixture
async def claude(world: World) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=world.polyglot, api_key=TOKEN, max_retries=0
    ) as made:
        yield made


def ask(vendor: str, **members: Any) -> Any:
    return {"model": MODELS[vendor], "max_tokens": 100, "messages": HI, **members}


async def test_a_whole_answer(claude: anthropic.AsyncAnthropic, world: World, vendor: str) -> None:
    answer = await claude.messages.create(**ask(vendor, system="Be brief."))
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == "Hello from the mock."  # type: ignore[union-attr]
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 7)
    record = world.record()
    assert (record.provider, record.usage) == (vendor, Usage(input=12, output=7))
    assert "Be brief." in world.mock.requests[0].body.decode()
    assert world.mock.requests[0].secrets == {f"sk-{vendor}"}


async def test_a_stream(claude: anthropic.AsyncAnthropic, world: World, vendor: str) -> None:
    async with claude.messages.stream(**ask(vendor)) as stream:
        text = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(text) == "Hello from the mock."
    assert len(text) == 4
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 7
    assert world.record().usage == Usage(input=12, output=7)


async def test_two_tools_streamed_and_answered(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str
) -> None:
    world.mock.script(Answer(tool_calls=(WEATHER, CLOCK), pieces=5), Answer("It is warm."))
    async with claude.messages.stream(**ask(vendor, tools=TOOLS)) as stream:
        final = await stream.get_final_message()
    assert final.stop_reason == "tool_use"
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [
        ("weather", {"city": "Paris"}),
        ("clock", {"zone": "CET"}),
    ]
    results = [{"type": "tool_result", "tool_use_id": c.id, "content": "22"} for c in calls]
    said = [block.model_dump(mode="json", exclude_none=True) for block in final.content]
    messages = [
        *HI,
        {"role": "assistant", "content": said},
        {"role": "user", "content": results},
    ]
    answer = await claude.messages.create(**ask(vendor, tools=TOOLS, messages=messages))
    assert answer.content[0].text == "It is warm."  # type: ignore[union-attr]
    assert json.dumps(world.mock.requests[1].json).count('"22"') == 2


async def test_the_tool_runner_runs_tools_until_the_model_is_done(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str
) -> None:
    ran: list[str] = []

    @anthropic.beta_async_tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        ran.append(city)
        return f"22 degrees in {city}"

    rome = ToolCall("call_3", "weather", '{"city": "Rome"}')
    world.mock.script(
        Answer(tool_calls=(WEATHER, rome)), Answer(tool_calls=(WEATHER,)), Answer("It is warm.")
    )
    runner = claude.beta.messages.tool_runner(tools=[weather], **ask(vendor))
    answers = [answer async for answer in runner]
    assert [answer.stop_reason for answer in answers] == ["tool_use", "tool_use", "end_turn"]
    assert ran == ["Paris", "Rome", "Paris"]
    # Since version 2.14 it has the server keep the conversation (`thread`). Anthropic does; the
    # gateway refuses that for other vendors in the way that makes it send the whole again.
    last = world.mock.requests[-1]
    assert ("thread" in last.members) == (vendor == "anthropic")
    assert last.body.decode().count("22 degrees in") == (1 if vendor == "anthropic" else 3)


async def test_a_thread_goes_on_without_a_server_that_keeps_it(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str
) -> None:
    thread = claude.beta.messages.thread(
        model=MODELS[vendor], max_tokens=100, unsupported_request_behavior="continue_unthreaded"
    )
    for said in ("One.", "Two."):
        answer = await thread.send({"role": "user", "content": said})
        assert answer.content[0].text == "Hello from the mock."  # type: ignore[union-attr]
    sent = world.mock.requests[-1].body.decode()
    assert "Two." in sent
    assert ("One." in sent) == (vendor != "anthropic")


@pytest.mark.parametrize(
    "thinking",
    [{"type": "enabled", "budget_tokens": 2048}, {"type": "adaptive", "display": "summarized"}],
    ids=["enabled", "adaptive"],
)
async def test_thinking_is_streamed_and_its_signature_returns_to_the_vendor(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str, thinking: Any
) -> None:
    said = Answer("Hm.", reasoning="Let me see.", signature="c2lnbmVk", tool_calls=(WEATHER,))
    world.mock.script(said, Answer("It is warm."))
    members = ask(vendor, tools=TOOLS, thinking=thinking, max_tokens=4096)
    async with claude.messages.stream(**members) as stream:
        thoughts = "".join([e.thinking async for e in stream if e.type == "thinking"])
        final = await stream.get_final_message()
    assert thoughts == "Let me see."
    signatures = [block.signature for block in final.content if block.type == "thinking"]
    assert any(signatures) == (vendor != "openai")
    result = {"type": "tool_result", "tool_use_id": final.content[-1].id, "content": "22"}  # type: ignore[union-attr]
    content = [block.model_dump(mode="json", exclude_none=True) for block in final.content]
    turns = [*HI, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    answer = await claude.messages.create(**{**members, "messages": turns})
    assert answer.content[0].text == "It is warm."  # type: ignore[union-attr]
    assert ("c2lnbmVk" in world.mock.requests[1].body.decode()) == (vendor != "openai")


async def test_betas_reach_anthropic_verbatim_and_hinder_nothing_elsewhere(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str
) -> None:
    names = ["interleaved-thinking-2025-05-14", "of-the-future-2030-01-01"]
    edits: Any = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    answer = await claude.beta.messages.create(betas=names, context_management=edits, **ask(vendor))
    assert answer.content[0].text == "Hello from the mock."  # type: ignore[union-attr]
    seen = world.mock.requests[0]
    if vendor == "anthropic":
        assert seen.headers["anthropic-beta"] == ",".join(names)
        assert seen.json["context_management"] == edits
    else:
        assert "anthropic-beta" not in seen.headers
        assert "context_management" not in seen.json


async def test_an_answer_that_reached_the_limit_has_that_finish_reason(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str
) -> None:
    world.mock.script(Answer("Hel", stop=StopReason.LENGTH))
    assert (await claude.messages.create(**ask(vendor))).stop_reason == "max_tokens"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.InternalServerError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
    ],
)
async def test_a_vendors_error_is_the_matching_exception(
    claude: anthropic.AsyncAnthropic,
    world: World,
    vendor: str,
    status: int,
    kind: type[anthropic.APIStatusError],
) -> None:
    world.mock.script(Fault.status(status, "The vendor says no."))
    with pytest.raises(kind) as caught:
        await claude.messages.create(**ask(vendor))
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "error"
    assert f"sk-{vendor}" not in str(caught.value)


@pytest.mark.parametrize(
    "fault", [Fault.error_after(5), Fault.dies_after(5), Fault.truncated_after(5)], ids=str
)
async def test_a_stream_that_breaks_raises(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str, fault: Fault
) -> None:
    world.mock.script(fault.of(Answer("one two three four five six seven eight", pace=0.02)))

    async def read() -> None:
        async with claude.messages.stream(**ask(vendor)) as stream:
            await stream.get_final_message()

    with pytest.raises(anthropic.APIError):
        await read()
    assert world.record().outcome == "failed"


async def test_a_wrong_token_and_a_bad_request_are_errors_in_the_clients_format(
    claude: anthropic.AsyncAnthropic, world: World, vendor: str
) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        await claude.with_options(api_key="stolen").messages.create(**ask(vendor))
    with pytest.raises(anthropic.BadRequestError):
        await claude.messages.create(**ask(vendor, messages="Hi"))
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.create(**ask(vendor, model="unheard-of"))
    assert world.mock.requests == []
