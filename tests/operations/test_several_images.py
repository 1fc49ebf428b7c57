"""Several images, one per request to the vendor; and streams that wait for one. Real servers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from asgi_aiproxy import OpenAIShim, UsageRecord
from asgi_aiproxy.operations import FluxImages
from asgi_aiproxy.providers import BFL, GEMINI, OPENAI, Provider
from asgi_aiproxy.testing import serve

pytestmark = pytest.mark.anyio

LIMIT = 30  # seconds to wait for what must happen
REFUSED = 429, {"error": {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"}}


def made(number: int) -> tuple[int, Any]:
    """Gemini's response with an image that holds the number of its request."""
    data = {"mimeType": "image/png", "data": base64.b64encode(b"%d" % number).decode()}
    content = {"role": "model", "parts": [{"inlineData": data}]}
    counts = {"promptTokenCount": 9, "candidatesTokenCount": 100, "totalTokenCount": 109}
    return 200, {"candidates": [{"content": content, "finishReason": "STOP"}],
                 "usageMetadata": counts}  # fmt: skip


FILTERED = (
    200,
    {
        "candidates": [{"content": {"parts": [{"text": "No."}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    },
)
Reply = Callable[[int], Awaitable[tuple[int, Any]]]


class Vendor:
    """Makes images with `reply`, to which it passes the number of the request, from 1 on."""

    def __init__(self) -> None:
        self.url = ""
        self.requests = self.open = self.most = 0
        self.reply: Reply = self.make

    async def make(self, number: int) -> tuple[int, Any]:
        return made(number)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        kind = b"application/json"
        if scope["path"] == "/image.png":
            status, data, kind = 200, scope["query_string"], b"image/png"
        elif scope["path"] == "/v1/get_result":
            address = f"{self.url}/image.png?{scope['query_string'].decode()}"
            status, data = 200, dumped({"status": "Ready", "result": {"sample": address}})
        else:
            self.requests += 1
            self.open += 1
            self.most = max(self.most, self.open)
            status, answer = await self.reply(self.requests)
            data = dumped(answer)
            self.open -= 1
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(data))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    app = Vendor()
    async with serve(app) as url:
        app.url = url
        yield app


async def draw(
    provider: Provider, records: list[UsageRecord], n: int, *, strict: bool = False
) -> httpx.Response:
    shim = OpenAIShim(provider, record=records.append, strict=strict, attempts=1)
    async with serve(shim) as url, httpx.AsyncClient(timeout=60) as client:
        body = {"model": "gemini-2.5-flash-image", "prompt": "A cat", "n": n}
        return await client.post(f"{url}/v1/images/generations", json=body)


def gemini(vendor: Vendor) -> Provider:
    return GEMINI.using("k", base_url=f"{vendor.url}/v1beta")


def images(response: httpx.Response) -> list[int]:
    return [int(base64.b64decode(each["b64_json"])) for each in response.json()["data"]]


async def test_after_the_first_image_four_are_made_at_the_same_time(vendor: Vendor) -> None:
    full = asyncio.Event()

    async def reply(number: int) -> tuple[int, Any]:
        if vendor.open == 4:
            full.set()
        if number > 1:
            await asyncio.wait_for(full.wait(), LIMIT)
        return made(number)

    vendor.reply = reply
    records: list[UsageRecord] = []
    response = await draw(gemini(vendor), records, 7)
    assert response.status_code == 200, response.text
    assert sorted(images(response)) == [1, 2, 3, 4, 5, 6, 7]
    assert (vendor.requests, vendor.most) == (7, 4)
    (record,) = records
    assert record.usage is not None
    assert (record.usage.images, record.usage.image_output) == (7, 700)


@pytest.mark.parametrize("failure", [REFUSED, FILTERED], ids=["refused", "filtered"])
async def test_an_image_that_is_not_made_does_not_cost_the_others(
    vendor: Vendor, failure: tuple[int, Any]
) -> None:
    async def reply(number: int) -> tuple[int, Any]:
        return failure if number == 3 else made(number)

    vendor.reply = reply
    records: list[UsageRecord] = []
    response = await draw(gemini(vendor), records, 3)
    assert response.status_code == 200, response.text
    assert sorted(images(response)) == [1, 2]
    assert response.headers["aiproxy-ignored"] == "n"
    (record,) = records
    assert record.usage is not None
    assert (record.usage.images, record.usage.image_output) == (2, 200)
    assert (record.outcome, record.ignored) == ("done", ("n",))


async def test_no_further_image_is_requested_after_one_that_is_not_made(vendor: Vendor) -> None:
    refused = asyncio.Event()

    async def reply(number: int) -> tuple[int, Any]:
        if number == 2:
            refused.set()
            return REFUSED
        if number > 2:
            await asyncio.wait_for(refused.wait(), LIMIT)
        return made(number)

    vendor.reply = reply
    response = await draw(gemini(vendor), [], 10)
    found = images(response)
    assert found[0] == 1
    assert len(found) == vendor.requests - 1
    assert vendor.requests < 10


async def test_strict_apps_fail_then_and_record_what_was_made(vendor: Vendor) -> None:
    async def reply(number: int) -> tuple[int, Any]:
        return REFUSED if number == 2 else made(number)

    vendor.reply = reply
    records: list[UsageRecord] = []
    response = await draw(gemini(vendor), records, 2, strict=True)
    assert response.status_code == 429
    (record,) = records
    assert record.usage is not None
    assert (record.usage.images, record.usage.image_output) == (1, 100)


@pytest.mark.parametrize("failure", [REFUSED, FILTERED], ids=["refused", "filtered"])
async def test_nothing_else_is_requested_if_the_first_image_is_not_made(
    vendor: Vendor, failure: tuple[int, Any]
) -> None:
    async def reply(number: int) -> tuple[int, Any]:
        return failure

    vendor.reply = reply
    response = await draw(gemini(vendor), [], 4)
    assert response.status_code in (429, 400)
    assert vendor.requests == 1


async def test_jobs_of_several_images_are_polled_side_by_side(vendor: Vendor) -> None:
    async def reply(number: int) -> tuple[int, Any]:
        return 200, {"id": number, "polling_url": f"{vendor.url}/v1/get_result?{number}"}

    vendor.reply = reply
    provider = BFL.using("k", base_url=vendor.url, operations=(FluxImages(poll_seconds=0.01),))
    records: list[UsageRecord] = []
    response = await draw(provider, records, 3)
    assert response.status_code == 200, response.text
    assert sorted(images(response)) == [1, 2, 3]
    (record,) = records
    assert record.usage is not None
    assert record.usage.images == 3


# streams


async def opened_stream(
    vendor: Vendor, provider: Provider, release: asyncio.Event, *, form: bool = False
) -> tuple[httpx.Response, bytes]:
    """The response to a streamed request; the vendor may answer after the first keep-alive."""
    shim = OpenAIShim(provider, keepalive_seconds=0.1)
    body = {"model": "gemini-2.5-flash-image", "prompt": "A cat", "stream": True}
    sent: dict[str, Any] = {"json": body}
    if form:
        sent = {
            "data": {**body, "stream": "true"},
            "files": {"image": ("a.png", b"1", "image/png")},
        }
    path = "edits" if form else "generations"
    received = b""
    async with (
        serve(shim) as url,
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{url}/v1/images/{path}", **sent) as response,
    ):
        async for data in response.aiter_bytes():
            received += data
            if b": keep-alive\n\n" in received:
                release.set()
    return response, received


@pytest.mark.parametrize("form", [False, True], ids=["generations", "edits"])
async def test_a_stream_that_waits_for_an_image_has_keep_alives(
    vendor: Vendor, *, form: bool
) -> None:
    release = asyncio.Event()

    async def reply(number: int) -> tuple[int, Any]:
        await asyncio.wait_for(release.wait(), LIMIT)
        return made(number)

    vendor.reply = reply
    response, received = await opened_stream(vendor, gemini(vendor), release, form=form)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [part for part in received.split(b"\n\n") if part and part != b": keep-alive"]
    (event,) = events
    kind = b"image_edit" if form else b"image_generation"
    assert event.startswith(b"event: " + kind + b".completed\ndata: {")
    assert json.loads(event.partition(b"data: ")[2])["b64_json"] == "MQ=="


async def test_a_refusal_after_a_keep_alive_is_an_error_event(vendor: Vendor) -> None:
    release = asyncio.Event()

    async def reply(number: int) -> tuple[int, Any]:
        await asyncio.wait_for(release.wait(), LIMIT)
        return 400, {"error": {"code": 400, "message": "No cats.", "status": "INVALID_ARGUMENT"}}

    vendor.reply = reply
    response, received = await opened_stream(vendor, gemini(vendor), release)
    assert response.status_code == 200
    last = received.split(b"\n\n")[-2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "No cats."


async def test_a_stream_that_passes_through_begins_when_the_vendor_answers(vendor: Vendor) -> None:
    release = asyncio.Event()
    release.set()

    async def reply(number: int) -> tuple[int, Any]:
        return 200, {"created": 1, "data": [{"b64_json": "MQ=="}]}

    vendor.reply = reply
    provider = OPENAI.using("k", base_url=f"{vendor.url}/v1")
    response, received = await opened_stream(vendor, provider, release)
    assert response.headers["content-type"] == "application/json"
    assert json.loads(received)["data"] == [{"b64_json": "MQ=="}]
