"""The official SDKs read the responses of the mock provider."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
from google.genai import errors as genai_errors, types as genai_types
from google.genai.client import AsyncClient

from asgi_aiproxy.testing import Answer, Fault, MockProvider
from tests.support.google_sdk import google_client
from tests.testing.test_mock_provider import CLOCK, WEATHER

pytestmark = pytest.mark.anyio


@pytest.fixture
async def openai_sdk(mock: MockProvider, url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def anthropic_sdk(mock: MockProvider, url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="sk", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def gemini_sdk(mock: MockProvider, url: str) -> AsyncIterator[AsyncClient]:
    async with google_client(url) as sdk:
        yield sdk


async def test_openai_sdk_reads_a_whole_answer(openai_sdk: openai.AsyncOpenAI) -> None:
    answer = await openai_sdk.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": "Hi"}]
    )
    assert answer.model == "gpt-5"
    assert answer.choices[0].message.content == "Hello from the mock."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 7)
    assert answer._request_id == "req_mock1"


async def test_openai_sdk_reads_a_stream_and_gets_usage_only_if_requested(
    openai_sdk: openai.AsyncOpenAI,
) -> None:
    for options in ({}, {"stream_options": {"include_usage": True}}):
        stream = await openai_sdk.chat.completions.create(  # type: ignore[call-overload]
            model="gpt-5", messages=[{"role": "user", "content": "Hi"}], stream=True, **options
        )
        chunks = [chunk async for chunk in stream]
        pieces = [c.choices[0].delta.content for c in chunks if c.choices]
        assert [piece for piece in pieces if piece] == ["Hello ", "from ", "the ", "mock."]
        usages = [chunk.usage.total_tokens for chunk in chunks if chunk.usage]
        assert usages == ([19] if options else [])


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_sdk_reads_tool_calls(
    mock: MockProvider, openai_sdk: openai.AsyncOpenAI, stream: bool
) -> None:
    mock.script(Answer(tool_calls=(WEATHER, CLOCK)))
    requested = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]}
    if stream:
        async with openai_sdk.chat.completions.stream(**requested) as events:  # type: ignore[arg-type]
            answer = await events.get_final_completion()
    else:
        answer = await openai_sdk.chat.completions.create(**requested)  # type: ignore[call-overload]
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    assert choice.message.tool_calls is not None
    calls = [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls]
    assert calls == [(c.id, c.name, c.arguments) for c in (WEATHER, CLOCK)]


async def test_openai_sdk_reads_a_refusal(
    mock: MockProvider, openai_sdk: openai.AsyncOpenAI
) -> None:
    mock.script(Answer(refusal="I will not."))
    answer = await openai_sdk.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": "Hi"}]
    )
    assert answer.choices[0].message.refusal == "I will not."
    assert not answer.choices[0].message.content


async def test_openai_sdk_reads_the_other_operations(openai_sdk: openai.AsyncOpenAI) -> None:
    same = [
        (await openai_sdk.embeddings.create(model="e", input=text, dimensions=4)).data
        for text in ("one", ["one", "two"])
    ]
    assert same[0][0].embedding == pytest.approx(same[1][0].embedding, abs=1e-6)
    assert same[1][0].embedding != same[1][1].embedding
    assert len(same[0][0].embedding) == 4
    picture = await openai_sdk.images.generate(model="i", prompt="a cat", n=2)
    assert picture.data is not None
    assert [base64.b64decode(d.b64_json or "")[:4] for d in picture.data] == [b"\x89PNG"] * 2
    edited = await openai_sdk.images.edit(model="i", prompt="a cat", image=("i.png", b"png"))
    assert edited.data is not None
    speech = await openai_sdk.audio.speech.create(model="s", input="Hi", voice="alloy")
    assert speech.content[:2] == b"\xff\xfb"
    heard = await openai_sdk.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"a"))
    assert heard.text == "Hello from the mock."
    judged = await openai_sdk.moderations.create(input=["a", "b"])
    assert [result.flagged for result in judged.results] == [False, False]
    old = await openai_sdk.completions.create(model="c", prompt="Say")
    assert old.choices[0].text == "Hello from the mock."
    streamed = await openai_sdk.completions.create(model="c", prompt="Say", stream=True)
    assert "".join([c.choices[0].text async for c in streamed]) == "Hello from the mock."
    assert [model.id async for model in openai_sdk.models.list()] == ["mock-model"]
    assert (await openai_sdk.models.retrieve("gpt-5")).id == "gpt-5"


async def test_azure_sdk_names_the_model_in_the_path(mock: MockProvider, url: str) -> None:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=url, api_version="2025-01-01", api_key="az", azure_deployment="mine"
    ) as sdk:
        await sdk.chat.completions.create(
            model="mine", messages=[{"role": "user", "content": "Hi"}]
        )
    assert mock.requests[0].path == "/openai/deployments/mine/chat/completions"
    assert mock.requests[0].model == "mine"
    assert mock.requests[0].secrets == {"az"}


async def test_anthropic_sdk_reads_a_whole_answer(
    mock: MockProvider, anthropic_sdk: anthropic.AsyncAnthropic
) -> None:
    mock.script(Answer("It is warm.", reasoning="Hm.", signature="sig", tool_calls=(WEATHER,)))
    answer = await anthropic_sdk.messages.create(
        model="claude", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
    )
    thought, text, call = answer.content
    assert thought.type == "thinking"
    assert (thought.thinking, thought.signature) == ("Hm.", "sig")
    assert text.type == "text"
    assert text.text == "It is warm."
    assert call.type == "tool_use"
    assert call.input == {"city": "Paris", "unit": "celsius"}
    assert answer.stop_reason == "tool_use"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 7)
    assert answer.model == "claude"


async def test_anthropic_sdk_reads_a_stream(
    mock: MockProvider, anthropic_sdk: anthropic.AsyncAnthropic
) -> None:
    mock.script(Answer("It is warm.", reasoning="Hm.", signature="sig", tool_calls=(WEATHER,)))
    async with anthropic_sdk.messages.stream(
        model="claude", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        texts = [text async for text in stream.text_stream]
        answer = await stream.get_final_message()
    assert texts == ["It ", "is ", "warm."]
    thought, _, call = answer.content
    assert thought.type == "thinking"
    assert thought.signature == "sig"
    assert call.type == "tool_use"
    assert call.input == {"city": "Paris", "unit": "celsius"}
    assert answer.stop_reason == "tool_use"
    assert answer.usage.output_tokens == 7


async def test_anthropic_sdk_lists_models(anthropic_sdk: anthropic.AsyncAnthropic) -> None:
    assert [model.id async for model in anthropic_sdk.models.list()] == ["mock-model"]
    assert (await anthropic_sdk.models.retrieve("claude")).id == "claude"


async def test_gemini_sdk_reads_a_whole_answer(mock: MockProvider, gemini_sdk: AsyncClient) -> None:
    mock.script(Answer("It is warm.", reasoning="Hm.", tool_calls=(WEATHER,)))
    answer = await gemini_sdk.models.generate_content(model="gemini-3", contents="Hi")
    assert answer.candidates is not None
    content = answer.candidates[0].content
    assert content is not None
    assert content.parts is not None
    thought, text, call = content.parts
    assert (thought.text, thought.thought) == ("Hm.", True)
    assert text.text == "It is warm."
    assert call.function_call is not None
    assert call.function_call.args == {"city": "Paris", "unit": "celsius"}
    assert answer.model_version == "gemini-3"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.total_token_count == 19


async def test_gemini_sdk_reads_a_stream(mock: MockProvider, gemini_sdk: AsyncClient) -> None:
    stream = await gemini_sdk.models.generate_content_stream(model="gemini-3", contents="Hi")
    chunks = [chunk async for chunk in stream]
    assert [c.text for c in chunks if c.text] == ["Hello ", "from ", "the ", "mock."]
    assert chunks[-1].candidates is not None
    assert chunks[-1].candidates[0].finish_reason == genai_types.FinishReason.STOP
    assert mock.requests[0].query == "alt=sse"
    assert mock.requests[0].dialect == "gemini"


async def test_gemini_sdk_lists_models(gemini_sdk: AsyncClient) -> None:
    pager = await gemini_sdk.models.list(config={"query_base": True})
    assert [model.name async for model in pager] == ["models/mock-model"]
    assert (await gemini_sdk.models.get(model="gemini-3")).name == "models/gemini-3"


async def test_sdks_read_the_mocks_errors(
    mock: MockProvider,
    openai_sdk: openai.AsyncOpenAI,
    anthropic_sdk: anthropic.AsyncAnthropic,
    gemini_sdk: AsyncClient,
) -> None:
    mock.always(Fault.rate_limited("seconds"))
    with pytest.raises(openai.RateLimitError) as limited:
        await openai_sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}]
        )
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(anthropic.RateLimitError):
        await anthropic_sdk.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )
    with pytest.raises(genai_errors.ClientError) as exhausted:
        await gemini_sdk.models.generate_content(model="m", contents="Hi")
    assert exhausted.value.status == "RESOURCE_EXHAUSTED"
    mock.always(Fault.overloaded_first())
    with pytest.raises(openai.APIError, match="Overloaded"):
        async for _ in await openai_sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        ):
            pass
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        async with anthropic_sdk.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        ) as stream:
            await stream.get_final_message()
