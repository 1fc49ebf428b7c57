"""The mock of OpenAI keeps responses, as OpenAI does, by account."""

from __future__ import annotations

import openai
import pytest

from asgi_aiproxy.testing import Answer, MockProvider, serve

pytestmark = pytest.mark.anyio


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-own", max_retries=0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_responses_can_be_referred_to_retrieved_and_deleted(stream: bool) -> None:
    mock = MockProvider(Answer("Hello"))
    async with serve(mock) as url:
        own, other = (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
            for key in ("sk-own", "sk-other")
        )
        async with own, other:
            if stream:
                events = await own.responses.create(model="m", input="Hi", stream=True)
                id = [event async for event in events][-1].response.id  # type: ignore[union-attr]
            else:
                id = (await own.responses.create(model="m", input="Hi")).id
            second = await own.responses.create(model="m", input="Hi", previous_response_id=id)
            assert second.previous_response_id == id
            assert (await own.responses.retrieve(id)).output_text == "Hello"
            with pytest.raises(openai.NotFoundError):
                await other.responses.retrieve(id)
            with pytest.raises(openai.BadRequestError) as caught:
                await other.responses.create(model="m", input="Hi", previous_response_id=id)
            assert caught.value.code == "previous_response_not_found"
            with pytest.raises(openai.BadRequestError):
                await own.responses.cancel(id)
            await own.responses.delete(id)
            with pytest.raises(openai.NotFoundError):
                await own.responses.retrieve(id)
            mock.reset()
            with pytest.raises(openai.NotFoundError):
                await own.responses.retrieve(second.id)


async def test_what_is_not_stored_does_not_exist() -> None:
    async with serve(MockProvider()) as url, client_of(url) as client:
        made = await client.responses.create(model="m", input="Hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)


async def test_references_to_nothing_use_up_no_step() -> None:
    mock = MockProvider()
    mock.script(Answer("first"))
    async with serve(mock) as url, client_of(url) as client:
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(model="m", input="Hi", previous_response_id="resp_x")
        assert (await client.responses.create(model="m", input="Hi")).output_text == "first"
