"""Errors as the official `openai` package raises them."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import openai
import pytest

from asgi_aiproxy.testing import Answer, Fault
from tests.clients.conftest import MODELS, TOKEN, VENDORS, World

pytestmark = [pytest.mark.anyio, VENDORS]

HI: Any = [{"role": "user", "content": "Hi"}]
WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

# What the vendor answers, what is raised, and with which status.
REFUSALS: list[tuple[int, type[openai.APIStatusError], int]] = [
    (400, openai.BadRequestError, 400),
    (401, openai.InternalServerError, 502),  # the gateway's key does not concern its client
    (404, openai.NotFoundError, 404),
    (413, openai.APIStatusError, 413),
    (429, openai.RateLimitError, 429),
    (500, openai.InternalServerError, 502),
    (503, openai.InternalServerError, 503),
]


@WAYS
@pytest.mark.parametrize(("status", "kind", "reported"), REFUSALS, ids=lambda v: str(v))
async def test_a_vendors_error_is_the_matching_exception(
    client: openai.AsyncOpenAI,
    world: World,
    vendor: str,
    stream: bool,
    status: int,
    kind: type[openai.APIStatusError],
    reported: int,
) -> None:
    world.mock.script(Fault.status(status, "The vendor says no."))
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model=MODELS[vendor], messages=HI, stream=stream)
    error = caught.value
    assert error.status_code == reported
    assert isinstance(error.body, dict)
    assert set(error.body) >= {"message", "type", "param", "code"}
    if status != 401:
        assert "The vendor says no." in error.message
    assert f"sk-{vendor}" not in str(error)
    record = world.record()
    assert record.status == reported
    assert record.outcome == ("refused" if reported in (400, 404, 413) else "failed")


@WAYS
async def test_a_stream_whose_first_event_is_an_error_is_an_error_response(
    client: openai.AsyncOpenAI, world: World, vendor: str, stream: bool
) -> None:
    world.mock.script(Fault.overloaded_first())
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model=MODELS[vendor], messages=HI, stream=stream)
    assert caught.value.status_code == 503


BREAKS = [Fault.error_after(5), Fault.dies_after(5), Fault.truncated_after(5), Fault.garbage(5)]


@pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: fault.name)
async def test_a_stream_that_breaks_raises_after_the_received_text(
    client: openai.AsyncOpenAI, world: World, vendor: str, fault: Fault
) -> None:
    said = "one two three four five six seven eight nine ten"
    world.mock.script(fault.of(Answer(said, pace=0.02)))  # each event in a packet of its own
    stream = await client.chat.completions.create(model=MODELS[vendor], messages=HI, stream=True)
    heard = ""

    async def read() -> None:
        nonlocal heard
        async for chunk in stream:
            heard += chunk.choices[0].delta.content or ""

    # OpenAI's own bytes may pass unchanged; invalid JSON then fails in the client.
    with pytest.raises((openai.APIError, json.JSONDecodeError)) as caught:
        await read()
    assert not isinstance(caught.value, openai.APIConnectionError)
    assert isinstance(caught.value, openai.APIError) or fault.name.startswith("garbage")
    assert heard.startswith("one ")
    assert not heard.endswith("ten")
    record = world.record()
    if isinstance(caught.value, openai.APIError):
        assert record.outcome == "failed"


async def test_the_clients_own_retry_follows_the_vendors_retry_after(
    world: World, vendor: str
) -> None:
    world.mock.script(Fault.rate_limited("body", seconds=0.05))
    async with openai.AsyncOpenAI(base_url=world.url, api_key=TOKEN, max_retries=2) as client:
        answer = await client.chat.completions.create(model=MODELS[vendor], messages=HI)
    assert answer.choices[0].message.content == "Hello from the mock."
    assert len(world.mock.requests) == 2


async def test_a_rate_limit_error_has_the_time_to_wait(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    world.mock.script(Fault.rate_limited("body", seconds=0.2))
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model=MODELS[vendor], messages=HI)
    assert caught.value.response.headers["retry-after"] == "1"


async def test_a_bad_request_names_its_field(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    wrong: Any = {"messages": "Hi"}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=MODELS[vendor], **wrong)
    assert caught.value.param == "messages"
    assert caught.value.type == "invalid_request_error"


async def test_an_unknown_model_says_so(
    client: openai.AsyncOpenAI, world: World, vendor: str
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model=f"{MODELS[vendor]}-none", messages=HI)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_wrong_token_is_the_clients_own_fault(world: World, vendor: str) -> None:
    async with openai.AsyncOpenAI(base_url=world.url, api_key="sk-stolen", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model=MODELS[vendor], messages=HI)
    assert "sk-stolen" not in caught.value.message
    assert world.mock.requests == []


@WAYS
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, deflate, br, zstd", "*"])
async def test_a_client_that_accepts_compression_reads_the_answer(
    world: World, vendor: str, stream: bool, coding: str
) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{world.url}/chat/completions",
            headers={"authorization": f"Bearer {TOKEN}", "accept-encoding": coding},
            json={"model": MODELS[vendor], "messages": HI, "stream": stream},
        )
    assert answer.status_code == 200
    assert "Hello" in answer.text
    assert re.fullmatch("identity", world.mock.requests[0].headers["accept-encoding"])
