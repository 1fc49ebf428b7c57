"""The official `google-genai` package, unmodified, with each vendor behind the gateway."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from google.genai import errors, types
from google.genai.client import AsyncClient

from asgi_aiproxy.messages import StopReason, ToolCall, Usage
from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, TOKEN, VENDORS, World
from tests.support.google_sdk import google_client

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    VENDORS,
]

WEATHER = ToolCall("call_1", "weather", '{"city": "Paris"}')
VERSIONS = pytest.mark.parametrize("version", ["v1", "v1beta"])


def client(
    world: World, version: str = "v1beta", key: str = TOKEN
) -> AbstractAsyncContextManager[AsyncClient]:
    return google_client(world.polyglot, key=key, version=version)


@VERSIONS
async def test_a_whole_answer(world: World, vendor: str, version: str) -> None:
    config = types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.5)
    async with client(world, version) as google:
        answer = await google.models.generate_content(
            model=MODELS[vendor], contents="Hi", config=config
        )
    assert answer.text == "Hello from the mock."
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == 12
    assert answer.usage_metadata.candidates_token_count == 7
    record = world.record()
    assert (record.provider, record.usage) == (vendor, Usage(input=12, output=7))
    assert "Be brief." in world.mock.requests[0].body.decode()
    assert world.mock.requests[0].secrets == {f"sk-{vendor}"}


@VERSIONS
async def test_a_stream(world: World, vendor: str, version: str) -> None:
    async with client(world, version) as google:
        stream = await google.models.generate_content_stream(model=MODELS[vendor], contents="Hi")
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.text or "" for chunk in chunks) == "Hello from the mock."
    assert len(chunks) >= 4
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].usage_metadata.candidates_token_count == 7
    assert world.record().usage == Usage(input=12, output=7)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_round_of_tools(world: World, vendor: str, stream: bool) -> None:
    world.mock.script(Answer(tool_calls=(WEATHER,), pieces=4), Answer("It is warm."))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    declared = types.FunctionDeclaration(
        name="weather", description="A tool.", parameters_json_schema=schema
    )
    requested: Any = {
        "model": MODELS[vendor],
        "config": types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])]),
    }
    calls: list[types.Part] = []
    async with client(world) as google:
        if stream:
            chunks = await google.models.generate_content_stream(contents="Hi", **requested)
            candidates = [one async for chunk in chunks for one in chunk.candidates or []]
        else:
            answer = await google.models.generate_content(contents="Hi", **requested)
            candidates = answer.candidates or []
        for candidate in candidates:
            parts = (candidate.content and candidate.content.parts) or []
            calls += [part for part in parts if part.function_call]
        (part,) = calls
        assert part.function_call is not None
        assert (part.function_call.name, part.function_call.args) == ("weather", {"city": "Paris"})
        result = types.FunctionResponse(
            id=part.function_call.id, name="weather", response={"degrees": 22}
        )
        contents: Any = [
            types.Content(role="user", parts=[types.Part(text="Hi")]),
            types.Content(role="model", parts=[part]),
            types.Content(role="user", parts=[types.Part(function_response=result)]),
        ]
        answer = await google.models.generate_content(contents=contents, **requested)
    assert answer.text == "It is warm."
    assert "degrees" in world.mock.requests[1].body.decode()


async def test_an_answer_that_reached_the_limit_has_that_finish_reason(
    world: World, vendor: str
) -> None:
    world.mock.script(Answer("Hel", stop=StopReason.LENGTH))
    async with client(world) as google:
        answer = await google.models.generate_content(model=MODELS[vendor], contents="Hi")
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


@pytest.mark.parametrize(
    ("status", "reported", "kind"),
    [
        (400, 400, errors.ClientError),
        (401, 502, errors.ServerError),
        (404, 404, errors.ClientError),
        (429, 429, errors.ClientError),
        (500, 502, errors.ServerError),
    ],
)
async def test_a_vendors_error_is_the_matching_exception(
    world: World, vendor: str, status: int, reported: int, kind: type[errors.APIError]
) -> None:
    world.mock.script(Fault.status(status, "The vendor says no."))
    async with client(world) as google:
        with pytest.raises(kind) as caught:
            await google.models.generate_content(model=MODELS[vendor], contents="Hi")
    assert caught.value.code == reported
    assert f"sk-{vendor}" not in str(caught.value)


async def test_a_wrong_token_is_an_error_in_the_clients_format(world: World, vendor: str) -> None:
    async with client(world, key="stolen") as google:
        with pytest.raises(errors.ClientError) as caught:
            await google.models.generate_content(model=MODELS[vendor], contents="Hi")
    assert caught.value.code == 401
    assert world.mock.requests == []
