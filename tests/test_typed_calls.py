"""Typed calls from the host's own code."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from asgi_aiproxy import (
    AnthropicShim,
    APIError,
    Authenticate,
    Budget,
    Dispatcher,
    ErrorKind,
    InProcess,
    KeyPool,
    Limits,
    MemoryStore,
    OpenAIShim,
    Price,
    Prices,
    Principal,
    ProviderRouter,
    Quota,
    UsageRecord,
)
from asgi_aiproxy.hooks import Call, Hook
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import (
    BlockDelta,
    Message,
    MessageEnd,
    Reasoning,
    Request,
    StopReason,
    Text,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.testing import MockProvider
from asgi_aiproxy.upstream import HttpxTransport
from tests.support.scripted_upstream import (
    Upstream,
    answers,
    chat_answer,
    chat_stream,
    refuses,
    streams,
)

pytestmark = pytest.mark.anyio

JOB = Principal("job")


def shim(upstream: Upstream, **more: Any) -> OpenAIShim:
    return OpenAIShim(OPENAI.using("sk"), transport=upstream.transport, **more)


class Vendors:
    """One shim in front of the mocks of three vendors."""

    def __init__(self, **more: Any) -> None:
        self.mock = MockProvider()
        transport = HttpxTransport(httpx.ASGITransport(self.mock))
        self.app = OpenAIShim(
            ProviderRouter(
                {
                    "claude-*": ANTHROPIC.using("sk-a", base_url="http://mock"),
                    "gemini-*": GEMINI.using("sk-g", base_url="http://mock"),
                    "*": OPENAI.using("sk-o", base_url="http://mock/v1"),
                }
            ),
            transport=transport,
            **more,
        )


MODELS = ["gpt-test", "claude-test", "gemini-test"]


@pytest.mark.parametrize("model", MODELS)
async def test_a_whole_answer_of_each_vendor_is_typed(model: str) -> None:
    answer = await InProcess(Vendors().app).chat(model=model, messages="Hi")
    assert answer.text == "Hello from the mock."
    assert answer.stop is StopReason.END
    assert answer.usage is not None
    assert answer.usage.output > 0
    assert answer.info.provider in ("openai", "anthropic", "gemini")
    assert answer.info.request_id


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_of_each_vendor_is_typed(model: str) -> None:
    stream = InProcess(Vendors().app).stream(model=model, messages="Hi")
    events = [event async for event in stream]
    texts = [event.text for event in events if isinstance(event, BlockDelta)]
    assert "".join(texts) == "Hello from the mock."
    assert isinstance(events[-1], MessageEnd)
    assert events[-1].usage is not None
    assert stream.info.provider
    again = InProcess(Vendors().app).stream(model=model, messages="Hi")
    assert "".join([text async for text in again.text()]) == "Hello from the mock."


@pytest.mark.parametrize("model", ["gpt-test", "gemini-test"])
async def test_embeddings_of_each_vendor_are_lists_of_numbers(model: str) -> None:
    found = await InProcess(Vendors().app).embed(model=model, input=["one", "two"])
    assert len(found.vectors) == 2
    assert all(isinstance(number, float) for number in found.vectors[0])
    one = await InProcess(Vendors().app).embed(model=model, input="one")
    assert one.vectors == found.vectors[:1]


async def test_the_app_itself_has_the_same_calls() -> None:
    app = Vendors().app
    assert (await app.chat(model="gpt-test", messages="Hi")).text == "Hello from the mock."
    texts = [text async for text in app.stream(model="claude-test", messages="Hi").text()]
    assert "".join(texts) == "Hello from the mock."
    assert len((await app.embed(model="gpt-test", input="one")).vectors) == 1


async def test_every_shim_has_them_whatever_api_it_serves() -> None:
    upstream = Upstream(answers())
    app = AnthropicShim(OPENAI.using("sk"), transport=upstream.transport)
    assert (await app.chat(model="m", messages="Hi")).text == "Hello"


async def test_a_request_may_be_a_dictionary_or_typed() -> None:
    upstream = Upstream(answers())
    ai = InProcess(shim(upstream))
    message = {"role": "user", "content": "Hi"}
    await ai.chat({"model": "m", "messages": [message], "max_tokens": 5, "logit_bias": {"1": 2}})
    assert upstream.bodies[0]["messages"] == [message]
    assert upstream.bodies[0]["logit_bias"] == {"1": 2}
    typed = Request(model="m", messages=(Message("user", (Text("Hi"),)),), top_p=0.5)
    await ai.chat(typed)
    assert upstream.bodies[1]["top_p"] == 0.5
    with pytest.raises(TypeError):
        await ai.chat(typed, model="m")


async def test_the_reasoning_of_a_vendor_arrives_with_its_signature_and_goes_back() -> None:
    block = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    body = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [block, {"type": "text", "text": "Yes."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    upstream = Upstream(answers(json.dumps(body).encode()))
    ai = InProcess(OpenAIShim(ANTHROPIC.using("sk"), transport=upstream.transport))
    first = Message("user", (Text("Really?"),))
    answer = await ai.chat(Request(model="claude-x", messages=(first,), max_tokens=9))
    assert answer.reasoning == "Hm."
    assert isinstance(answer.response.blocks[0], Reasoning)
    said = Message("assistant", answer.response.blocks)
    more = Message("user", (Text("And now?"),))
    await ai.chat(Request(model="claude-x", messages=(first, said, more), max_tokens=9))
    assert upstream.bodies[1]["messages"][1]["content"][0] == block


async def test_text_that_is_not_valid_unicode_arrives() -> None:
    body = chat_answer("@").replace(b"@", b"a\\ud83d")
    ai = InProcess(shim(Upstream(answers(body))))
    assert (await ai.chat(model="m", messages="Hi")).text == "a\ud83d"


# ── errors ───────────────────────────────────────────────────────────────────


async def test_an_error_of_the_provider_is_an_exception_with_status_and_code() -> None:
    body = b'{"error": {"message": "no such thing", "type": "invalid_request_error", "code": "c"}}'
    ai = InProcess(shim(Upstream(refuses(400, body)), attempts=1))
    for calling in (
        ai.chat(model="m", messages="Hi"),
        anext(aiter(ai.stream(model="m", messages="Hi"))),
    ):
        with pytest.raises(APIError, match="no such thing") as caught:
            await calling  # type: ignore[misc]
        assert (caught.value.status, caught.value.code) == (400, "c")
        assert caught.value.kind is ErrorKind.INVALID
        assert caught.value.request_id
        assert caught.value.provider == "openai"


async def test_an_invalid_request_names_its_member() -> None:
    ai = InProcess(shim(Upstream(answers())))
    with pytest.raises(APIError) as caught:
        await ai.chat(model="m", messages=[{"role": "user", "content": 5}])
    assert "messages" in (caught.value.param or "")
    with pytest.raises(APIError, match="model"):
        await ai.chat(messages="Hi")
    with pytest.raises(APIError, match="input"):
        await ai.embed(model="m", input=[])


async def test_a_stream_that_breaks_raises_after_what_has_arrived() -> None:
    ai = InProcess(shim(Upstream(streams(*chat_stream("Hel", "lo")[:3])), attempts=1))
    texts: list[str] = []

    async def read() -> None:
        async for text in ai.stream(model="m", messages="Hi").text():
            texts.append(text)  # noqa: PERF401 (what arrived before the error stays)

    with pytest.raises(APIError) as caught:
        await read()
    assert "".join(texts) == "Hello"
    assert caught.value.kind is ErrorKind.UPSTREAM


async def test_an_app_that_serves_something_else_is_named_as_the_reason() -> None:
    with pytest.raises(APIError, match="status 404") as caught:
        await InProcess(FastAPI()).chat(model="m", messages="Hi")
    assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_a_bug_in_the_app_is_an_internal_error_with_its_cause() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(APIError) as caught:
        await InProcess(broken).chat(model="m", messages="Hi")
    assert caught.value.kind is ErrorKind.INTERNAL
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# ── callers, limits, hooks, records ──────────────────────────────────────────


async def test_a_caller_is_trusted_if_named_and_verified_if_it_has_a_token() -> None:
    records: list[UsageRecord] = []

    async def record(usage: UsageRecord) -> None:
        records.append(usage)

    app = shim(Upstream(answers()), record=record)
    guarded = Authenticate(app, verify=static_tokens({"t": "team"}))
    async with guarded:
        await InProcess(guarded, principal=JOB).chat(model="m", messages="Hi")
        await InProcess(guarded, token="t").chat(model="m", messages="Hi")
        with pytest.raises(APIError) as caught:
            await InProcess(guarded, token="other").chat(model="m", messages="Hi")
        assert caught.value.status == 401
        with pytest.raises(APIError):
            await InProcess(guarded).chat(model="m", messages="Hi")
    assert [usage.principal for usage in records] == ["job", "team"]
    assert records[0].face == "in_process"
    assert records[0].operation == "in_process.chat"
    assert records[0].usage is not None


async def test_models_keys_and_limits_of_the_caller_hold() -> None:
    upstream = Upstream(answers())
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")])
    app = OpenAIShim(OPENAI.using(pool), transport=upstream.transport)
    limited = Quota(app, store=MemoryStore())
    restricted = Principal("job", models=("m",), key_id="2", limits=Limits(rpm=2))
    ai = InProcess(limited, principal=restricted)
    for _ in range(2):
        assert (await ai.chat(model="m", messages="Hi")).info.key_id == "2"
    assert upstream.keys == ["sk-2", "sk-2"]
    with pytest.raises(APIError) as caught:
        await ai.chat(model="m", messages="Hi")
    assert caught.value.status == 429
    assert caught.value.retry_after
    with pytest.raises(APIError) as caught:
        await InProcess(app, principal=restricted).chat(model="other", messages="Hi")
    assert caught.value.kind is ErrorKind.FORBIDDEN


async def test_a_budget_is_spent_by_calls_and_refuses_them_at_its_end() -> None:
    records: list[UsageRecord] = []

    async def record(usage: UsageRecord) -> None:
        records.append(usage)

    app = shim(Upstream(answers()), record=record)
    prices = Prices({"m": Price(input=1_000_000, output=1_000_000)})
    limited = Quota(app, store=MemoryStore(), prices=prices)
    ai = InProcess(limited, principal=Principal("job", limits=Limits(budgets=(Budget.usd(72),))))
    async with limited:
        await ai.chat(model="m", messages="Hi", max_tokens=2)
        await asyncio.sleep(0)
    assert records[0].cost is not None
    async with limited:
        with pytest.raises(APIError) as caught:
            await ai.chat(model="m", messages="Hi", max_tokens=2)
    assert "budget" in caught.value.message


async def test_hooks_see_change_and_refuse_calls_and_their_answers() -> None:
    seen: list[str] = []

    class Shout(Hook):
        async def before(self, call: Call) -> None:
            assert call.request is not None
            seen.append(f"{call.face} {call.operation} {call.principal.id}")
            if call.model == "forbidden":
                call.refuse("Not this one.")
            if call.model == "cached":
                call.answer("From the hook.")

        def filters(self, call: Call) -> Any:
            return [Upper()]

        async def after(self, call: Call, record: UsageRecord) -> None:
            seen.append(record.requested_model)

    class Upper:
        async def feed(self, event: Any) -> Any:
            if isinstance(event, BlockDelta):
                return [BlockDelta(event.index, event.text.upper())]
            return [event]

        async def close(self) -> Any:
            return []

    app = shim(Upstream(answers(), streams()), hooks=[Shout()])
    ai = InProcess(app, principal=JOB)
    async with app:
        assert (await ai.chat(model="m", messages="Hi")).text == "HELLO"
        assert "".join([t async for t in ai.stream(model="m", messages="Hi").text()]) == "HELLO"
        assert (await ai.chat(model="cached", messages="Hi")).text == "From the hook."
        with pytest.raises(APIError, match="Not this one") as caught:
            await ai.chat(model="forbidden", messages="Hi")
        assert caught.value.status == 403
    assert seen.count("in_process in_process.chat job") == 4
    assert {"m", "cached", "forbidden"} <= set(seen)


async def test_a_hook_may_replace_the_body() -> None:
    async def redact(call: Call) -> None:
        call.body = call.body.replace(b"secret", b"***")

    upstream = Upstream(answers())
    await InProcess(shim(upstream, hooks=[redact])).chat(model="m", messages="a secret")
    assert upstream.bodies[0]["messages"][0]["content"] == "a ***"


# ── cancellation ─────────────────────────────────────────────────────────────


def slow(*texts: str) -> tuple[Upstream, KeyPool, OpenAIShim]:
    upstream = Upstream(streams(*chat_stream(*texts)[: 1 + len(texts)], 60.0))
    pool = KeyPool([Key("sk", id="1")])
    return upstream, pool, OpenAIShim(OPENAI.using(pool), transport=upstream.transport)


async def test_leaving_the_loop_ends_the_request_and_frees_the_key() -> None:
    upstream, pool, app = slow("Hel")
    async for event in InProcess(app).stream(model="m", messages="Hi"):
        if isinstance(event, BlockDelta):
            break
    async with asyncio.timeout(30):
        await upstream.closed.wait()
        while (await pool.status())[0].in_flight:
            await asyncio.sleep(0.001)


async def test_closing_a_stream_waits_until_the_key_is_free() -> None:
    upstream, pool, app = slow("Hel")
    async with InProcess(app).stream(model="m", messages="Hi") as stream:
        async for event in stream:
            if isinstance(event, BlockDelta):
                break
    assert upstream.open == 0
    assert (await pool.status())[0].in_flight == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_call_ends_the_request_and_frees_the_key(streamed: bool) -> None:
    upstream, pool, app = slow()
    ai = InProcess(app)

    async def call() -> None:
        if streamed:
            async for _ in ai.stream(model="m", messages="Hi"):
                pass
        else:
            await ai.chat(model="m", messages="Hi")

    calling = asyncio.create_task(call())
    await upstream.requested.wait()
    while not upstream.open:
        await asyncio.sleep(0.001)
    calling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await calling
    assert calling.cancelled()
    assert upstream.open == 0
    assert (await pool.status())[0].in_flight == 0


# ── other apps ───────────────────────────────────────────────────────────────


async def test_a_host_with_a_mount_can_be_called_by_its_prefix() -> None:
    app = shim(Upstream(answers()))
    host = FastAPI()
    host.mount("/ai", app)
    assert (await InProcess(host, prefix="/ai").chat(model="m", messages="Hi")).text == "Hello"
    outer = Dispatcher(FastAPI(), {"/ai": app})
    assert (await InProcess(outer, prefix="/ai/").chat(model="m", messages="Hi")).text == "Hello"


async def test_headers_control_the_gateway_as_those_of_clients_do() -> None:
    headers = {"aiproxy-key": "2"}
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")])
    upstream = Upstream(answers())
    app = OpenAIShim(OPENAI.using(pool), transport=upstream.transport)
    await InProcess(app, headers=headers).chat(model="m", messages="Hi")
    assert upstream.keys == ["sk-2"]
