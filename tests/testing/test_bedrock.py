"""The mock provider as Amazon Bedrock: whole and streamed answers, refusals and faults."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.messages import ToolCall
from asgi_aiproxy.providers import bedrock
from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

MODEL = "us.amazon.nova-2-lite-v1:0"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def chat(mock: MockProvider, *keys: str, **members: Any) -> asgi.Answer:
    async with serve(mock) as url:
        provider = bedrock("eu-west-1", base_url=url).using(keys or ("key",))
        return await asgi.chat(OpenAIShim(provider, attempts=1), model=MODEL, **members)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_reaches_a_client_of_another_api(stream: bool) -> None:
    call = ToolCall("call_1", "weather", '{"city": "Paris"}')
    said = Answer("It is warm.", reasoning="Hm.", signature="c2ln", tool_calls=(call,))
    mock = MockProvider(said)
    answer = await chat(mock, stream=stream)
    assert (mock.requests[0].dialect, mock.requests[0].model) == ("bedrock", MODEL)
    if not stream:
        message = answer.json["choices"][0]["message"]
        assert message["content"] == "It is warm."
        assert message["reasoning_content"] == "Hm."
        assert message["tool_calls"][0]["function"]["name"] == "weather"
        assert answer.json["usage"]["total_tokens"] == 19
        return
    deltas = [e["choices"][0]["delta"] for e in answer.events[:-1] if e["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "It is warm."
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Hm."
    assert answer.events[-1] == "[DONE]"


async def test_a_wrong_key_costs_the_next_one() -> None:
    answer = await chat(MockProvider(key="good"), "bad", "good")
    assert answer.status == 200


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.rate_limited("seconds"), 429), (Fault.status(400), 400)]
)
async def test_refusals_are_those_of_bedrock(fault: Fault, status: int) -> None:
    mock = MockProvider()
    mock.always(fault)
    assert (await chat(mock)).status == status


@pytest.mark.parametrize("fault", [Fault.error_after(3), Fault.truncated_after(3)])
async def test_a_stream_that_breaks_is_never_taken_for_a_whole_one(fault: Fault) -> None:
    mock = MockProvider()
    mock.always(fault)
    answer = await chat(mock, stream=True)
    assert b'"error"' in answer.body  # an event, or the whole answer if it broke in one packet
    assert b"[DONE]" not in answer.body


async def test_models_are_listed() -> None:
    async with serve(MockProvider(models=("a", "b"))) as url:
        app = OpenAIShim(bedrock("eu-west-1", base_url=url).using("key"))
        listed = (await asgi.request(app, "GET", "/v1/models")).json
    assert [model["id"] for model in listed["data"]] == ["a", "b"]
