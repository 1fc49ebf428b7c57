"""The official `openai` package: operations other than chat are forwarded to OpenAI unchanged."""

from __future__ import annotations

import base64
import json

import openai
import pytest

from asgi_aiproxy.testing.operations import DIMENSIONS, PIXEL, SILENCE, embed
from tests.clients.conftest import World

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:deprecated")]

MODEL = "gpt-test"


async def test_embeddings(client: openai.AsyncOpenAI, world: World) -> None:
    """The client requests base64 by default, and decodes it."""
    answer = await client.embeddings.create(model=MODEL, input=["one", "two"])
    assert world.mock.requests[0].json["encoding_format"] == "base64"
    for found, text in zip(answer.data, ["one", "two"], strict=True):
        assert found.embedding == pytest.approx(embed(text, DIMENSIONS), rel=1e-6)
    plain = await client.embeddings.create(
        model=MODEL, input="one", dimensions=3, encoding_format="float"
    )
    assert plain.data[0].embedding == embed("one", 3)
    assert plain.usage.prompt_tokens == 12
    record = world.record(2)
    assert record.operation == "embeddings"
    assert record.usage is not None
    assert record.usage.input == 12


async def test_embeddings_arrive_byte_for_byte(client: openai.AsyncOpenAI, world: World) -> None:
    raw = await client.embeddings.with_raw_response.create(model=MODEL, input="one")
    packed = json.loads(raw.http_response.content)["data"][0]["embedding"]
    assert len(base64.b64decode(packed)) == 4 * DIMENSIONS


async def test_moderations(client: openai.AsyncOpenAI, world: World) -> None:
    answer = await client.moderations.create(model=MODEL, input=["a", "b"])
    assert [result.flagged for result in answer.results] == [False, False]


async def test_images(client: openai.AsyncOpenAI, world: World) -> None:
    answer = await client.images.generate(model=MODEL, prompt="A cat", n=2)
    assert [image.b64_json for image in answer.data or []] == [PIXEL, PIXEL]
    edited = await client.images.edit(
        model=MODEL, prompt="A dog", image=("cat.png", b"\x89PNG" + b"\0" * 300_000, "image/png")
    )
    assert edited.data is not None
    assert edited.data[0].b64_json == PIXEL
    assert world.mock.requests[1].body.count(b"\0" * 300_000) == 1
    varied = await client.images.create_variation(model=MODEL, image=b"\x89PNG")
    assert varied.data is not None


async def test_a_transcription_is_uploaded_as_it_is(
    client: openai.AsyncOpenAI, world: World
) -> None:
    sound = bytes(range(256)) * 4000
    answer = await client.audio.transcriptions.create(
        model=MODEL, file=("speech.mp3", sound, "audio/mpeg"), language="en"
    )
    assert answer.text == "Hello from the mock."
    seen = world.mock.requests[0]
    assert sound in seen.body
    assert seen.model == MODEL
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    translated = await client.audio.translations.create(model=MODEL, file=("a.mp3", b"\xff\xfb"))
    assert translated.text == "Hello from the mock."
    world.record(2)


async def test_speech_is_bytes_whole_and_streamed(client: openai.AsyncOpenAI, world: World) -> None:
    answer = await client.audio.speech.create(model=MODEL, input="Hi", voice="alloy")
    assert answer.content == SILENCE
    assert answer.response.headers["content-type"] == "audio/mpeg"
    async with client.audio.speech.with_streaming_response.create(
        model=MODEL, input="Hi", voice="alloy", response_format="wav"
    ) as response:
        assert response.headers["content-type"] == "audio/wav"
        assert b"".join([piece async for piece in response.iter_bytes()]) == SILENCE


async def test_models(client: openai.AsyncOpenAI, world: World) -> None:
    names = [model.id async for model in await client.models.list()]
    assert names == ["gpt-test", "claude-sonnet-4-5", "gemini-2.5-flash"]
    one = await client.models.retrieve("claude-sonnet-4-5")
    assert (one.id, one.object, one.owned_by) == ("claude-sonnet-4-5", "model", "anthropic")
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("unheard-of")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "gemini-2.5-flash"])
async def test_a_missing_operation_of_a_vendor_is_a_clear_error(
    client: openai.AsyncOpenAI, world: World, model: str
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.moderations.create(model=model, input="one")
    assert caught.value.code == "unsupported_operation"
    assert world.mock.requests == []


async def test_an_operation_that_the_gateway_does_not_serve_is_a_404(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.files.list()
    with pytest.raises(openai.NotFoundError):
        await client.vector_stores.list()
