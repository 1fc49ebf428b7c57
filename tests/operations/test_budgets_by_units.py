"""Budgets of operations that are not charged by tokens: reserved and settled in their units."""

from __future__ import annotations

import json

import pytest

from asgi_aiproxy import OpenAIShim, Principal
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.providers import BFL, COHERE, DEEPGRAM, ELEVENLABS, GROQ, OPENAI, Provider
from asgi_aiproxy.stores import MemoryStore
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, streams

pytestmark = pytest.mark.anyio


class Gateway:
    """A gateway whose caller has a budget in micro-dollars."""

    def __init__(self, provider: Provider, price: Price, budget: int, *steps: Step) -> None:
        self.records: list[UsageRecord] = []
        self.upstream = Upstream(*steps)
        app = OpenAIShim(provider.using("k"), transport=self.upstream.transport, record=self._keep)
        prices = Prices({"*": price}, listed=False)
        caller = Principal("ann", limits=Limits(budgets=(Budget(budget),)))
        self.shim = app

        async def verify(token: str) -> Principal:
            return caller

        self.app = Authenticate(Quota(app, store=MemoryStore(), prices=prices), verify=verify)

    async def _keep(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def post(self, path: str, body: object, **more: str) -> asgi.Answer:
        headers = {"authorization": "Bearer t", **more}
        async with self.shim:
            return await asgi.request(self.app, "POST", path, body, headers=headers)


RANKED = json.dumps(
    {
        "results": [{"index": 0, "relevance_score": 1}],
        "meta": {"billed_units": {"search_units": 3}},
    }
).encode()


async def test_search_units_are_reserved_by_the_request_and_settled_by_the_response() -> None:
    price = Price(search=0.002)
    gateway = Gateway(COHERE, price, 10_000, answers(RANKED))
    body = {"model": "m", "query": "q", "documents": ["d"] * 250}
    assert (await gateway.post("/v2/rerank", body)).status == 200
    (record,) = gateway.records
    assert record.usage == Usage(search_units=3)
    assert (record.cost, record.estimated) == (6000, False)
    # 4,000 are left, and 250 documents are three search units.
    refused = await gateway.post("/v2/rerank", body)
    assert refused.status == 429
    assert len(gateway.upstream.requests) == 1
    assert (await gateway.post("/v2/rerank", {**body, "documents": ["d"] * 150})).status == 200


async def test_images_are_reserved_and_settled_by_their_number() -> None:
    two = json.dumps({"created": 1, "data": [{"b64_json": "AA=="}] * 2}).encode()
    gateway = Gateway(OPENAI, Price(image=0.04), 200_000, answers(two))
    body = {"model": "dall-e-3", "prompt": "A cat", "n": 2}
    assert (await gateway.post("/v1/images/generations", body)).status == 200
    (record,) = gateway.records
    assert record.usage == Usage(images=2)
    assert (record.cost, record.estimated) == (80_000, False)
    refused = await gateway.post("/v1/images/generations", {**body, "n": 4})  # 120,000 are left
    assert refused.status == 429
    assert (await gateway.post("/v1/images/generations", {**body, "n": 3})).status == 200


@pytest.mark.parametrize(("row", "model"), [(OPENAI, "tts-1"), (ELEVENLABS, "eleven_v3")])
async def test_speech_is_charged_by_its_characters(row: Provider, model: str) -> None:
    sound = streams(b"sound")
    sound.headers["content-type"] = "audio/mpeg"
    gateway = Gateway(row, Price(character=15.0), 20_000, sound)
    body = {"model": model, "input": "x" * 1000, "voice": "v"}
    assert (await gateway.post("/v1/audio/speech", body)).status == 200
    (record,) = gateway.records
    assert record.usage == Usage(characters=1000)
    assert (record.cost, record.estimated) == (15_000, False)
    assert (await gateway.post("/v1/audio/speech", body)).status == 429


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n" + bytes(480_000) + b"\r\n--b--\r\n"
)
KIND = {"content-type": "multipart/form-data; boundary=b", "content-length": str(len(FORM))}
HEARD = {
    "metadata": {"duration": 90.0},
    "results": {"channels": [{"alternatives": [{"transcript": "Hi"}]}]},
}


@pytest.mark.parametrize(
    ("row", "body"),
    [(DEEPGRAM, HEARD), (GROQ, {"text": "Hi", "usage": {"type": "duration", "seconds": 90}})],
    ids=["converted", "passed through"],
)
async def test_sound_is_reserved_by_its_size_and_settled_by_its_minutes(
    row: Provider, body: object
) -> None:
    # A minute of sound is taken to have 480,000 bytes.
    gateway = Gateway(row, Price(minute=0.006), 14_000, answers(json.dumps(body).encode()))
    answer = await gateway.post("/v1/audio/transcriptions", FORM, **KIND)
    assert answer.status == 200
    (record,) = gateway.records
    assert record.usage == Usage(audio_seconds=90)
    assert (record.cost, record.estimated) == (9_000, False)
    assert (await gateway.post("/v1/audio/transcriptions", FORM, **KIND)).status == 429


async def test_a_refused_request_costs_nothing() -> None:
    gateway = Gateway(BFL, Price(image=0.05), 60_000, answers(b"{}"))
    body = {"model": "flux-2-pro", "prompt": "A cat", "n": 2}
    for _ in range(3):
        assert (await gateway.post("/v1/images/generations", body)).status in (400, 429)
    assert (await gateway.post("/v1/images/generations", {**body, "n": 1})).status == 502
    assert gateway.records[-1].usage is None or gateway.records[-1].not_charged


async def test_tokens_of_all_batches_are_reserved_before_the_first_is_sent() -> None:
    texts = ["a text of some length, so that it counts"] * 200  # 96, 96 and 8 at a time
    gateway = Gateway(COHERE, Price(input=1), 3_000, answers(b"{}"))
    answer = await gateway.post("/v1/embeddings", {"model": "m", "input": texts})
    assert answer.status == 429, answer.body
    assert gateway.upstream.requests == []
    gateway = Gateway(COHERE, Price(input=1), 3_000, answers(EMBEDDED))
    answer = await gateway.post("/v1/embeddings", {"model": "m", "input": texts[:96]})
    assert answer.status == 200, answer.body


EMBEDDED = json.dumps({"id": "e", "embeddings": {"float": [[1.0]] * 96}}).encode()
