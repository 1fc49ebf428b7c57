"""However an exchange ends, and whatever fails then: its key is free, and it has one record."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from asgi_aiproxy import InjectKey, Key, KeyPool, OpenAIShim, PassthroughProxy, UsageRecord
from asgi_aiproxy.exchange.admission import EMPTY_SAMPLE, GATE_KEY, ResponseSample
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, MISTRAL, OPENAI, Provider
from asgi_aiproxy.stores import MemoryStore
from asgi_aiproxy.translate import BufferedTranslator, NativeStreamTranslator
from asgi_aiproxy.usage.ledger import Ledger
from asgi_aiproxy.usage.recorder import Recorder, tee
from asgi_aiproxy.usage.sinks import JSONLinesSink
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, sse, streams

pytestmark = pytest.mark.anyio


@dataclass
class World:
    """An app, the pool it takes its keys from, and its records."""

    app: Any
    pool: KeyPool
    records: list[UsageRecord] = field(default_factory=list)

    async def ended(self, count: int = 1) -> list[UsageRecord]:
        await self.app.__aexit__(None, None, None)
        assert [status.in_flight for status in await self.pool.status()] == [0]
        assert len(self.records) == count
        return self.records


@asynccontextmanager
async def world(
    kind: str, step: Step, row: Provider = OPENAI, gate: Any = None
) -> AsyncIterator[World]:
    upstream = Upstream(step)
    pool = KeyPool([Key("sk-pool-0123456789", id="a", concurrency=1)])
    records: list[UsageRecord] = []

    async def record(record: UsageRecord) -> None:
        records.append(record)

    provider = row.using(pool)
    app: Any
    if kind == "shim":
        app = OpenAIShim(provider, transport=upstream.transport, record=record, attempts=1)
    else:
        app = PassthroughProxy(provider, transport=upstream.transport, record=record)

    async def gated(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, GATE_KEY: gate} if gate is not None else scope, receive, send)

    gated.__aexit__ = app.__aexit__  # type: ignore[attr-defined]
    await app.__aenter__()
    yield World(gated, pool, records)


class BrokenGate:
    """An admission control that admits everything, and fails at the end."""

    headers: list[Any] = []  # noqa: RUF012

    async def admit(self, *call: Any) -> None:
        return None

    def settle(self, record: UsageRecord, passed: ResponseSample = EMPTY_SAMPLE) -> UsageRecord:
        raise RuntimeError("no settlement")


# What vendors, and servers that imitate them, may write as usage.
ODD: list[str] = [
    '{"prompt_tokens":1,"completion_tokens":1,"\\ud800":1}',
    '{"prompt_tokens":"1","completion_tokens":"\\udfff"}',
    '{"prompt_tokens":99999999999999999999999999999999,"completion_tokens":1}',
    '{"prompt_tokens":-5,"completion_tokens":1e400}',
    '{"prompt_tokens":NaN,"completion_tokens":Infinity}',
    '{"prompt_tokens":[],"completion_tokens":{"a":{}}}',
    '{"prompt_tokens":1.5,"completion_tokens":true,"prompt_tokens_details":"x"}',
    '{"prompt_tokens":1,"completion_tokens":1,"completion_tokens_details":{"\\ud800":[]}}',
    '{"input_tokens":{},"output_tokens":[1],"\\ud800":null}',
    '{"promptTokenCount":"x","candidatesTokenCount":[[]],"\\udc00":{}}',
    "[]",
    '"\\ud800"',
    "7",
    "true",
]


def openai(usage: str, *, stream: bool) -> Step:
    head = {"id": "a", "object": "chat.completion", "created": 1, "model": "m"}
    if stream:
        delta = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        last = json.dumps({**head, "choices": [end]})[:-1] + f',"usage":{usage}}}'
        return streams(
            *sse({**head, "choices": [delta]}), f"data: {last}\n\ndata: [DONE]\n\n".encode()
        )
    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({**head, "choices": [choice]})[:-1] + f',"usage":{usage}}}'
    return answers(body.encode())


@pytest.mark.parametrize("usage", ODD)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("row", [OPENAI, MISTRAL], ids=lambda row: row.name)
@pytest.mark.parametrize("kind", ["shim", "proxy"])
async def test_unusual_usage_does_not_affect_the_answer_its_key_or_its_record(
    kind: str, row: Provider, stream: bool, usage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(kind, openai(usage, stream=stream), row) as place:
        answer = await asgi.chat(place.app, stream=stream)
        assert answer.status == 200
        assert b"Hi" in answer.body
        (record,) = await place.ended()
        assert record.outcome == "done"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("row", [OPENAI, ANTHROPIC, GEMINI], ids=lambda row: row.name)
@pytest.mark.parametrize("usage", ODD)
async def test_unusual_usage_of_a_translated_answer_still_writes_a_record_and_frees_the_key(
    row: Provider, stream: bool, usage: str
) -> None:
    """Whether such a response is valid is decided by the vendor's dialect."""
    body: Mapping[str, str] = {
        "anthropic": '{"id":"a","type":"message","role":"assistant","model":"m","content":[{"type":'
        f'"text","text":"Hi"}}],"stop_reason":"end_turn","usage":{usage}}}',
        "gemini": '{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},'
        f'"finishReason":"STOP"}}],"usageMetadata":{usage}}}',
        "openai": f'{{"usage":{usage}}}',
    }
    async with world("shim", answers(body[row.name].encode()), row) as place:
        await asgi.chat(place.app, stream=stream)
        await place.ended()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("kind", ["shim", "proxy"])
async def test_an_admission_control_that_fails_at_the_end_still_frees_the_key_and_writes_the_record(
    kind: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    usage = '{"prompt_tokens":1,"completion_tokens":1}'
    async with world(kind, openai(usage, stream=stream), gate=BrokenGate()) as place:
        answer = await asgi.chat(place.app, stream=stream)
        assert answer.status == 200
        (record,) = await place.ended()
        assert record.usage is not None
    assert "could not be settled" in caplog.text


@pytest.mark.parametrize("at", ["usage", "model"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_translator_that_fails_at_the_end_still_frees_the_key_and_writes_the_record(
    at: str, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: object) -> None:
        raise KeyError(at)

    for cls in (NativeStreamTranslator, BufferedTranslator):
        monkeypatch.setattr(cls, at, property(fails, lambda self, value: None), raising=False)
    async with world("shim", openai('{"prompt_tokens":1}', stream=stream)) as place:
        answer = await asgi.chat(place.app, stream=stream)
        assert answer.status == 200
        (record,) = await place.ended()
        assert record.usage is None
    assert "reported is unreadable" in caplog.text


async def test_a_failing_app_behind_inject_key_still_releases_the_key() -> None:
    pool = KeyPool([Key("sk-pool-0123456789", id="a", concurrency=1)])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"\xff")]})
        raise RuntimeError("broken")

    injected = InjectKey(app, pool=pool)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await asgi.request(injected, "POST", "/x")
    assert [status.in_flight for status in await pool.status()] == [0]


async def test_names_with_lone_surrogates_lose_no_record_in_any_sink(tmp_path: Any) -> None:
    r"""`"\ud800"` is valid JSON, but not UTF-8: one caller's record must not lose others."""
    store = MemoryStore(file=tmp_path / "state")
    ledger, lines = Ledger(store), JSONLinesSink(tmp_path / "usage.jsonl")
    taken: list[UsageRecord] = []

    async def sink(record: UsageRecord) -> None:
        taken.append(record)

    recorder = Recorder(tee(ledger, lines, sink))
    for number, model in enumerate(("gpt-4o", "\ud800", "a\udfffb", "gpt-4o")):
        recorder.put(UsageRecord(id=str(number), requested_model=model))
    await recorder.drain()
    wanted = ["gpt-4o", "?", "a?b", "gpt-4o"]
    assert [record.requested_model for record in taken] == wanted
    found = [json.loads(line) for line in (tmp_path / "usage.jsonl").read_bytes().splitlines()]
    assert [record["requested_model"] for record in found] == wanted
    assert [record.requested_model for record in (await ledger.query()).records] == wanted[::-1]
    await store.aclose()


async def test_names_with_lone_surrogates_do_not_prevent_a_store_from_writing_its_file(
    tmp_path: Any,
) -> None:
    async with MemoryStore(file=tmp_path / "state") as store:
        await store.put("t", "k\ud800", b"1")
        await store.add("day\ud800", {"n": 1})
    async with MemoryStore(file=tmp_path / "state") as store:
        assert await store.rows("t") == {"k?": b"1"}
        assert await store.sums("day?") == {"n": 1}
